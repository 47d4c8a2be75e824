"""What the stream itself shows of loss.

In: on the deciding thread every batch with its events, on the reading thread every transition of the connection, from a
timer a tick. Out: gaps, by the `report` that was given. What the agent's counters show is `agent_metrics`' and
`policy_counters`' business. All of it costs an event 0.1 microseconds, with memories for policies and backfill 0.3.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

from keytrail.domain.event import Event, EventType
from keytrail.domain.gap import Gap, GapCause
from keytrail.loss.episode import Episode, Report
from keytrail.loss.lateness import Lateness
from keytrail.loss.seen import Seen
from keytrail.loss.unannounced import Unannounced
from keytrail.source.base import Batch
from keytrail.source.grpc_stream import State, Transition

_POLICY = attrgetter("policy")
_TIME = attrgetter("time_ns")
_NEWEST_OF = 16
"""Last events of a batch among which its newest is: the stream is out of order by milliseconds."""
_HELD_NS = 30_000_000_000
"""How long before a broken stream its first lost event can have happened: the agent holds some back for so long."""
_UNDECIDED_NS = 5_000_000_000
"""How long what was read can have waited when a collector is killed: in the queue, for its pod, for the disk."""
_THROTTLED_QUIET_NS = 600_000_000_000
"""The STOP of a cgroup that goes quiet was not sent within a minute, if ever."""
_CGROUPS = 256


def _none_dropped() -> int:
    return 0


def _ignore(_gap: Gap) -> None:
    pass


class LossWatch:
    """Every method may be called from any thread, `batch` from one."""

    def __init__(
        self,
        report: Report,
        *,
        inbox_dropped: Callable[[], int] = _none_dropped,
        seen: Seen | None = None,
        filtered: bool = False,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`inbox_dropped` counts what our own queue had no room for, since the start; `seen` is what backfill needs.

        `filtered`: the agent was asked for a part of its events only. Then nobody can say which of them are missing.
        """
        self._give = report
        self._inbox_dropped = inbox_dropped
        self._seen = seen
        self._filtered = filtered
        self._now_ns = now_ns
        self._lock = threading.Lock()
        self._node = ""
        self._connected_ns = now_ns()
        """When the connection began, and before the first one, we."""
        self._newest_ns = 0
        self._arrived: Counter[str] = Counter()
        self._lateness = Lateness(self.report)
        self._unannounced = Unannounced(_ignore if filtered else self.report)
        self._away = Episode(GapCause.AGENT_AWAY, self.report, quiet_ns=None, longest_ns=None)
        self._inbox = Episode(GapCause.INBOX_FULL, self.report, exact=True)
        self._dropped, self._looked_ns = inbox_dropped(), now_ns()
        self.lag_ns: int | None = None
        """How old the newest event of the last batch was when it had been decided on; None before the first."""
        self._throttled: dict[str, Episode] = {}

    def report(self, gap: Gap) -> None:
        """Hand on a gap, whoever noticed it, with the node's name as the stream tells it."""
        self._give(gap if gap.node else replace(gap, node=self._node))

    def started(self, clean: bool, last_alive_ns: int | None) -> None:
        """Tell of the time in which no collector ran, after how the run before this one ended and when it last lived.

        None: there was none before, or it left no trace.
        """
        if last_alive_ns is None:
            return
        now = self._now_ns()
        cause = GapCause.COLLECTOR_STOPPED if clean else GapCause.COLLECTOR_KILLED
        if last_alive_ns < now:
            self.report(Gap(cause, last_alive_ns if clean else last_alive_ns - _UNDECIDED_NS, now))
        else:
            self.report(Gap(cause, now, now, detail="the clock was set back since: nobody knows when it began"))

    def transition(self, transition: Transition) -> None:
        """Take what the source says of its connection: between AWAY and CONNECTED the agent kept nothing for us."""
        with self._lock:
            if transition.state is State.CONNECTED:
                self._away.close(transition.at_ns)
                self._connected_ns = transition.at_ns
                return
            # What the agent held or had queued is lost too. The newest event says until when all was well, but on an
            # idle node that may be long ago.
            at = transition.at_ns
            start = min(at, max(self._newest_ns, self._connected_ns, at - _HELD_NS))
            self._away.add(start, at, now_ns=at, detail=f"no events from the agent: {transition.reason}")

    def batch(self, events: Sequence[Event], batch: Batch) -> None:
        """Take a batch with all its decoded events, before any filter."""
        if batch.backfilled:
            return
        with self._lock:
            if batch.agent is not None:
                self._unannounced.connected()
            if not events:
                return
            now = self._now_ns()
            self._node = events[-1].node or self._node
            newest = max(map(_TIME, events[-_NEWEST_OF:]))
            self._newest_ns = max(self._newest_ns, newest)
            self.lag_ns = max(0, now - newest)
            self._lateness.look(newest, now)
            for event in self._unannounced.look(events, now):
                if event.type is EventType.THROTTLE:
                    self._throttle(event, now)
            if not self._filtered:
                self._arrived.update(map(_POLICY, events))
        if self._seen is not None:
            self._seen.add(events)

    def arrived(self) -> Mapping[str, int]:
        """Return how many events of each policy have arrived since the start."""
        with self._lock:
            return dict(self._arrived)

    def tick(self) -> None:
        """Look at what no event tells: our own drops, and the end of episodes. To be called every few seconds."""
        with self._lock:
            now = self._now_ns()
            dropped = self._inbox_dropped()
            if dropped > self._dropped:
                detail = "our own queue was full"
                self._inbox.add(self._looked_ns, now, now_ns=now, lost=dropped - self._dropped, detail=detail)
            self._dropped, self._looked_ns = dropped, now
            self._inbox.tick(now)
            self._lateness.tick(now)
            self._unannounced.tick(now)
            for cgroup, episode in list(self._throttled.items()):
                episode.tick(now)
                if not episode.is_open:
                    del self._throttled[cgroup]

    def close(self) -> None:
        """End what is open: nobody will read any more."""
        self.tick()
        with self._lock:
            now = self._now_ns()
            self._away.close(now)
            self._inbox.close()
            self._lateness.close()
            self._unannounced.close(now)
            for episode in self._throttled.values():
                episode.close(now)
            self._throttled.clear()

    def _throttle(self, event: Event, now: int) -> None:
        operation = event.details.operation
        if operation is None:
            return
        cgroup = operation.target
        if operation.name == "start":
            episode = self._throttled.get(cgroup)
            if episode is None:
                if len(self._throttled) >= _CGROUPS:
                    self._throttled.pop(next(iter(self._throttled))).close(now)
                facts = (("cgroup", cgroup),)
                episode = Episode(GapCause.THROTTLED, self.report, facts=facts, quiet_ns=_THROTTLED_QUIET_NS)
                self._throttled[cgroup] = episode
            detail = "the agent leaves out execs of a cgroup that is too busy, and its exits come without a process"
            episode.add(event.time_ns, event.time_ns, now_ns=now, detail=detail)
        elif operation.name == "stop" and cgroup in self._throttled:
            self._throttled.pop(cgroup).close(event.time_ns)
