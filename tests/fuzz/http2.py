"""The HTTP/2 reader: however a server's bytes are cut, the same messages, end and error; nothing else is raised.

So it is without the quick path that takes most frames. One input in three is bytes as they come, which may err in the
framing itself; one is taken as decisions about frames, whose lengths are then right, so that what lies behind the
framing is reached; one is messages in frames of any size, with padding and with other frames in between: the very same
messages must come out.
"""

from collections.abc import Iterator

from fuzz.feed import Feed, cut
from keytrail.source import http2_frames as h2
from keytrail.source.http2_frames import frame
from source.http2_bytes import BODY, HELLO, LIMIT, data, message, trailers
from source.http2_outcome import Outcome, Plodder
from support.recordings import messages

WORDS = (
    *(frame(kind, flags, stream)[3:] for kind in range(10) for flags in (0, 1, 4, 5, 8, 0x20) for stream in (0, 1)),
    *(b":status", b"grpc-status", b"grpc-message", b"content-type", b"application/grpc", b"\x00\x0bgrpc-status\x010"),
    *(h2.settings({4: 2**31}), h2.window_update(0, 5), b"\x3f\xe1\x1f", b"keytrail"),
)
_BYTES, _FRAMES, _MESSAGES = range(3)
_BEGUN = 128
_LONGEST = 4_000
_SHORT = 600
"""Bytes that are fed one by one, too."""


def seeds() -> Iterator[bytes]:
    """Yield streams of recorded messages, one, several or none to a frame, with what else a server says."""
    some = messages("policy-library")[:40]
    plain = b"".join(data(message(one)) for one in some[:3])
    together = data(b"".join(map(message, some[3:6])))
    padded = frame(h2.DATA, h2.PADDED, 1, b"\x02" + message(b"padded") + bytes(2))
    others = frame(h2.PING, 0, 0, bytes(8)) + h2.window_update(0, 5) + frame(h2.GOAWAY, 0, 0, bytes(4) + bytes(4))
    for rest in (plain, together, padded, others, trailers("13", "internal"), plain + trailers()):
        yield bytes((_BEGUN | _BYTES, 5)) + rest
        yield bytes((_BYTES, 5)) + BODY + rest
    yield bytes((_BYTES, 0)) + HELLO
    for kind in range(10):
        framed = bytes((kind, 5, 1, 0, 9)) + message(b"four") + bytes((kind, 0, 0, 0, 4)) + bytes(4)
        yield bytes((_BEGUN | _FRAMES, 7)) + framed
    for number in range(8):
        contents = b"\x05hello\x01" + b"\x00\x00" + b"\x09something\x59"
        yield bytes((_MESSAGES, number, 3)) + contents + bytes((number, 0, number * number)) * 9


def check(data: bytes) -> None:
    """Feed a stream whole, cut elsewhere, and to the reader without its quick path."""
    feed = Feed(data)
    form, seed = feed.number(), feed.number()
    promised: list[bytes] | None = None
    if form % _BEGUN % 3 == _BYTES:
        stream = feed.rest()
    elif form % _BEGUN % 3 == _FRAMES:
        stream = b"".join(_frames(feed))
    else:
        promised = [feed.take(feed.number()) * (1 + feed.number() % 90) for _ in range(feed.below(8))]
        stream = b"".join(_carrying(promised, feed))
    whole = (BODY if form & _BEGUN or promised is not None else b"") + stream
    expected = Outcome((whole,))
    assert promised is None or expected.messages == promised
    assert Outcome(cut(whole, seed or 1)) == expected
    assert Outcome((whole,), Plodder(LIMIT)) == expected
    if len(whole) < _SHORT:
        assert Outcome(cut(whole, 0)) == expected


def _frames(feed: Feed) -> Iterator[bytes]:
    """Yield frames: kind, flags, stream, length, payload."""
    while feed.left:
        kind, flags, stream = feed.number() % 12, feed.number(), feed.number() % 4
        yield frame(kind, flags, stream, feed.take(feed.number(2) % _LONGEST))


def _carrying(contents: list[bytes], feed: Feed) -> Iterator[bytes]:
    """Yield frames that carry these messages, cut anywhere."""
    payload = b"".join(map(message, contents))
    while payload:
        how, size = feed.number(), 1 + feed.number(2) % _LONGEST if feed.left else _LONGEST
        part, payload = payload[:size], payload[size:]
        if how & 1:
            padding = feed.number()
            yield frame(h2.DATA, h2.PADDED, 1, bytes((padding,)) + part + bytes(padding))
        else:
            yield frame(h2.DATA, 0, 1, part)
        if how & 2:
            yield frame(h2.PING, 0, 0, b"12345678")
