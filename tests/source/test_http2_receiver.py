"""Our own HTTP/2 reader without a socket: every kind of frame, every cut, and whatever else may come."""

import struct
import tracemalloc

import grpc
import pytest

from keytrail.source import http2_frames as h2
from keytrail.source.http2_answer import HEADERS_LIMIT
from keytrail.source.http2_frames import Http2Error, frame
from keytrail.source.http2_receiver import Receiver
from keytrail.source.http2_request import OUR_PING, WINDOW, opening
from source.http2_bytes import (
    BODY,
    ENDS,
    HEAD,
    HELLO,
    LIMIT,
    chopped,
    data,
    frame_starts,
    headers,
    message,
    trailers,
)
from support.recordings import messages


def fed(*chunks: bytes) -> tuple[Receiver, list[bytes]]:
    """Feed a new receiver."""
    receiver = Receiver(LIMIT)
    found: list[bytes] = []
    for chunk in chunks:
        receiver.receive(chunk, found)
    return receiver, found


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
