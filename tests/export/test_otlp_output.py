"""OtlpOutput: what the spool is given, and the whole way from an event through spool and sender to a receiver."""

import time
from pathlib import Path

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from export.sending import QUICK, both_protocols, settings_for
from keytrail.domain.drop import DropReason
from keytrail.domain.event import Event, EventKind, EventType
from keytrail.domain.process import Pod, Process
from keytrail.export.otlp_encode import RecordEncoder
from keytrail.export.otlp_output import OtlpOutput, event_lane
from keytrail.export.otlp_sender import OtlpSender
from keytrail.export.spool.durable import Spool
from keytrail.export.spool.entries import Lane
from keytrail.observe.accounting import Accounting
from keytrail.testing.otlp_sink import OtlpSink
from keytrail.testing.otlp_sink_faults import Fault, Reset, invalid, throttled, unavailable
from support.processes import wait_until


class Appended:
    """A spool that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[tuple[Lane, bytes, bytes]] = []
        self.flushes = 0

    def append(self, lane: Lane, resource: bytes, record: bytes) -> None:
        """Keep it."""
        self.records.append((lane, resource, record))

    def flush(self) -> None:
        """Count it."""
        self.flushes += 1


def event(number: int) -> Event:
    """Make an event of one of two pods."""
    process = Process(f"x{number % 2}", pid=number % 2, pod=Pod("ml", f"pod-{number % 2}"))
    return Event(EventKind.EXEC, EventType.EXEC, process, time_ns=number)


def test_each_record_goes_on_at_once_with_its_lane_and_resource() -> None:
    """Nothing is held back; records of one resource have equal keys, which is how the spool groups them."""
    spool = Appended()
    output: OtlpOutput[Event] = OtlpOutput(RecordEncoder({}, lambda: 0).encode, event_lane, spool)
    for number in range(6):
        output.write(event(number))
        assert len(spool.records) == number + 1
    assert {lane for lane, _, _ in spool.records} == {Lane.EVENT}
    assert [LogRecord.FromString(record).time_unix_nano for _, _, record in spool.records] == list(range(6))
    keys = [resource for _, resource, _ in spool.records]
    assert keys == keys[:2] * 3
    assert len(set(keys)) == 2
    output.flush()
    output.close(1.0)
    assert spool.flushes == 2


@both_protocols
@pytest.mark.parametrize("durable", [False, True])
def test_the_whole_way_accounts_for_every_record(protocol: str, durable: bool, tmp_path: Path) -> None:
    """Through the real spool, past refusals, resets and one poisoned record, all others arrive once counted."""
    faults: list[Fault | None] = [unavailable(), throttled(0), Reset()]
    encoder, accounting = RecordEncoder({}, time.time_ns), Accounting()
    spool = Spool(
        tmp_path / "spool" if durable else None,
        encoder.resource_logs,
        accounting,
        most_bytes=1 << 26,
        longest_ns=3600 * 10**9,
    )
    output: OtlpOutput[Event] = OtlpOutput(encoder.encode, event_lane, spool)
    with OtlpSink() as sink:
        sink.script(faults)
        sink.answer_by(lambda request: invalid("poison") if b"poison" in request.raw else None)
        sender = OtlpSender(settings_for(sink, protocol), spool, limits=QUICK)
        spool.start()
        sender.start()
        for number in range(300):
            output.write(event(number))
        output.write(Event(EventKind.EXEC, EventType.EXEC, Process("p", binary="/poison"), time_ns=300))
        output.flush()
        assert wait_until(lambda: not spool.state().queued)
        sender.close(5)
        spool.close(5)
        state = spool.state()
        # A connection that broke may have delivered a batch twice, never with another uid.
        uid = "json_extract(attributes, '$.\"log.record.uid\"')"
        ((arrived,),) = sink.rows(f"SELECT count(DISTINCT {uid}) FROM records")  # noqa: S608 - a constant
    assert (state.appended, state.exported, dict(state.dropped)) == (301, 300, {DropReason.EXPORT_REJECTED: 1})
    assert arrived == 300
    assert state.set_aside == (1 if durable else 0)
