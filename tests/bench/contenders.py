"""What is compared: each contender takes the same events from the sender's socket, in a process of its own.

In: the name of a contender, a socket, a number of events. Out: one JSON line with seconds, CPU seconds and peak memory.
The clock runs from the opening of the connection, when manifests are read and stages made, to the end of the last
event. Started by `run.py`, once for each contender and round.
"""

import argparse
import json
import os
import resource
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from http2_sender import (
    END_HEADERS,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    literal,
)

from keytrail.app import Collector, freeze_heap
from keytrail.choices import OtlpRecords
from keytrail.decode.decoder import Decoder
from keytrail.decode.redact import Redactor
from keytrail.delivery import Delivery
from keytrail.domain.drop import DropReason
from keytrail.domain.finding import Finding
from keytrail.loss.guard import OFF, LossGuard
from keytrail.observe.accounting import Accounting
from keytrail.records import Outputs
from keytrail.settings import Settings
from keytrail.source.address import Address
from keytrail.source.base import Batch
from keytrail.source.grpc_stream import GrpcSource, ReaderName

_LARGEST_WINDOW = 2**31 - 1
_AHEAD = 8_192
"""Events that may be read and not yet done. An agent does not wait for a reader; a benchmark must, or the inbox would
drop what the deciding thread cannot take, and dropping is quick."""
_LOOK_EVERY = 256
_LAST_BATCHES = 2 * 511
"""Records that may wait, half a second long, for a full batch of one of two senders: time in which nothing is done."""


class Task(NamedTuple):
    """What a contender is given."""

    socket: Path
    events: int
    otlp: str
    reader: ReaderName = "auto"
    """Who reads the stream for the product's own contenders."""
    go_client: str = ""
    """The program that `go_client` in this folder becomes."""


class Took(NamedTuple):
    """What it needed. `events` are those that were done by then, `records` all that were acknowledged in the end."""

    events: int
    seconds: float
    cpu: float
    records: int = 0
    peak_mb: float = 0.0
    """Zero: that of the process that was asked."""


class Forget:
    """An output of findings that keeps none."""

    def write(self, _finding: Finding) -> None:
        """Forget it."""

    def flush(self) -> None:
        """Do nothing."""

    def close(self, _seconds: float) -> None:
        """Do nothing."""


class _Clock:
    def __init__(self) -> None:
        self._since = time.perf_counter(), time.process_time()

    def took(self, events: int) -> Took:
        wall, cpu = self._since
        return Took(events, time.perf_counter() - wall, time.process_time() - cpu)


def raw(task: Task) -> Took:
    """Read the socket and look at nothing: what the sender can do."""
    clock = _Clock()
    largest = frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, _LARGEST_WINDOW))
    grown = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", _LARGEST_WINDOW - 65_535))
    path = literal(b":path", b"/tetragon.FineGuidanceSensors/GetEvents")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(task.socket))
        connection.sendall(PREFACE + largest + grown + frame(HEADERS, END_HEADERS, 1, path))
        tail, end = b"", literal(b"grpc-status", b"0")
        while not tail.endswith(end):
            tail = connection.recv(262_144)
        return clock.took(task.events)


def grpcio(task: Task) -> Took:
    """Take messages from grpcio's iterator with no options and nothing done to them: the reference."""
    clock = _Clock()
    with grpc.insecure_channel(f"unix:{task.socket}") as channel:
        call: Any = channel.unary_stream("/tetragon.FineGuidanceSensors/GetEvents")
        count = sum(1 for _ in call(b""))
        return clock.took(_checked(count, task))


def receive(task: Task) -> Took:
    """Take batches from the product's source."""
    source = GrpcSource(Address(path=task.socket), reader=task.reader)
    clock, count = _Clock(), 0
    for batch in source.batches():
        count += len(batch.messages)
        if count >= task.events:
            break
    took = clock.took(_checked(count, task))
    source.close()
    return took


def receive_grpcio(task: Task) -> Took:
    """Take batches from the product's source, which lets grpcio read as for TLS."""
    return receive(task._replace(reader="grpcio"))


def decode(task: Task) -> Took:
    """Receive and decode, in one thread."""
    source, decoder = GrpcSource(Address(path=task.socket), reader=task.reader), Decoder(Redactor().redact)
    freeze_heap()
    clock, count = _Clock(), 0
    for batch in source.batches():
        if batch.agent is not None:
            decoder.connect(batch.agent, batch.processes)
        for message in batch.messages:
            decoder.decode(message)
        count += len(batch.messages)
        if count >= task.events:
            break
    took = clock.took(_checked(count, task))
    source.close()
    return took


def whole(task: Task) -> Took:
    """Run the collector as `keytrail collect` does, threads and all, without any output."""
    accounting = Accounting()
    return _collect(task, accounting, Outputs(), lambda: _decided(accounting), task.events)


def findings(task: Task) -> Took:
    """Run the same with all stable rules; nobody keeps what they find."""
    accounting = Accounting()
    outputs = Outputs(findings=(Forget(),))
    return _collect(task, accounting, outputs, lambda: _decided(accounting), task.events)


def whole_grpcio(task: Task) -> Took:
    """Run the same with grpcio reading."""
    return whole(task._replace(reader="grpcio"))


def export(task: Task) -> Took:
    """Run the collector with every event through a spool on disk to an OTLP receiver, done when that said so."""
    accounting = Accounting()
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{task.otlp}"}
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(state_dir=Path(folder), otlp_records=(OtlpRecords.EVENTS,))
        delivery = Delivery(settings, accounting, endpoint, patient=False)
        outputs = Outputs(tuple(delivery.events()), delivery=delivery)
        return _collect(
            task, accounting, outputs, lambda: _acknowledged(accounting), max(1, task.events - _LAST_BATCHES)
        )


def go_parse(task: Task) -> Took:
    """Let a client that is made with the agent's own libraries receive and parse."""
    return _go(task)


def go_print(task: Task) -> Took:
    """Let it print each event as JSON, too, to where nobody reads."""
    return _go(task, "-print")


def _go(task: Task, *options: str) -> Took:
    command = [task.go_client, "-socket", task.socket, "-events", str(task.events), *options]
    # Its threads are as many as the cores that it may run on.
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return Took(**json.loads(done.stdout))


def _decided(accounting: Accounting) -> int:
    events: int = accounting.summary()["events"]["received"]
    return events


def _acknowledged(accounting: Accounting) -> int:
    """Count the events that need nothing any more; several policies' reports of one call make one record."""
    summary = accounting.summary()
    events: int = summary["records"]["exported"] + summary["events"]["dropped"].get("duplicate_hook", 0)
    return events


def _collect(task: Task, accounting: Accounting, outputs: Outputs, done: Callable[[], int], enough: int) -> Took:
    settings = Settings()
    stream = GrpcSource(Address(path=task.socket), reader=task.reader, gather_seconds=settings.gather_ms / 1000)
    source = _Paced(stream, task.events, done, enough)
    # The bounds of the live queue are never met: `_Paced` waits long before.
    guard = LossGuard(inbox_dropped=lambda: accounting.events_dropped(DropReason.QUEUE_FULL), metrics_address=OFF)
    Collector(settings, source, outputs, accounting, live=True, guard=guard).run_live(threading.Event())
    summary = accounting.summary()
    lost = {**summary["events"]["dropped"], **summary["records"]["dropped"]}
    # Twins that different policies reported are merged, as they should be: recorded streams have some.
    lost.pop("duplicate_hook", None)
    if lost or summary["events"]["undecodable"] or summary["events"]["received"] != task.events:
        raise SystemExit(f"not every event was done: {summary}")
    return source.took._replace(records=summary["records"]["exported"])


class _Paced:
    """A source that ends after so many events and stays only so far ahead of those that are done."""

    def __init__(self, source: GrpcSource, events: int, done: Callable[[], int], enough: int) -> None:
        self._source = source
        self._events = events
        self._done = done
        self._enough = enough
        self.took = Took(0, 0.0, 0.0)

    def batches(self) -> Iterator[Batch]:
        clock, count, looked = _Clock(), 0, 0
        for batch in self._source.batches():
            count += len(batch.messages)
            yield batch
            if count >= self._events:
                break
            if count - looked >= _LOOK_EVERY:
                looked = count
                while count - self._done() > _AHEAD:
                    time.sleep(0.002)
        while (done := self._done()) < self._enough:
            time.sleep(0.002)
        self.took = clock.took(done)

    def close(self) -> None:
        self._source.close()


def _checked(count: int, task: Task) -> int:
    if count != task.events:
        raise SystemExit(f"{count} events instead of {task.events}")
    return count


CONTENDERS: dict[str, Callable[[Task], Took]] = {
    "raw": raw,
    "grpcio": grpcio,
    "receive": receive,
    "receive_grpcio": receive_grpcio,
    "decode": decode,
    "whole": whole,
    "findings": findings,
    "whole_grpcio": whole_grpcio,
    "export": export,
    "go_parse": go_parse,
    "go_print": go_print,
}


def main() -> None:
    """Run one contender and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--otlp", default="", help="HOST:PORT of the receiver")
    parser.add_argument("--go-client", default="", help="the program, for the contenders in Go")
    parser.add_argument("--core", type=int, help="the only core to run on")
    args = parser.parse_args()
    if args.core is not None:
        os.sched_setaffinity(0, {args.core})
    took = CONTENDERS[args.name](Task(args.socket, args.events, args.otlp, go_client=args.go_client))
    peak = took.peak_mb or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**took._asdict(), "peak_mb": peak}))


if __name__ == "__main__":
    main()
