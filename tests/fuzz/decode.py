"""The decoder: an event or the reason why not, never an exception, and no credential in anything that is written.

Every property of an event is read and it is rendered in all three forms. Where the bytes are a message, each process in
it is given credentials, in its environment and among its arguments, and each captured buffer ends in one: none is in a
rendered form, nor in the scrubbed message. Half of the inputs are raw bytes, half change a recorded message.
"""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs

from fuzz.feed import Feed
from fuzz.mutated import change
from fuzz.redact import shaped
from keytrail.decode.decoder import Decoder
from keytrail.decode.details import DecodedEvent
from keytrail.decode.redact import Redactor
from keytrail.decode.scrub import scrub
from keytrail.domain.drop import Undecodable
from keytrail.export.json_line import event_line
from keytrail.export.otlp_encode import RecordEncoder
from keytrail.export.terminal_line import terminal_line
from keytrail.proto.tetragon.events_pb2 import GetEventsResponse
from support.recordings import messages

WORDS = (b"\x0a", b"\x12", b"\x1a", b"tcp_connect", b"/proc/1/mem", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
_RECORDINGS = ("policy-library", "sensors", "kubernetes", "reference-policies", "throttle", "burst")
_RAW, _KNOWN = 1, 64
_PROPERTIES = (
    *("node", "tid", "details", "network", "file", "payload", "operation", "exit", "arguments", "returned", "action"),
    *("credentials", "gained", "peer"),
)
_redact = Redactor().redact


@cache
def recorded() -> tuple[bytes, ...]:
    """One message of each kind of event and hook."""
    found: dict[tuple[str, str, int], bytes] = {}
    for name in _RECORDINGS:
        for raw in messages(name):
            event = GetEventsResponse.FromString(raw)
            which = event.WhichOneof("event") or ""
            inner: Any = getattr(event, which)
            hook = f"{getattr(inner, 'function_name', '')}{getattr(inner, 'subsys', '')}{getattr(inner, 'event', '')}"
            found.setdefault((which, hook, len(getattr(inner, "args", ()))), raw)
    return tuple(found.values())


def seeds() -> Iterator[bytes]:
    """Yield each recorded message as it is, raw and to be changed."""
    for number, raw in enumerate(recorded()):
        yield bytes((_RAW,)) + raw
        yield bytes((_RAW | _KNOWN,)) + raw
        yield bytes((0, number >> 8, number & 0xFF))
        yield bytes((0, number >> 8, number & 0xFF)) + bytes(range(number % 7, 200, 5))


def check(data: bytes) -> None:
    """Decode the message as it is, and with credentials in all places where a process has them."""
    feed = Feed(data)
    form = feed.number()
    before = recorded()[form >> 1 & 31] if form & _KNOWN else b""
    if form & _RAW:
        raw = feed.rest()
        _written(before, raw)
        try:
            message = GetEventsResponse.FromString(raw)
        except DecodeError:
            return
    else:
        message = GetEventsResponse.FromString(recorded()[feed.number(2) % len(recorded())])
        change(message, feed)
    canary = shaped(data)
    _give(message, canary)
    for where, written in _written(before, message.SerializeToString()).items():
        assert canary.encode() not in written, f"a credential in the {where}"


def _give(message: GetEventsResponse, canary: str) -> None:
    inner: Any = getattr(message, message.WhichOneof("event") or "process_exec")
    if "process" in inner.DESCRIPTOR.fields_by_name:
        for process in (inner.process, inner.parent, *inner.ancestors):
            process.environment_variables.add(Key="SERVICE", Value=canary)
            for variable in process.environment_variables:
                variable.Value += canary
            process.arguments = f"{process.arguments} {canary}"
            process.cwd = f"{process.cwd} {canary}"
    for argument in getattr(inner, "args", ()):
        if argument.WhichOneof("arg") == "bytes_arg":
            argument.bytes_arg += b"\r\n\r\n" + canary.encode()


def _written(before: bytes, raw: bytes) -> dict[str, bytes]:
    """Everything that is made of a message, by a decoder that has seen another one before: nothing raises."""
    forms = {"scrubbed message": scrub(raw, _redact) or b""}
    decoder = Decoder(_redact)
    decoder.decode(before)
    event = decoder.decode(raw)
    if not isinstance(event, DecodedEvent):
        assert event.reason in set(Undecodable)
        return forms
    for name in _PROPERTIES:
        getattr(event, name)
    list(event.ancestors())
    line = event_line(event)
    assert line.isascii()
    assert line.isprintable()
    json.loads(line)
    shown = terminal_line(event, color=False)
    assert shown.isascii()
    assert shown.isprintable()
    encoder = RecordEncoder({"service.name": "keytrail"}, lambda: 1)
    key, record = encoder.encode(event)
    logs = encoder.resource_logs(key, [record])
    parsed = LogRecord.FromString(record)
    assert len({item.key for item in parsed.attributes}) == len(parsed.attributes), "an attribute twice"
    assert ResourceLogs.FromString(logs).scope_logs[0].log_records[0] == parsed
    return forms | {"JSON line": line.encode(), "terminal line": shown.encode(), "OTLP bytes": logs}
