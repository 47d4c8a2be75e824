"""Gaps as a user sees them: lines of `keytrail collect --output findings` beside an agent that drops or goes away."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keytrail.testing.fake_tetragon import FakeTetragon
from keytrail.testing.otlp_sink import OtlpSink
from support.processes import CollectorProcess, wait_until
from support.recordings import messages

SECONDS = 120.0
ALONE = ("--output", "findings", "--rules", "none")
"""What a collector says of gaps, and nothing else."""
QUEUE = 300
CAUSES = """SELECT attributes ->> '$."keytrail.gap.cause"' FROM records WHERE event_name = 'keytrail.gap'"""


def gaps(collector: CollectorProcess, cause: str, phase: str) -> list[dict[str, Any]]:
    """Gap lines written so far."""
    found = [json.loads(line).get("gap") for line in collector.out.splitlines()]
    return [gap for gap in found if gap and (gap["cause"], gap["phase"]) == (cause, phase)]


def appears(collector: CollectorProcess, cause: str, phase: str) -> Callable[[], bool]:
    """Whether there is such a line."""
    return lambda: bool(gaps(collector, cause, phase))


def test_full_queue_is_a_line_with_the_agents_count(tmp_path: Path) -> None:
    """What the agent dropped for us is told while it happens, by the agent's count, and in total at the end."""
    stream = messages("burst")[:600]
    address = f"unix://{tmp_path}/agent.sock"
    with FakeTetragon(address, queue_size=QUEUE, metrics_address="127.0.0.1:0") as agent:
        environ = {"KEYTRAIL_AGENT_METRICS_ADDRESS": agent.metrics_address or ""}
        with CollectorProcess(tmp_path, *ALONE, "--agent", address, environ=environ) as collector:
            assert agent.wait_for_listeners(timeout=SECONDS), collector.err
            assert wait_until(lambda: "watching the agent's metrics" in collector.err), collector.err
            agent.stall()
            agent.publish(stream)
            assert wait_until(appears(collector, "reader_slow", "open")), collector.err
            agent.resume()
            summary = collector.stop()
        (opened,), (closed,) = gaps(collector, "reader_slow", "open"), gaps(collector, "reader_slow", "closed")
        assert (closed["id"], closed["lost"]) == (opened["id"], agent.overflowed)
        assert agent.overflowed == len(stream) - QUEUE
        assert summary["records"]["made"] == summary["records"]["exported"]


def test_restarted_agent_is_a_gap_with_both_ends(tmp_path: Path) -> None:
    """A killed agent is a line at once, and another with the end when it is back, or when we stop."""
    address = f"unix://{tmp_path}/agent.sock"
    environ = {"KEYTRAIL_AGENT_METRICS_ADDRESS": "off"}
    with (
        FakeTetragon(address) as agent,
        CollectorProcess(tmp_path, *ALONE, "--agent", address, environ=environ) as collector,
    ):
        assert agent.wait_for_listeners(timeout=SECONDS), collector.err
        agent.kill()
        assert wait_until(appears(collector, "agent_away", "open")), collector.err
        agent.start()
        assert wait_until(appears(collector, "agent_away", "closed")), collector.err
        agent.kill()
        assert wait_until(lambda: len(gaps(collector, "agent_away", "open")) == 2), collector.err
        collector.stop()
        first, second = gaps(collector, "agent_away", "closed")
        assert first["start"] < first["end"] <= second["start"] < second["end"]
        assert [gap["id"] for gap in gaps(collector, "agent_away", "open")] == [first["id"], second["id"]]


@pytest.mark.long
@pytest.mark.parametrize("delay", [0.0, 0.3, 0.7, 1.1, 1.5, 1.9])
def test_the_backend_knows_within_five_seconds(
    tmp_path: Path, delay: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the first event that the agent drops to the record at the backend: the promise is five seconds."""
    address = f"unix://{tmp_path}/agent.sock"
    with OtlpSink(http=None) as sink, FakeTetragon(address, queue_size=QUEUE, metrics_address="127.0.0.1:0") as agent:
        environ = {
            "KEYTRAIL_AGENT_METRICS_ADDRESS": agent.metrics_address or "",
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.grpc_endpoint,
        }
        options = ("--agent", address, "--state-dir", str(tmp_path / "state"))
        with CollectorProcess(tmp_path, *options, environ=environ) as collector:
            assert agent.wait_for_listeners(timeout=SECONDS), collector.err
            assert wait_until(lambda: "watching the agent's metrics" in collector.err), collector.err
            time.sleep(delay)  # somewhere between two looks at the agent's counters
            agent.stall()
            began = time.monotonic()
            agent.publish(messages("burst")[:600])
            assert wait_until(lambda: ("reader_slow",) in sink.rows(CAUSES)), collector.err
            took = time.monotonic() - began
            agent.resume()
            collector.stop()
    with capsys.disabled():
        print(f"\na full queue of the agent is a record at the backend after {took:.1f} s")  # noqa: T201 - what it is for
    assert took <= 5.0
