"""Protobuf's wire format, as far as OTLP logs need it: values go in, bytes of message fields go out.

Knows protobuf and the field numbers of opentelemetry.proto.common.v1, nothing of events. Written by hand because
building message objects and serializing them takes 75 microseconds a record, most of it for the same keys again and
again: here the bytes in front of a value are made once for each key and length.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, Literal

ValueType = Literal["string", "int", "boolean", "string[]", "int[]"]

RESOURCE_ATTRIBUTES: Final = b"\x0a"
"""Tag of Resource.attributes (field 1, length-delimited)."""
RECORD_ATTRIBUTES: Final = b"\x32"
"""Tag of LogRecord.attributes (field 6, length-delimited)."""

_UINT64 = (1 << 64) - 1
_MORE = 0x80
"""The bit of a varint's byte that says that another one follows."""
_TABLE_SIZE = 256


@lru_cache(maxsize=4096)
def varint(number: int) -> bytes:
    """Base-128 varint; negative numbers and those over 64 bits in two's complement, as protobuf's int64 has them."""
    number &= _UINT64
    encoded = bytearray()
    while number >= _MORE:
        encoded.append(number & _MORE - 1 | _MORE)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def utf8(text: str) -> bytes:
    """UTF-8 of any text. Lone surrogates, which protobuf's strings may not hold, become question marks."""
    return text.encode("utf-8", "replace")


def delimited(tag: bytes, content: bytes) -> bytes:
    """Make a length-delimited field: string, bytes or message."""
    return b"%b%b%b" % (tag, varint(len(content)), content)


def string_value(text: str) -> bytes:
    """AnyValue.string_value (field 1)."""
    return delimited(b"\x0a", utf8(text))


def int_value(number: int) -> bytes:
    """AnyValue.int_value (field 3)."""
    return b"\x18" + varint(number)


def bool_value(flag: bool) -> bytes:
    """AnyValue.bool_value (field 2)."""
    return b"\x10\x01" if flag else b"\x10\x00"


def array_value(values: Sequence[bytes]) -> bytes:
    """AnyValue.array_value (field 5) of encoded AnyValues (ArrayValue.values, field 1)."""
    return delimited(b"\x2a", b"".join(delimited(b"\x0a", value) for value in values))


def _key_value(tag: bytes, name: str, value: bytes) -> bytes:
    """KeyValue (key field 1, value field 2) as a repeated field of its owner."""
    return delimited(tag, delimited(b"\x0a", utf8(name)) + delimited(b"\x12", value))


def _string_writer(tag: bytes, name: str) -> Callable[[str], bytes]:
    prefixes: dict[int, bytes] = {}

    def write(text: str) -> bytes:
        content = text.encode("utf-8", "replace")
        size = len(content)
        prefix = prefixes.get(size)
        if prefix is None:
            whole = _key_value(tag, name, delimited(b"\x0a", content))
            prefix = whole[: len(whole) - size]
            if size < _TABLE_SIZE:
                prefixes[size] = prefix
        return prefix + content

    return write


def _int_writer(tag: bytes, name: str) -> Callable[[int], bytes]:
    # A varint has 1 to 10 bytes: ten prefixes are all there are.
    prefixes = [_key_value(tag, name, b"\x18" + bytes(size))[:-size] if size else b"" for size in range(11)]

    def write(number: int) -> bytes:
        content = varint(number)
        return prefixes[len(content)] + content

    return write


def attribute_writer(tag: bytes, name: str, type_: ValueType) -> Callable[[Any], bytes]:
    """Make the function that writes one attribute of that type into its owner's message."""
    if type_ == "string":
        return _string_writer(tag, name)
    if type_ == "int":
        return _int_writer(tag, name)
    if type_ == "boolean":
        no, yes = (_key_value(tag, name, bool_value(flag)) for flag in (False, True))
        return lambda flag: yes if flag else no
    element: Callable[[Any], bytes] = string_value if type_ == "string[]" else int_value

    @lru_cache(maxsize=64)  # an exec has up to 41 capabilities, and nearly always the same ones as another one before
    def write(values: tuple[Any, ...]) -> bytes:
        return _key_value(tag, name, array_value([element(value) for value in values]))

    return write
