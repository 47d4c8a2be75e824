"""The spool: records wait here until the backend has them, on disk if there is one.

Records come in from the pipeline, which never waits for a disk; entries go out to the sender, which settles them. In
between a thread of its own gathers, writes and syncs: a record is acknowledged, and may be sent, when its fdatasync has
returned. What is known of each record is in `core`; how it is written, in `writer`; who looks after the
files, `keeper`. Knows nothing of what is in a record.

Without a folder, or while the folder cannot be used, the same queue lives in bounded memory and says so.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from keytrail.export.spool.core import Core, SpoolTuning
from keytrail.export.spool.entries import Entry, ExportListener, Lane, SpoolState
from keytrail.export.spool.files import words
from keytrail.export.spool.gather import ResourceLogs
from keytrail.export.spool.keeper import Clocks
from keytrail.export.spool.lane import Item
from keytrail.export.spool.ledger import SpoolLoss
from keytrail.export.spool.owner import PreviousRun
from keytrail.export.spool.scan import Segment, append_acks, read_acks, read_piece
from keytrail.export.spool.writer import Writer

log = logging.getLogger(__name__)

_DEFAULT = SpoolTuning()


def random_seed() -> int:
    """A number for a segment's checksums that nobody can guess."""
    return int.from_bytes(os.urandom(4), "little")


class Spool:
    """A durable `Queue`. Raises SpoolBusyError when another process owns the folder.

    `most_bytes` on disk, dead letters included; beyond, and after `longest_ns`, records go, counted. `patient` suits a
    source that ends, such as a recording: `append` waits for room while the sender gets on. `on_loss` is called from
    the spool's thread, with what could become a gap record.
    """

    def __init__(
        self,
        folder: Path | None,
        resource_logs: ResourceLogs,
        listener: ExportListener,
        *,
        most_bytes: int,
        longest_ns: int,
        patient: bool = False,
        now_ns: Callable[[], int] = time.time_ns,
        tick_ns: Callable[[], int] = time.monotonic_ns,
        seed: Callable[[], int] = random_seed,
        on_loss: Callable[[SpoolLoss], None] = lambda _: None,
        tuning: SpoolTuning = _DEFAULT,
    ) -> None:
        self._core = Core(listener, tuning, most_bytes, now_ns, disk=folder is not None)
        self._patient = patient
        self._writer = Writer(
            self._core, folder, resource_logs, tuning, Clocks(now_ns, tick_ns),
            longest_ns=longest_ns, seed=seed, on_loss=on_loss,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._writer.run, name="spool", daemon=True)

    @property
    def previous(self) -> PreviousRun:
        """How the run before this one ended, as far as the folder tells."""
        return self._writer.keeper.previous or PreviousRun(clean=True, last_alive_ns=None)

    def start(self) -> None:
        """Begin to write; what was appended before is written too."""
        self._writer.keeper.begin()
        self._thread.start()

    def abandon(self) -> None:
        """Never start: let others have the folder, which still says how the run before this one ended."""
        self._writer.keeper.abandon()

    def append(self, lane: Lane, resource: bytes, record: bytes) -> None:
        """Take a serialized LogRecord of a serialized Resource. Never waits for a disk."""
        core = self._core
        if self._patient:
            core.wait_for_room(len(record))
        # Where there are records the writer looks again, and finds this one, too.
        if core.pending.put(lane, resource, record) or not core.pending.records:
            core.came()

    def last_call(self) -> None:
        """Nothing happens any more that would become a record: what the next run says of our end begins now."""
        self._writer.keeper.filled_until_ns = self._core.now_ns()

    def flush(self) -> None:
        """Nothing follows for a while: what was appended may be written without gathering more."""
        with self._core.lock:
            self._core.admit()
            if self._core.pending.records and not self._core.flushed:
                self._core.flushed = True
                self._core.work.notify()

    def sync(self, seconds: float) -> bool:
        """Bring to disk what was appended so far; False when that cannot be done in that time, or there is no disk."""
        core = self._core
        with core.lock:
            core.asked += 1
            asked = core.asked
            core.work.notify()
            answered = core.done.wait_for(lambda: core.answered >= asked, seconds)
            return answered and core.disk and not core.lanes.memory_bytes

    def take(self, slot: int, slots: int, most_records: int, most_bytes: int, linger: float) -> list[Entry]:
        """See `Queue`."""
        core, until = self._core, None
        picked: list[Item] = []
        with core.lock:
            wakes = core.wakes
            core.lanes.divide(slots)
        while True:
            with core.lock:
                if core.closed:
                    return [item.entry for item in picked]
                left = linger if until is None else until - time.monotonic()
                woken = core.closing or core.wakes != wakes or (linger < 0 and not core.unwritten)
                must_load = core.lanes.job(slot) is not None and not (picked and (woken or left <= 0))
                if not must_load:
                    records, size = core.lanes.ready(slot)
                    full = records >= most_records or size >= most_bytes or (records and core.lanes.is_behind(slot))
                    if picked or full or woken or (records and left <= 0):
                        # A piece read from disk is smaller than a request: several make one, in the time there is.
                        more = core.lanes.pick(slot, picked, most_records, most_bytes)
                        if not more or woken or left <= 0:
                            return [item.entry for item in picked]
                        until = until or time.monotonic() + linger
                    else:
                        if records:
                            until = until or time.monotonic() + linger
                        core.ready.wait(left if records else None)
            if must_load:
                self._load(slot)

    def _load(self, slot: int) -> None:
        """Read the next piece of what a slot takes next."""
        core = self._core
        with self._writer.files:
            with core.lock:
                job = core.lanes.job(slot)
            if job is None:
                return
            try:
                frames, offset = read_piece(job.segment, job.offset, job.end)
                settled = read_acks(job.segment)
            except OSError as error:
                # Passed over; what every slot has passed unread is counted as damaged.
                log.warning("spool segment %s cannot be read: %s", job.segment.path.name, words(error))
                frames, offset, settled = [], job.end, set()
            with core.lock:
                core.lanes.all[job.lane].loaded(job, frames, offset, settled | core.lanes.flying.keys())

    def exported(self, entries: Sequence[Entry], rejected: int = 0) -> None:
        """See `Queue`."""
        core, whole = self._core, []
        with core.lock:
            for item, records in core.pieces(entries):
                part = min(rejected, records)
                rejected -= part
                item.exported += records
                item.rejected += part
                if item.exported + item.refused >= item.entry.records:
                    whole.append(item)
        self._settle(whole)

    def refused(self, entries: Sequence[Entry], reason: str) -> None:
        """See `Queue`."""
        core, whole = self._core, []
        with core.lock:
            known = core.pieces(entries)
        if known and self._writer.keeper.dead is not None:
            kept = {item.entry.sequence for item, _ in known}
            self._set_aside([entry for entry in entries if entry.sequence in kept], reason)
        with core.lock:
            for item, records in known:
                item.refused += records
                if item.exported + item.refused >= item.entry.records:
                    whole.append(item)
        self._settle(whole)

    def _set_aside(self, entries: Sequence[Entry], reason: str) -> None:
        keeper = self._writer.keeper
        try:
            with self._writer.files:
                if keeper.dead is not None:
                    keeper.dead.add(entries, reason, self._core.now_ns())
        except OSError as error:
            log.warning("refused records are dropped, since they cannot be set aside: %s", words(error))
        keeper.count_dead()

    def _settle(self, items: Sequence[Item]) -> None:
        """Note on disk, then in memory, that entries are done with: a kill between the two repeats nothing."""
        core = self._core
        by_segment: dict[Segment, list[int]] = {}
        for item in items:
            if item.segment is not None:
                by_segment.setdefault(item.segment, []).append(item.entry.sequence)
        with self._writer.files:
            if core.closed:
                return  # the folder may belong to another process by now
            for segment, sequences in by_segment.items():
                append_acks(segment, sequences)
            with core.lock:
                core.settle(items)

    def give_back(self, entries: Sequence[Entry]) -> None:
        """See `Queue`."""
        core = self._core
        with core.lock:
            for item, _ in core.pieces(entries):
                core.lanes.give_back(item)
            core.ready.notify_all()

    def wake(self) -> None:
        """See `Queue`."""
        with self._core.lock:
            self._core.wakes += 1
            self._core.ready.notify_all()

    def state(self) -> SpoolState:
        """One consistent picture."""
        return self._core.state()

    def close(self, seconds: float) -> None:
        """Write what is not written, within that time, and let others have the folder. Idempotent.

        What is on disk and not sent stays there for the next run; what is only in memory is dropped, counted.
        """
        core = self._core
        with core.lock:
            if core.closing:
                return
            core.closing = True
            core.work.notify()
            core.ready.notify_all()
            core.done.notify_all()
        if self._thread.ident is None:
            self._writer.run()
        else:
            self._thread.join(seconds)
        stuck = self._thread.is_alive()
        if stuck:
            log.warning(
                "the disk did not answer within %g s: records that it has not acknowledged are dropped", seconds
            )
        free = self._writer.files.acquire(timeout=seconds)  # a sender may be settling
        with core.lock:
            core.shut(disk=core.disk)
        if free:
            self._writer.files.release()
        if not stuck:
            self._writer.keeper.close(clean=True)
            self._writer.tell(all_=True)
