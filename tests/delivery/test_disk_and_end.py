"""A collector whose disk is full, and one that is told to end while its backend hangs."""

import signal
import time
from pathlib import Path

import pytest

from delivery.delivery_world import ARRIVED, SECONDS, collector_of_events, numbered, on_disk
from keytrail.delivery import SPOOL
from keytrail.testing.fake_tetragon import FakeTetragon
from keytrail.testing.otlp_sink import OtlpSink
from keytrail.testing.otlp_sink_faults import Hang
from spool.small_disk import mounted
from spool.spool_world import MIB
from support.processes import wait_until

EVENTS = range(2, 2002)
PROMISED_SECONDS = 5.0
"""From SIGTERM to the end; Kubernetes and systemd are told to expect it."""


def test_full_disk(tmp_path: Path) -> None:
    """A collector on a full disk starts, says so, delivers everything from memory, and ends in order."""
    place = tmp_path / "small"
    with (
        mounted(place, "size=256k"),
        OtlpSink(http=None) as sink,
        FakeTetragon(f"unix://{tmp_path}/tetragon.sock") as agent,
    ):
        with (place / "others").open("wb", buffering=0) as others:
            assert others.write(bytes(MIB)) < MIB  # as much as there was room for
        with collector_of_events(tmp_path, agent.address, sink.grpc_endpoint, place / "state") as collector:
            assert agent.wait_for_listeners(timeout=SECONDS), collector.err
            agent.publish(map(numbered, EVENTS))
            assert wait_until(lambda: len(sink.rows(ARRIVED, (0,))) >= len(EVENTS), SECONDS), collector.err
            assert f"records stay in memory, at most 64 MiB: {place / 'state' / SPOOL}: No space left" in collector.err
            records = collector.stop()["records"]
        assert (records["queued"], records["dropped"]) == (0, {})


@pytest.mark.parametrize("most", [SECONDS, pytest.param(PROMISED_SECONDS, marks=pytest.mark.long)])
def test_sigterm_while_the_backend_hangs(tmp_path: Path, most: float, capsys: pytest.CaptureFixture[str]) -> None:
    """What was read when SIGTERM came is on disk, and the end is a clean one, on an idle machine within five seconds.

    What an event's line on standard output tells is that it was read.
    """
    state, lines = tmp_path / "state", ("--output", "json", "--output", "otlp")
    with OtlpSink(http=None) as sink, FakeTetragon(f"unix://{tmp_path}/tetragon.sock") as agent:
        sink.answer_by(lambda _: Hang(10 * SECONDS))
        with collector_of_events(tmp_path, agent.address, sink.grpc_endpoint, state, *lines) as collector:
            assert agent.wait_for_listeners(timeout=SECONDS), collector.err
            agent.publish(map(numbered, EVENTS))
            assert wait_until(lambda: collector.lines() == len(EVENTS)), collector.err
            told_ns, told = time.time_ns(), time.monotonic()
            collector.process.send_signal(signal.SIGTERM)
            assert collector.process.wait(SECONDS) == 0, collector.err
            seconds = time.monotonic() - told
        assert sink.requests()
        sink.stop()
    written = max(path.stat().st_mtime_ns for path in (state / SPOOL).rglob("*.seg"))
    with capsys.disabled():
        print(  # noqa: T201 - the answer to a promise
            f"\n{len(EVENTS)} events: on disk {(written - told_ns) / 1e6:.0f} ms after SIGTERM, "
            f"end after {seconds:.2f} s"
        )
    assert sorted(number for _, number in on_disk(state)) == list(EVENTS)
    assert seconds < most
