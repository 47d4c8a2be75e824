"""The sender's queue in memory, as simple as it can be: what tests of the sender run on, and a model of the spool.

Records go in as entries, what the sender does with them is counted and kept. Every method from any thread.
"""

import threading
from collections.abc import Callable, Sequence
from itertools import count

from keytrail.export.spool.entries import Entry, Lane

PATIENCE = 60


class MemoryQueue:
    """Implements `Queue`. Unbounded, keeps refused entries with the reason."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # of a reentrant lock: properties are asked under it
        self._waiting: dict[int, Entry] = {}
        self._taken: dict[int, Entry] = {}
        self._settled: dict[int, int] = {}
        """Records of a taken entry that were settled in pieces."""
        self._sequence = count(1)
        self._wakes = 0
        self.put_records = 0
        self.exported_records = 0
        self.rejected_records = 0
        self.dead: list[tuple[Entry, str]] = []

    def put(self, data: bytes, records: int = 1, *, stream: int = 0, lane: Lane = Lane.EVENT) -> None:
        """Queue an entry."""
        with self._changed:
            sequence = next(self._sequence)
            self._waiting[sequence] = Entry(sequence, lane, stream, records, data)
            self.put_records += records
            self._changed.notify_all()

    def take(self, slot: int, slots: int, most_records: int, most_bytes: int, linger: float) -> list[Entry]:
        """See Queue."""
        with self._changed:
            woken = self._wakes

            def own() -> list[Entry]:
                return [
                    self._waiting[key] for key in sorted(self._waiting) if self._waiting[key].stream % slots == slot
                ]

            def full() -> bool:
                return sum(e.records for e in own()) >= most_records or sum(len(e.data) for e in own()) >= most_bytes

            self._changed.wait_for(lambda: own() or self._wakes != woken)
            self._changed.wait_for(lambda: full() or self._wakes != woken, timeout=linger)
            batch: list[Entry] = []
            records = size = 0
            for entry in own():
                records += entry.records
                size += len(entry.data)
                if batch and (records > most_records or size > most_bytes):
                    break
                batch.append(entry)
            for entry in batch:
                self._taken[entry.sequence] = self._waiting.pop(entry.sequence)
            return batch

    def exported(self, entries: Sequence[Entry], rejected: int = 0) -> None:
        """See Queue."""
        with self._changed:
            self._settle(entries)
            self.exported_records += sum(entry.records for entry in entries) - rejected
            self.rejected_records += rejected
            self._changed.notify_all()

    def refused(self, entries: Sequence[Entry], reason: str) -> None:
        """See Queue."""
        with self._changed:
            self._settle(entries)
            self.dead += ((entry, reason) for entry in entries)
            self._changed.notify_all()

    def give_back(self, entries: Sequence[Entry]) -> None:
        """See Queue."""
        with self._changed:
            for entry in entries:
                assert self._taken[entry.sequence] == entry
                assert entry.sequence not in self._settled
                self._waiting[entry.sequence] = self._taken.pop(entry.sequence)
            self._changed.notify_all()

    def wake(self) -> None:
        """See Queue."""
        with self._changed:
            self._wakes += 1
            self._changed.notify_all()

    def _settle(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            records = self._taken[entry.sequence].records
            settled = self._settled.pop(entry.sequence, 0) + entry.records
            assert settled <= records
            if settled == records:
                del self._taken[entry.sequence]
            else:
                self._settled[entry.sequence] = settled

    @property
    def dead_records(self) -> int:
        """Records set aside."""
        return sum(entry.records for entry, _ in self.dead)

    @property
    def queued_records(self) -> int:
        """Records that are waiting or taken."""
        with self._changed:
            entries = (*self._waiting.values(), *self._taken.values())
            return sum(entry.records for entry in entries) - sum(self._settled.values())

    @property
    def taken_entries(self) -> int:
        """Entries that were handed out and neither settled nor given back."""
        return len(self._taken)

    def is_exact(self) -> bool:
        """Whether every record is somewhere."""
        with self._changed:
            settled = self.exported_records + self.rejected_records + self.dead_records
            return self.put_records == settled + self.queued_records

    def wait(self, settled: int) -> None:
        """Return when so many records were exported, rejected or set aside."""
        self.wait_for(lambda: self.exported_records + self.rejected_records + self.dead_records >= settled)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when the condition, which looks at this queue, holds."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout=PATIENCE)
