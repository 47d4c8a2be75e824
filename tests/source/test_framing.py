"""Bytes to messages, whatever the chunks."""

import gzip
import json

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from keytrail.domain.errors import RecordingError
from keytrail.source.base import MAX_MESSAGE_BYTES
from keytrail.source.framing import MAX_LINE_BYTES, DelimitedMessages, JsonLines, Rejected, decoded
from keytrail.source.inflate import inflated
from keytrail.source.wire import WireError, append_varint, read_varint, submessages

EVENT_LINE = b'{"process_exec":{"process":{"pid":1}},"time":"2026-11-22T01:02:03.000000004Z"}'


def framed(*messages: bytes) -> bytes:
    """Put each message behind its length."""
    out = bytearray()
    for message in messages:
        append_varint(len(message), out)
        out += message
    return bytes(out)


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(1, 50))
def test_any_split_gives_the_same_messages(messages: list[bytes], step: int) -> None:
    """Where a chunk ends, even inside a length, makes no difference."""
    data = framed(*messages)
    decoder = DelimitedMessages()
    got = [m for at in range(0, len(data), step) for m in decoder.feed(data[at : at + step])]
    assert got + decoder.finish() == messages


@pytest.mark.parametrize("blank", [b"\n", b"\n\n\n", b" \t\r\n" * 900])
@pytest.mark.parametrize("step", [1, 2, 5_000])
def test_blank_lines_before_the_first_event(blank: bytes, step: int) -> None:
    """An export that begins with blank lines is one, also when a pipe brings nothing else at first."""
    data = blank + EVENT_LINE + b"\n"
    got = [m for found, _ in decoded(data[at : at + step] for at in range(0, len(data), step)) for m in found]
    assert len(got) == 1


@given(st.integers(0, 2**63))
def test_varints_come_back(value: int) -> None:
    """What is written as a length is read as it, and a cut one is known to be incomplete."""
    out = bytearray()
    append_varint(value, out)
    assert read_varint(out, 0) == (value, len(out))
    assert read_varint(out[:-1], 0) is None


def test_a_message_over_the_limit_is_passed_over_and_counted() -> None:
    """A 20 MiB message costs itself alone: it is not even buffered, and its neighbours arrive."""
    decoder = DelimitedMessages()
    length = bytearray()
    append_varint(20 * 1024 * 1024, length)
    got = decoder.feed(framed(b"before") + length)
    for _ in range(20):
        got += decoder.feed(bytes(1024 * 1024))
        assert len(decoder._buffer) == 0
    got += decoder.feed(framed(b"after", b"x" * MAX_MESSAGE_BYTES))
    assert [m[:6] for m in got] == [b"before", b"after", b"xxxxxx"]
    assert decoder.rejected() == Rejected(too_large=1, malformed=0)
    assert decoder.rejected() == Rejected(0, 0)
    assert decoder.finish() == []


@pytest.mark.parametrize("tail", [b"\x05abcd", b"\x80", b"\x80\x80\x80\x0aonly a little"])
def test_a_cut_message_is_an_error_with_its_offset(tail: bytes) -> None:
    """The end of the input inside a message, its length or an oversized one is reported with where it began."""
    with pytest.raises(RecordingError, match="byte 7: the input ends inside a message"):
        list(decoded([framed(b"abcdef") + tail]))


def test_bytes_that_are_no_recording_are_refused_after_what_is_whole() -> None:
    """An impossible length is reported with its offset, and the messages before it are not lost."""
    chunks = decoded([framed(b"abcdef") + b"\xff" * 12])
    assert next(chunks) == ([b"abcdef"], Rejected(0, 0))
    with pytest.raises(RecordingError, match="byte 7: no message length here"):
        list(chunks)


@given(st.integers(1, 100), st.booleans())
def test_json_lines_split_anywhere_give_the_same_events(step: int, newline: bool) -> None:
    """Lines are joined over chunks; the last one needs no newline; blank lines are nothing."""
    data = b"\n".join([EVENT_LINE, b"", b"not json", EVENT_LINE]) + (b"\n" if newline else b"")
    decoder = JsonLines()
    got = [m for at in range(0, len(data), step) for m in decoder.feed(data[at : at + step])] + decoder.finish()
    assert len(got) == 2
    assert decoder.rejected() == Rejected(too_large=0, malformed=1)


def test_an_endless_line_is_counted_once_and_not_kept() -> None:
    """A line over the limit is thrown away while it comes, counted once, and the next line is read."""
    decoder = JsonLines()
    piece = b'{"x":"' + b"y" * (4 * 1024 * 1024)
    for _ in range(MAX_LINE_BYTES // len(piece) + 3):
        assert decoder.feed(piece) == []
    assert len(decoder._partial) <= len(piece)
    assert len(decoder.feed(b"\n" + EVENT_LINE + b"\n")) == 1
    assert decoder.rejected() == Rejected(too_large=1, malformed=0)


def test_an_event_that_is_too_large_as_protobuf_is_counted() -> None:
    """A line within its limit may still stand for a message over the limit of messages."""
    line = json.dumps({"process_exec": {"process": {"arguments": "x" * (MAX_MESSAGE_BYTES + 1)}}}).encode()
    decoder = JsonLines()
    assert decoder.feed(line + b"\n") == []
    assert decoder.rejected() == Rejected(too_large=1, malformed=0)


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor().compress, bytes])
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_compression_and_format_are_told_by_the_first_bytes(compress: type, step: int) -> None:
    """Plain, gzip and zstd, one stream or several in a row, in chunks of any size, protobuf or JSON."""
    for content, expected in ((framed(b"abc", b"\x0a\x00"), [b"abc", b"\x0a\x00"]), (EVENT_LINE + b"\n", None)):
        data = compress(content) + compress(content)
        chunks = [data[at : at + step] for at in range(0, len(data), step)]
        got = [m for messages, _ in decoded(inflated(chunks)) for m in messages]
        assert got == expected * 2 if expected else len(got) == 2


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_compressed_data_that_ends_early_is_an_error(compress: type) -> None:
    """A cut between two messages shows too, since the compressed stream itself is incomplete."""
    data = compress(framed(b"abc"))
    with pytest.raises(RecordingError, match="truncated"):
        list(inflated([data[:-1]]))


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_damaged_compressed_data_is_an_error(compress: type) -> None:
    """Flipped bits behind the magic number are reported as damage, not as a crash of a library."""
    data = bytearray(compress(bytes(range(256)) * 40))
    data[10:40] = b"\xff" * 30
    with pytest.raises(RecordingError, match=r"damaged|truncated"):
        list(inflated([bytes(data)]))


def test_submessages_are_cut_out_in_order_whatever_stands_between() -> None:
    """Every wire type is stepped over, and a field that reaches over the end is refused."""
    data = b"\x08\x96\x01" + b"\x0a\x01a" + b"\x15\0\0\0\0" + b"\x19" + bytes(8) + b"\x12\x01z" + b"\x0a\x02bc"
    assert [bytes(piece) for piece in submessages(memoryview(data), 1)] == [b"a", b"bc"]
    for broken in (data[:-1], b"\x0b", b"\x0a", b"\x80", b"\x15\0"):
        with pytest.raises(WireError):
            list(submessages(memoryview(broken), 1))


def test_a_packed_stream_of_zeros_comes_out_in_pieces() -> None:
    """A few kilobytes that unpack to 64 MiB never do so at once."""
    for packed in (zstandard.ZstdCompressor().compress(bytes(64 << 20)), gzip.compress(bytes(64 << 20), 1)):
        whole = largest = 0
        for chunk in inflated([packed]):
            whole, largest = whole + len(chunk), max(largest, len(chunk))
        assert whole == 64 << 20
        assert largest <= 32 << 20
