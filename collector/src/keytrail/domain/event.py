"""What happened: one event of the agent's stream, in Keytrail's words.

An `Event` holds what every consumer asks for. All else is in `details`, which decode reads from the message only
when somebody asks: an event that matches nothing must not pay for its cold fields.
"""

from collections.abc import Iterator
from dataclasses import field
from enum import StrEnum
from typing import TYPE_CHECKING

from keytrail.domain.peer import Peer
from keytrail.domain.process import Process

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:
    from keytrail.domain.values import value


class EventKind(StrEnum):
    """What an event is about, decided by hook function and argument shape, never by a policy's name."""

    EXEC = "exec"
    EXIT = "exit"
    CONNECT = "connect"
    ACCEPT = "accept"
    CLOSE = "close"
    LISTEN = "listen"
    SEND = "send"
    FILE = "file"
    LIBRARY = "library"
    MODULE = "module"
    BPF = "bpf"
    PRIVILEGE = "privilege"
    TRACE = "trace"
    MOUNT = "mount"
    NAMESPACE = "namespace"
    KILL = "kill"
    HOOK = "hook"
    THROTTLE = "throttle"


class EventType(StrEnum):
    """Which of the agent's messages carried the event."""

    EXEC = "exec"
    EXIT = "exit"
    KPROBE = "kprobe"
    TRACEPOINT = "tracepoint"
    LOADER = "loader"
    UPROBE = "uprobe"
    LSM = "lsm"
    USDT = "usdt"
    THROTTLE = "throttle"


@value(frozen=True, slots=True)
class Network:
    """Both ends of a socket. Ports are 0 when unknown or meaningless; addresses are textual IP addresses or paths."""

    family: str = ""
    """`AF_INET`, `AF_INET6`, `AF_UNIX`."""
    protocol: str = ""
    """`IPPROTO_TCP`, `IPPROTO_UDP`, ...; empty when the hook does not say."""
    local_address: str = ""
    local_port: int = 0
    peer_address: str = ""
    peer_port: int = 0
    cookie: int = 0
    """Kernel address of the socket: a join key while the socket lives, nothing more."""


@value(frozen=True, slots=True)
class FileAccess:
    """A file and what was done to it."""

    path: str
    access: str
    """`read`, `write`, `exec`, `open`, `load`, `map`, `truncate`, `chmod`, `chown`, `rename`, `link`, `symlink`,
    `unlink`, `times`, `xattr`."""
    mode: int | None = None
    """Permission bits of a chmod."""
    target: str = ""
    """The other path of a rename or link; the attribute's name of an xattr."""


@value(frozen=True, slots=True)
class Payload:
    """What was recognised in the first bytes that a process sent. The bytes themselves are never kept."""

    size: int = 0
    """Bytes, as the kernel was asked to send."""
    protocol: str = ""
    """`tls`, `http`, `dns`, or empty."""
    server_name: str = ""
    http_method: str = ""
    http_host: str = ""
    dns_name: str = ""
    credential: str = ""
    """Name of the pattern that matched a credential in plain text; never its value."""


@value(frozen=True, slots=True)
class Operation:
    """What a module, bpf, privilege, trace, mount, namespace or kill event did, and to what."""

    name: str
    """For example `load`, `request`, `setuid`, `attach`, `mount`, `unshare`, `SIGKILL`."""
    target: str = ""
    """Module, program, path or process name."""
    target_pid: int = 0
    type: str = ""
    """Program or map type of a bpf event; file system of a mount."""
    ids: tuple[int, ...] = ()
    """Arguments of a set*id call, in order; -1 leaves one unchanged."""
    capabilities: tuple[str, ...] = ()
    flags: int = 0


@value(frozen=True, slots=True)
class Exit:
    """How a process ended."""

    code: int = 0
    signal: str = ""
    duration_ns: int = 0
    """From exec to exit; 0 when the start is unknown."""


@value(frozen=True, slots=True)
class HookArgument:
    """One argument of a hook as the agent sent it. Text and bytes may be tested by a rule, never exported."""

    index: int
    label: str
    type: str
    value: int | str | bytes = field(repr=False)


@value(frozen=True, slots=True)
class Credentials:
    """Ids and capabilities of the acting process at exec; only with `--enable-process-cred`."""

    uid: int
    gid: int
    euid: int
    egid: int
    capabilities: tuple[str, ...] = ()
    """Effective set."""
    raised: tuple[str, ...] = ()
    """How this exec gained privileges: `setuid`, `setgid`, and as the agent names it, such as
    `PRIVILEGES_RAISED_EXEC_FILE_SETUID`."""
    inode_links: int = -1
    """Hard links of the executed file; 0 for a memfd or deleted file, -1 when unknown."""


@value(frozen=True, slots=True)
class Details:
    """The cold part of an event. What a kind does not have is None or empty."""

    network: Network | None = None
    file: FileAccess | None = None
    payload: Payload | None = None
    operation: Operation | None = None
    exit: Exit | None = None
    build_id: str = ""
    returned: int | None = None
    """Return value of the hooked function; None when the policy did not ask for it."""
    action: str = ""
    """What the policy made the agent do beyond posting, such as `SIGKILL`."""
    message: str = ""
    tags: tuple[str, ...] = ()


NO_DETAILS = Details()


class Event:
    """One event. Decode makes a subclass of it that reads everything below `__init__` when somebody asks."""

    __slots__ = (
        "backfilled",
        "function",
        "kind",
        "node",
        "parent",
        "policy",
        "process",
        "tid",
        "time_estimated",
        "time_ns",
        "type",
    )

    def __init__(
        self,
        kind: EventKind,
        type_: EventType,
        process: Process,
        *,
        time_ns: int,
        function: str = "",
        node: str = "",
        parent: Process | None = None,
        policy: str = "",
        tid: int = 0,
        time_estimated: bool = False,
    ) -> None:
        self.kind = kind
        self.type = type_
        self.process = process
        self.time_ns = time_ns
        """When it happened, nanoseconds since the epoch, by the kernel's clock."""
        self.function = function
        """Kernel function without syscall prefix (`__x64_sys_`), `subsystem/event`, symbol; empty for exec, exit."""
        self.node = node
        self.parent = parent
        self.policy = policy
        self.tid = tid
        """Thread that acted; 0 when the agent did not say."""
        self.time_estimated = time_estimated
        """The message carried no time (library loads): `time_ns` is that of the event before it."""
        self.backfilled = False
        """It was missed, and found later in the agent's export file."""

    @property
    def details(self) -> Details:
        """What the kind adds; read from the message on first use."""
        return NO_DETAILS

    # The parts of the details one by one, for who asks for one: a rule, which must not pay for the others.

    @property
    def network(self) -> Network | None:
        """As in `details`."""
        return self.details.network

    @property
    def file(self) -> FileAccess | None:
        """As in `details`."""
        return self.details.file

    @property
    def payload(self) -> Payload | None:
        """As in `details`."""
        return self.details.payload

    @property
    def operation(self) -> Operation | None:
        """As in `details`."""
        return self.details.operation

    @property
    def exit(self) -> Exit | None:
        """As in `details`."""
        return self.details.exit

    @property
    def credentials(self) -> Credentials | None:
        """Ids and capabilities at exec; None when the agent does not send them."""
        return None

    @property
    def peer(self) -> Peer | None:
        """Who is at the other end of the connection; None where that is nobody's to know."""
        return None

    @property
    def gained(self) -> tuple[str, ...]:
        """`raised` of the credentials: asked of each exec, and cheaper than the rest of them."""
        return () if self.credentials is None else self.credentials.raised

    @property
    def arguments(self) -> tuple[HookArgument, ...]:
        """The hook's arguments: for rules to test, not among the details, which outputs show."""
        return ()

    @property
    def returned(self) -> int | None:
        """As in `details`: what most rules ask first, and what costs least to answer."""
        return self.details.returned

    @property
    def action(self) -> str:
        """As in `details`; see `returned`."""
        return self.details.action

    def ancestors(self) -> Iterator[Process]:
        """Parent first, up to what is still known."""
        if self.parent is not None:
            yield self.parent

    def __repr__(self) -> str:
        return f"<Event {self.kind} {self.function} of {self.process!r} at {self.time_ns}>"
