"""Two equations that hold at every moment, and the counters they are made of.

events:  received = decoded + undecodable + dropped(reason)
records: made = exported + queued + suppressed(reason) + dropped(reason)

`received` counts what the deciding thread took or what had to be thrown away before it: a message still waiting
between the two is not received yet. `queued` is what an output holds and has not delivered. `made` includes the records
that an earlier run left on disk (`recovered`): they have to end on the other side as well.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from keytrail.domain.drop import DropReason, Undecodable
from keytrail.observe.recent import RecentUse


class Accounting:
    """Counters of one collector, for any thread. Every method takes the equations from one true state to another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = 0
        self._by_kind: Counter[str] = Counter()
        self._undecodable: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._made = 0
        self._recovered = 0
        self._exported = 0
        self._suppressed: Counter[str] = Counter()
        self._records_dropped: Counter[str] = Counter()
        self._findings: Counter[tuple[str, str]] = Counter()
        self.recent = RecentUse()
        """Identities and rules of the last 24 hours."""

    def events(self, by_kind: Mapping[str, int], undecodable: Mapping[str, int], dropped: Mapping[str, int]) -> None:
        """Account for one batch: what became of each message in it."""
        with self._lock:
            self._received += (
                _add(self._by_kind, by_kind) + _add(self._undecodable, undecodable) + _add(self._dropped, dropped)
            )

    def lost_before_decode(self, count: int, reason: DropReason | Undecodable) -> None:
        """Account for messages that were received and never reached decode."""
        with self._lock:
            self._received += count
            counter = self._dropped if isinstance(reason, DropReason) else self._undecodable
            counter[str(reason)] += count

    def found(self, findings: Mapping[tuple[str, str], int]) -> None:
        """Account for a batch's findings, by rule and severity. Independent of how many records are made of them."""
        with self._lock:
            self._findings.update(findings)

    def made(self, count: int) -> None:
        """Records made: queued until an output says otherwise."""
        with self._lock:
            self._made += count

    def recovered(self, count: int) -> None:
        """Records of an earlier run, found on disk at the start: made, and queued again."""
        with self._lock:
            self._made += count
            self._recovered += count

    def on_exported(self, count: int) -> None:
        """Records written, or acknowledged by the backend."""
        with self._lock:
            self._exported += count

    def suppressed(self, count: int, reason: str) -> None:
        """Records held back on purpose and counted in a summary record."""
        with self._lock:
            self._suppressed[reason] += count

    def on_dropped(self, count: int, reason: DropReason) -> None:
        """Records that will never be delivered."""
        with self._lock:
            self._records_dropped[str(reason)] += count

    @property
    def received(self) -> int:
        """Events received so far."""
        return self._received

    def events_dropped(self, reason: DropReason) -> int:
        """Events that were dropped for a reason so far."""
        with self._lock:
            return self._dropped[str(reason)]

    def summary(self) -> dict[str, dict[str, Any]]:
        """The shape that `--summary` writes, taken at one moment."""
        with self._lock:
            queued = self._made - self._exported - self._suppressed.total() - self._records_dropped.total()
            return {
                "events": {
                    "received": self._received,
                    "decoded": self._by_kind.total(),
                    "undecodable": self._undecodable.total(),
                    "dropped": dict(sorted(self._dropped.items())),
                    "by_kind": dict(sorted(self._by_kind.items())),
                    "undecodable_by_reason": dict(sorted(self._undecodable.items())),
                },
                "records": {
                    "made": self._made,
                    "recovered": self._recovered,
                    "exported": self._exported,
                    "queued": queued,
                    "suppressed": dict(sorted(self._suppressed.items())),
                    "dropped": dict(sorted(self._records_dropped.items())),
                },
                "findings": self._by_rule(),
            }

    def _by_rule(self) -> dict[str, dict[str, int]]:
        by_rule: dict[str, dict[str, int]] = {}
        for (rule, severity), count in sorted(self._findings.items()):
            by_rule.setdefault(rule, {})[severity] = count
        return by_rule


def _add(counter: Counter[str], counts: Mapping[str, int]) -> int:
    """Add counts, of which some may be 0, and return their sum. `Counter.update` first finds out what it was given."""
    total = 0
    for key, count in counts.items():
        if count:
            counter[key] += count
            total += count
    return total
