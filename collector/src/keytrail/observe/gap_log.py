"""What is remembered of gaps, for metrics and status: the newest ones, and totals by cause.

Gaps come in from whoever noticed the loss, a `GapsPart` goes out. A gap that goes on, or is filled in later, is
reported again with the same id: that is one episode, of which the last report counts.
"""

import threading
from collections import Counter, OrderedDict

from keytrail.domain.gap import Gap
from keytrail.observe.snapshot import GapsPart

_KEPT = 64


class GapLog:
    """Gaps of one run, for any thread; bounded, as an agent that keeps failing makes gaps without end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: OrderedDict[str, Gap] = OrderedDict()
        self._episodes: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._backfilled: Counter[str] = Counter()

    def add(self, gap: Gap) -> None:
        """Take a gap, or news of one."""
        with self._lock:
            earlier = self._recent.pop(gap.id, None)
            self._recent[gap.id] = gap
            if earlier is None:
                self._episodes[gap.cause] += 1
                if len(self._recent) > _KEPT:
                    self._recent.popitem(last=False)
            # A corrected, lower estimate does not take back what was counted: a counter that falls reads as a restart.
            before = (0, 0) if earlier is None else (earlier.lost or 0, earlier.backfilled)
            self._lost[gap.cause] += max(0, (gap.lost or 0) - before[0])
            self._backfilled[gap.cause] += max(0, gap.backfilled - before[1])

    def part(self) -> GapsPart:
        """Return what is remembered now."""
        with self._lock:
            return GapsPart(
                dict(self._episodes), dict(self._lost), dict(self._backfilled), tuple(self._recent.values())
            )
