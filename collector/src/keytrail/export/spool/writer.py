"""The thread that brings the spool's records to disk.

Pending records of the core in, synced segments out; then the core is told, and senders may take them. One commit
gathers whatever came while the one before it was under way. What no disk takes stays in memory, and is tried again.

Two locks: the core's, never held during a system call, and `files`, which keeps senders from reading or acknowledging
in a file that is being replaced or removed. Order: `files`, then the core's.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from keytrail.domain.drop import DropReason
from keytrail.export.spool.core import Core, SpoolTuning
from keytrail.export.spool.dead import frames_of, to_resend
from keytrail.export.spool.disk import Disk, Placement, size_on_disk
from keytrail.export.spool.entries import Entry, Lane
from keytrail.export.spool.files import is_full, probe, words
from keytrail.export.spool.gather import ResourceLogs, Waiting, entries_of
from keytrail.export.spool.keeper import Clocks, Keeper
from keytrail.export.spool.lane import Item
from keytrail.export.spool.ledger import SpoolLoss
from keytrail.export.spool.owner import SpoolBusyError
from keytrail.export.spool.scan import append_acks
from keytrail.export.spool.segment import HEADER, Kind

log = logging.getLogger(__name__)

_HAPPENED = {
    DropReason.SPOOL_EVICTED: "undelivered records had to make room",
    DropReason.SPOOL_EXPIRED: "undelivered records are gone",
    DropReason.SPOOL_DAMAGED: "stored records could not be read",
}


class Writer:
    """Commits until it is closed."""

    def __init__(
        self,
        core: Core,
        folder: Path | None,
        resource_logs: ResourceLogs,
        tuning: SpoolTuning,
        clocks: Clocks,
        *,
        longest_ns: int,
        seed: Callable[[], int],
        on_loss: Callable[[SpoolLoss], None],
    ) -> None:
        self._core = core
        self._folder = folder
        self._resource_logs = resource_logs
        self._tuning = tuning
        self._clocks = clocks
        self._seed = seed
        self._on_loss = on_loss
        self.files = threading.Lock()
        self.keeper = Keeper(core, self.files, tuning, clocks, longest_ns=longest_ns)
        self._retry_at = 0.0
        self._began_at = 0.0
        """The last commit."""
        self._tidy_at = 0.0
        self._resent: set[str] = set()
        if folder is not None:
            # If the folder cannot be read now, what it holds is older than what comes, and its numbers must be lower.
            self.keeper.sequence = clocks.now_ns() // 1000
            self._open(folder, busy=True)

    def _open(self, folder: Path, *, busy: bool) -> None:
        """Try to take possession of the folder; `busy`: raise SpoolBusyError."""
        given = self.keeper.sequence
        try:
            self.keeper.sequence = 1 if busy else given
            self.keeper.open(folder, self._seed)
            self.keeper.count_dead()
        except SpoolBusyError as error:
            if busy:
                raise
            self._fail(str(error))
        except OSError as error:
            self.keeper.sequence = given
            self._fail(f"{folder}: {words(error)}")

    def run(self) -> None:
        """Commit what comes until `closing` is set."""
        core = self._core
        while True:
            with core.lock:
                self._wait()
                closing, hurry = core.closing, core.in_a_hurry
                batch, since, number = core.begin()
            self._step(batch, since, number, hurry=hurry)
            if closing:
                return

    def _step(self, batch: list[Waiting], since: int, number: int, *, hurry: bool) -> None:
        self._began_at = time.monotonic()
        try:
            keeper = self.keeper
            items = entries_of(batch, keeper.sequence, self._resource_logs, since, keeper.age_ns())
            keeper.sequence += len(items)
            self._commit(items, number, hurry=hurry)
            if time.monotonic() >= self._tidy_at:
                self._tidy()
        except Exception:
            # The boundary of the thread. The encoder is foreign to it, and one batch must not stop all that follow.
            log.exception("internal error: %d records of the spool are lost", len(batch))
            self._give_up(batch, number)

    def _give_up(self, batch: Sequence[Waiting], number: int) -> None:
        core = self._core
        with core.lock:
            if core.committed < number:
                for lane, count in Counter(lane for _, lane, _, _ in batch).items():
                    core.lose(lane, count, DropReason.SPOOL_DAMAGED, core.busy_since or 0, "internal error")
                core.end(number)

    def _wait(self) -> None:
        """Sleep until there is something to do."""
        core, noticed = self._core, 0.0
        while not core.in_a_hurry:
            now, due = time.monotonic(), self._tidy_at
            if core.pending.is_big:
                return
            if core.pending.records:
                noticed = noticed or now
                due = min(due, (self._began_at if core.flushed else noticed) + self._tuning.gather)
            if now >= due:
                return
            core.work.wait(due - now)

    def _commit(self, items: Sequence[Item], number: int, *, hurry: bool) -> None:
        """Bring entries to disk, those before them that are in memory first, and publish what became of them."""
        core = self._core
        due = hurry or time.monotonic() >= self._retry_at
        if self._folder is not None and self.keeper.disk is None and due:
            self._open(self._folder, busy=False)
            self.keeper.begin()
        placed: list[Placement] = []
        disk = self.keeper.disk
        if disk is not None and (due or not core.fault):
            with core.lock:
                older = core.lanes.in_memory()
            # A lane's new entries come after its older ones: where these are not due, all wait.
            waiting = frozenset() if due else {item.entry.lane for item in older}
            chosen = [item for item in (*older, *items) if item.entry.lane not in waiting]
            if chosen or (core.fault and due):
                self._store_all(disk, chosen, placed)
        self._publish(items, placed, number)

    def _store_all(self, disk: Disk, items: Sequence[Item], placed: list[Placement]) -> None:
        """Write the highest lanes first: what makes room for them is lower."""
        try:
            if self._core.fault and self._folder is not None:
                probe(self._folder)
            for lane in reversed(Lane):
                if mine := [item for item in items if item.entry.lane is lane]:
                    self._store(disk, lane, mine, placed)
        except OSError as error:
            self._fail(f"{self._folder}: {words(error)}")
        else:
            self._recovered()

    def _store(self, disk: Disk, lane: Lane, items: Sequence[Item], placed: list[Placement]) -> None:
        failed = False
        while items:
            segment_bytes = max(self._tuning.segment_bytes, size_on_disk(items[0]))
            need = len(HEADER) + min(sum(map(size_on_disk, items)), segment_bytes)
            if not self.keeper.make_room(lane, need):
                self._retry_at = time.monotonic() + self._tuning.retry
                return  # all that is stored is worth more: these stay in memory
            try:
                done = disk.append(lane, items)
            except OSError as error:
                if is_full(error):
                    if not self.keeper.evict(lane, "the disk is full"):
                        raise
                elif failed:
                    raise
                failed = True  # once more, to a new segment
                continue
            placed.append(done)
            self.keeper.unpublished += done.end - done.start
            with self._core.lock:
                # Until this is published nobody may evict, pack or remove the segment: its summary is behind its file.
                done.segment.flying += 1
                done.segment.held += 1
            items = items[len(done.items) :]
            failed = False

    def _publish(self, items: Sequence[Item], placed: Sequence[Placement], number: int) -> None:
        """Tell the core all at once, or a higher lane's entry could overtake a lower one's of the same workload."""
        core, late = self._core, []
        with core.lock:
            lanes = core.lanes
            room = self._tuning.hot_bytes - lanes.hot_bytes()
            for segment, stored, start, end in placed:
                lane = lanes.all[segment.lane]
                if segment not in lane.segments:
                    lane.segments.append(segment)
                segment.flying -= 1
                segment.held -= 1
                segment.end, segment.last = end, stored[-1].entry.sequence
                for item in stored:
                    known = item.entry.sequence in lane.memory
                    if not lanes.store(item, segment):
                        late.append((segment, item.entry.sequence))
                    elif not known:
                        room -= len(item.entry.data)
                        lane.offer(item, start, room=room > 0)
            for item in items:
                if item.segment is None:
                    lanes.keep(item)
            core.end(number)
        self.keeper.unpublished = 0
        for segment, sequence in late:
            with self.files:
                append_acks(segment, [sequence])

    def _tidy(self) -> None:
        self._tidy_at = time.monotonic() + self._tuning.tidy
        self.keeper.tidy()
        if self._folder is not None and self.keeper.disk is not None and not self._core.fault:
            for path in to_resend(self._folder):
                self._resend(path)
        self.tell()

    def _resend(self, path: Path) -> None:
        """Queue dead letters again; their file goes when they are on disk as entries."""
        if path.name in self._resent:
            return
        try:
            frames = [frame for frame in frames_of(path) if frame.kind is Kind.ENTRY]
        except OSError as error:
            log.warning("dead letters %s cannot be sent again: %s", path.name, words(error))
            self._resent.add(path.name)
            return
        core, keeper, age = self._core, self.keeper, self.keeper.age_ns()
        items = []
        for frame in frames:
            entry = Entry(keeper.sequence, frame.lane, frame.stream, frame.records, frame.data)
            items.append(Item(entry, frame.time_ns, age))
            keeper.sequence += 1
        with core.lock:
            for item in items:
                core.ledger.recover(item.entry.lane, item.entry.records)
            core.busy_records = sum(item.entry.records for item in items)
        self._commit(items, core.committed, hurry=False)
        if all(item.segment or item.settled for item in items):
            with suppress(OSError):
                path.unlink()
            log.info("dead letters %s are queued again: %d records", path.name, sum(one.entry.records for one in items))
        else:
            self._resent.add(path.name)

    def tell(self, *, all_: bool = False) -> None:
        """Report losses that are due."""
        with self._core.lock:
            losses = self._core.ledger.to_tell(self._clocks.tick_ns(), all_=all_)
        for loss in losses:
            log.warning("%s: %d records, %s", _HAPPENED[loss.reason], loss.records, loss.detail)
            self._on_loss(loss)

    def _fail(self, text: str) -> None:
        self._retry_at = time.monotonic() + self._tuning.retry
        if text != self._core.fault:
            log.warning("records stay in memory, at most %d MiB: %s", self._core.most_memory >> 20, text)
        with self._core.lock:
            self._core.fault = text

    def _recovered(self) -> None:
        if self._core.fault:
            log.warning("records are stored on disk again")
            with self._core.lock:
                self._core.fault = ""
