"""One line of the agent's JSON export to the message that its gRPC stream carries for the same event.

In: a line of protojson, proto field names or camelCase. Out: serialized `tetragon.GetEventsResponse`. What each field
needs is worked out once, from the descriptors; a line then costs one `json.loads`, one walk that touches only what JSON
spells differently (64-bit numbers are strings, bytes base64, enums names, times text), and one constructor call in C.
`json_format.ParseDict` decides all of it anew for every field and takes several times as long.
"""

import base64
import functools
import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from keytrail.proto.tetragon import events_pb2

_Convert = Callable[[Any], Any]
_LONG = frozenset({FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64})
_TIMES_KEPT = 4096
_NANOSECOND_DIGITS = 9
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)


def event_from_json(line: bytes) -> bytes:
    """Return the event of a line. Raises ValueError when it is no JSON, or no event.

    Unknown fields are ignored, as the agent may be newer than our descriptors. An unknown event type becomes a
    message without an event: decode counts it by that name, as it does for the gRPC stream.
    """
    try:
        value = json.loads(line)
        if not isinstance(value, dict) or not any(map(_names_event, value)):
            raise ValueError("no event")
        return events_pb2.GetEventsResponse(**_message(value)).SerializeToString()
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError("fields have other types than an event's") from error


def _names_event(key: str) -> bool:
    return key in _EVENTS or key.startswith("process_")


@functools.cache
def _fields_of(descriptor: Descriptor) -> Callable[[Any], dict[str, Any]]:
    """Return what turns a JSON object into the keyword arguments of that message's constructor."""
    table: dict[str, tuple[str, _Convert | None]] = {}

    def convert(value: Any) -> dict[str, Any]:
        arguments = {}
        for key, item in value.items():
            if item is not None and (field := table.get(key)) is not None:
                name, field_convert = field
                arguments[name] = item if field_convert is None else field_convert(item)
        return arguments

    def checked(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise TypeError(descriptor.full_name)
        return convert(value)

    for field in descriptor.fields:
        entry = (field.name, _field(field))
        table[field.name] = table[field.json_name] = entry
    return checked


def _field(field: FieldDescriptor) -> _Convert | None:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return None  # every map in an event is of strings to strings, which JSON spells as Python does
    if not field.is_repeated:
        return _single(field)
    if field.enum_type is not None:
        return functools.partial(_enums, _numbers(field.enum_type))
    single = _single(field)
    return None if single is None else lambda items: [single(item) for item in items]


def _single(field: FieldDescriptor) -> _Convert | None:
    if field.message_type is not None:
        return _submessage(field.message_type)
    if field.enum_type is not None:
        numbers = _numbers(field.enum_type)
        return lambda item: item if isinstance(item, int) else numbers.get(item, 0)
    if field.type in _LONG:
        return int
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.urlsafe_b64decode  # which reads both alphabets, as protobuf's JSON has it
    return None


def _submessage(message: Descriptor) -> _Convert:
    if message.full_name == "google.protobuf.Timestamp":
        return _timestamp
    if message.file.name == "google/protobuf/wrappers.proto":
        return lambda item: {"value": item}
    return _fields_of(message)  # no message of an event holds its own kind


def _numbers(enum: EnumDescriptor) -> dict[str, int]:
    return {value.name: value.number for value in enum.values}


def _enums(numbers: dict[str, int], names: Any) -> list[int]:
    try:
        return list(map(numbers.__getitem__, names))
    except KeyError:
        # Newer names than ours are left out: a wrong one would be worse than a missing one. What the agent has no name
        # for comes as a number.
        return [
            one if isinstance(one, int) else numbers[one] for one in names if isinstance(one, int) or one in numbers
        ]


@functools.lru_cache(maxsize=_TIMES_KEPT)
def _timestamp(text: str) -> dict[str, int]:
    """RFC 3339 with nanoseconds, of which `datetime` would keep only microseconds. Start times repeat: kept."""
    parts = _RFC3339.fullmatch(text)
    if parts is None:
        raise ValueError("no time")
    moment, fraction, zone = parts.groups()
    seconds = int(datetime.fromisoformat(moment + zone.replace("Z", "+00:00")).timestamp())
    return {"seconds": seconds, "nanos": int((fraction or "").ljust(_NANOSECOND_DIGITS, "0"))}


_message = _fields_of(events_pb2.GetEventsResponse.DESCRIPTOR)
_EVENTS = frozenset(
    name
    for field in events_pb2.GetEventsResponse.DESCRIPTOR.oneofs_by_name["event"].fields
    for name in (field.name, field.json_name)
)
