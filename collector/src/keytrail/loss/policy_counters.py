"""Events that the kernel posted for each policy against those that arrived.

In: the agent's list of policies, and counts of what arrived, every thirty seconds. Out: suspected gaps. The kernel's
number is no number of events: on a real agent a hook that also reports its return posts twice for one event, and posts
that a rate limit or filter takes out later are counted all the same; of seventeen recorded policies with nothing lost
between 9 and 100 % of the posts became events. So each policy's own worst usual yield is what it is measured against,
and only a plain fall below it, in two intervals together, is a sign.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from keytrail.domain.errors import AgentError
from keytrail.domain.gap import GapCause
from keytrail.loss.episode import Episode, Report
from keytrail.source.agent import PolicyStatus

_SENSORS = {
    "PROCESS_KPROBE": "generic_kprobe",
    "PROCESS_TRACEPOINT": "generic_tracepoint",
    "PROCESS_UPROBE": "generic_uprobe",
    "PROCESS_USDT": "generic_usdt",
    "PROCESS_LSM": "generic_lsm",
    "PROCESS_LOADER": "__loader__",
}
"""What posts each type of event that policies make; a policy's status lists what it is made of."""
_TELLING = 20
"""Posts that an interval needs to say something about a policy's yield."""
_USUAL = 3
"""Intervals after which a policy's usual yield is known."""
_FALL = 0.75
_QUIET_NS = 100_000_000_000


@dataclass(slots=True)
class _Policy:
    id: int
    npost: int
    arrived: int
    least_yield: float = 1.0
    telling: int = 0
    doubtful: tuple[int, int] | None = None
    """Posts and arrivals of the interval before, which were fewer than usual: some may still have been on their way."""
    episode: Episode | None = field(default=None)


class PolicyCounters:
    """For one thread. Not for a stream that leaves out events of some processes: nobody knows how many were posted."""

    def __init__(
        self,
        policies: Callable[[], Sequence[PolicyStatus]],
        arrived: Callable[[], Mapping[str, int]],
        report: Report,
        *,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`policies` asks the agent and may raise AgentError; `arrived` counts events since the start, by policy."""
        self._policies = policies
        self._arrived = arrived
        self._report = report
        self._now_ns = now_ns
        self._known: dict[str, _Policy] = {}
        self.left_out: Collection[str] = ()
        """Types of event that the stream was not asked for, as the agent names them; set by any thread."""
        self._looked_ns: tuple[int, int] = (0, 0)
        """The look before, and the one before that."""

    def look(self) -> None:
        """Compare; an agent that does not answer is left for the next time."""
        try:
            statuses = self._policies()
        except AgentError:
            return
        arrived, now = self._arrived(), self._now_ns()
        counts: dict[str, tuple[int, int]] = {}
        withheld = frozenset(_SENSORS.get(one) for one in self.left_out)
        for status in statuses:  # events name a policy without its namespace
            if not withheld.isdisjoint(status.sensors):  # posted all the same; once asked for again it counts as new
                continue
            id_, npost = counts.get(status.name, (0, 0))
            counts[status.name] = max(id_, status.id), npost + status.npost
        earlier, self._known = self._known, {}
        for name, (id_, npost) in counts.items():
            known = earlier.pop(name, None)
            seen = arrived.get(name, 0)
            if known is None or known.id != id_ or npost < known.npost:  # new, loaded anew, or a new agent's
                if known is not None and known.episode is not None:
                    known.episode.close()
                self._known[name] = _Policy(id_, npost, seen)
                continue
            self._known[name] = known
            self._judge(name, known, npost - known.npost, seen - known.arrived, now)
            known.npost, known.arrived = npost, seen
        for gone in earlier.values():
            if gone.episode is not None:
                gone.episode.close()
        self._looked_ns = now, self._looked_ns[0]

    def close(self) -> None:
        """End what is open."""
        for known in self._known.values():
            if known.episode is not None:
                known.episode.close()

    def _judge(self, name: str, policy: _Policy, posted: int, arrived: int, now: int) -> None:
        if policy.episode is not None:
            policy.episode.tick(now)
        if policy.telling < _USUAL:
            policy.doubtful = None
            if posted >= _TELLING:
                policy.telling += 1
                policy.least_yield = min(policy.least_yield, arrived / posted)
            return
        earlier, policy.doubtful = policy.doubtful, None
        all_posted, all_arrived = posted, arrived
        if earlier is not None:
            all_posted, all_arrived = posted + earlier[0], arrived + earlier[1]
        missing = round(policy.least_yield * all_posted) - all_arrived
        if missing < _TELLING or all_arrived >= _FALL * policy.least_yield * all_posted:
            return
        if earlier is None:
            policy.doubtful = posted, arrived
            return
        if policy.episode is None:
            policy.episode = Episode(
                GapCause.POLICY_SHORTFALL, self._report, suspected=True, policy=name, quiet_ns=_QUIET_NS
            )
        detail = f"the kernel posted {all_posted} events of the policy, of which fewer than usual arrived"
        policy.episode.add(self._looked_ns[1], now, now_ns=now, lost=missing, detail=detail)
