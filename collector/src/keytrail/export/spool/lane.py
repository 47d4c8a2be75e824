"""One lane of the spool: what waits in it, on disk and in memory, and how far each slot has come.

Plain state: every method is called with the spool's lock held, and none of them touches a file. Entries that have just
been written stay in memory for the sender as long as it keeps up; a slot that falls behind forgets the rest and reads
it from disk again, piece by piece, so that memory does not grow with what waits.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from keytrail.export.spool.entries import Entry, Lane
from keytrail.export.spool.scan import Segment
from keytrail.export.spool.segment import HEADER, Frame


@dataclass(eq=False, slots=True)
class Item:
    """One entry in memory."""

    entry: Entry
    time_ns: int
    age_ns: int
    segment: Segment | None = None
    """Where it is on disk; None while it is in memory only."""
    held: bool = False
    """Ready to be taken, or taken."""
    flying: bool = False
    """Taken, and not answered for."""
    settled: bool = False
    exported: int = 0
    """Records of an entry that is settled in pieces; they count when the pieces add up."""
    rejected: int = 0
    refused: int = 0


@dataclass(eq=False, slots=True)
class Cursor:
    """How far one slot has come in one lane."""

    ready: deque[Item] = field(default_factory=deque)
    """To be taken next, in order."""
    records: int = 0
    """In `ready`."""
    bytes: int = 0
    caught_up: bool = False
    """Nothing waits for the slot but what is ready: new entries may come directly."""
    sequence: int = 0
    """All up to here has been made ready (not kept up to date while caught up)."""
    segment: Segment | None = None
    offset: int = 0
    """Where in the segment to read on."""


class Job(NamedTuple):
    """What must be read before a slot can go on."""

    lane: Lane
    slot: int
    cursor: Cursor
    segment: Segment
    offset: int
    end: int
    last: int
    """Of the segment, when the job was made: it may be growing."""


class LaneQueue:
    """One lane: segments in order, then what is in memory only."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.segments: list[Segment] = []
        self.memory: dict[int, Item] = {}
        """By sequence, in order: entries that are not on disk, because there is none or it fails."""
        self.cursors: list[Cursor] = []

    def divide(self, slots: int) -> None:
        """Begin anew with that many slots: what is ready is forgotten and found again."""
        for cursor in self.cursors:
            while cursor.ready:
                self._let_go(self._pop(cursor))
        self.cursors = [Cursor() for _ in range(slots)]

    def offer(self, item: Item, start: int, *, room: bool) -> None:
        """An entry is committed: ready at once if its slot has come this far and there is room for it in memory.

        `start` is an offset in the item's segment at or before it.
        """
        if not self.cursors:
            return
        cursor = self._cursor_of(item)
        if not cursor.caught_up:
            return
        if room or item.segment is None:
            self._push(cursor, item)
        else:
            cursor.caught_up = False
            cursor.sequence = item.entry.sequence - 1
            cursor.segment, cursor.offset = item.segment, start

    def job(self, slot: int) -> Job | None:
        """What to read before `slot` can go on; None when it has something ready or there is nothing on disk."""
        cursor = self.cursors[slot]
        if cursor.ready or cursor.caught_up:
            return None
        segment = cursor.segment
        if segment is None or segment.gone or segment.last <= cursor.sequence:
            segment = next((one for one in self.segments if one.last > cursor.sequence), None)
            if segment is None:
                self._catch_up(slot, cursor)
                return None
            cursor.segment, cursor.offset = segment, len(HEADER)
        return Job(self.lane, slot, cursor, segment, cursor.offset, segment.end, segment.last)

    def loaded(self, job: Job, frames: Iterable[Frame], offset: int, settled: Container[int]) -> None:
        """What a job has read; `settled` are sequences that are not to be handed out, because they are or have been."""
        cursor = job.cursor
        if job.segment.gone or (cursor.segment, cursor.offset) != (job.segment, job.offset):
            return  # removed or packed meanwhile, or the slots were divided anew
        slots = len(self.cursors)
        for frame in frames:
            if frame.sequence <= cursor.sequence:
                continue
            cursor.sequence = frame.sequence
            if frame.stream % slots == job.slot and frame.sequence not in settled:
                entry = Entry(frame.sequence, frame.lane, frame.stream, frame.records, frame.data)
                self._push(cursor, Item(entry, frame.time_ns, frame.age_ns, job.segment))
        cursor.offset = offset
        if offset >= job.end:
            cursor.sequence = max(cursor.sequence, job.last)

    def pop(self, slot: int) -> Item:
        """Take the first that is ready."""
        item = self._pop(self.cursors[slot])
        item.flying = True
        if item.segment is not None:
            item.segment.flying += 1
        return item

    def give_back(self, item: Item) -> None:
        """Make an entry that was taken ready again, in its place."""
        item.flying = item.held = False
        if item.segment is not None:
            item.segment.flying -= 1
            item.segment.held -= 1
        self._push(self._cursor_of(item), item)

    def settle(self, item: Item) -> None:
        """An entry that was taken, or one in memory only, is done with."""
        item.settled = True
        if item.segment is None:
            del self.memory[item.entry.sequence]
            return
        item.segment.records -= item.entry.records
        item.segment.held -= 1
        item.segment.flying -= 1

    def store(self, item: Item, segment: Segment) -> bool:
        """An entry is on disk now; False when it was settled while it was being written."""
        if item.settled:
            return False
        self.memory.pop(item.entry.sequence, None)
        item.segment = segment
        segment.records += item.entry.records
        segment.oldest_ns = segment.oldest_ns or item.time_ns
        segment.youngest_age = item.age_ns
        segment.held += item.held
        segment.flying += item.flying
        return True

    def drop_segment(self, segment: Segment) -> int:
        """Forget a segment none of whose entries is taken; returns how many records were queued in it."""
        for cursor in self.cursors:
            if segment.held and any(item.segment is segment for item in cursor.ready):
                kept = [item for item in cursor.ready if item.segment is not segment]
                cursor.ready = deque(kept)
                cursor.records = sum(item.entry.records for item in kept)
                cursor.bytes = sum(len(item.entry.data) for item in kept)
        segment.gone = True
        self.segments.remove(segment)
        return segment.records

    def oldest_in_memory(self) -> Item | None:
        """The oldest entry that is in memory only and not taken."""
        return next((one for one in self.memory.values() if not one.flying), None)

    def drop_oldest(self) -> Item | None:
        """Forget it."""
        item = self.oldest_in_memory()
        if item is not None:
            if item.held:
                cursor = self._cursor_of(item)
                cursor.ready.remove(item)  # the first, but for entries that were taken and given back
                cursor.records -= item.entry.records
                cursor.bytes -= len(item.entry.data)
            self.settle(item)
        return item

    def is_passed(self, segment: Segment) -> bool:
        """Whether every slot has come to the end of a segment that is not written any more, and holds nothing of it."""
        return (
            segment.sealed
            and not segment.held
            and bool(self.cursors)
            and all(cursor.caught_up or cursor.sequence >= segment.last for cursor in self.cursors)
        )

    def is_read(self, segment: Segment) -> bool:
        """Whether a slot is somewhere in that file."""
        return any(cursor.segment is segment and not cursor.caught_up for cursor in self.cursors)

    def oldest_ns(self) -> int | None:
        """When the oldest entry that is not taken was appended; of what must be read yet, the segment's oldest."""
        reached = min((cursor.sequence for cursor in self.cursors if not cursor.caught_up), default=None)
        unread = self.segments if reached is not None or not self.cursors else []
        times = [one.oldest_ns for one in unread if one.records and one.last > (reached or 0)]
        times += [cursor.ready[0].time_ns for cursor in self.cursors if cursor.ready]
        times += [item.time_ns for item in (self.oldest_in_memory(),) if item is not None]
        return min(times, default=None)

    def _cursor_of(self, item: Item) -> Cursor:
        return self.cursors[item.entry.stream % len(self.cursors)]

    def _catch_up(self, slot: int, cursor: Cursor) -> None:
        for item in self.memory.values():
            if item.entry.stream % len(self.cursors) == slot and not item.held:
                self._push(cursor, item)
        cursor.caught_up = True
        cursor.segment = None

    def _push(self, cursor: Cursor, item: Item) -> None:
        self._hold(item)
        sequence = item.entry.sequence
        if not cursor.ready or cursor.ready[-1].entry.sequence < sequence:
            cursor.ready.append(item)
        elif sequence < cursor.ready[0].entry.sequence:
            cursor.ready.appendleft(item)
        else:
            cursor.ready.insert(bisect_right(cursor.ready, sequence, key=lambda one: one.entry.sequence), item)
        cursor.records += item.entry.records
        cursor.bytes += len(item.entry.data)

    @staticmethod
    def _pop(cursor: Cursor) -> Item:
        item = cursor.ready.popleft()
        cursor.records -= item.entry.records
        cursor.bytes -= len(item.entry.data)
        return item

    @staticmethod
    def _hold(item: Item) -> None:
        item.held = True
        if item.segment is not None:
            item.segment.held += 1

    @staticmethod
    def _let_go(item: Item) -> None:
        item.held = False
        if item.segment is not None:
            item.segment.held -= 1
