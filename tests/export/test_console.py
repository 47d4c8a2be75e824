"""The outputs: what they hand on, when, and how a reader that goes away is counted."""

import io
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from keytrail.domain.drop import DropReason
from keytrail.domain.event import Event, EventKind, EventType
from keytrail.domain.process import Process
from keytrail.export.console import LineOutput


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


def test_two_outputs_of_which_one_finds_out_that_the_reader_left() -> None:
    """Findings and gaps are lines of one stream: what the other one then holds is counted, too, and nothing fails."""
    counts = Counts()
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    first, second = (
        LineOutput(stream, number_of, on_exported=counts.on_exported, on_dropped=counts.on_dropped) for _ in range(2)
    )
    for output in (first, second):
        output.write(event(1))
    for output in (first, second):
        output.flush()
    second.write(event(2))
    assert (first.closed, second.closed, counts.exported) == (True, True, 0)
    assert counts.dropped == {DropReason.OUTPUT_CLOSED: 3}


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
