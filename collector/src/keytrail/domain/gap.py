"""A gap: an interval in which events are known or suspected to have been lost, or were late.

Loss is data: whoever notices it makes a `Gap`, and it leaves the collector as a record of its own. Pure data; who
notices is `keytrail.loss`, how it looks outside is `keytrail.export`'s.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b


class GapCause(StrEnum):
    """What the loss came from, as records and metrics name it."""

    AGENT_AWAY = "agent_away"
    """No stream: the agent was not there, restarted or refused."""
    READER_SLOW = "reader_slow"
    """The agent dropped events because its queue for us, or another listener's, was full."""
    KERNEL_OVERFLOW = "kernel_overflow"
    """The agent's ring buffers were full: events were lost before the agent saw them."""
    INBOX_FULL = "inbox_full"
    """We read more than we could decide on: dropped here, counted exactly."""
    POLICY_SHORTFALL = "policy_shortfall"
    """The kernel posted more events of a policy than arrived here."""
    EXIT_WITHOUT_EXEC = "exit_without_exec"
    """Processes ended, or did something, whose start never arrived."""
    HOOK_MISSED = "hook_missed"
    """The kernel did not run policies' hooks for some calls, which therefore nobody saw."""
    PROCESS_UNKNOWN = "process_unknown"
    """Events came without their process: the agent did not know it, so nobody can say who acted."""
    THROTTLED = "throttled"
    """The agent stopped reporting a cgroup that was too busy."""
    RATE_LIMITED = "rate_limited"
    """The agent's exporter left events out of its file (only seen where its file is read)."""
    LATE = "late"
    """Events arrive long after they happened: the next step is loss."""
    COLLECTOR_STOPPED = "collector_stopped"
    """Nobody read between the end of the previous run and the start of this one."""
    COLLECTOR_KILLED = "collector_killed"
    """The same, and the previous run had no time to write down what it held."""
    SPOOL_DAMAGED = "spool_damaged"
    """Stored records could not be read any more."""
    RECORDS_EVICTED = "records_evicted"
    """Stored records had to make room, or grew too old."""


_EACH_ALONE = frozenset({GapCause.SPOOL_DAMAGED, GapCause.RECORDS_EVICTED})
"""Told again while they go on, each time with what was lost since: records that were stored together begin together."""


class GapPhase(StrEnum):
    """How much of an episode a record tells. Records of one episode share their `id`; the last one counts."""

    OPEN = "open"
    """It has begun and may go on: said at once."""
    CLOSED = "closed"
    """It is over: the totals. A gap that was noticed afterwards has this record alone."""
    BACKFILLED = "backfilled"
    """The agent's export file has been searched for what it cost."""


@dataclass(frozen=True, slots=True)
class Gap:
    """What one record says of one interval of loss. Times are wall clock, nanoseconds since the epoch."""

    cause: GapCause
    start_ns: int
    """The earliest that the loss can have begun: when all was known to be well."""
    end_ns: int
    lost: int | None = None
    """Events lost (records, for the causes that say so), of the whole episode so far; None when nobody can know."""
    exact: bool = False
    """Whether `lost` was counted rather than estimated."""
    node: str = ""
    policy: str = ""
    detail: str = ""
    """One more sentence for a person; printable, without secrets."""
    backfilled: int = 0
    """How many of the lost events were found in the agent's export file and have been processed since."""
    facts: tuple[tuple[str, str], ...] = field(default=())
    """What tells similar gaps apart, such as the throttled cgroup: name and value, printable."""
    phase: GapPhase = GapPhase.CLOSED
    suspected: bool = False
    """There are signs of loss, or nothing is lost yet; else it is known that events, or the chance of them, were."""
    lag_ns: int = 0
    """How late the latest event was; 0 for all causes but `LATE`."""

    @property
    def id(self) -> str:
        """The same for all records of one episode."""
        subject: tuple[object, ...] = (str(self.cause), self.start_ns, self.policy, self.facts)
        if self.cause in _EACH_ALONE:
            subject += (self.end_ns,)
        return blake2b(repr(subject).encode(), digest_size=8).hexdigest()
