"""Our own HTTP/2 reader without a socket: every kind of frame, every cut, and whatever else may come."""

import random
import struct
import tracemalloc
from collections.abc import Iterator

import grpc
import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from keytrail.source import http2_frames as h2
from keytrail.source.http2_answer import HEADERS_LIMIT
from keytrail.source.http2_frames import Http2Error, frame
from keytrail.source.http2_receiver import Receiver
from keytrail.source.http2_request import OUR_PING, WINDOW, opening
from support.recordings import messages

LIMIT = 50_000
HELLO = h2.settings({3: 100, 5: 2**20, 0xABCD: 7})


def headers(*pairs: tuple[str, str]) -> bytes:
    """Write a header block, not remembering anything: blocks of a test may come in any order."""
    return b"".join(Encoder().encode([pair], huffman=False) for pair in pairs)


HEAD = frame(h2.HEADERS, h2.END_HEADERS, 1, headers((":status", "200"), ("content-type", "application/grpc+proto")))
ENDS = h2.END_HEADERS | h2.END_STREAM


def trailers(status: str = "0", text: str = "") -> bytes:
    """Write the end of a call."""
    return frame(h2.HEADERS, ENDS, 1, headers(("grpc-status", status), ("grpc-message", text)))


def message(content: bytes) -> bytes:
    """Write gRPC's prefix before a message."""
    return struct.pack(">BI", 0, len(content)) + content


def data(payload: bytes, size: int = h2.FRAME_LIMIT) -> bytes:
    """Cut a payload into DATA frames."""
    return b"".join(frame(h2.DATA, 0, 1, payload[at : at + size]) for at in range(0, len(payload), size))


def fed(*chunks: bytes) -> tuple[Receiver, list[bytes]]:
    """Feed a new receiver."""
    receiver = Receiver(LIMIT)
    found: list[bytes] = []
    for chunk in chunks:
        receiver.receive(chunk, found)
    return receiver, found


def chopped(whole: bytes, size: int) -> Iterator[bytes]:
    """Cut bytes into chunks."""
    return (whole[at : at + size] for at in range(0, len(whole), size))


def test_the_opening_says_everything() -> None:
    """What we send first is a preface, settings, a window and one call in frames within every server's limits."""
    request = bytes(40_000)
    sent = opening("localhost", "/service/Method", request)
    assert sent.startswith(h2.PREFACE)
    position, kinds, body = len(h2.PREFACE), [], b""
    while position < len(sent):
        length, kind, flags, stream = h2.read_header(sent, position)
        payload = sent[position + 9 : position + 9 + length]
        kinds.append((kind, flags, stream))
        body += payload if kind == h2.DATA else b""
        position += 9 + length
    assert kinds == [(4, 0, 0), (8, 0, 0), (1, 4, 1), (0, 0, 1), (0, 0, 1), (0, 1, 1), (6, 0, 0)]
    assert body == message(request)


@pytest.mark.parametrize("frame_size", [h2.FRAME_LIMIT, 700, 6, 1])
@pytest.mark.parametrize("chunk", [262_144, 1_000, 15, 1])
def test_messages_come_out_however_they_were_cut(frame_size: int, chunk: int) -> None:
    """Messages over several frames, several in one frame, empty ones, and any size of chunks give the same list."""
    sent = [b"", b"a", bytes(300), *messages("seed-demo")[:3], b"", bytes(range(256)) * 80]
    together = data(b"".join(map(message, sent)), frame_size)
    apart = b"".join(data(message(one), frame_size) for one in sent)
    receiver, found = fed(*chopped(HELLO + HEAD + apart + together + frame(h2.DATA, 0, 1) + trailers(), chunk))
    assert found == sent * 2
    assert receiver.status == (grpc.StatusCode.OK, "")
    assert receiver.take_too_large() == 0


def test_padding_and_priorities_are_taken_off() -> None:
    """Padded DATA and HEADERS, a priority in HEADERS and a reserved bit change nothing; PRIORITY is ignored."""
    block = HEAD[9:]
    head = frame(h2.HEADERS, h2.END_HEADERS | h2.PADDED | h2.HAS_PRIORITY, 1, b"\x03" + bytes(5) + block + bytes(3))
    padded = frame(h2.DATA, h2.PADDED, 1 | 2**31, b"\x04" + message(b"one") + bytes(4))
    receiver, found = fed(HELLO + head + padded + frame(h2.PRIORITY, 0, 1, bytes(5)) + data(message(b"two")))
    assert found == [b"one", b"two"]
    assert receiver.opened


def test_headers_may_be_continued() -> None:
    """A header block over CONTINUATION frames is one block, and nothing may come in between."""
    block = HEAD[9:]
    parts = frame(h2.HEADERS, 0, 1, block[:3]) + frame(h2.CONTINUATION, 0, 1, block[3:7])
    _, found = fed(HELLO + parts + frame(h2.CONTINUATION, h2.END_HEADERS, 1, block[7:]) + data(message(b"x")))
    assert found == [b"x"]
    with pytest.raises(Http2Error, match="not continued"):
        fed(HELLO + parts + frame(h2.PING, 0, 0, bytes(8)))


def test_the_server_gets_its_answers() -> None:
    """SETTINGS and PING are acknowledged, acknowledgements are not; the PING of our own says that the call is there."""
    receiver, _ = fed(HELLO, frame(h2.PING, 0, 0, b"12345678"), frame(h2.SETTINGS, h2.ACK, 0))
    assert receiver.to_send == frame(h2.SETTINGS, h2.ACK, 0) + frame(h2.PING, h2.ACK, 0, b"12345678")
    assert not receiver.opened
    receiver.receive(frame(h2.PING, h2.ACK, 0, OUR_PING), [])
    assert receiver.opened


def test_the_windows_are_kept_open() -> None:
    """Every byte that counts for flow control, padding and skipped messages included, is given back in time."""
    receiver, given, sent = Receiver(LIMIT), 0, 0
    found: list[bytes] = []
    receiver.receive(HELLO + HEAD, found)
    padded = frame(h2.DATA, h2.PADDED, 1, b"\xff" + message(bytes(7_000)) + bytes(255))
    for piece in (data(message(bytes(10_000))) * 50, padded * 50, data(message(bytes(LIMIT + 1)))) * 20:
        receiver.to_send.clear()
        receiver.receive(piece, found)
        sent += sum(h2.read_header(piece, at)[0] for at in frame_starts(piece))
        if receiver.to_send:
            on_connection, on_stream = chopped(bytes(receiver.to_send), 13)
            increment = int.from_bytes(on_connection[9:])
            assert (on_connection, on_stream) == (h2.window_update(0, increment), h2.window_update(1, increment))
            given += increment
        assert 0 <= sent - given <= WINDOW // 2
    assert len(found) == 2_000
    assert receiver.take_too_large() == 20


def frame_starts(piece: bytes) -> Iterator[int]:
    """Where the frames of some whole ones begin."""
    position = 0
    while position < len(piece):
        yield position
        position += 9 + h2.read_header(piece, position)[0]


def test_a_message_over_the_limit_is_skipped_without_being_held() -> None:
    """A huge message is counted, the next one arrives, and memory stays far below its size."""
    chunk = data(bytes(h2.FRAME_LIMIT * 4))
    receiver, found = fed(HELLO + HEAD + data(struct.pack(">BI", 0, h2.FRAME_LIMIT * 4 * 1_000)))
    tracemalloc.start()
    for _ in range(1_000):
        receiver.receive(chunk, found)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    receiver.receive(data(message(b"next")), found)
    assert found == [b"next"]
    assert receiver.take_too_large() == 1
    assert peak < 500_000


@pytest.mark.parametrize(
    ("end", "code", "text"),
    [
        (trailers("7", "100 %25 no%0A%C3%A4%FF"), grpc.StatusCode.PERMISSION_DENIED, "100 % no\nä�"),
        (trailers("99", "?"), grpc.StatusCode.UNKNOWN, "?"),
        (frame(h2.RST_STREAM, 0, 1, (8).to_bytes(4)), grpc.StatusCode.CANCELLED, "RST_STREAM received: CANCEL"),
        (frame(h2.RST_STREAM, 0, 1, (77).to_bytes(4)), grpc.StatusCode.INTERNAL, "RST_STREAM received: error 77"),
        (
            frame(h2.GOAWAY, 0, 0, bytes(4) + (11).to_bytes(4) + b"too_many_pings"),
            grpc.StatusCode.UNAVAILABLE,
            "GOAWAY received: ENHANCE_YOUR_CALM, too_many_pings",
        ),
    ],
)
def test_every_end_has_its_status(end: bytes, code: grpc.StatusCode, text: str) -> None:
    """Trailers, RST_STREAM and GOAWAY end the call with gRPC's status; what comes behind is not looked at."""
    receiver, found = fed(HELLO + HEAD + data(message(b"last")) + end + b"\xff" * 100)
    assert receiver.status == (code, text)
    assert found == [b"last"]


def test_a_goaway_that_serves_our_stream_is_no_end() -> None:
    """A polite GOAWAY lets the call go on; its text is kept for the end."""
    goaway = frame(h2.GOAWAY, 0, 0, (2**31 - 1).to_bytes(4) + bytes(4))
    receiver, found = fed(HELLO + HEAD + goaway + data(message(b"more")))
    assert (receiver.status, found, receiver.goaway) == (None, [b"more"], "GOAWAY received: NO_ERROR")


@pytest.mark.parametrize(
    ("status", "code"),
    [("503", grpc.StatusCode.UNAVAILABLE), ("401", grpc.StatusCode.UNAUTHENTICATED), ("302", grpc.StatusCode.UNKNOWN)],
)
def test_a_proxys_status_is_translated(status: str, code: grpc.StatusCode) -> None:
    """An answer without gRPC is one of a proxy: its HTTP status says what happened. 1xx only announces an answer."""
    interim = frame(h2.HEADERS, h2.END_HEADERS, 1, headers((":status", "103")))
    head = frame(h2.HEADERS, h2.END_HEADERS, 1, headers((":status", status), ("content-type", "text/html")))
    receiver, _ = fed(HELLO + interim + head)
    assert receiver.status == (code, f"HTTP status {status}")


BODY = HELLO + HEAD
WRONG = {
    "HTTP/1": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "text": b"220 mail ESMTP",
    "no settings first": frame(h2.PING, 0, 0, bytes(8)),
    "an acknowledgement first": frame(h2.SETTINGS, h2.ACK, 0),
    "large frame": HELLO + frame(h2.DATA, 0, 1, bytes(h2.FRAME_LIMIT + 1)),
    "large plain frame": BODY + frame(h2.DATA, 0, 1, message(bytes(h2.FRAME_LIMIT))),
    "settings of 5 bytes": frame(h2.SETTINGS, 0, 0, bytes(5)),
    "settings on a stream": frame(h2.SETTINGS, 0, 1),
    "settings in an acknowledgement": HELLO + frame(h2.SETTINGS, h2.ACK, 0, bytes(6)),
    "push enabled": h2.settings({h2.ENABLE_PUSH: 1}),
    "window too large": h2.settings({h2.INITIAL_WINDOW_SIZE: 2**31}),
    "frames too small": h2.settings({h2.MAX_FRAME_SIZE: 100}),
    "push": HELLO + frame(h2.PUSH_PROMISE, h2.END_HEADERS, 1, bytes(4)),
    "ping of 7 bytes": HELLO + frame(h2.PING, 0, 0, bytes(7)),
    "ping on a stream": HELLO + frame(h2.PING, 0, 1, bytes(8)),
    "goaway too short": HELLO + frame(h2.GOAWAY, 0, 0, bytes(7)),
    "goaway on a stream": HELLO + frame(h2.GOAWAY, 0, 1, bytes(8)),
    "window update of nothing": HELLO + h2.window_update(0, 0),
    "window update of 3 bytes": HELLO + frame(h2.WINDOW_UPDATE, 0, 0, bytes(3)),
    "priority of 4 bytes": HELLO + frame(h2.PRIORITY, 0, 1, bytes(4)),
    "reset of 3 bytes": HELLO + frame(h2.RST_STREAM, 0, 1, bytes(3)),
    "reset of another stream": HELLO + frame(h2.RST_STREAM, 0, 3, bytes(4)),
    "data before headers": HELLO + data(message(b"x")),
    "data of another stream": BODY + frame(h2.DATA, 0, 3, message(b"x")),
    "more padding than data": BODY + frame(h2.DATA, h2.PADDED, 1, b"\x05ab"),
    "padding without its length": BODY + frame(h2.DATA, h2.PADDED, 1),
    "compressed": BODY + frame(h2.DATA, 0, 1, b"\x01" + bytes(4)),
    "no trailers": BODY + frame(h2.DATA, h2.END_STREAM, 1),
    "trailers without end": BODY + frame(h2.HEADERS, h2.END_HEADERS, 1, headers(("grpc-status", "0"))),
    "trailers without status": BODY + frame(h2.HEADERS, ENDS, 1, headers(("x", "y"))),
    "status that is no number": BODY + trailers("-1"),
    "end inside a message": BODY + data(struct.pack(">BI", 0, 9)) + trailers(),
    "end inside a prefix": BODY + data(b"\0\0") + trailers(),
    "not gRPC": HELLO + frame(h2.HEADERS, 4, 1, headers((":status", "200"), ("content-type", "text/html"))),
    "not even HTTP": HELLO + frame(h2.HEADERS, 4, 1, headers(("x", "y"))),
    "headers of another stream": HELLO + frame(h2.HEADERS, 4, 2, HEAD[9:]),
    "headers that are none": HELLO + frame(h2.HEADERS, 4, 1, b"\xff" * 40),
    "continuation of nothing": HELLO + frame(h2.CONTINUATION, 4, 1),
    "endless headers": HELLO
    + frame(h2.HEADERS, 0, 1)
    + frame(h2.CONTINUATION, 0, 1, bytes(h2.FRAME_LIMIT)) * (HEADERS_LIMIT // h2.FRAME_LIMIT + 1),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_server_may_send_is_refused(name: str) -> None:
    """Each breach of HTTP/2 or gRPC raises the declared error, in one chunk or byte by byte."""
    with pytest.raises(Http2Error):
        fed(WRONG[name])
    if len(WRONG[name]) < 10_000:
        with pytest.raises(Http2Error):
            fed(*chopped(WRONG[name], 1))


def test_messages_before_a_fault_are_not_lost() -> None:
    """What was whole before the breach is handed over although the same chunk ends in the error."""
    receiver = Receiver(LIMIT)
    found: list[bytes] = []
    with pytest.raises(Http2Error):
        receiver.receive(BODY + data(message(b"whole")) + frame(h2.PING, 0, 0, b""), found)
    assert found == [b"whole"]


VALID = (
    BODY
    + frame(h2.PING, 0, 0, bytes(8))
    + b"".join(data(message(bytes([size % 256]) * size), 900) for size in (0, 5, 300, 2_000))
    + b"".join(data(message(one)) for one in (b"", b"abc", bytes(1_000)))
    + frame(h2.DATA, h2.PADDED, 1, b"\x02" + message(b"padded") + bytes(2))
    + h2.window_update(0, 5)
    + trailers("13", "internal")
)


def outcome(whole: bytes, size: int) -> tuple[list[bytes], object, int]:
    """What becomes of a stream: its messages, its end or error, and what was skipped."""
    receiver = Receiver(LIMIT)
    found: list[bytes] = []
    end: object = None
    for chunk in chopped(whole, size):
        receiver.to_send.clear()
        try:
            receiver.receive(chunk, found)
        except Http2Error as error:
            end = str(error)
            break
        assert len(receiver._rest) < h2.FRAME_LIMIT + 9
        assert len(receiver._cutter._body) <= LIMIT
        assert len(receiver._block or b"") <= HEADERS_LIMIT
        assert len(receiver.to_send) <= 2 * size + 60
    return found, end or receiver.status, receiver.take_too_large()


@given(st.binary(max_size=300), st.booleans(), st.integers(1, 40))
@settings(max_examples=100)
def test_random_bytes_raise_nothing_but_the_declared_error(noise: bytes, begun: bool, size: int) -> None:
    """Noise, at the start or in the middle of a stream, is refused or waited upon, the same however it is cut."""
    whole = (BODY if begun else b"") + noise
    assert outcome(whole, size) == outcome(whole, 100_000)


@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=6), st.integers(1, 3_000))
@settings(max_examples=100)
def test_mutated_streams_raise_nothing_but_the_declared_error(changes: list[tuple[int, int]], size: int) -> None:
    """A valid stream with some bytes changed ends in messages or the declared error, the same however it is cut."""
    mutated = bytearray(VALID)
    for position, value in changes:
        mutated[position] = value
    assert outcome(bytes(mutated), size) == outcome(bytes(mutated), 100_000)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_ten_million_frames_raise_nothing_but_the_declared_error() -> None:
    """Frames of random kinds, flags, streams and payloads, ten million of them, with the same bounds of memory."""
    rng, frames = random.Random(9), 0  # noqa: S311 - reproducible
    pieces = [VALID[at : at + 9 + h2.read_header(VALID, at)[0]] for at in frame_starts(VALID)]
    while frames < 10_000_000:
        stream = bytearray(BODY)
        for _ in range(50):
            if rng.random() < 0.9:
                stream += rng.choice(pieces[2:-1])
            else:
                kind, flags, number = (
                    rng.randrange(12),
                    rng.choice((0, 1, 4, 5, 8, 0x20, 255)),
                    rng.choice((0, 1, 1, 3)),
                )
                stream += frame(kind, flags, number, rng.randbytes(rng.choice((0, 4, 5, 8, 30))))
        frames += 50
        if rng.random() < 0.3:
            stream[rng.randrange(len(stream))] = rng.randrange(256)
        outcome(bytes(stream), rng.choice((100, 1_000, 100_000)))
