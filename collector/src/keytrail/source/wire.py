"""The two corners of protobuf's wire format that sources need: length prefixes and cutting out submessages.

In: bytes. Out: numbers and slices. Knows no message type: a process-cache dump of tens of megabytes is cut into
serialized processes without ever being parsed as a whole.
"""

from collections.abc import Iterator

_VARINT_BYTES = 10
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """The bytes are no protobuf."""


def read_varint(data: bytes | bytearray | memoryview, position: int) -> tuple[int, int] | None:
    """Return the number at `position` and where it ends; None when `data` ends inside it."""
    value = shift = 0
    for offset in range(position, min(position + _VARINT_BYTES, len(data))):
        byte = data[offset]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit is the encoding itself
            return value, offset + 1
        shift += 7
    if len(data) - position >= _VARINT_BYTES:
        raise WireError(f"no number at byte {position}")
    return None


def append_varint(value: int, out: bytearray) -> None:
    """Append a non-negative number."""
    while value > 0x7F:  # noqa: PLR2004 - as in read_varint
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def submessages(data: memoryview, number: int) -> Iterator[memoryview]:
    """Yield every length-delimited field `number` of a serialized message, in order, without a copy."""
    position = 0
    while position < len(data):
        tag, position = _number(data, position)
        wire_type = tag & 7
        if wire_type == _BYTES:
            length, position = _number(data, position)
            end = position + length
            if tag >> 3 == number and end <= len(data):
                yield data[position:end]
            position = end
        elif wire_type == _VARINT:
            _, position = _number(data, position)
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        else:
            raise WireError(f"no field at byte {position}")
    if position > len(data):
        raise WireError("the message ends inside a field")


def _number(data: memoryview, position: int) -> tuple[int, int]:
    found = read_varint(data, position)
    if found is None:
        raise WireError("the message ends inside a number")
    return found
