"""Records to an OTLP backend: encoder, spool and sender against OpenTelemetry's own SDK, as ratios within one run.

Out: a table on standard output. Every round runs every contender once, each in a process of its own on one core, with
the receiver on another; a ratio is taken inside its round and the median printed. The SDK's contenders are given
finished attributes and a queue that holds everything; ours are given decoded events, encode them and write them to
disk first. With `--outage`, also what is lost while the receiver is away for some seconds, both with their defaults.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import grpc
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpExporter
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as LogRecordMessage
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from otlp_receiver import receive
from synthetic import events

from keytrail.app import freeze_heap
from keytrail.decode.credential_patterns import looks_like_credential_name
from keytrail.decode.decoder import Decoder
from keytrail.decode.redact import Redactor
from keytrail.domain.drop import Drop
from keytrail.domain.event import Credentials, Details, Event
from keytrail.export.otlp_encode import RecordEncoder
from keytrail.export.otlp_output import OtlpOutput, event_lane
from keytrail.export.otlp_sender import OtlpSender
from keytrail.export.otlp_settings import otlp_settings
from keytrail.export.spool.durable import Spool
from keytrail.identify.matcher import IdentityMatcher
from keytrail.manifests import load_builtin_identities
from keytrail.observe.accounting import Accounting

REFERENCE = "sdk grpc"
CONTENDERS = tuple(f"{who} {how}" for how in ("grpc", "grpc gzip", "http", "http gzip") for who in ("sdk", "keytrail"))
AIMS = {"keytrail grpc": 7.0, "keytrail http": 7.0, "keytrail grpc gzip": 5.0, "keytrail http gzip": 5.0}
_SDK_SHARE = 4
"""The SDK gets a quarter of the records: it needs several times as long for each."""
_RATE = 1000
"""Records a second while the receiver is away."""
_PATIENCE = 120


class ReadEvent(Event):
    """An event all of whose fields were read, as the SDK's contenders get attributes that are finished."""

    __slots__ = ("_read",)

    def __init__(self, event: Event) -> None:
        super().__init__(
            *(event.kind, event.type, event.process),
            time_ns=event.time_ns,
            function=event.function,
            node=event.node,
            parent=event.parent,
            policy=event.policy,
            tid=event.tid,
        )
        self._read = event.details, event.credentials

    @property
    def details(self) -> Details:
        """What the kind adds."""
        return self._read[0]

    @property
    def credentials(self) -> Credentials | None:
        """Ids and capabilities."""
        return self._read[1]


def decoded(count: int) -> list[Event]:
    """Events with their attribution, as the pipeline hands them to an output."""
    decoder = Decoder(Redactor().redact)
    matcher = IdentityMatcher((), load_builtin_identities(), looks_like_credential=looks_like_credential_name)
    found: list[Event] = []
    for raw in events(count, 75_000):
        event = decoder.decode(raw)
        if not isinstance(event, Drop):
            if event.process.attribution is None:
                event.process.attribution = matcher.attribute(event.process)
            found.append(ReadEvent(event))
    return found


class Keytrail:
    """The product's way: encoder, spool on disk, sender."""

    def __init__(self, how: str, endpoint: str, count: int, folder: Path) -> None:
        protocol, _, compression = how.partition(" ")
        environ = {
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc" if protocol == "grpc" else "http/protobuf",
            "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
        }
        encoder = RecordEncoder({"service.name": "keytrail"}, time.time_ns)
        self._records = decoded(count)
        self._spool = Spool(folder, encoder.resource_logs, Accounting(), most_bytes=1 << 30, longest_ns=86_400 * 10**9)
        self._output: OtlpOutput[Event] = OtlpOutput(encoder.encode, event_lane, self._spool)
        self._sender = OtlpSender(otlp_settings(environ), self._spool)
        self._spool.start()
        self._sender.start()

    def emit(self, first: int, last: int) -> None:
        """Make and queue records."""
        write = self._output.write
        for event in self._records[first:last]:
            write(event)
        self._output.flush()

    def finish(self) -> None:
        """Return when everything was acknowledged.

        As the product ends, and the SDK's `force_flush`: no last batch waits for more, which takes half a second.
        """
        self._spool.sync(_PATIENCE)
        self._sender.close(_PATIENCE)
        if left := self._spool.state().queued:
            raise SystemExit(f"{left} records were not acknowledged")

    def close(self) -> None:
        """Stop."""
        self._spool.close(1)


class Sdk:
    """OpenTelemetry's way: LoggerProvider, BatchLogRecordProcessor, OTLPLogExporter."""

    def __init__(self, how: str, endpoint: str, count: int, *, queue: int | None) -> None:
        protocol, _, compression = how.partition(" ")
        exporter: Any
        if protocol == "grpc":
            used = grpc.Compression.Gzip if compression else grpc.Compression.NoCompression
            exporter = GrpcExporter(endpoint=endpoint, insecure=True, compression=used)
        else:
            exporter = HttpExporter(
                endpoint=endpoint, compression=Compression.Gzip if compression else Compression.NoCompression
            )
        self._provider = LoggerProvider(Resource.create({"service.name": "keytrail"}), shutdown_on_exit=False)
        self._provider.add_log_record_processor(BatchLogRecordProcessor(exporter, max_queue_size=queue))
        self._logger = self._provider.get_logger("keytrail")
        encoder = RecordEncoder({"service.name": "keytrail"}, time.time_ns)
        self._records = [_for_sdk(encoder.encode(event)[1]) for event in decoded(count)]

    def emit(self, first: int, last: int) -> None:
        """Make and queue records."""
        emit = self._logger.emit
        for fields in self._records[first:last]:
            emit(LogRecord(severity_number=SeverityNumber.INFO, severity_text="INFO", **fields))

    def finish(self) -> None:
        """Return when everything was acknowledged or given up."""
        self._provider.force_flush(_PATIENCE * 1000)

    def close(self) -> None:
        """Stop."""
        self._provider.shutdown()


def _for_sdk(encoded: bytes) -> dict[str, Any]:
    record = LogRecordMessage.FromString(encoded)
    attributes: dict[str, Any] = {}
    for item in record.attributes:
        kind = item.value.WhichOneof("value")
        value = getattr(item.value, str(kind))
        attributes[item.key] = tuple(one.string_value for one in value.values) if kind == "array_value" else value
    return {
        "timestamp": record.time_unix_nano,
        "observed_timestamp": record.observed_time_unix_nano,
        "body": record.body.string_value,
        "event_name": record.event_name,
        "attributes": attributes,
    }


def contend(args: argparse.Namespace) -> None:
    """Run one contender; says what it took, and during an outage does as it is told on standard input."""
    who, _, how = args.contender.partition(" ")
    with tempfile.TemporaryDirectory() as folder:
        made: Keytrail | Sdk
        if who == "keytrail":
            made = Keytrail(how, args.endpoint, args.records, Path(folder))
        else:
            made = Sdk(how, args.endpoint, args.records, queue=None if args.paced else args.records + 1)
        freeze_heap()
        wall, cpu = time.perf_counter(), time.process_time()
        if args.paced:
            print(json.dumps("ready"), flush=True)
            for first in range(0, args.records, _RATE // 20):
                made.emit(first, first + _RATE // 20)
                time.sleep(max(0.0, wall + first / _RATE - time.perf_counter()))
        else:
            made.emit(0, args.records)
        made.finish()
        took = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "records": args.records}
        print(json.dumps(took), flush=True)
        made.close()


class Child:
    """A process of this file that answers in JSON lines."""

    def __init__(self, core: int, *arguments: str) -> None:
        command = [sys.executable, __file__, "--core", str(core), *arguments]
        # What the SDK says about failed exports is not part of the table.
        self._process: subprocess.Popen[str] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def answer(self) -> Any:
        """Return its next line."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, command: str = "count") -> Any:
        """Say something and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self.answer()

    def stop(self) -> None:
        """End it."""
        self._process.communicate(timeout=_PATIENCE)


@contextmanager
def child(core: int, *arguments: str) -> Iterator[Child]:
    """Start one and stop it at the end."""
    started = Child(core, *arguments)
    try:
        yield started
    finally:
        started.stop()


def one(name: str, records: int, endpoints: dict[str, str], receiver: Child, core: int) -> dict[str, float]:
    """Run a contender once."""
    before = receiver.ask()
    endpoint = endpoints[name.split()[1]]
    with child(core, "--contender", name, "--endpoint", endpoint, "--records", str(records)) as contender:
        took: dict[str, float] = contender.answer()
    if (arrived := receiver.ask() - before) < records:
        raise SystemExit(f"{name}: only {arrived} of {records} records arrived")
    return {"rate": records / took["seconds"], "cpu": took["cpu"] / records * 1e6}


def throughput(rounds: int, records: int, cores: tuple[int, int], say: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure and print every contender; returns the ratios to the SDK over plain gRPC."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    with child(cores[1], "--receive") as receiver:
        endpoints = receiver.answer()
        for _ in range(rounds):
            for name in CONTENDERS:
                share = records if name.startswith("keytrail") else records // _SDK_SHARE
                found[name].append(one(name, share, endpoints, receiver, cores[0]))
    say(f"{'':20}{'records/s':>10}{'CPU us':>8}{'/ SDK plain (min-max)':>26}{'CPU /':>8}{'aim':>6}")
    ratios: dict[str, Any] = {}
    for name, measured in found.items():
        rate = [mine["rate"] / base["rate"] for mine, base in zip(measured, found[REFERENCE], strict=True)]
        cpu = [base["cpu"] / mine["cpu"] for mine, base in zip(measured, found[REFERENCE], strict=True)]
        ratios[name] = {"rate": median(rate), "cpu": median(cpu)}
        spread = f"{median(rate):.2f} ({min(rate):.2f}-{max(rate):.2f})"
        aim = f"{AIMS[name]:.0f}" if name in AIMS else ""
        plain = median(one["rate"] for one in measured), median(one["cpu"] for one in measured)
        say(f"{name:20}{plain[0]:>10,.0f}{plain[1]:>8.1f}{spread:>26}{median(cpu):>8.1f}{aim:>6}")
    return ratios


def outage(seconds: float, cores: tuple[int, int], say: Callable[[str], None] = print) -> dict[str, int]:
    """Print how many records are lost when the receiver is away for so long; returns it by contender."""
    lost: dict[str, int] = {}
    records = int(_RATE * (seconds + 3))
    for name in ("sdk grpc", "keytrail grpc"):
        with child(cores[1], "--receive") as receiver:
            endpoint = receiver.answer()["grpc"]
            arguments = ("--contender", name, "--endpoint", endpoint, "--records", str(records), "--paced")
            with child(cores[0], *arguments) as contender:
                contender.answer()
                time.sleep(1)
                receiver.ask("stop")
                time.sleep(seconds)
                receiver.ask("start")
                contender.answer()
            lost[name] = max(0, records - receiver.ask())
        say(f"{name}: {lost[name]} of {records} records lost in an outage of {seconds:g} s at {_RATE} a second")
    return lost


def main() -> int:
    """Measure; 1 when Keytrail lost a record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=24_000, help="for each contender of ours (default 24000)")
    parser.add_argument("--outage", type=float, default=5, help="seconds without a receiver (default 5, 0 for none)")
    for name in ("--contender", "--endpoint"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in ("--receive", "--paced"):
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.core is not None:
        os.sched_setaffinity(0, {args.core})
    if args.receive:
        receive()
    elif args.contender:
        contend(args)
    else:
        usable = sorted(os.sched_getaffinity(0))
        cores = usable[0], usable[-1]
        if args.rounds:
            throughput(args.rounds, args.records, cores)
        return int(bool(args.outage and outage(args.outage, cores)["keytrail grpc"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
