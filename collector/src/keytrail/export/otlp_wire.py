"""Protobuf's wire format, as far as OTLP logs need it: values go in, bytes of message fields go out.

Knows protobuf and the field numbers of opentelemetry.proto.common.v1, nothing of events. Written by hand because
building message objects and serializing them takes 75 microseconds a record, most of it for the same keys again and
again: here the bytes in front of a value are made once for each key and length.
"""

from collections.abc import Callable, Mapping, Sequence
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
_TWO_BYTES, _THREE_BYTES = 1 << 14, 1 << 21
_ONE_BYTE = tuple(bytes((number,)) for number in range(_MORE))
LAST: Final = tuple(map(chr, range(_MORE)))
"""The last byte of a varint as text, by its seven bits."""
NOT_LAST: Final = tuple(map(chr, range(_MORE, 2 * _MORE)))
"""Each byte before it."""
_TABLE_SIZE = 256
_FRAMES = 4096
_NUMBERS = 1024


def varint(number: int) -> bytes:
    """Base-128 varint; negative numbers and those over 64 bits in two's complement, as protobuf's int64 has them."""
    if 0 <= number < _MORE:
        return _ONE_BYTE[number]
    if 0 <= number < _THREE_BYTES:  # sizes, ports and process ids: nearly all that there is
        if number < _TWO_BYTES:
            return bytes((number & 0x7F | _MORE, number >> 7))
        return bytes((number & 0x7F | _MORE, number >> 7 & 0x7F | _MORE, number >> 14))
    number &= _UINT64
    encoded = bytearray()
    while number >= _MORE:
        encoded.append(number & 0x7F | _MORE)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def varint_text(number: int) -> str:
    """Return the same as text: a character for each byte."""
    if 0 <= number < _TWO_BYTES:
        return LAST[number] if number < _MORE else NOT_LAST[number & 0x7F] + LAST[number >> 7]
    if 0 <= number < _THREE_BYTES:
        return NOT_LAST[number & 0x7F] + NOT_LAST[number >> 7 & 0x7F] + LAST[number >> 14]
    return varint(number).decode("latin-1")


def utf8(text: str) -> bytes:
    """UTF-8 of any text. Lone surrogates, which protobuf's strings may not hold, become question marks."""
    return text.encode("utf-8", "replace")


def delimited(tag: bytes, content: bytes) -> bytes:
    """Make a length-delimited field: string, bytes or message."""
    return b"%b%b%b" % (tag, varint(len(content)), content)


class Framing(dict[int, bytes]):
    """What stands in front of each message of a repeated field, by its size in bytes."""

    def __init__(self, tag: bytes) -> None:
        super().__init__()
        self._tag = tag

    def __missing__(self, size: int) -> bytes:
        prefix = self._tag + varint(size)
        if len(self) < _FRAMES:
            self[size] = prefix
        return prefix

    def pieces(self, messages: Sequence[bytes]) -> list[bytes]:
        """Return the field in pieces, to be joined. Without a loop in Python: it is made of every record."""
        pieces = [b""] * (2 * len(messages))
        pieces[::2] = map(self.__getitem__, map(len, messages))
        pieces[1::2] = messages
        return pieces


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


class _Prefixes(dict[int, bytes]):
    """What stands in front of a content of so many bytes, made when it is first asked for."""

    def __init__(self, whole_of: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self._whole_of = whole_of

    def __missing__(self, size: int) -> bytes:
        whole = self._whole_of(bytes(size))
        prefix = whole[: len(whole) - size]
        if size < _TABLE_SIZE:
            self[size] = prefix
        return prefix


class _Texts(dict[int, str]):
    """The same prefixes as text, a character for each byte."""

    def __init__(self, prefixes: Mapping[int, bytes]) -> None:
        super().__init__()
        self._prefixes = prefixes

    def __missing__(self, size: int) -> str:
        prefix = self._prefixes[size].decode("latin-1")
        if size < _TABLE_SIZE:
            self[size] = prefix
        return prefix


def text_table(prefixes: Mapping[int, bytes], *, write_empty: bool) -> Mapping[int, str]:
    """Return prefixes as text, for contents that are ASCII text; an empty one has none if it is not to be written."""
    texts = _Texts(prefixes)
    if not write_empty:
        texts[0] = ""
    return texts


def string_prefixes(tag: bytes, name: str) -> Mapping[int, bytes]:
    """Return what stands in front of an attribute's text, by its size in bytes."""
    return _Prefixes(lambda content: _key_value(tag, name, delimited(b"\x0a", content)))


def value_prefixes(tag: bytes) -> Mapping[int, bytes]:
    """Return what stands in front of the text of a field that is an AnyValue, by its size in bytes."""
    return _Prefixes(lambda content: delimited(tag, delimited(b"\x0a", content)))


def integer_prefixes(tag: bytes, name: str) -> Sequence[bytes]:
    """Return what stands in front of an attribute's varint, by its size: 1 to 10 bytes."""
    return [_key_value(tag, name, b"\x18" + bytes(size))[:-size] if size else b"" for size in range(11)]


class IntegerTexts(dict[int, str]):
    """One integer attribute as text, a character for each byte, by its value; what comes again and again is kept."""

    def __init__(self, tag: bytes, name: str) -> None:
        super().__init__()
        self._prefixes = [prefix.decode("latin-1") for prefix in integer_prefixes(tag, name)]

    def __missing__(self, number: int) -> str:
        content = varint_text(number)
        text = self._prefixes[len(content)] + content
        if len(self) < _NUMBERS:
            self[number] = text
        return text


def _string_writer(tag: bytes, name: str) -> Callable[[str], bytes]:
    prefixes = string_prefixes(tag, name)

    def write(text: str) -> bytes:
        content = utf8(text)
        return prefixes[len(content)] + content

    return write


def _int_writer(tag: bytes, name: str) -> Callable[[int], bytes]:
    prefixes = integer_prefixes(tag, name)

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


def text_writer(write: Callable[[Any], bytes]) -> Callable[[Any], str]:
    """Make a writer's text, a character for each byte."""
    return lambda value: write(value).decode("latin-1")
