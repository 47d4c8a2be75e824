"""The spool's file format: entries in, bytes of frames out, and back again from bytes that may be damaged.

A segment is a header and frames; a frame is a head of fixed size and its data. The head has a checksum of its own, so
that its length can be trusted when only the data is damaged, and counts the records before it, so that what is lost
between two frames is known to the record. Knows no file and no lock; `disk`
writes, `scan` reads.

The checksums start from a number that only the segment's name holds. Without it an old block of another file, or text
that somebody put into a command line, could pass for a frame when the reader searches for the next one.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from keytrail.export.spool.entries import Lane

HEADER: Final = b"KTSPOOL\x01"
"""What every segment begins with, for whoever finds one."""
BLOCK_BYTES: Final = 256 * 1024
"""Of entries, compressed together: eight times what deflate can look back, and little to unpack for a reader."""
_MARKER: Final = b"\xf5KT\xfa"
"""Neither of the outer bytes occurs in UTF-8, so that text never has it."""
_HEAD: Final = struct.Struct("<4sBBBxIIIQQQI")
_CHECK: Final = struct.Struct("<I")
HEAD_BYTES: Final = _HEAD.size + _CHECK.size
_LONGEST: Final = 1 << 30
"""Bytes of one frame: more is damage that its checksum did not show."""
_UINT64: Final = (1 << 64) - 1


class Kind(IntEnum):
    """What a frame's data is."""

    ENTRY = 0
    """A serialized ResourceLogs."""
    BLOCK = 1
    """Compressed frames of entries."""
    NOTE = 2
    """JSON that says why a file of dead letters is one; or, empty, the end of a packed segment."""


class Frame(NamedTuple):
    """One frame; for a block: sequence of its last entry, time of its oldest, age of its youngest."""

    kind: Kind
    lane: Lane
    stream: int
    records: int
    sequence: int
    time_ns: int
    """When it was appended, wall clock."""
    age_ns: int
    """The same on the spool's own clock, which cannot jump."""
    data: bytes


def encode_frame(frame: Frame, before: int, seed: int) -> bytes:
    """One frame in bytes; `before` is how many records the segment's earlier frames hold."""
    return encode_head(frame, before, seed) + frame.data


def encode_head(frame: Frame, before: int, seed: int) -> bytes:
    """What stands in front of a frame's data."""
    head = _HEAD.pack(
        _MARKER,
        frame.kind,
        frame.lane,
        frame.stream,
        len(frame.data),
        frame.records,
        before & 0xFFFFFFFF,
        frame.sequence,
        frame.time_ns & _UINT64,
        frame.age_ns & _UINT64,
        zlib.crc32(frame.data, seed),
    )
    return head + _CHECK.pack(zlib.crc32(head, seed))


class Head(NamedTuple):
    """What a frame's head says."""

    frame: Frame
    """Without its data."""
    before: int
    length: int
    checksum: int


def decode_head(data: bytes, at: int, seed: int) -> Head | None:
    """The head at that place; None when there is no intact one."""
    if not data.startswith(_MARKER, at) or len(data) - at < HEAD_BYTES:
        return None
    (check,) = _CHECK.unpack_from(data, at + _HEAD.size)
    if zlib.crc32(data[at : at + _HEAD.size], seed) != check:
        return None
    _, kind, lane, stream, length, records, before, sequence, time_ns, age_ns, checksum = _HEAD.unpack_from(data, at)
    if length > _LONGEST:
        return None
    return Head(
        Frame(Kind(kind), Lane(lane), stream, records, sequence, time_ns, age_ns, b""), before, length, checksum
    )


class Scanner:
    """Finds the intact frames in a segment's bytes, which may come in pieces, and counts what is missing.

    A frame that comes once more, as when a file system hands out a block twice, is damage like any other.
    """

    def __init__(self, seed: int, before: int | None = None) -> None:
        self._seed = seed
        self._start = self._next = self._reached = before
        """Records before the place where reading began, behind the last intact frame, and behind the furthest head;
        None when reading begins inside a segment."""
        self._found = 0
        self.consumed = 0
        """Bytes of the last piece that are done with: the rest must come again, with more behind it."""
        self.places = 0
        """Damaged places met."""

    @property
    def lost(self) -> int:
        """Records in the damaged places, as far as known: nobody knows how many a torn end held."""
        return (self._reached or 0) - (self._start or 0) - self._found

    def frames(self, data: bytes, *, final: bool) -> Iterator[Frame]:
        """The intact frames of one piece; `final` when nothing follows it. To be exhausted."""
        at = self.consumed = 0
        while len(data) - at >= HEAD_BYTES:
            head = decode_head(data, at, self._seed)
            if head is None:
                self.places += 1
                at = self._next_head(data, at + 1, final=final)
                continue
            body = at + HEAD_BYTES
            end = body + head.length
            if end > len(data) and not final:
                break
            payload = data[body:end]
            if self._is_next(head) and end <= len(data) and zlib.crc32(payload, self._seed) == head.checksum:
                self._next = head.before + head.frame.records
                self._found += head.frame.records
                yield head.frame._replace(data=payload)
                at = end
            else:
                self.places += 1
                # Not from its end on: what was cut out of it, or put into it, has moved the next one.
                at = self._next_head(data, body, final=final)
            self.consumed = at
        self.consumed = at
        if final and at < len(data):
            self.places += 1
            self.consumed = len(data)

    def _is_next(self, head: Head) -> bool:
        """Take note of how far the segment reaches; whether the frame is behind all that was found so far."""
        if self._start is None or self._next is None or self._reached is None:
            self._start = self._next = self._reached = head.before
        self._reached = max(self._reached, head.before + head.frame.records)
        return head.before >= self._next

    def _next_head(self, data: bytes, at: int, *, final: bool) -> int:
        """Where the next intact head begins; when there is none, where half of one may, or the end of a final piece."""
        while (at := data.find(_MARKER, at)) >= 0 and len(data) - at >= HEAD_BYTES:
            if decode_head(data, at, self._seed) is not None:
                return at
            at += 1
        if final:
            return len(data)
        return at if at >= 0 else max(0, len(data) - len(_MARKER) + 1)


def entries_of(frame: Frame, seed: int) -> Iterator[Frame]:
    """The entries that a frame holds: itself, or those of a block. What a block's checksum let through is intact."""
    if frame.kind is Kind.ENTRY:
        yield frame
    elif frame.kind is Kind.BLOCK:
        yield from Scanner(seed, 0).frames(zlib.decompress(frame.data), final=True)


def encode_blocks(frames: Iterable[Frame], seed: int) -> Iterator[bytes]:
    """Entries as compressed blocks, each a frame in bytes; then an end that tells how many records there were."""
    held: list[Frame] = []
    size = before = 0
    for frame in frames:
        held.append(frame)
        size += len(frame.data)
        if size >= BLOCK_BYTES:
            yield _block(held, before, seed)
            before += sum(one.records for one in held)
            held, size = [], 0
    if held:
        yield _block(held, before, seed)
        before += sum(one.records for one in held)
    yield encode_frame(Frame(Kind.NOTE, Lane.EVENT, 0, 0, 0, 0, 0, b""), before, seed)


def _block(held: list[Frame], before: int, seed: int) -> bytes:
    packer = zlib.compressobj(level=1)
    inner, parts = 0, []
    for frame in held:
        parts.append(packer.compress(encode_frame(frame, inner, seed)))
        inner += frame.records
    data = b"".join((*parts, packer.flush()))
    return encode_frame(
        Frame(
            Kind.BLOCK,
            held[0].lane,
            0,
            inner,
            held[-1].sequence,
            min(frame.time_ns for frame in held),
            max(frame.age_ns for frame in held),
            data,
        ),
        before,
        seed,
    )
