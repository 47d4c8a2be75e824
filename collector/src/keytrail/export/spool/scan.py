"""Segments as they are on disk: what a file holds, what of it is settled, its frames piece by piece.

Paths in, summaries and frames out. Reads, appends acknowledgements, packs and removes; which segment deserves what is
`lane`'s to say. Knows no lock: its callers see to it that nobody else changes the same file.

`<lane>/<first sequence>-<seed>.seg` is a segment as it was written, `.pack` the same with its settled entries left out
and the rest compressed, `.ack` the sequences that are settled. Where `.seg` and `.pack` are both there, packing had
just finished. A format that differs will have other suffixes, so that an older collector leaves its files alone.
"""

import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from keytrail.export.spool.entries import Lane
from keytrail.export.spool.files import write_all, write_whole
from keytrail.export.spool.segment import (
    HEAD_BYTES,
    HEADER,
    Frame,
    Kind,
    Scanner,
    decode_head,
    encode_blocks,
    entries_of,
)

_NAME: Final = re.compile(r"(\d{20})-([0-9a-f]{8})\.(seg|pack)")
_ACK: Final = struct.Struct("<QI")
"""A sequence and its checksum: after a power cut a file may end in zeros, which must not settle anything."""
PIECE: Final = 1 << 20
"""Bytes read at once."""
_PACKED_PIECE: Final = 64 * 1024
"""The same of a packed segment, where they become about ten times as many."""


@dataclass(eq=False, slots=True)
class Segment:
    """Summary of one file. All that stays in memory of what waits on disk."""

    lane: Lane
    path: Path
    first: int
    seed: int
    last: int = 0
    """Sequences that it holds are from `first` to `last`."""
    end: int = len(HEADER)
    """Bytes of the file that are known to be on disk; what may follow does not count."""
    ack_bytes: int = 0
    records: int = 0
    """Queued in it."""
    oldest_ns: int = 0
    youngest_age: int = 0
    sealed: bool = True
    """Nothing is appended any more."""
    packable: bool = True
    """False: packing was tried and saved nothing."""
    held: int = 0
    """Its entries that are in memory to be taken, or taken."""
    flying: int = 0
    """Of them: taken."""
    gone: bool = False
    """Removed: whoever still points to it looks for the next one."""
    unwritten: list[int] = field(default_factory=list)
    """Settled sequences that the disk has not taken yet."""

    @property
    def packed(self) -> bool:
        """Whether it is compressed."""
        return self.path.suffix == ".pack"

    @property
    def acks(self) -> Path:
        """Where the settled sequences are."""
        return self.path.with_suffix(".ack")

    @property
    def bytes(self) -> int:
        """On disk."""
        return self.end + self.ack_bytes


class Survey(NamedTuple):
    """What was found in one file."""

    segment: Segment
    lost: int
    """Records that can no longer be read, as far as known."""
    places: int
    """Damaged places."""


def segment_path(folder: Path, first: int, seed: int) -> Path:
    """Name of a new segment."""
    return folder / f"{first:020d}-{seed:08x}.seg"


def lane_folder(folder: Path, lane: Lane) -> Path:
    """Where a lane's segments are."""
    return folder / lane.name.lower()


def survey_lane(folder: Path, lane: Lane) -> list[Survey]:
    """All segments of a lane, in order. Changes nothing; a file that vanishes meanwhile was settled."""
    files: dict[tuple[int, int], Path] = {}
    with suppress(FileNotFoundError):
        for path in sorted(lane_folder(folder, lane).iterdir()):
            if match := _NAME.fullmatch(path.name):  # .pack sorts before .seg, and outranks it
                files.setdefault((int(match[1]), int(match[2], 16)), path)
    found = []
    numbers = sorted(files)
    for first, seed in numbers:
        # After a failed write the same entries were written anew to the next segment: here they do not count.
        below = next((later for later, _ in numbers if later > first), None)
        with suppress(FileNotFoundError):
            found.append(_survey(Segment(lane, files[first, seed], first, seed), below))
    return found


def _survey(segment: Segment, below: int | None) -> Survey:
    segment.last = segment.first - 1
    segment.end = segment.path.stat().st_size
    with suppress(FileNotFoundError):
        segment.ack_bytes = segment.acks.stat().st_size
    if segment.packed and not segment.ack_bytes and _survey_heads(segment):
        return Survey(segment, 0, 0)
    acked = read_acks(segment)
    scanner = Scanner(segment.seed, 0)
    with segment.path.open("rb") as file:
        damaged_header = int(file.read(len(HEADER)) != HEADER)
        data = file.read()
    for outer in scanner.frames(data, final=True):
        for frame in entries_of(outer, segment.seed):
            if below is not None and frame.sequence >= below:
                segment.end = len(HEADER) + scanner.consumed
                return Survey(segment, scanner.lost, scanner.places + damaged_header)
            segment.last = frame.sequence
            if frame.sequence not in acked:
                _add(segment, frame)
    return Survey(segment, scanner.lost, scanner.places + damaged_header)


def _survey_heads(segment: Segment) -> bool:
    """Sum up a packed segment from the heads of its blocks; False when one of them is damaged."""
    at = len(HEADER)
    with segment.path.open("rb") as file:
        while at < segment.end:
            head = decode_head(os.pread(file.fileno(), HEAD_BYTES, at), 0, segment.seed)
            # Not the records that were before it: a block is missing, or there twice.
            if head is None or at + HEAD_BYTES + head.length > segment.end or head.before != segment.records:
                segment.records = segment.oldest_ns = 0
                return False
            if head.frame.kind is Kind.BLOCK:
                segment.last = head.frame.sequence
                _add(segment, head.frame)
            at += HEAD_BYTES + head.length
    return True


def _add(segment: Segment, frame: Frame) -> None:
    segment.records += frame.records
    segment.oldest_ns = min(segment.oldest_ns or frame.time_ns, frame.time_ns)
    segment.youngest_age = max(segment.youngest_age, frame.age_ns)


def read_piece(segment: Segment, offset: int, end: int) -> tuple[list[Frame], int]:
    """Intact entries from there on, about a piece of them, and where to go on; damage is passed over."""
    size = _PACKED_PIECE if segment.packed else PIECE
    with segment.path.open("rb") as file:
        while True:
            data = os.pread(file.fileno(), min(size, end - offset), offset)
            final = len(data) < size or offset + len(data) >= end
            scanner = Scanner(segment.seed)
            frames = [entry for one in scanner.frames(data, final=final) for entry in entries_of(one, segment.seed)]
            if final:
                return frames, end
            if frames or scanner.consumed:
                return frames, offset + scanner.consumed
            size *= 2  # one frame that is longer than a piece


def read_acks(segment: Segment) -> set[int]:
    """The settled sequences, those that are not written yet included."""
    acked = set(segment.unwritten)
    with suppress(FileNotFoundError):
        data = segment.acks.read_bytes()
        whole = len(data) - len(data) % _ACK.size
        acked.update(
            sequence for sequence, check in _ACK.iter_unpack(data[:whole]) if check == _check(sequence, segment.seed)
        )
    return acked


def append_acks(segment: Segment, sequences: Sequence[int]) -> None:
    """Note that entries are settled. What a full disk does not take is kept and tried with the next ones.

    Not synced: the page cache outlives the process, and what a power cut takes is sent once more.
    """
    segment.unwritten += sequences
    data = b"".join(_ACK.pack(sequence, _check(sequence, segment.seed)) for sequence in segment.unwritten)
    try:
        file = os.open(segment.acks, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            at = os.fstat(file).st_size
            at -= at % _ACK.size  # a write that a kill, or a full disk, cut short
            os.lseek(file, at, os.SEEK_SET)
            write_all(file, data)
        finally:
            os.close(file)
    except OSError:
        return
    segment.unwritten.clear()
    segment.ack_bytes = at + len(data)


def _check(sequence: int, seed: int) -> int:
    return zlib.crc32(sequence.to_bytes(8, "little"), seed)


def pack(segment: Segment) -> tuple[Path, int]:
    """Write the packed form beside the segment; returns its path and size. Raises OSError."""
    target = segment.path.with_suffix(".pack")
    acked = read_acks(segment)

    def write(file: int) -> None:
        write_all(file, HEADER)
        for block in encode_blocks(_unsettled(segment, acked), segment.seed):
            write_all(file, block)

    write_whole(target, write)
    return target, target.stat().st_size


def _unsettled(segment: Segment, acked: set[int]) -> Iterator[Frame]:
    at, last = len(HEADER), 0
    while at < segment.end:
        frames, at = read_piece(segment, at, segment.end)
        for frame in frames:
            if frame.sequence > last:  # else a part of a damaged file that is there twice
                last = frame.sequence
                if frame.sequence not in acked:
                    yield frame


def remove(segment: Segment) -> None:
    """Remove a segment's files; the acknowledgements last, or what they settled would come back after a kill."""
    for path in (segment.path.with_suffix(".pack"), segment.path.with_suffix(".seg"), segment.acks):
        path.unlink(missing_ok=True)


def tidy(folder: Path, lane: Lane) -> None:
    """Remove what a kill left behind: unfinished files, segments that were packed, acknowledgements of removed ones."""
    place = lane_folder(folder, lane)
    names = {path.name for path in place.iterdir()}
    for name in names:
        stem, _, suffix = name.partition(".")
        if (
            suffix.endswith("tmp")
            or (suffix == "seg" and f"{stem}.pack" in names)
            or (suffix == "ack" and not {f"{stem}.seg", f"{stem}.pack"} & names)
        ):
            (place / name).unlink(missing_ok=True)
