"""Delivery as a user has it: `keytrail collect` with a state folder, through kills, outages and a second collector."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from keytrail.testing.fake_tetragon import FakeTetragon
from keytrail.testing.otlp_sink import OtlpSink
from reload.config_map import rule
from support.commands import keytrail, replay
from support.components.child import free_ports
from support.processes import CollectorProcess, wait_until
from support.recordings import messages

SECONDS = 120.0
UIDS = """SELECT attributes ->> '$."log.record.uid"' FROM records WHERE event_name = 'keytrail.finding'"""
CAUSES = """SELECT attributes ->> '$."keytrail.gap.cause"' FROM records WHERE event_name = 'keytrail.gap'"""


def found_in(name: str, rules: Path) -> set[str]:
    """Uids of the findings of a recording, as `replay` prints them."""
    records = replay(name, "--output", "findings", "--rules", rules).records
    return {record["uid"] for record in records if "rule" in record}


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """One rule that tells of every exec: all that are shipped take longer to load than everything else here."""
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "rule.yaml").write_text(rule("any-exec"))
    return folder


def spooled(state: Path) -> int:
    """Records that wait, as `keytrail spool list` counts them."""
    rows = [line.split() for line in keytrail("spool", "list", "--state-dir", state).out.splitlines()[1:]]
    return sum(int(row[1]) for row in rows)


def test_killed_while_the_backend_is_away_and_nothing_is_lost(tmp_path: Path, rules: Path) -> None:
    """Findings of a collector that was killed during an outage are sent by the next one, with a gap between the two."""
    address, state = f"unix://{tmp_path}/tetragon.sock", tmp_path / "state"
    expected = found_in("seed-demo", rules)
    assert expected
    options = ("--agent", address, "--state-dir", str(state), "--rules", str(rules))
    with OtlpSink(http=None) as sink, FakeTetragon(address) as agent:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.grpc_endpoint, "KEYTRAIL_HTTP_ADDRESS": "off"}
        sink.stop()
        with CollectorProcess(tmp_path, *options, environ=environ) as collector:
            assert agent.wait_for_listeners(timeout=SECONDS), collector.err
            agent.publish(messages("seed-demo"))
            assert agent.wait_until_drained(timeout=SECONDS)
            assert wait_until(lambda: spooled(state) >= len(expected)), collector.err
            os.kill(collector.process.pid, signal.SIGKILL)
            collector.process.wait()
        sink.start()
        with CollectorProcess(tmp_path, *options, environ=environ) as collector:
            assert wait_until(lambda: {uid for (uid,) in sink.rows(UIDS)} >= expected, SECONDS), collector.err
            assert wait_until(lambda: ("collector_killed",) in sink.rows(CAUSES), SECONDS), collector.err
            summary = collector.stop()["records"]
    assert summary["recovered"] >= len(expected)
    assert (summary["queued"], summary["dropped"]) == (0, {})


def test_two_collectors_do_not_share_a_state_folder(tmp_path: Path) -> None:
    """The second one is refused, with exit code 2 and the process that has the folder; the first goes on."""
    address, state = f"unix://{tmp_path}/tetragon.sock", tmp_path / "state"
    options = ("--agent", address, "--state-dir", str(state), "--rules", "none")
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "KEYTRAIL_HTTP_ADDRESS": "off"}
    other = tmp_path / "other"
    other.mkdir()
    with (
        FakeTetragon(address) as agent,
        CollectorProcess(tmp_path, *options, environ=environ) as first,
        CollectorProcess(other, *options, environ=environ) as second,
    ):
        # Whichever came first has it.
        assert wait_until(lambda: None in (codes := [first.process.poll(), second.process.poll()]) and 2 in codes)
        winner, loser = (first, second) if first.process.poll() is None else (second, first)
        assert str(winner.process.pid) in loser.err
        assert agent.wait_for_listeners(timeout=SECONDS), winner.err
        winner.stop()


def test_a_running_collector_shows_itself(tmp_path: Path, rules: Path) -> None:
    """/readyz says why not and then yes, /metrics counts what arrived, `keytrail status` puts it into words."""
    address, port = f"unix://{tmp_path}/tetragon.sock", free_ports(1)[0]
    stream = messages("seed-demo")

    def page(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    with OtlpSink(http=None) as sink:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.grpc_endpoint, "KEYTRAIL_HTTP_ADDRESS": f"127.0.0.1:{port}"}
        options = ("--agent", address, "--rules", str(rules))
        with CollectorProcess(tmp_path, *options, environ=environ) as collector:
            assert wait_until(lambda: page("readyz")[0] == 503), collector.err
            assert page("healthz")[0] == 200
            with FakeTetragon(address) as agent:
                assert agent.wait_for_listeners(timeout=SECONDS), collector.err
                agent.publish(stream)
                received = f"keytrail_events_received_total {len(stream)}"
                assert wait_until(lambda: received in _without_labels(page("metrics")[1])), page("metrics")[1][:2000]
                assert wait_until(lambda: page("readyz")[0] == 200), page("readyz")
                status = keytrail("status", "--address", f"127.0.0.1:{port}")
                assert status.code in (0, 1), status.err  # the agent came late: a gap that somebody may mind
                assert str(len(stream)) in status.out
                collector.stop()


def _without_labels(page: str) -> str:
    """Samples of a metrics page as `name value`."""
    return "\n".join(f"{line.partition('{')[0].split()[0]} {line.split()[-1]}" for line in page.splitlines() if line)


def test_a_start_that_is_refused_leaves_the_spool_as_it_was(tmp_path: Path) -> None:
    """A wrong manifest ends the start with exit code 2, and the spool's owner says what it said: no false gap."""
    state, manifest = tmp_path / "state", tmp_path / "mapping.yaml"
    owner = state / "spool/owner"
    command = [sys.executable, "-m", "keytrail", "collect", "--agent", f"unix://{tmp_path}/none.sock"]
    command += ["--state-dir", str(state), "--config", str(manifest)]
    environ = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "KEYTRAIL_HTTP_ADDRESS": "off"}
    manifest.write_text("kind: Nonsense\n")
    owner.parent.mkdir(parents=True)
    marks = [7, 8, 9]
    for state_before in ("clean", "open"):
        owner.write_text(f"{state_before:<6}{1:>11}" + "".join(f"{mark:>21}" for mark in marks) + "\n")
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environ)
        assert (done.returncode, "mapping.yaml" in done.stderr) == (2, True), done.stderr
        word, _, *found = owner.read_text().split()
        assert (word, list(map(int, found))) == (state_before, marks)
