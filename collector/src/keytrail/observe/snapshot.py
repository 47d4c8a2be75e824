"""One picture of the collector, for its own metrics, health and status.

Plain data: whoever composes the collector fills it from the real parts (a `Probe`), and observe needs to know none of
them. Times named `_ns` are wall clock, nanoseconds since the epoch; None is "never" or "not known". Mappings are keyed
by bounded names (reasons, lanes, rules), never by what a workload chose: they become metric attributes. Texts may hold
anything printable or not, but no secret; what shows them escapes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from keytrail.domain.gap import Gap

RECENT_NS: Final = 3_600_000_000_000
"""What was lost or went wrong so long ago needs attention; what is older is only counted."""
_NONE: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class StreamPart:
    """The agent's event stream."""

    connected: bool = False
    address: str = ""
    reader: str = ""
    """Who reads it: http2 or grpcio."""
    since_ns: int | None = None
    """Since when it is connected, or not."""
    reason: str = ""
    """Why it is not connected, for a person."""
    agent_version: str = ""
    connections: int = 0
    """How often it was connected since the start."""
    left_out: tuple[str, ...] = ()
    """Types of event that the agent is not asked for, as it names them: nobody looks at them."""
    lag_seconds: float | None = None
    """How old the newest event was when it was decided on."""


@dataclass(frozen=True, slots=True)
class QueuePart:
    """What waits between reading and deciding."""

    events: int = 0
    capacity: int = 0


@dataclass(frozen=True, slots=True)
class ProcessesPart:
    """Processes that are remembered."""

    known: int = 0
    capacity: int = 0
    evicted: int = 0
    uncompared: int = 0
    """Values of their variables that were not compared with Secrets, as there were too many."""


@dataclass(frozen=True, slots=True)
class RulesPart:
    """Detection rules in force."""

    loaded: bool = False
    enabled: tuple[str, ...] = ()
    failures: Mapping[str, int] = field(default_factory=lambda: _NONE)
    """Conditions that ended in an error, by rule."""
    failing: tuple[str, ...] = ()
    """Rules of which some did so recently (`RECENT_NS`)."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Rules that were wrong when they were read, and why; an earlier version of one may be in force."""
    forgotten: Mapping[str, int] = field(default_factory=lambda: _NONE)
    """What was forgotten because a rule's memory was full, by rule."""


@dataclass(frozen=True, slots=True)
class SpoolPart:
    """Records that wait for the backend."""

    queued: int = 0
    unsynced: int = 0
    """Of `queued`: not on disk yet."""
    by_lane: Mapping[str, int] = field(default_factory=lambda: _NONE)
    dead_letters: int = 0
    """Records that the backend refused for good, set aside."""
    bytes: int = 0
    most_bytes: int = 0
    oldest_ns: int | None = None
    durable: bool = False
    fault: str = ""
    """Why records are not on disk although a folder was given; empty when all is well."""


@dataclass(frozen=True, slots=True)
class BackendPart:
    """Where records are sent."""

    endpoint: str = ""
    """Without credentials."""
    reachable: bool | None = None
    """Whether the last request got a final answer; None before the first."""
    trouble: str = ""
    """What keeps it from taking records, in a word; empty when nothing does."""
    requests: Mapping[str, int] = field(default_factory=lambda: _NONE)
    """By result."""
    retries: int = 0
    last_success_ns: int | None = None
    last_error: str = ""
    """Stays after a success."""
    failed_ns: int | None = None
    """When that was."""


@dataclass(frozen=True, slots=True)
class ReloadPart:
    """Rules, mappings and settings that are read again while the collector runs."""

    successful: bool = True
    """Whether what was read last is in force; else the last good version is."""
    loaded_ns: int | None = None
    """When what is in force was read."""
    results: Mapping[str, int] = field(default_factory=lambda: _NONE)
    """Reloads by result."""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GapsPart:
    """Known and suspected loss, as `gap_log` keeps it."""

    episodes: Mapping[str, int] = field(default_factory=lambda: _NONE)
    lost: Mapping[str, int] = field(default_factory=lambda: _NONE)
    backfilled: Mapping[str, int] = field(default_factory=lambda: _NONE)
    recent: tuple[Gap, ...] = ()
    """Newest last."""


@dataclass(frozen=True, slots=True)
class ThreadPart:
    """One watched thread."""

    name: str
    alive: bool
    busy_seconds: float
    """How long it has been at what it does now; 0 while it waits for work."""
    longest_seconds: float
    """Beyond, it counts as stuck."""


@dataclass(frozen=True, slots=True)
class IdentityPart:
    """One identity that was used."""

    id: str
    last_ns: int
    workloads: tuple[str, ...] = ()
    """As namespace/kind/name, the latest first; none for processes of the node itself."""


@dataclass(frozen=True, slots=True)
class RecentPart:
    """What the last 24 hours had, counted since the process began."""

    identities: tuple[IdentityPart, ...] = ()
    """Those that processes carried, the latest first."""
    findings: Mapping[str, int] = field(default_factory=lambda: _NONE)
    """By rule; of whole hours."""


@dataclass(frozen=True, slots=True)
class WatchPart:
    """One collection of the API server that is kept up to date."""

    resource: str
    connected: bool = False
    """Whether the last request was answered."""
    synced: bool = False
    """Whether the copy was complete at least once."""
    objects: int = 0
    events: int = 0
    lists: int = 0
    failures: int = 0
    undecodable: int = 0
    heard_ns: int | None = None
    """When the API server last said anything of it."""
    reason: str = ""
    """Why it is not connected."""


@dataclass(frozen=True, slots=True)
class RequestPart:
    """What one kind of request to the API server took; bytes of bodies."""

    verb: str
    resource: str
    requests: int = 0
    failed: int = 0
    sent: int = 0
    received: int = 0


@dataclass(frozen=True, slots=True)
class ClusterPart:
    """The API server and what is known by it."""

    url: str = ""
    watches: tuple[WatchPart, ...] = ()
    requests: tuple[RequestPart, ...] = ()
    problems: tuple[str, ...] = ()
    """What is wrong with objects in the API server."""
    pods: int = 0
    """Pods of this node that are known, those that are gone for a while included."""
    peers: int | None = None
    """Addresses in the cluster whose owners are known; None where nobody wants to know."""
    waiting: int = 0
    """Events that wait for their pod now."""
    waited: int = 0
    """Events that ever waited."""
    misses: Mapping[str, int] = field(default_factory=lambda: _NONE)
    """Processes of which something is not known, by reason."""


@dataclass(frozen=True, slots=True)
class LogPart:
    """The collector's own log."""

    entries: Mapping[str, int] = field(default_factory=lambda: _NONE)
    """Warnings and errors by level, held-back ones included."""
    held_back: int = 0
    """Repeats that were not written."""


@dataclass(frozen=True, slots=True)
class UsagePart:
    """What the process takes."""

    cpu_user_seconds: float = 0.0
    cpu_system_seconds: float = 0.0
    memory_bytes: int = 0
    threads: int = 0
    file_descriptors: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything, at one moment. A part that the collector does not have is None."""

    now_ns: int
    started_ns: int
    version: str
    accounting: Mapping[str, Any]
    """What `Accounting.summary()` returns."""
    events_per_second: float | None = None
    """Over the last minute; None before it can be told."""
    stream: StreamPart | None = None
    inbox: QueuePart | None = None
    processes: ProcessesPart | None = None
    rules: RulesPart | None = None
    spool: SpoolPart | None = None
    backend: BackendPart | None = None
    reload: ReloadPart | None = None
    cluster: ClusterPart | None = None
    recent: RecentPart = field(default_factory=RecentPart)
    gaps: GapsPart = field(default_factory=GapsPart)
    threads: tuple[ThreadPart, ...] = ()
    log: LogPart = field(default_factory=LogPart)
    usage: UsagePart = field(default_factory=UsagePart)


class Probe(Protocol):
    """Who can take a picture. Called from any thread, at every scrape: it must be quick and never block."""

    def snapshot(self) -> Snapshot:
        """Return the state of now; counters in it never fall."""
        ...
