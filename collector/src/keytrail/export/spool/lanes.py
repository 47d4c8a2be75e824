"""All lanes of the spool together: what a slot takes next, what is under way, what has to make room.

Plain state like each lane's, called with the spool's lock held; touches no file. Lanes are merged by sequence, so that
the records of one workload leave in their order whatever their severities.
"""

from collections.abc import Iterator

from keytrail.export.spool.entries import Entry, Lane
from keytrail.export.spool.lane import Item, Job, LaneQueue
from keytrail.export.spool.scan import Segment

_FRAMING = 6
"""Bytes that an entry takes in a request besides its own: a tag, and a length of up to five."""


class Lanes:
    """The lanes, lowest first, and the entries that senders have taken."""

    def __init__(self) -> None:
        self.all = [LaneQueue(lane) for lane in Lane]
        self.flying: dict[int, Item] = {}
        """By sequence: taken, not answered for."""
        self.memory_bytes = 0
        """Of entries that are in memory only."""
        self._slots = 0

    def divide(self, slots: int) -> None:
        """Make sure that streams are divided among that many slots."""
        if slots != self._slots:
            self._slots = slots
            self.forget_positions()

    def forget_positions(self) -> None:
        """Have every slot begin at the oldest again: there is more before it than there was."""
        for lane in self.all:
            lane.divide(self._slots)

    def job(self, slot: int) -> Job | None:
        """What must be read before it is known what the slot takes next; None when nothing must."""
        return next((job for lane in self.all if (job := lane.job(slot)) is not None), None)

    def ready(self, slot: int) -> tuple[int, int]:
        """Records and bytes that are ready for a slot; more may be on disk."""
        cursors = [lane.cursors[slot] for lane in self.all]
        size = sum(cursor.bytes + _FRAMING * len(cursor.ready) for cursor in cursors)
        return sum(cursor.records for cursor in cursors), size

    def is_behind(self, slot: int) -> bool:
        """Whether more waits for the slot than what is ready."""
        return any(not lane.cursors[slot].caught_up for lane in self.all)

    def pick(self, slot: int, picked: list[Item], most_records: int, most_bytes: int) -> bool:
        """Add the oldest entries of a slot within the limits, at least one to none; whether to read on for more."""
        records = sum(item.entry.records for item in picked)
        size = sum(len(item.entry.data) + _FRAMING for item in picked)
        while lanes := [lane for lane in self.all if lane.cursors[slot].ready]:
            lane = min(lanes, key=lambda one: one.cursors[slot].ready[0].entry.sequence)
            cursor = lane.cursors[slot]
            first = cursor.ready[0].entry
            records += first.records
            size += len(first.data) + _FRAMING
            if picked and (records > most_records or size > most_bytes):
                return False
            picked.append(lane.pop(slot))
            self.flying[first.sequence] = picked[-1]
            if not cursor.ready and not cursor.caught_up:
                return True  # what comes next in this lane must be read first
        return False

    def give_back(self, item: Item) -> None:
        """Make an entry that was taken ready again; what was answered of its pieces is forgotten."""
        del self.flying[item.entry.sequence]
        item.exported = item.rejected = item.refused = 0
        self._of(item.entry).give_back(item)

    def settle(self, item: Item) -> None:
        """An entry that was taken is done with."""
        del self.flying[item.entry.sequence]
        if item.segment is None:
            self.memory_bytes -= len(item.entry.data)
        self._of(item.entry).settle(item)

    def keep(self, item: Item) -> None:
        """Hold a new entry in memory, because no disk takes it."""
        lane = self._of(item.entry)
        lane.memory[item.entry.sequence] = item
        self.memory_bytes += len(item.entry.data)
        lane.offer(item, 0, room=True)

    def store(self, item: Item, segment: Segment) -> bool:
        """An entry is on disk now; False when it was settled meanwhile."""
        lane = self._of(item.entry)
        if item.entry.sequence in lane.memory:
            self.memory_bytes -= len(item.entry.data)
        return lane.store(item, segment)

    def drop_oldest(self, lane: Lane) -> Item | None:
        """Forget the oldest entry of a lane that is in memory only and not taken."""
        item = self.all[lane].drop_oldest()
        if item is not None:
            self.memory_bytes -= len(item.entry.data)
        return item

    def in_memory(self) -> list[Item]:
        """The entries that are in memory only, in order."""
        found = [item for lane in self.all for item in lane.memory.values()]
        return sorted(found, key=lambda item: item.entry.sequence)

    def segments(self) -> Iterator[Segment]:
        """All segments, lowest lane first, oldest first."""
        for lane in self.all:
            yield from lane.segments

    def evictable(self, highest: Lane) -> Segment | None:
        """The segment that makes room first: the oldest of the lowest lane, if nothing of it is taken.

        An entry that is taken cannot be called back, so its segment stays.
        """
        return next((one for one in self.segments() if one.lane <= highest and one.records and not one.flying), None)

    def hot_bytes(self) -> int:
        """Bytes of what is ready."""
        return sum(cursor.bytes for lane in self.all for cursor in lane.cursors)

    def oldest_ns(self) -> int | None:
        """When the oldest entry was appended."""
        times = [item.time_ns for item in self.flying.values()]
        times += [time for lane in self.all if (time := lane.oldest_ns()) is not None]
        return min(times, default=None)

    def _of(self, entry: Entry) -> LaneQueue:
        return self.all[entry.lane]
