"""Everything that watches for loss, as the collector wires it: one object to make, feed, start and close.

In: settings as plain values, transitions, and batches with their events. Out, through `put`: batches that carry gaps,
and batches that carry what was backfilled, so that both take their turn on the deciding thread.
"""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from keytrail.domain.event import Event
from keytrail.domain.gap import Gap
from keytrail.loss.agent_metrics import AgentMetrics
from keytrail.loss.monitor import LossMonitor
from keytrail.loss.policy_counters import PolicyCounters
from keytrail.loss.seen import Seen
from keytrail.loss.watch import LossWatch
from keytrail.observe.gap_log import GapLog
from keytrail.source.address import Address, find_metrics, parse_metrics_address
from keytrail.source.agent import PolicyStatus
from keytrail.source.base import Batch
from keytrail.source.grpc_stream import Transition

if TYPE_CHECKING:
    from keytrail.loss.backfill import Backfill

OFF = "off"


class LossGuard:
    """Made before the source, which tells it of transitions; started before anything is read."""

    def __init__(
        self,
        *,
        inbox_dropped: Callable[[], int],
        metrics_address: str = "",
        backfill_file: Path | None = None,
        filtered: bool = False,
        policies: Callable[[], Sequence[PolicyStatus]] | None = None,
        root: Path = Path("/"),
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`metrics_address` is the setting: empty finds it below `root`, where the host's file system is mounted.

        `filtered`: the user wants a part of the events. That types are left out which nobody looks at is none.

        `policies` asks the agent within 1.5 s; None: its counters are not watched. Raises SettingsError.
        """
        self._now_ns = now_ns
        self._backfill_file = backfill_file
        self._seen = Seen() if backfill_file is not None else None
        self._backfill: Backfill | None = None
        self._put: Callable[[Batch], None] | None = None
        self._early: list[Gap] = []
        self._starting = threading.Lock()
        self.gaps = GapLog()
        """What was reported, for metrics and status."""
        self.watch = LossWatch(
            self.report, inbox_dropped=inbox_dropped, seen=self._seen, filtered=filtered, now_ns=now_ns
        )
        self.metrics: AgentMetrics | None = None
        """None when they are switched off; its `problem` says why they are not watched."""
        if metrics_address != OFF:
            self.metrics = AgentMetrics(_locator(metrics_address, root), self.watch.report, now_ns=now_ns)
        self._counters = None
        if policies is not None and not filtered:
            self._counters = PolicyCounters(policies, self.watch.arrived, self.watch.report, now_ns=now_ns)
        self._monitor = LossMonitor(self.watch, self.metrics, self._counters)

    def start(
        self, put: Callable[[Batch], None], queued: Callable[[], int], previous: tuple[bool, int | None] = (True, None)
    ) -> None:
        """Begin. `put` and `queued` are the inbox's; `previous` is how the run before this one ended, and when."""
        with self._starting:
            self._put = put
            for gap in self._early:
                put(Batch((), self._now_ns(), gaps=(gap,)))
        if self._backfill_file is not None and self._seen is not None:
            from keytrail.loss.backfill import Backfill  # reads JSON, records and archives: 0.3 MB that few need

            self._backfill = Backfill(
                self._backfill_file, self._seen, put, self.report, queued=queued, now_ns=self._now_ns
            )
            self._backfill.start()
        self.watch.started(*previous)
        self._monitor.start()

    def transition(self, transition: Transition) -> None:
        """Take news of the connection."""
        if self._counters is not None:
            self._counters.left_out = transition.left_out
        self.watch.transition(transition)

    def batch(self, events: Sequence[Event], batch: Batch) -> None:
        """Take a batch with all that was decoded from it, before any filter."""
        self.watch.batch(events, batch)

    def close(self) -> None:
        """End all, with a closing record of what is open. To be called while `put` still takes batches."""
        if self._backfill is not None:
            self._backfill.close()
        self._monitor.close()

    def report(self, gap: Gap) -> None:
        """Hand on a gap, whoever noticed it; from any thread."""
        self.gaps.add(gap)
        with self._starting:
            if self._put is None:  # the spool looks at its files before anything is read
                self._early.append(gap)
            else:
                self._put(Batch((), self._now_ns(), gaps=(gap,)))
        if self._backfill is not None:
            self._backfill.gap(gap)


def _locator(setting: str, root: Path) -> Callable[[], Address | None]:
    """Say where the metrics are: as set, or as the agent's info file says by then."""
    if not setting:
        return partial(find_metrics, root)
    address = parse_metrics_address(setting)
    return lambda: address
