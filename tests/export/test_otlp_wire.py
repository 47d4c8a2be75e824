"""Single values on the wire, against protobuf's own parser and serializer."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from export.otlp_oracle import clean, parse
from keytrail.export.attributes import Group
from keytrail.export.otlp_table import Shared, Table
from keytrail.export.otlp_wire import (
    RECORD_ATTRIBUTES,
    Framing,
    IntegerTexts,
    attribute_writer,
    text_table,
    value_prefixes,
    varint,
    varint_text,
)


@given(number=st.integers(-(2**70), 2**70), text=st.text(st.characters(), max_size=600))
def test_values_of_any_size(number: int, text: str) -> None:
    """Integers and texts of any size are what protobuf's own parser reads back, from the prefix table or without."""
    for type_, value in (("int", number), ("string", text), ("int", 0), ("string", text[:3])):
        write = attribute_writer(RECORD_ATTRIBUTES, "a.name", type_)  # type: ignore[arg-type] # a literal, in a loop
        for _ in range(2):
            assert parse(LogRecord.FromString(write(value)).attributes) == {"a.name": clean(value)}
    assert len(varint(number)) <= 10
    assert varint_text(number).encode("latin-1") == varint(number)


@dataclass
class Inner:
    """What a path goes through."""

    flag: bool | None


@dataclass
class Source:
    """Something with a value of each type."""

    text: str
    number: int | None
    words: tuple[str, ...]
    numbers: tuple[int, ...]
    inner: Inner


GROUP = Group[Source](
    "Test",
    "record",
    (
        ("text", "string", "", "text"),
        ("number", "int", "", "number"),
        ("flag", "boolean", "", "inner.flag"),
        ("words", "string[]", "", "words"),
        ("numbers", "int[]", "", "numbers"),
        ("size", "int", "", lambda s: len(s.text)),
    ),
)
TABLE = Table(GROUP)
SHARING = Table(GROUP, shared=(Shared("number", "words", "s.number, s.inner.flag, s.words"),))
INTEGERS = st.integers(-(2**63), 2**63 - 1)


@given(
    source=st.builds(
        Source,
        st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
        st.none() | INTEGERS,
        st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=3).map(tuple),
        st.lists(INTEGERS, max_size=3).map(tuple),
        st.builds(Inner, st.none() | st.booleans()),
    )
)
def test_a_table_writes_the_bytes_that_protobuf_writes(source: Source) -> None:
    """Every type of attribute, present and absent, is byte for byte what protobuf serializes, remembered or not."""
    values = {
        "text": AnyValue(string_value=source.text) if source.text else None,
        "number": None if source.number is None else AnyValue(int_value=source.number),
        "flag": None if source.inner.flag is None else AnyValue(bool_value=source.inner.flag),
        "words": _array([AnyValue(string_value=word) for word in source.words]),
        "numbers": _array([AnyValue(int_value=number) for number in source.numbers]),
        "size": AnyValue(int_value=len(source.text)),
    }
    record = LogRecord(attributes=[KeyValue(key=key, value=value) for key, value in values.items() if value])
    for table in (TABLE, SHARING, SHARING):
        assert table.encode(source) == record.SerializeToString()
        assert table.encode(None) == b""


def test_integers_at_every_size_of_a_varint() -> None:
    """A number on either side of each size, negative ones too, is read back; from the table and from the memory."""
    edges = [(1 << size) + step for size in range(0, 63, 7) for step in (-1, 0, 1)]
    texts = IntegerTexts(RECORD_ATTRIBUTES, "number")
    for number in (*edges, *(-edge for edge in edges)):
        source = Source("", number, (), (), Inner(flag=None))
        expected = {"number": number, "size": 0}
        assert parse(LogRecord.FromString(TABLE.encode(source)).attributes) == expected
        for _ in range(2):
            found = parse(LogRecord.FromString(texts[number].encode("latin-1")).attributes)
            assert found == {"number": number}
    for number in range(5000):
        assert parse(LogRecord.FromString(texts[number].encode("latin-1")).attributes) == {"number": number}
    assert len(texts) <= 1024


def _array(values: list[AnyValue]) -> AnyValue | None:
    return AnyValue(array_value=ArrayValue(values=values)) if values else None


def test_lone_surrogates_become_question_marks() -> None:
    """A text that UTF-8 cannot hold costs its own characters, nothing else."""
    source = Source("a\udcffb", 1, (), (), Inner(flag=True))
    found = parse(LogRecord.FromString(TABLE.encode(source)).attributes)
    assert found == {"text": "a?b", "number": 1, "flag": True, "size": 3}


def test_bodies_of_any_size() -> None:
    """The bytes in front of a body are right at every size at which a length takes another byte."""
    prefixes = value_prefixes(b"\x2a")
    texts = text_table(prefixes, write_empty=True)
    for size in (0, 1, 123, 124, 125, 126, 127, 128, 255, 256, 16_379, 16_380, 16_384, 100_000):
        for _ in range(2):
            record = LogRecord.FromString(prefixes[size] + b"x" * size)
            assert record.body.string_value == "x" * size
            assert texts[size].encode("latin-1") == prefixes[size]
    for number in (127, 128, 16_383, 16_384, 2**21 - 1, 2**21, 2**63, 2**64 - 1):
        assert LogRecord.FromString(b"\x38" + varint(number)).dropped_attributes_count == number % 2**32


def test_framing_is_what_protobuf_writes() -> None:
    """Messages of a repeated field come back in their order, whatever their sizes, and however many sizes came before.

    The table of sizes is bounded: what it does not keep is made anew.
    """
    framing = Framing(b"\x0a")
    for sizes in ([], [0], [127, 128, 0, 128], [*range(5000)], [16_383, 16_384, 1]):
        values = [AnyValue(string_value="x" * size) for size in sizes]
        pieces = framing.pieces([value.SerializeToString() for value in values])
        assert b"".join(pieces) == ArrayValue(values=values).SerializeToString()
    assert len(framing) <= 4096
