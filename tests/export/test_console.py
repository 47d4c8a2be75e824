"""The outputs: what they hand on, when, and how a reader that goes away is counted."""

import io
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs

from keytrail.domain.drop import DropReason
from keytrail.domain.event import Event, EventKind, EventType
from keytrail.domain.process import Pod, Process
from keytrail.export.console import LineOutput
from keytrail.export.otlp_encode import RecordEncoder
from keytrail.export.otlp_output import OtlpOutput


class Counts:
    """What the output reported."""

    def __init__(self) -> None:
        self.exported = 0
        self.dropped: Counter[DropReason] = Counter()

    def on_exported(self, records: int) -> None:
        """Count written lines."""
        self.exported += records

    def on_dropped(self, records: int, reason: DropReason) -> None:
        """Count lost lines."""
        self.dropped[reason] += records


def event(number: int) -> Event:
    """Make an event with a number."""
    return Event(EventKind.EXEC, EventType.EXEC, Process("x", pid=number), time_ns=number)


def number_of(seen: Event) -> str:
    """Show an event by its number."""
    return str(seen.time_ns)


def test_lines_in_order() -> None:
    """All lines arrive once, in order, and are counted as exported when they are written, not before."""
    counts, stream = Counts(), io.StringIO()
    output = LineOutput(stream, number_of, on_exported=counts.on_exported, on_dropped=counts.on_dropped)
    output.write(event(0))
    assert (stream.getvalue(), counts.exported) == ("", 0)
    for number in range(1, 1000):
        output.write(event(number))
    output.close(1.0)
    assert stream.getvalue() == "".join(f"{number}\n" for number in range(1000))
    assert counts.exported == 1000
    assert not counts.dropped
    assert not stream.closed


def test_reader_that_went_away() -> None:
    """After a broken pipe the output is closed, writes no more, and every event is either exported or dropped."""
    reader, writer = os.pipe()
    counts = Counts()
    with os.fdopen(writer, "w") as stream:
        output = LineOutput(stream, number_of, on_exported=counts.on_exported, on_dropped=counts.on_dropped)
        for number in range(10):
            output.write(event(number))
        output.flush()
        os.close(reader)
        for number in range(1000):
            output.write(event(number))
        output.close(1.0)
        assert output.closed
        assert not output.failure
        assert stream.closed
    assert counts.exported == 10
    assert counts.dropped == {DropReason.OUTPUT_CLOSED: 1000}


def test_full_disk() -> None:
    """A disk without room ends the output with the reason, and nothing of it is claimed as exported."""
    counts = Counts()
    with Path("/dev/full").open("w") as stream:
        output = LineOutput(stream, number_of, on_exported=counts.on_exported, on_dropped=counts.on_dropped)
        output.write(event(1))
        output.flush()
    assert output.closed
    assert output.failure == "No space left on device"
    assert (counts.exported, counts.dropped) == (0, {DropReason.OUTPUT_CLOSED: 1})


PROGRAM = """
import sys
from keytrail.domain.event import Event, EventKind, EventType
from keytrail.domain.process import Process
from keytrail.export.console import LineOutput
output = LineOutput(sys.stdout, lambda event: "x" * 1000, on_exported=lambda n: None, on_dropped=lambda n, why: None)
seen = Event(EventKind.EXEC, EventType.EXEC, Process("x"), time_ns=0)
while not output.closed:
    output.write(seen)
"""


def test_head_ends_a_program_quietly() -> None:
    """A program whose reader stops after a line, as `head -1` does, ends with code 0 and says nothing."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 0


class Sent:
    """A sender that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[tuple[ResourceLogs, int]] = []
        self.closed = False

    def submit(self, resource_logs: bytes, records: int, /) -> None:
        """Keep the message."""
        self.sent.append((ResourceLogs.FromString(resource_logs), records))

    def close(self, deadline: float, /) -> None:
        """Remember that."""
        self.closed = deadline > 0


def test_records_are_grouped_by_resource() -> None:
    """Records go out grouped by resource, in order, at 512 records, at a mebibyte, at a flush and at the end."""
    sender = Sent()
    encoder = RecordEncoder({}, lambda: 0)
    output = OtlpOutput(encoder.encode, encoder.resource_logs, sender)
    processes = [Process(f"x{number}", pid=number, pod=Pod("ml", f"pod-{number}")) for number in range(2)]
    for number in range(513):
        output.write(Event(EventKind.EXEC, EventType.EXEC, processes[number % 2], time_ns=number))
    assert [records for _, records in sender.sent] == [256, 256]
    for parity, (message, records) in enumerate(sender.sent):
        times = [record.time_unix_nano for record in message.scope_logs[0].log_records]
        assert times == list(range(parity, 512, 2))
        assert len(times) == records
    output.flush()
    assert [records for _, records in sender.sent] == [256, 256, 1]
    for number in range(9):
        output.write(Event(EventKind.EXEC, EventType.EXEC, Process("y", arguments="x" * 131_072), time_ns=number))
    assert [records for _, records in sender.sent] == [256, 256, 1, 8]
    output.close(1.0)
    assert [records for _, records in sender.sent] == [256, 256, 1, 8, 1]
    assert sender.closed
