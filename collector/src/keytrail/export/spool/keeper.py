"""What lies in the spool's folder, looked after: room is made, what is settled or too old goes, what waits is packed.

For the writer's thread alone. Decides with the core's lock held and acts on files without it; where a sender could be
reading a file, it holds `files`.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from keytrail.domain.drop import DropReason
from keytrail.export.spool.core import Core, SpoolTuning
from keytrail.export.spool.dead import DeadLetters
from keytrail.export.spool.disk import Disk
from keytrail.export.spool.entries import Lane
from keytrail.export.spool.opening import open_folder
from keytrail.export.spool.owner import Mark, Owner, PreviousRun
from keytrail.export.spool.scan import Segment, Survey, pack, remove

log = logging.getLogger(__name__)

_NS = 1_000_000_000
_OWNER_BYTES = 4096
"""Disk space of the file `owner`."""
_WORTH_PACKING = 0.9


class Clocks(NamedTuple):
    """Where time comes from."""

    now_ns: Callable[[], int] = time.time_ns
    """Wall clock: for people, and for the time between two runs."""
    tick_ns: Callable[[], int] = time.monotonic_ns
    """How time passes during a run."""


class Keeper:
    """The folder of one spool, once it could be opened."""

    def __init__(
        self, core: Core, files: threading.Lock, tuning: SpoolTuning, clocks: Clocks, *, longest_ns: int
    ) -> None:
        self._core = core
        self._files = files
        self._tuning = tuning
        self._clocks = clocks
        self._longest_ns = longest_ns
        # A segment that is being packed is there twice for a moment.
        self._most_bytes = core.most_bytes - min(tuning.segment_bytes, core.most_bytes // 16)
        self._age = -clocks.tick_ns()
        self._owner: Owner | None = None
        self.disk: Disk | None = None
        self.dead: DeadLetters | None = None
        self.previous: PreviousRun | None = None
        self.unpublished = 0
        """Bytes that have been written and do not count in any segment yet."""
        self.sequence = 1
        """Of the next entry."""
        self.filled_until_ns: int | None = None
        """When those who fill the spool stopped to, wall clock; None: they have not."""

    def age_ns(self) -> int:
        """The spool's own clock: time in use, over all runs.

        A wall clock that jumps neither ages records nor keeps them. Only the time between two runs counts by it, but as
        at most half of what records may wait: the clock may have been set meanwhile.
        """
        return self._age + self._clocks.tick_ns()

    def open(self, folder: Path, seed: Callable[[], int]) -> None:
        """Take possession of the folder. Raises SpoolBusyError, or OSError when it cannot be used."""
        opened = open_folder(folder)
        self._owner, last = opened.owner, opened.owner.last
        self.previous = opened.owner.previous
        away = min(max(0, self._clocks.now_ns() - last.alive_ns), self._longest_ns // 2)
        ages = last.age_ns + (away if last.alive_ns else 0)
        self._age += ages
        self.disk = Disk(folder, self._tuning.segment_bytes, self._longest_ns // 32, seed)
        self.dead = DeadLetters(folder, min(self._tuning.dead_bytes, self._core.most_bytes // 4), seed)
        found = max((survey.segment.last for survey in opened.found), default=0)
        self.sequence = max(self.sequence, last.sequence, found + 1)
        with self._core.lock:
            self._take_in(opened.found, ages)

    def _take_in(self, found: list[Survey], ages: int) -> None:
        core = self._core
        for item in core.lanes.in_memory():
            item.age_ns += ages
        for survey in found:
            segment = survey.segment
            if not segment.gone:
                core.lanes.all[segment.lane].segments.append(segment)
            core.ledger.recover(segment.lane, segment.records + survey.lost)
            if survey.places:
                since = segment.oldest_ns or core.now_ns()
                core.lose(segment.lane, survey.lost, DropReason.SPOOL_DAMAGED, since, "spool files were damaged")
        core.lanes.forget_positions()
        core.ready.notify_all()

    def begin(self) -> None:
        """Say that from now on there is something to lose."""
        if self._owner is not None:
            with suppress(OSError):
                self._owner.begin(self._mark())

    def mark(self) -> None:
        """Say that we live, and which sequences are used up: before what shows it is removed."""
        if self._owner is not None:
            with suppress(OSError):  # a disk that fails is noticed by the next commit
                self._owner.mark(self._mark())

    def close(self, *, clean: bool) -> None:
        """Give the folder up."""
        if self.disk is not None:
            self.disk.close()
            self.sweep()
        if self._owner is not None:
            if clean:
                self._owner.close(self._mark())
            self._owner = None

    def abandon(self) -> None:
        """Give the folder up as it was found."""
        if self._owner is not None:
            self._owner.abandon()
            self._owner = None

    def _mark(self) -> Mark:
        alive_ns = self._clocks.now_ns() if self.filled_until_ns is None else self.filled_until_ns
        return Mark(self.sequence, self.age_ns(), alive_ns)

    def make_room(self, lane: Lane, size: int) -> bool:
        """See to it that so many bytes fit, at the cost of this lane and lower ones; False when that is not enough.

        Nothing is dropped while there is something left to compress: better slow than lost.
        """
        while True:
            with self._core.lock:
                total = self._core.disk_bytes + self.unpublished + size
            if total <= self._most_bytes:
                return True
            if not self.sweep() and not self._pack_one(waited=0) and not self.evict(lane, "the spool is full"):
                return False

    def evict(self, highest: Lane, why: str) -> bool:
        """Drop the oldest segment of the lowest lane that has one; False when there is none up to `highest`."""
        core = self._core
        while True:
            with core.lock:
                segment = core.lanes.evictable(highest)
            if segment is None:
                return False
            self._seal(segment)
            with core.lock:
                if segment.flying:
                    continue  # a sender was quicker
                records = core.lanes.all[segment.lane].drop_segment(segment)
                core.lose(segment.lane, records, DropReason.SPOOL_EVICTED, segment.oldest_ns, why)
            self._remove([segment])
            return True

    def _seal(self, segment: Segment) -> None:
        if self.disk is not None and not segment.sealed:
            self.disk.seal(segment.lane)

    def sweep(self) -> bool:
        """Remove segments of which nothing waits any more; whether there were some.

        What every slot has passed and none has seen can no longer be read: the disk changed it under us.
        """
        core, gone = self._core, []
        with core.lock:
            for lane in core.lanes.all:
                for segment in [one for one in lane.segments if one.sealed and not one.held]:
                    if segment.records and lane.is_passed(segment):
                        why = "spool files were damaged"
                        core.lose(lane.lane, segment.records, DropReason.SPOOL_DAMAGED, segment.oldest_ns, why)
                        segment.records = 0
                    if not segment.records:
                        lane.drop_segment(segment)
                        gone.append(segment)
        self._remove(gone)
        return bool(gone)

    def _remove(self, segments: list[Segment]) -> None:
        if not segments:
            return
        self.mark()
        for segment in segments:
            with self._files, suppress(OSError):  # what cannot be removed is sent once more after the next start
                remove(segment)

    def tidy(self) -> None:
        """All that is due from time to time."""
        self.mark()
        self._expire()
        if self.disk is None:
            return
        self.disk.seal_older_than(self.age_ns())
        self.sweep()
        self._pack_all()
        self.count_dead()

    def count_dead(self) -> None:
        """Bring the figures of the dead letters up to date."""
        if self.dead is None:
            return
        with self._files:
            self.dead.refresh()
            records, size = self.dead.records, self.dead.bytes
        with self._core.lock:
            self._core.aside_records, self._core.other_bytes = records, size + _OWNER_BYTES

    def _expire(self) -> None:
        core, limit, gone = self._core, self.age_ns() - self._longest_ns, []
        why = "records grew too old before they could be delivered"
        with core.lock:
            for segment in list(core.lanes.segments()):
                if segment.sealed and segment.records and not segment.flying and segment.youngest_age < limit:
                    records = core.lanes.all[segment.lane].drop_segment(segment)
                    core.lose(segment.lane, records, DropReason.SPOOL_EXPIRED, segment.oldest_ns, why)
                    gone.append(segment)
            for lane in core.lanes.all:
                while (first := lane.oldest_in_memory()) is not None and first.age_ns < limit:
                    core.lanes.drop_oldest(lane.lane)
                    core.lose(lane.lane, first.entry.records, DropReason.SPOOL_EXPIRED, first.time_ns, why)
        self._remove(gone)

    def _pack_all(self) -> None:
        """Pack what waits, but not while there is something to write."""
        core, quiet = self._core, True
        while quiet and self._pack_one(waited=int(self._tuning.pack_after * _NS)):
            with core.lock:
                quiet = not core.pending.is_big and not core.in_a_hurry

    def _pack_one(self, *, waited: int) -> bool:
        """Pack the first segment that has waited so long; whether that saved anything."""
        segment = self._to_pack(self.age_ns() - waited)
        if segment is None:
            return False
        try:
            return self._pack(segment)
        except OSError as error:
            log.debug("spool segment not packed: %s", error.strerror)
            return False

    def _to_pack(self, before: int) -> Segment | None:
        core = self._core
        with core.lock:
            for segment in core.lanes.segments():
                waits = segment.sealed and segment.records and segment.youngest_age <= before
                if waits and segment.packable and not segment.packed and self._is_unread(segment):
                    return segment
        return None

    def _is_unread(self, segment: Segment) -> bool:
        return not segment.held and not self._core.lanes.all[segment.lane].is_read(segment)

    def _pack(self, segment: Segment) -> bool:
        path, size = pack(segment)
        with self._files:
            with self._core.lock:
                swap = size < segment.end * _WORTH_PACKING and self._is_unread(segment)
                segment.packable = size < segment.end * _WORTH_PACKING
                if swap:
                    segment.path, segment.end = path, size
            path.with_suffix(".seg" if swap else ".pack").unlink()
        return swap
