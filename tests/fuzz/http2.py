"""The HTTP/2 reader: however a server's bytes are cut, the same messages, end and error; nothing else is raised.

Half of the inputs are bytes as they come, which may err in the framing itself; half are taken as decisions about
frames, whose lengths are then right, so that what lies behind the framing is reached.
"""

from collections.abc import Iterator

from fuzz.feed import Feed, cut
from keytrail.source import http2_frames as h2
from keytrail.source.http2_frames import frame
from source.http2_bytes import BODY, HELLO, data, message, trailers
from source.http2_outcome import Outcome
from support.recordings import messages

WORDS = (
    *(frame(kind, flags, stream)[3:] for kind in range(10) for flags in (0, 1, 4, 5, 8, 0x20) for stream in (0, 1)),
    *(b":status", b"grpc-status", b"grpc-message", b"content-type", b"application/grpc", b"\x00\x0bgrpc-status\x010"),
    *(h2.settings({4: 2**31}), h2.window_update(0, 5), b"\x3f\xe1\x1f", b"keytrail"),
)
_FRAMED, _BEGUN = 1, 2
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
        yield b"\x02\x05" + rest
        yield b"\x00\x05" + BODY + rest
    yield b"\x00\x00" + HELLO
    for kind in range(10):
        yield b"\x03\x07" + bytes((kind, 5, 1, 0, 9)) + message(b"four") + bytes((kind, 0, 0, 0, 4)) + bytes(4)


def check(data: bytes) -> None:
    """Feed a stream whole and cut elsewhere."""
    feed = Feed(data)
    form, seed = feed.number(), feed.number()
    stream = b"".join(_frames(feed)) if form & _FRAMED else feed.rest()
    whole = (BODY if form & _BEGUN else b"") + stream
    expected = Outcome((whole,))
    assert Outcome(cut(whole, seed or 1)) == expected
    if len(whole) < _SHORT:
        assert Outcome(cut(whole, 0)) == expected


def _frames(feed: Feed) -> Iterator[bytes]:
    """Yield frames: kind, flags, stream, length, payload."""
    while feed.left:
        kind, flags, stream = feed.number() % 12, feed.number(), feed.number() % 4
        yield frame(kind, flags, stream, feed.take(feed.number(2) % _LONGEST))
