"""Who acted: one process image (one `exec_id`) and the Kubernetes pod that it runs in.

Values of environment variables never reach these objects, and arguments and paths are redacted before they do.
"""

from dataclasses import dataclass, field
from functools import lru_cache

from keytrail.domain.identity import Attribution
from keytrail.domain.placement import Origin, Partial, Placement

_UNREAD = ("truncArgs", "errorArgs", "errorEnvs", "errorFilename")
"""Flags by which the agent says that it could not read all of an exec."""


@lru_cache(maxsize=256)  # a node's processes have a dozen between them
def _told_by(flags: str) -> tuple[bool, bool]:
    """Whether the process was found in /proc, and whether the agent could not read all of its exec."""
    return "procFS" in flags, any(word in flags for word in _UNREAD)


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the agent or the API server describes it; `id` is without its runtime prefix."""

    id: str = ""
    name: str = ""
    image: str = ""
    image_id: str = ""
    privileged: bool = False


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as the agent or the API server describes it."""

    namespace: str
    name: str
    uid: str = ""
    workload: str = ""
    workload_kind: str = ""
    service_account: str = ""
    container: Container = Container()
    labels: dict[str, str] = field(default_factory=dict, compare=False)
    host_network: bool = False
    """It has no network namespace of its own: its addresses are the node's. Only the API server tells."""
    exec_commands: tuple[str, ...] = field(default=(), compare=False)
    """Arguments of its container's probes and lifecycle hooks, as `Process.arguments` shows them."""
    maybe_exec_probe: bool = False
    """The agent saw the command line of one of the pod's probes: anyone who runs the same command gets this."""


class Process:
    """One process image, shared by all its events.

    Changes in few places, each written by one stage: `exited` (decode), `pod`, `origin`, `placement` and `placed_at`
    (enrich), `reached` (enrich, as it hears of hosts), `attribution` and `opened` (identify).
    """

    __slots__ = (
        "argument_credentials",
        "arguments",
        "attribution",
        "auid",
        "binary",
        "container_id",
        "cwd",
        "environment",
        "exec_id",
        "exited",
        "fingerprints",
        "flags",
        "host_namespaces",
        "in_init_tree",
        "opened",
        "origin",
        "parent_exec_id",
        "pid",
        "placed_at",
        "placement",
        "pod",
        "preexisting",
        "reached",
        "start_ns",
        "truncated",
        "uid",
    )

    def __init__(  # noqa: PLR0917 - made for each exec: positional, no keyword parsing on the hot path
        self,
        exec_id: str,
        pid: int = 0,
        binary: str = "",
        arguments: str = "",
        cwd: str = "",
        uid: int = 0,
        auid: int = -1,
        flags: str = "",
        start_ns: int = 0,
        parent_exec_id: str = "",
        container_id: str = "",
        in_init_tree: bool = False,
        host_namespaces: bool | None = None,
        pod: Pod | None = None,
        environment: tuple[str, ...] | None = None,
        argument_credentials: tuple[str, ...] = (),
    ) -> None:
        self.exec_id = exec_id
        self.pid = pid
        self.binary = binary
        """As executed, made absolute, symlinks kept; the script for a script; `/dev/fd/3` for a memfd."""
        self.arguments = arguments
        """argv[1:] joined by blanks, redacted. Cannot be split back: the agent does not escape quotes."""
        self.cwd = cwd
        self.uid = uid
        """Effective user id at exec; -1 when the agent did not say, as for the exit of a process that it throttled."""
        self.auid = auid
        """Login user id; -1 when unset."""
        self.flags = flags
        self.start_ns = start_ns
        """Nanoseconds since the epoch; 0 when unknown."""
        self.parent_exec_id = parent_exec_id
        self.container_id = container_id
        """First 31 hex digits of the container id, from the cgroup's name alone: any local root can forge it."""
        self.in_init_tree = in_init_tree
        self.host_namespaces = host_namespaces
        """Whether it has the node's pid and mount namespace, both; None when the agent does not say."""
        self.pod = pod
        """As the agent says it; with Kubernetes, as the API server does, and then only where it is proved."""
        self.origin: Origin | None = None
        self.placement: Placement | None = None
        """What enrich concluded; None without Kubernetes."""
        self.placed_at = -1
        """Generation of the pods that `placement` was concluded from."""
        self.environment = environment
        """Names of the set, non-empty environment variables; None when the event carried no environment at all."""
        self.fingerprints: tuple[tuple[str, bytes], ...] = ()
        """Names of variables with the keyed fingerprints of their values, where that is on. Never to be exported."""
        self.argument_credentials = argument_credentials
        """What redaction found on the command line, by pattern name, such as `github-token`."""
        self.preexisting, unread = _told_by(flags)
        self.truncated = unread or "<enomem>" in (cwd, binary)
        """The agent could not read the command line or environment: padding can hide both."""
        self.attribution: Attribution | None = None
        """What the identify stage concluded; None before, and when something that it rests on has changed."""
        self.opened: tuple[tuple[str, int], ...] = ()
        """Files with credentials that it was seen to open, each with the time of the first event of it, bounded."""
        self.reached: tuple[str, ...] = ()
        """Hosts that it was seen to ask for by name, in TLS or HTTP, bounded."""
        self.exited = False

    @property
    def disowned(self) -> bool:
        """Whether it was found not to run in the pod whose container's id it bears, whatever the agent says."""
        return self.placement is not None and self.placement.partial in {Partial.FORGED, Partial.RUNTIME}

    @property
    def name(self) -> str:
        """Last component of the binary's path."""
        return self.binary.rpartition("/")[2]

    def __repr__(self) -> str:
        return f"<Process {self.pid} {self.binary!r} {'exited' if self.exited else 'running'}>"
