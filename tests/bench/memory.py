"""Does memory stay where it is: a million events through the whole path, in the process that decides.

In: varint-delimited events on standard input, from another process. Out: a JSON line with the resident memory after
each mark. The path is the collector's own; with `--encode` every event is made an OTLP record too, which nobody sends.
`python memory.py feed` writes the events, `python memory.py decide` reads them.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from stages import Discard
from synthetic import events

from keytrail.app import Collector
from keytrail.export.otlp_encode import RecordEncoder
from keytrail.export.otlp_output import OtlpOutput, event_lane
from keytrail.observe.accounting import Accounting
from keytrail.records import Outputs
from keytrail.settings import Settings
from keytrail.source.base import Batch, Source
from keytrail.source.stdin import StdinSource
from keytrail.source.wire import append_varint


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


class _Watched:
    """A source that notes memory when it has handed over so many events."""

    def __init__(self, source: Source, marks: list[int]) -> None:
        self._source = source
        self._marks = marks
        self.seen: dict[int, int] = {}

    def batches(self) -> Iterator[Batch]:
        count = 0
        for batch in self._source.batches():
            yield batch
            count += len(batch.messages)
            while len(self.seen) < len(self._marks) and count >= self._marks[len(self.seen)]:
                self.seen[self._marks[len(self.seen)]] = resident()

    def close(self) -> None:
        self._source.close()


def decide(marks: list[int], *, encode: bool) -> None:
    """Read to the end of standard input."""
    accounting = Accounting()
    source = _Watched(StdinSource(sys.stdin.buffer), marks)
    encoder = RecordEncoder({"service.name": "keytrail"}, time.time_ns)
    records = OtlpOutput(encoder.encode, event_lane, Discard())
    collector = Collector(Settings(), source, Outputs((records,) if encode else ()), accounting, live=False)
    collector.run_through()
    print(json.dumps({"resident": source.seen, "received": accounting.summary()["events"]["received"]}))


def feed(count: int, processes: int) -> None:
    """Write events to standard output."""
    out = bytearray()
    for event in events(count, processes):
        append_varint(len(event), out)
        out += event
        if len(out) > 1 << 20:
            sys.stdout.buffer.write(out)
            out.clear()
    sys.stdout.buffer.write(out)


def main() -> None:
    """Be one end of the pipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("feed", "decide"))
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=100_000)
    parser.add_argument("--marks", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--encode", action="store_true", help="make an OTLP record of each event")
    parser.add_argument("--core", type=int, help="the only core to run on")
    args = parser.parse_args()
    if args.core is not None:
        os.sched_setaffinity(0, {args.core})
    if args.role == "feed":
        feed(args.events, args.processes)
    else:
        decide(args.marks, encode=args.encode)


if __name__ == "__main__":
    main()
