"""The writing end of the spool's files: entries in, synced bytes of segments out.

For the writer's thread alone. A segment whose write or sync failed is never written again: after a failed fdatasync
Linux marks the pages clean all the same, so that a second one would succeed without anything on disk. What is not known
to be there is written anew, to a new segment.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from keytrail.export.spool.entries import Lane
from keytrail.export.spool.files import make_folder, sync_folder, write_all, write_parts
from keytrail.export.spool.lane import Item
from keytrail.export.spool.scan import Segment, lane_folder, segment_path
from keytrail.export.spool.segment import HEAD_BYTES, HEADER, Frame, Kind, encode_head


@dataclass(slots=True)
class _Active:
    """The segment that a lane's entries are appended to."""

    segment: Segment
    file: int
    size: int
    """Bytes that are on disk for certain."""
    records: int = 0
    """In it, settled ones included."""
    first_age: int = 0


class Placement(NamedTuple):
    """Entries that are on disk now."""

    segment: Segment
    items: Sequence[Item]
    start: int
    """Offset of the first of them."""
    end: int


def size_on_disk(item: Item) -> int:
    """Bytes that an entry takes."""
    return HEAD_BYTES + len(item.entry.data)


class Disk:
    """Appends to one segment in each lane."""

    def __init__(self, folder: Path, segment_bytes: int, span_ns: int, seed: Callable[[], int]) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._span_ns = span_ns
        """Age that the entries of one segment are apart at most: they expire together."""
        self._seed = seed
        self._active: dict[Lane, _Active] = {}

    def append(self, lane: Lane, items: Sequence[Item]) -> Placement:
        """Write and sync as many of the entries as the active segment takes, at least one. Raises OSError.

        After an error nothing of this call counts as written, and the next call begins a new segment.
        """
        self.seal_older_than(items[0].age_ns)
        active = self._active.get(lane) or self._open(lane, items[0])
        room = self._segment_bytes - active.size
        parts: list[bytes] = []
        size, before = 0, active.records
        for item in items:
            if parts and size + size_on_disk(item) > room:
                break
            parts += (encode_head(_frame(item), before, active.segment.seed), item.entry.data)
            size += size_on_disk(item)
            before += item.entry.records
        try:
            write_parts(active.file, parts)
            os.fdatasync(active.file)
        except OSError:
            self._abandon(active)
            raise
        start = active.size
        active.size, active.records = start + size, before
        if active.size >= self._segment_bytes:
            self.seal(lane)
        return Placement(active.segment, items[: len(parts) // 2], start, start + size)

    def seal(self, lane: Lane) -> None:
        """Append no more to the lane's segment."""
        active = self._active.pop(lane, None)
        if active is not None:
            os.close(active.file)
            active.segment.sealed = True

    def seal_older_than(self, age_ns: int) -> None:
        """Seal what was begun a span before that age, so that a quiet lane's records can grow too old as well."""
        for lane in [lane for lane, active in self._active.items() if active.first_age + self._span_ns < age_ns]:
            self.seal(lane)

    def close(self) -> None:
        """Seal everything."""
        for lane in list(self._active):
            self.seal(lane)

    def _open(self, lane: Lane, first: Item) -> _Active:
        folder = lane_folder(self._folder, lane)
        make_folder(folder)
        sequence, seed = first.entry.sequence, self._seed()
        segment = Segment(lane, segment_path(folder, sequence, seed), sequence, seed, last=sequence - 1, sealed=False)
        file = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        active = _Active(segment, file, len(HEADER), first_age=first.age_ns)
        try:
            write_all(file, HEADER)
            sync_folder(folder)
        except OSError:
            self._abandon(active)
            raise
        self._active[lane] = active
        return active

    def _abandon(self, active: _Active) -> None:
        """Give up a segment after an error: back to what is known to be on disk, as far as the disk lets us."""
        self._active.pop(active.segment.lane, None)
        active.segment.sealed = True
        with suppress(OSError):
            if active.size > len(HEADER):
                os.ftruncate(active.file, active.size)
            else:
                active.segment.path.unlink()
        os.close(active.file)


def _frame(item: Item) -> Frame:
    entry = item.entry
    return Frame(
        Kind.ENTRY, entry.lane, entry.stream, entry.records, entry.sequence, item.time_ns, item.age_ns, entry.data
    )
