"""What became of every record of the spool, and what has to be told about losses.

`appended + recovered == exported + queued + sum(dropped)` at every moment: each method takes the equation from one true
state to another. Called with the spool's lock held.
"""

from collections import Counter
from typing import NamedTuple

from keytrail.domain.drop import DropReason
from keytrail.export.spool.entries import ExportListener, Lane

_REPEAT_NS = 60_000_000_000
"""Losses of one kind that go on are told once a minute, not for every record."""


class SpoolLoss(NamedTuple):
    """Records that the spool lost, for one reason, since it was told last."""

    reason: DropReason
    records: int
    """0: something was damaged, and nobody knows how much it held."""
    start_ns: int
    """When the oldest of them was appended, as far as known; wall clock."""
    end_ns: int
    detail: str
    """For a person."""


class Ledger:
    """Counts, in records."""

    def __init__(self, listener: ExportListener) -> None:
        self._listener = listener
        self.appended = 0
        self.recovered = 0
        self.exported = 0
        self.queued = [0] * len(Lane)
        """By lane: a list, since an enum's hash costs more than all the rest of `append`."""
        self.dropped: Counter[DropReason] = Counter()
        self._losses: dict[DropReason, SpoolLoss] = {}
        self._told: dict[DropReason, int] = {}

    def append(self, lane: Lane, count: int) -> None:
        """Records came in."""
        self.appended += count
        self.queued[lane] += count

    def recover(self, lane: Lane, count: int) -> None:
        """Records of an earlier run, or of the dead letters, are queued again."""
        if count:
            self.recovered += count
            self.queued[lane] += count
            self._listener.recovered(count)

    def export(self, lane: Lane, count: int) -> None:
        """The backend acknowledged records."""
        if count:
            self.queued[lane] -= count
            self.exported += count
            self._listener.on_exported(count)

    def drop(self, lane: Lane, count: int, reason: DropReason) -> None:
        """Records are lost for good."""
        if count:
            self.queued[lane] -= count
            self.dropped[reason] += count
            self._listener.on_dropped(count, reason)

    def note(self, reason: DropReason, records: int, start_ns: int, end_ns: int, detail: str) -> None:
        """Remember a loss until it is told."""
        known = self._losses.get(reason)
        if known is not None:
            records, start_ns = records + known.records, min(start_ns, known.start_ns)
        self._losses[reason] = SpoolLoss(reason, records, start_ns, end_ns, detail)

    def to_tell(self, now_ns: int, *, all_: bool = False) -> list[SpoolLoss]:
        """Losses to be told now, on a clock that does not jump: each kind at once, and then not again for a while."""
        due = [
            loss
            for reason, loss in self._losses.items()
            if all_ or reason not in self._told or now_ns - self._told[reason] >= _REPEAT_NS
        ]
        for loss in due:
            del self._losses[loss.reason]
            self._told[loss.reason] = now_ns
        return due
