"""The commands that talk to a running agent: policies, doctor, record, watch."""

import json
import re
import shlex
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keytrail.commands import doctor
from keytrail.detect.pages import AGENT_FLAGS
from keytrail.diagnosis import Observed, diagnose
from keytrail.manifests import builtin_folder
from keytrail.source.recording import RecordingWriter, read_recording
from keytrail.testing.fake_tetragon import FakeTetragon
from keytrail.testing.fake_tetragon_agent import AgentProfile
from keytrail.testing.otlp_sink import OtlpSink
from support.commands import Ran, keytrail
from support.processes import CollectorProcess, wait_until
from support.recordings import folder, messages

POLICY = Path(__file__).parent.parent.parent / "policies" / "tracing" / "tcp-connect.yaml"


@pytest.fixture
def address(tmp_path: Path) -> str:
    """A unix socket of the test's own."""
    return f"unix://{tmp_path}/tetragon.sock"


@pytest.fixture
def agent(address: str) -> Iterator[FakeTetragon]:
    """The recorded agent of policy-library, with its flags and policies."""
    with FakeTetragon(address, profile=AgentProfile.of_recording(folder("policy-library"))) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "KEYTRAIL_SETTINGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(doctor, "_ANSWER_SECONDS", 60.0)  # a slow machine is not what any of these is about


@pytest.mark.usefixtures("agent")
def test_policies_list_has_tetras_columns(address: str) -> None:
    """The heading is that of tetra, and each of the agent's policies has a row."""
    ran = keytrail("policies", "list", "--agent", address)
    heading, *rows = ran.out.splitlines()
    assert heading.split() == [
        "ID",
        "NAME",
        "STATE",
        "FILTERID",
        "NAMESPACE",
        "SENSORS",
        "KERNELMEMORY",
        "MODE",
        "NPOST",
        "NENFORCE",
        "NMONITOR",
    ]
    assert len(rows) == 16
    assert any("obs-network" in row and "enabled" in row and "(global)" in row for row in rows)


def test_policies_load_waits_and_delete_removes(agent: FakeTetragon, address: str) -> None:
    """The shipped policy is loaded, waited for while the agent works on it, listed, and removed by its name."""
    agent.script.load_seconds = 1.0
    loaded = keytrail("policies", "load", POLICY, "--agent", address)
    assert (loaded.code, "tcp-connect enabled" in loaded.out) == (0, True)
    assert " tcp-connect " in keytrail("policies", "list", "--agent", address).out
    assert keytrail("policies", "delete", "tcp-connect", "--agent", address).out == "tcp-connect: deleted\n"
    assert " tcp-connect " not in keytrail("policies", "list", "--agent", address).out


def test_policies_load_shows_the_agents_own_error(agent: FakeTetragon, address: str, tmp_path: Path) -> None:
    """A refused policy is reported with the agent's text and exit code 1; the next file is tried all the same."""
    agent.script.load_errors["tcp-connect"] = "failed to find BTF type for hook tcp_connect"
    other = tmp_path / "other.yaml"
    other.write_text(POLICY.read_text().replace("name: tcp-connect", "name: other"))
    ran = keytrail("policies", "load", POLICY, other, "--agent", address)
    assert ran.code == 1
    assert "not loaded" in ran.out
    assert "failed to find BTF type" in ran.out
    assert "other enabled" in ran.out
    missing = keytrail("policies", "load", tmp_path / "none.yaml", "--agent", address)
    assert (missing.code, "none.yaml" in missing.err) == (2, True)


def test_absent_agent_is_an_error_that_says_what_to_do(address: str) -> None:
    """Without an agent the commands fail at once and ask whether it runs."""
    ran = keytrail("policies", "list", "--agent", address)
    assert ran.code == 1
    assert "is Tetragon running" in ran.err


@pytest.mark.usefixtures("agent")
def test_doctor_finds_an_exporter_that_writes_environments_critical(address: str) -> None:
    """Capture without the exporter's filter puts keys into a file: critical, with the exact line for each place."""
    ran = keytrail("doctor", "--agent", address, "--json")
    checks = {check["name"]: check for check in map(json.loads, ran.out.splitlines())}
    assert ran.code == 1
    assert checks["agent"]["verdict"] == "ok"
    assert checks["version"]["found"] == "v1.7.0"
    assert "root" in checks["rights"]["found"]
    assert checks["environment"]["verdict"] == "ok"
    assert checks["exporter"]["verdict"] == "critical"
    where = dict(checks["exporter"]["mend"])
    assert set(where) == {"systemd", "docker", "kubectl"}
    words = shlex.split(where["kubectl"])
    patch = json.loads(words[words.index("-p") + 1])
    assert json.loads(patch["data"]["field-filters"])["action"] == "EXCLUDE"
    assert checks["backend"]["verdict"] == "warning"


def test_doctor_is_content_with_a_filtered_exporter_and_a_backend(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the filter in place and a backend that answers, nothing is critical and the exit code is 0."""
    paths = ",".join(f"{who}.environment_variables" for who in ("process", "parent", "ancestors"))
    filters = json.dumps({"fields": paths, "action": "EXCLUDE"})
    profile = AgentProfile.of_recording(folder("policy-library")).with_flags({"field-filters": filters})
    with FakeTetragon(address, profile=profile), OtlpSink(http=None) as sink:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.grpc_endpoint)
        ran = keytrail("doctor", "--agent", address)
        assert sink.count() == 0
    assert ran.code == 0
    assert "accepts OTLP logs" in ran.out
    assert "critical" not in ran.out


def test_doctor_on_default_flags_says_how_to_capture(address: str) -> None:
    """Default flags: the line that switches capture on comes behind the one that keeps the export clean.

    Every option of the agent that a rule may require is among the lines.
    """
    with FakeTetragon(address, profile=AgentProfile.of_recording(folder("seed-demo-default-flags"))):
        ran = keytrail("doctor", "--agent", address)
    lines = ran.out.splitlines()
    filters = next(i for i, line in enumerate(lines) if "tetragon.conf.d/field-filters" in line)
    capture = next(i for i, line in enumerate(lines) if "tetragon.conf.d/enable-process-environment-variables" in line)
    assert filters < capture
    assert all(f"tetragon.conf.d/{flag} " in ran.out for flag in AGENT_FLAGS.values())
    assert "none is loaded" in ran.out


def test_doctor_without_an_agent_is_critical(address: str) -> None:
    """No agent: exit code 1, and how to start it in each of the three ways of running it."""
    ran = keytrail("doctor", "--agent", address)
    assert ran.code == 1
    assert "systemctl start tetragon" in ran.out


@pytest.mark.usefixtures("agent")
def test_a_host_that_nobody_knows_is_no_absent_socket() -> None:
    """What was meant for a socket and read as a host's name is explained as that, by every command."""
    hint = "no such host is known here: a socket is given by its whole path or as unix:///PATH"
    assert hint in keytrail("policies", "list", "--agent", "no-such-host.invalid").err
    told = keytrail("doctor", "--agent", "no-such-host.invalid").out
    assert hint in told
    assert "--agent unix:///var/run/tetragon/tetragon.sock" in told
    assert "systemctl" not in told


@pytest.mark.parametrize(("command", "warns"), [("watch", False), ("collect", True)])
def test_watch_only_looks(address: str, tmp_path: Path, command: str, *, warns: bool) -> None:
    """It warns of no metrics that an agent does not have, and leaves alone what a collector remembers; reloads, too."""
    settings = tmp_path / "settings.yaml"
    settings.write_text("reload_seconds: 1\n", encoding="utf-8")
    said = "cannot read the agent's metrics"
    options = ("--output", "json", "--agent", address, "--rules", "none", "--settings", str(settings))
    with (
        FakeTetragon(address) as agent,
        CollectorProcess(
            tmp_path, *options, command=command, environ={"KEYTRAIL_STATE_DIR": str(tmp_path / "state")}
        ) as collector,
    ):
        assert agent.wait_for_listeners(timeout=60), collector.err
        agent.publish(messages("policy-library")[:50])
        assert wait_until(lambda: collector.lines() > 0)
        assert wait_until(lambda: said in collector.err or not warns)
        settings.write_text("reload_seconds: 1\nlog_level: debug\n", encoding="utf-8")
        assert wait_until(lambda: "log level is debug now" in collector.err)
        assert "needs a restart" not in collector.err
        collector.stop()
        assert (said in collector.err) is warns
    assert (tmp_path / "state" / "processes.json").exists() is warns


def test_doctor_says_what_the_agent_is_asked_for(address: str, tmp_path: Path) -> None:
    """Settings whose rules look at little leave types of event with the agent; a wrong rule is critical."""
    folder_ = tmp_path / "rules"
    folder_.mkdir()
    (folder_ / "rule.yaml").write_text((builtin_folder() / "rules" / "shell-in-container.yaml").read_text())
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"rules: {folder_}\n")

    def stream() -> dict[str, Any]:
        ran = keytrail("doctor", "--agent", address, "--settings", settings, "--json")
        return {check["name"]: check for check in _checks(ran)}["stream"]

    said = stream()
    assert said["verdict"] == "ok"
    assert "asks the agent for all but PROCESS_LOADER, PROCESS_UPROBE, PROCESS_USDT: " in said["found"]
    (folder_ / "rule.yaml").write_text("apiVersion: keytrail.io/v1alpha1\nkind: DetectionRule\n")
    said = stream()
    assert (said["verdict"], f"{folder_}/rule.yaml" in said["found"]) == ("critical", True)


@pytest.mark.usefixtures("agent")
def test_doctor_wants_the_backend_that_was_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that somebody named and that does not answer is critical; none is asked where records go elsewhere."""

    def backend() -> dict[str, str]:
        return {check["name"]: check for check in _checks(keytrail("doctor", "--agent", address, "--json"))}["backend"]

    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    assert backend()["verdict"] == "critical"
    assert "collector.otlp.endpoint" in str(backend()["mend"])
    monkeypatch.setenv("KEYTRAIL_OUTPUT", "findings")
    assert (backend()["verdict"], backend()["found"]) == ("ok", "none is asked: output is findings")


def _checks(ran: Ran) -> list[dict[str, str]]:
    return [json.loads(line) for line in ran.out.splitlines()]


def test_doctor_in_a_cluster(address: str, tmp_path: Path) -> None:
    """Told to ask the API server, the doctor says critical when nobody is there."""
    (tmp_path / "kubeconfig").write_text(
        "apiVersion: v1\nkind: Config\nclusters: [{name: a, cluster: {server: 'https://127.0.0.1:1'}}]\n"
        "users: [{name: a, user: {}}]\ncontexts: [{name: a, context: {cluster: a, user: a}}]\ncurrent-context: a\n"
    )
    (tmp_path / "settings.yaml").write_text(f"kubernetes: always\nkubeconfig: {tmp_path}/kubeconfig\n")
    ran = keytrail("doctor", "--agent", address, "--settings", tmp_path / "settings.yaml")
    assert re.search("(?m)^critical +cluster: the API server at https://127.0.0.1:1 cannot be reached", ran.out)


def test_the_groups_of_a_process_are_rights() -> None:
    """In group 0, as the chart runs it, the socket may be opened by any user; else not."""
    for groups, verdict in (((0,), "ok"), ((1000,), "note")):
        checks = {check.name: check for check in diagnose(Observed("unix:///t.sock", uid=65532, groups=groups))}
        assert checks["rights"].verdict == verdict


def test_record_writes_what_replay_reads(agent: FakeTetragon, address: str, tmp_path: Path) -> None:
    """A recording of a live stream replays to the same events; values are gone, names and identities are not."""
    target = tmp_path / "taken.pb.zst"
    stream = messages("policy-library")[:300]

    def publish() -> None:
        agent.wait_for_listeners(timeout=60)
        agent.publish(stream)

    publisher = threading.Thread(target=publish)
    publisher.start()
    # Signals are the main thread's, and pytest runs tests there.
    ran = keytrail("record", target, "--events", "300", "--agent", address)
    publisher.join()
    assert ran.code == 0
    taken = list(read_recording(target))
    assert len(taken) == 300
    assert not any(b"test-not-a-real-key" in message for message in taken)
    assert any(b"test-not-a-real-key" in message for message in stream)
    whole = tmp_path / "whole.pb"
    with RecordingWriter(whole) as writer:
        for message in stream:
            writer.write(message)
    # What only the value's own shape showed to be a credential is not shown any more; all else is.
    lines = zip(keytrail("replay", target).records, keytrail("replay", whole).records, strict=True)
    differing = [(a, b) for a, b in lines if a != b]
    assert {b["identity"]["type"] for _, b in differing} <= {"argv"}
    assert [{**a, "identity": None} for a, _ in differing] == [{**b, "identity": None} for _, b in differing]


def test_record_ends_in_time_although_nothing_happens(agent: FakeTetragon, address: str, tmp_path: Path) -> None:
    """`--seconds` ends a recording of a silent agent; the file is whole and empty."""
    ran = keytrail("record", tmp_path / "silent.pb", "--seconds", "0.5", "--agent", address)
    assert (ran.code, list(read_recording(tmp_path / "silent.pb"))) == (0, [])
    assert agent.overflowed == 0


def test_filters_leave_with_the_request(agent: FakeTetragon, address: str, tmp_path: Path) -> None:
    """The agent itself keeps back what is not wanted: only connections reach the collector."""
    options = ("--output", "json", "--agent", address, "--kind", "exec", "--binary", "/curl$")
    with CollectorProcess(tmp_path, *options) as collector:
        assert agent.wait_for_listeners(timeout=60), collector.err
        agent.publish(messages("policy-library"))
        agent.wait_until_drained(timeout=60)
        expected = keytrail("replay", folder("policy-library"), "--kind", "exec", "--binary", "/curl$").out
        assert wait_until(lambda: collector.lines() >= expected.count("\n"))
        summary = collector.stop()
    assert collector.out == expected
    assert summary["events"]["received"] < 100
