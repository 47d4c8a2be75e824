"""Our own HTTP/2 reader against servers that err or attack: noise, changed bytes, and streams out of a grammar."""

import random
import resource
import struct
import time
from collections.abc import Callable

import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from keytrail.source import http2_frames as h2
from keytrail.source.http2_frames import frame
from source.http2_bytes import BODY, ENDS, HEAD, HELLO, LIMIT, chopped, data, message, trailers
from source.http2_outcome import Outcome

VALID = (
    BODY
    + frame(h2.PING, 0, 0, bytes(8))
    + b"".join(data(message(bytes([size % 256]) * size), 900) for size in (0, 5, 300, 2_000))
    + b"".join(data(message(one)) for one in (b"", b"abc", bytes(1_000)))
    + frame(h2.DATA, h2.PADDED, 1, b"\x02" + message(b"padded") + bytes(2))
    + h2.window_update(0, 5)
    + trailers("13", "internal")
)
BOMB = Encoder().encode([("x", "y" * 4_000)], huffman=False) + b"\xbe" * 12_000
"""A header of 4,000 bytes, and 12,000 times the same by its number in HPACK's table: 48 MB in one frame."""
Piece = tuple[list[bytes], list[bytes]]
"""Frames, and the messages that they are."""


class Grammar:
    """A server: mostly what it may send, and a `share` of what it may not."""

    def __init__(self, rng: random.Random, share: float) -> None:
        self._rng = rng
        self._share = share
        plain = self._plain
        self._right: tuple[Callable[[], Piece], ...] = (
            *(plain, plain, plain, plain, self._together, self._apart, self._padded, self._aside, self._skipped),
        )
        self._wrong: tuple[Callable[[], list[bytes]], ...] = (
            *(self._any_frame, self._noise, self._wrong_length, self._flood, self._breach),
        )

    def stream(self, pieces: int) -> Piece:
        """Return frames, and of their messages those before the first piece that is wrong."""
        frames, promised, wrong = [HELLO, HEAD], list[bytes](), False
        for _ in range(pieces):
            if self._rng.random() < self._share:
                wrong = True
                frames += self._rng.choice(self._wrong)()
            else:
                more, messages = self._rng.choice(self._right)()
                frames += more
                promised += () if wrong else messages
        return frames, promised

    def _content(self) -> bytes:
        return self._rng.choice((b"", b"a", b"seven..", b"-" * 300, b"event" * 290, bytes(9_000)))

    # -- what a server may send

    def _plain(self) -> Piece:
        content = self._content()
        return [data(message(content))], [content]

    def _together(self) -> Piece:
        contents = [self._content()[:4_000] for _ in range(4)]
        return [data(b"".join(map(message, contents)))], contents

    def _apart(self) -> Piece:
        content = self._content()
        whole = message(content)
        size = self._rng.randrange(len(whole) // 8 + 1, len(whole) + 1)
        return [frame(h2.DATA, 0, 1, part) for part in chopped(whole, size)], [content]

    def _padded(self) -> Piece:
        content, padding = self._content(), self._rng.randrange(256)
        return [frame(h2.DATA, h2.PADDED, 1, bytes((padding,)) + message(content) + bytes(padding))], [content]

    def _skipped(self) -> Piece:
        return [data(part) for part in chopped(message(bytes(LIMIT + 1)), 16_000)], []

    def _aside(self) -> Piece:
        """Return what has nothing to do with the call."""
        rng = self._rng
        others: tuple[Callable[[], bytes], ...] = (
            lambda: frame(h2.PING, 0, 0, rng.randbytes(8)),
            lambda: frame(h2.SETTINGS, h2.ACK, 0),
            lambda: frame(h2.SETTINGS, 0, 0, struct.pack(">HI", 0x77, 1) * rng.choice((0, 1, 2_700))),
            lambda: h2.window_update(rng.randrange(2), 1 + rng.randrange(2**31 - 1)),
            lambda: frame(h2.PRIORITY, 0, rng.randrange(5), rng.randbytes(5)),
            lambda: frame(rng.randrange(10, 256), rng.randrange(256), rng.randrange(2**31), rng.randbytes(30)),
            lambda: frame(h2.GOAWAY, 0, 0, struct.pack(">II", 2**31 - 1, rng.randrange(20)) + b"later"),
            lambda: frame(h2.DATA, 0, 1),
        )
        return [rng.choice(others)()], []

    # -- what it may not, or what ends the call

    def _any_frame(self) -> list[bytes]:
        rng = self._rng
        flags, stream = rng.choice((0, 1, 4, 5, 8, 0x20, 255)), rng.choice((0, 1, 1, 3, 2**31))
        return [frame(rng.randrange(12), flags, stream, rng.randbytes(rng.choice((0, 4, 5, 8, 30))))]

    def _noise(self) -> list[bytes]:
        return [self._rng.randbytes(self._rng.randrange(1, 60))]

    def _wrong_length(self) -> list[bytes]:
        right = self._plain()[0][0]
        return [self._rng.randbytes(3) + right[3:], right[: self._rng.randrange(len(right))]]

    def _flood(self) -> list[bytes]:
        """Return a header block without end, or with one, or one that unfolds to megabytes."""
        rng = self._rng
        parts = [frame(h2.CONTINUATION, 0, 1, bytes(rng.choice((0, 1, 16_000)))) for _ in range(rng.randrange(50))]
        last = frame(h2.CONTINUATION, h2.END_HEADERS, 1)
        return rng.choice(([frame(h2.HEADERS, 0, 1), *parts, last], [frame(h2.HEADERS, ENDS, 1, BOMB)]))

    def _breach(self) -> list[bytes]:
        return [
            self._rng.choice(
                (
                    trailers("0"),
                    HEAD,
                    HELLO,
                    frame(h2.RST_STREAM, 0, 1, bytes(4)),
                    frame(h2.PUSH_PROMISE, h2.END_HEADERS, 1, bytes(4)),
                    frame(h2.GOAWAY, 0, 0, bytes(8)),
                    frame(h2.DATA, h2.END_STREAM, 1, message(b"last")),
                    frame(h2.DATA, 0, 1, b"\x01" + bytes(4)),
                    frame(h2.DATA, 0, 1, struct.pack(">BI", 0, 2**32 - 1) + bytes(9_000)),
                    frame(h2.DATA, h2.PADDED, 1, b"\xff" + bytes(20)),
                    frame(h2.DATA, 0, 1, bytes(h2.FRAME_LIMIT + 1)),
                    h2.window_update(1, 0),
                )
            )
        ]


def check(rng: random.Random, frames: list[bytes], promised: list[bytes]) -> int:
    """Feed a stream frame by frame and in other pieces, and changed as well; return how many frames were taken in."""
    whole, by_frame = b"".join(frames), Outcome(frames)
    assert by_frame.messages[: len(promised)] == promised
    assert Outcome(chopped(whole, rng.choice((700, 5_000, 262_144)))) == by_frame
    changed = bytearray(whole)
    for _ in range(rng.randrange(3)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    sizes = rng.choice((50, 1_000)), rng.choice((20_000, 262_144))
    one, other = (Outcome(chopped(bytes(changed[:30_000]), size)) for size in sizes)
    assert one == other
    return by_frame.chunks


@given(st.binary(max_size=300), st.booleans(), st.integers(1, 40))
@settings(max_examples=100)
def test_random_bytes_raise_nothing_but_the_declared_error(noise: bytes, begun: bool, size: int) -> None:
    """Noise, at the start or in the middle of a stream, is refused or waited upon, the same however it is cut."""
    whole = (BODY if begun else b"") + noise
    assert Outcome(chopped(whole, size)) == Outcome((whole,))


@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=6), st.integers(1, 3_000))
@settings(max_examples=100)
def test_mutated_streams_raise_nothing_but_the_declared_error(changes: list[tuple[int, int]], size: int) -> None:
    """A valid stream with some bytes changed ends in messages or the declared error, the same however it is cut."""
    mutated = bytearray(VALID)
    for position, value in changes:
        mutated[position] = value
    assert Outcome(chopped(bytes(mutated), size)) == Outcome((bytes(mutated),))


@given(st.integers(0, 2**64))
@settings(max_examples=40)
def test_streams_of_the_grammar_keep_what_they_promised(seed: int) -> None:
    """Messages before the first breach arrive whatever comes behind, and all the rest is the same however it is cut."""
    rng = random.Random(seed)  # noqa: S311 - reproducible
    frames, promised = Grammar(rng, 0.0).stream(20)
    assert Outcome(frames).messages == promised
    check(rng, *Grammar(rng, 0.1).stream(20))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_million_frames_raise_nothing_but_the_declared_error() -> None:
    """The same for ten million frames that were taken in, and memory stays where it was after the first million."""
    rng, frames, streams, peak = random.Random(9), 0, 0, 0  # noqa: S311 - reproducible
    since = time.perf_counter()
    while frames < 10_000_000:
        frames += check(rng, *Grammar(rng, rng.choice((0.0, 0.005, 0.05))).stream(200))
        streams += 1
        if not peak and frames >= 1_000_000:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    print(f"{frames:,} frames in {streams:,} streams, {frames / (time.perf_counter() - since):,.0f} a second")  # noqa: T201 - to be quoted
    assert grown < 20_000, f"{grown} KiB more"
