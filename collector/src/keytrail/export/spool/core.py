"""The state of a spool that its threads share, and the lock that guards it.

The pipeline appends, the writer's thread commits, senders take and settle: each of their steps is one method here or a
block under `lock`, and leaves the ledger's equation true. No method touches a file, so that nobody who appends ever
waits for a disk.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from keytrail.domain.drop import DropReason
from keytrail.export.spool.entries import Entry, ExportListener, Lane, SpoolState
from keytrail.export.spool.gather import Pending, Waiting
from keytrail.export.spool.lane import Item
from keytrail.export.spool.lanes import Lanes
from keytrail.export.spool.ledger import Ledger

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class SpoolTuning:
    """What nobody needs to set, but tests do. Sizes in bytes, times in seconds."""

    gather: float = 0.05
    """How long records wait for others to be committed with: the least time between two syncs."""
    segment_bytes: int = 8 * MIB
    memory_bytes: int = 64 * MIB
    """All that is not on disk, or of which there is no disk."""
    hot_bytes: int = 8 * MIB
    """Kept in memory after it was committed, so that a sender that keeps up reads nothing."""
    dead_bytes: int = 16 * MIB
    retry: float = 5.0
    """Between two attempts to use a disk that failed."""
    tidy: float = 1.0
    """Between two looks at what is to be removed, packed, expired or sent again."""
    pack_after: float = 10.0
    """How long a full segment waits before it is compressed: a backend that answers never has it done."""
    patience: float = 30.0
    """How long a patient `append` waits while nothing is delivered."""


class Core:
    """Everything in memory."""

    def __init__(
        self, listener: ExportListener, tuning: SpoolTuning, most_bytes: int, now_ns: Callable[[], int], *, disk: bool
    ) -> None:
        self.lock = threading.Lock()
        self.work = threading.Condition(self.lock)
        """For the writer: there is something to do."""
        self.ready = threading.Condition(self.lock)
        """For senders: there is something to take."""
        self.done = threading.Condition(self.lock)
        """For `sync` and for patient appenders: something was committed or settled."""
        self.pending = Pending()
        self.lanes = Lanes()
        self.ledger = Ledger(listener)
        self.busy_bytes = 0
        """Of the records that are being written."""
        self.busy_records = 0
        self.busy_since: int | None = None
        """When the oldest of them was appended, wall clock."""
        self.pending_since: int | None = None
        """The same of those that are pending."""
        self.committed = 0
        """Number of the last record that is on disk, or that no disk would take."""
        self.fault = ""
        self.aside_records = 0
        self.other_bytes = 0
        """On disk besides segments."""
        self.asked = 0
        """How often `sync` was called: somebody waits, so there is no gathering."""
        self.begun = 0
        """How many of these calls the records that are being written answer."""
        self.answered = 0
        self.flushed = False
        self.closing = False
        self.closed = False
        self.wakes = 0
        self.progress_at = 0.0
        """When something was last settled."""
        self.impatient = False
        """A patient appender waited in vain, and nothing was settled since."""
        self.now_ns = now_ns
        self.disk = disk
        self.most_bytes = most_bytes
        self.most_memory = tuning.memory_bytes if disk else min(tuning.memory_bytes, most_bytes)
        self._patience = tuning.patience

    def came(self) -> None:
        """See to what was put into `pending`, and rouse the writer if it sleeps."""
        with self.lock:
            was_empty, was_big = not self.pending.records, self.pending.is_big
            self.admit()
            if was_empty or (self.pending.is_big and not was_big):
                self.work.notify()

    def wait_for_room(self, size: int) -> None:
        """Wait while there is no room for a record and the sender makes progress."""
        began = 0.0
        with self.lock:
            while not self.closing and not self.impatient and not self._has_room(size):
                began = began or time.monotonic()
                left = max(began, self.progress_at) + self._patience - time.monotonic()
                if left <= 0:
                    self.impatient = True
                else:
                    self.done.wait(left)

    def admit(self) -> None:
        """Count what was appended. With the lock held, as everything that looks at records."""
        since = None if self.pending.records else self.now_ns()
        for lane, count in self.pending.admit():
            self.ledger.append(lane, count)
            if self.closed:
                self.ledger.drop(lane, count, DropReason.SHUTDOWN)
        if self.closed:
            self.pending.take()
        elif self.pending.records:
            self.pending_since = since or self.pending_since
            if self.memory_bytes > self.most_memory:
                self._make_room()

    @property
    def in_a_hurry(self) -> bool:
        """Whether somebody waits for the disk."""
        return self.closing or self.asked > self.begun

    @property
    def unwritten(self) -> bool:
        """Whether records were appended that no entry has yet."""
        self.admit()
        return self.pending.records + self.busy_records > 0

    @property
    def memory_bytes(self) -> int:
        """All records that are not on disk."""
        return self.pending.bytes + self.busy_bytes + self.lanes.memory_bytes

    @property
    def disk_bytes(self) -> int:
        """Everything on disk."""
        return sum(segment.bytes for segment in self.lanes.segments()) + self.other_bytes

    def _has_room(self, size: int) -> bool:
        """Whether a record would push nothing out for long; the disk is asked about once for each commit."""
        if self.memory_bytes + size > self.most_memory // 2:
            return False
        on_disk = self.disk and not self.fault and not self.pending.records
        return not on_disk or self.disk_bytes < self.most_bytes // 2

    def _make_room(self) -> None:
        """Drop the oldest of the lowest lane, what waits longest first."""
        for lane in Lane:
            while self.memory_bytes > self.most_memory:
                item = self.lanes.drop_oldest(lane)
                if item is None and not self.pending.drop_oldest(lane):
                    break
                records, since = (item.entry.records, item.time_ns) if item else (1, self.pending_since or 0)
                self.lose(lane, records, DropReason.SPOOL_EVICTED, since, "memory for undelivered records is full")

    def lose(self, lane: Lane, records: int, reason: DropReason, since_ns: int, detail: str) -> None:
        """Records are lost, and somebody must be told."""
        self.ledger.drop(lane, records, reason)
        self.ledger.note(reason, records, since_ns, self.now_ns(), detail)

    def begin(self) -> tuple[list[Waiting], int, int]:
        """Records to be written now, when the oldest of them came, and the number of the last. With the lock held."""
        self.admit()
        pending = self.pending
        self.busy_bytes, self.busy_records, self.busy_since = pending.bytes, pending.records, self.pending_since
        self.pending_since = None
        self.begun = self.asked
        self.flushed = False
        number, taken = pending.number, pending.take()
        # Whoever appended between the two, and saw records there, did not notify: theirs are pending from here on.
        self.admit()
        return taken, self.busy_since or 0, number

    def end(self, number: int) -> None:
        """What `begin` gave is where it belongs. With the lock held."""
        self.busy_bytes = self.busy_records = 0
        self.busy_since = None
        self.committed = number
        self.answered = self.begun
        self.ready.notify_all()
        self.done.notify_all()
        if self.memory_bytes > self.most_memory:
            self._make_room()

    def pieces(self, entries: Sequence[Entry]) -> list[tuple[Item, int]]:
        """The entries under way that are meant, with how many of their records."""
        flying = self.lanes.flying
        return [(flying[one.sequence], one.records) for one in entries if one.sequence in flying]

    def settle(self, items: Sequence[Item]) -> None:
        """Count entries all of whose pieces have an answer, and forget them."""
        for item in items:
            lane, exported = item.entry.lane, item.exported - item.rejected
            self.lanes.settle(item)
            self.ledger.export(lane, exported)
            self.ledger.drop(lane, item.entry.records - exported, DropReason.EXPORT_REJECTED)
        self.progress_at, self.impatient = time.monotonic(), False
        self.done.notify_all()

    def shut(self, *, disk: bool) -> None:
        """Nothing is taken or appended any more; what is not on disk is lost."""
        self.admit()
        self.closed = True
        for lane in Lane:
            waiting = self.ledger.queued[lane]
            stored = sum(segment.records for segment in self.lanes.all[lane].segments) if disk else 0
            self.ledger.drop(lane, waiting - stored, DropReason.SHUTDOWN)
        self.ready.notify_all()
        self.done.notify_all()

    def state(self) -> SpoolState:
        """One consistent picture."""
        with self.lock:
            self.admit()
            ledger = self.ledger
            in_memory = sum(item.entry.records for lane in self.lanes.all for item in lane.memory.values())
            unsynced = 0 if self.closed else self.pending.records + self.busy_records + in_memory
            ends = (self.lanes.oldest_ns(), self.busy_since, self.pending_since)
            times = [] if self.closed else [time_ns for time_ns in ends if time_ns is not None]
            return SpoolState(
                appended=ledger.appended,
                recovered=ledger.recovered,
                exported=ledger.exported,
                queued=sum(ledger.queued),
                unsynced=unsynced,
                dropped=MappingProxyType(dict(ledger.dropped)),
                set_aside=self.aside_records,
                bytes=self.disk_bytes if self.disk else self.memory_bytes,
                most_bytes=self.most_bytes if self.disk else self.most_memory,
                queued_by_lane=MappingProxyType(dict(zip(Lane, ledger.queued, strict=True))),
                oldest_ns=min(times, default=None),
                durable=self.disk and not self.fault,
                fault=self.fault,
            )
