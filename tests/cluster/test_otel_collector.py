"""A real OpenTelemetry Collector as the backend: what it wrote is what was found."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from keytrail.testing.fake_tetragon import FakeTetragon
from keytrail.testing.fake_tetragon_agent import AgentProfile
from support.commands import replay
from support.components.collector import OtelCollector
from support.processes import CollectorProcess, wait_until
from support.recordings import folder, messages

pytestmark = [pytest.mark.cluster("collector"), pytest.mark.timeout(240)]
Start = Callable[..., OtelCollector]
SECONDS = 60.0
"""How long to wait for what should come soon, before a test has failed."""
OUTAGE_SECONDS = 3.0
PACE = 40.0
"""The recording's four minutes in some six seconds."""
SEVERITIES = {"info": 9, "low": 10, "medium": 13, "high": 17, "critical": 21}


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("name", ["policy-library", "seed-demo"])
def test_every_finding_of_a_replay_is_written_once(
    name: str, protocol: str, compression: str, otel_collector: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over each of OTLP's transports the Collector has exactly the findings that standard output has, each once."""
    backend = otel_collector()
    for variable, value in backend.environ(protocol, compression).items():
        monkeypatch.setenv(variable, value)
    ran = replay(name, "--output", "findings", "--output", "otlp")
    assert ran.code == 0, ran.err
    written = {record.uid: record for record in backend.written()}
    assert len(written) == len(backend.written())
    assert written.keys() == {line["uid"] for line in ran.records} != set()
    for line in ran.records:
        record = written[line["uid"]]
        assert record.event_name == "keytrail.finding"
        assert record.body == line["message"]
        assert record.severity == SEVERITIES[line["severity"]]
        assert record.attributes["security_rule.name"] == line["rule"]
        assert record.attributes["process.executable.path"] == line["process"]["binary"]
        assert record.attributes.get("keytrail.identity.id") == (line.get("identity") or {}).get("id")
        assert record.resource["service.name"] == "keytrail"


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_nothing_is_lost_while_the_collector_restarts(
    end: str, protocol: str, otel_collector: Start, tmp_path: Path
) -> None:
    """The Collector goes away in the middle of a live stream, politely or not, and comes back: it has everything."""
    backend = otel_collector()
    expected = replay("policy-library", "--output", "findings", "--rules", "all").records
    at_once = {line["uid"] for line in expected if "suppressed" not in line}
    run = Run(tmp_path, {**backend.environ(protocol, "gzip"), "KEYTRAIL_STATE_DIR": str(tmp_path)})
    stream = messages("policy-library")
    with FakeTetragon(run.agent, profile=AgentProfile.of_recording(folder("policy-library"))) as agent:
        with run.collect("first") as collector:
            assert agent.wait_for_listeners(timeout=SECONDS), collector.err
            publishing = threading.Thread(target=agent.publish, args=(stream,), kwargs={"pace": PACE})
            publishing.start()
            assert wait_until(lambda: len(backend.written()) > len(stream) // 4, SECONDS), collector.err
            getattr(backend, end)()
            published = agent.published
            time.sleep(OUTAGE_SECONDS)
            assert agent.published > published, "the stream went on while the Collector was away"
            backend.start()
            publishing.join(SECONDS)
            assert wait_until(lambda: at_once <= _uids(backend), SECONDS), collector.err
            summary = collector.stop()
        exported = summary["records"]["exported"]
        if summary["records"]["queued"]:  # a stop is short: what it did not send waits for the next start
            with run.collect("second") as collector:
                assert wait_until(lambda: {line["uid"] for line in expected} <= _uids(backend), SECONDS), collector.err
                exported += collector.stop()["records"]["exported"]
    assert {line["uid"] for line in run.lines()} == {line["uid"] for line in expected} <= _uids(backend)
    assert summary["events"]["received"] == len(stream)
    assert summary["records"]["dropped"] == {}
    # Exported are the lines, and each record once, however often the Collector had to be asked.
    assert len(_uids(backend)) == exported - len(run.lines())


class Run:
    """One collector's runs against the same agent and backend, with every rule, events and findings."""

    def __init__(self, place: Path, environ: Mapping[str, str]) -> None:
        self.agent = f"unix://{place}/tetragon.sock"
        self._place = place
        self._environ = environ

    def collect(self, name: str) -> CollectorProcess:
        """Start it, with its output in a folder of that name."""
        (self._place / name).mkdir()
        options = ("--output", "otlp", "--otlp-records", "events", "--otlp-records", "findings", "--output", "findings")
        return CollectorProcess(
            self._place / name, *options, "--rules", "all", "--agent", self.agent, environ=self._environ
        )

    def lines(self) -> list[dict[str, Any]]:
        """What it printed in all its runs."""
        return [json.loads(line) for file in self._place.glob("*/out.jsonl") for line in file.read_text().splitlines()]


def _uids(backend: OtelCollector) -> set[str]:
    return {record.uid for record in backend.written()}
