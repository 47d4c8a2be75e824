"""A decoded event, whose cold fields are read from its message when somebody asks.

In: a message that was read in part, and the hook it came from. Out: `Details`, `Credentials`, ancestors. An event keeps
its message alive, secrets included: consumers must let go of events, and keep what they need of them.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from google.protobuf.message import DecodeError

from keytrail.decode.arguments import (
    Arguments,
    action_name,
    capability_names,
    completed,
    enum_name,
    hook_arguments,
    read_args,
    returned_number,
)
from keytrail.decode.shallow import whole
from keytrail.domain.event import (
    NO_DETAILS,
    Credentials,
    Details,
    Event,
    EventKind,
    EventType,
    Exit,
    FileAccess,
    HookArgument,
    Network,
    Operation,
    Payload,
)
from keytrail.proto.tetragon import capabilities_pb2, events_pb2, tetragon_pb2

if TYPE_CHECKING:
    from keytrail.decode.decoder import Decoder
    from keytrail.decode.hooks import Hook
    from keytrail.domain.peer import Peer
    from keytrail.domain.process import Process


_POST = tetragon_pb2.KPROBE_ACTION_POST
# Asked of nearly every event: before Python 3.12 a member of an enum costs four times as much as a global.
_EXEC, _EXIT = EventType.EXEC, EventType.EXIT
_KPROBE, _THROTTLE = EventType.KPROBE, EventType.THROTTLE


class DecodedEvent(Event):
    """An `Event` over a protobuf message."""

    __slots__ = (
        "_arguments",
        "_credentials",
        "_decoder",
        "_details",
        "_hook",
        "_hook_args",
        "_message",
        "_node",
        "_peer",
        "envelope",
        "own",
    )

    envelope: Any
    """The whole message, of which the event is a part; set by the decoder."""

    def __init__(  # noqa: PLR0917 - made once an event: positional, no keyword parsing on the hot path
        self,
        kind: EventKind,
        type_: EventType,
        process: "Process",
        time_ns: int,
        function: str,
        policy: str,
        parent: "Process | None",
        message: Any,
        decoder: "Decoder",
        hook: "Hook | None",
    ) -> None:
        # Event.__init__ is not called: it would do the same assignments through keywords.
        self.kind = kind
        self.type = type_
        self.process = process
        self.time_ns = time_ns
        self.function = function
        self.policy = policy
        self.parent = parent
        self._message = message
        self._decoder = decoder
        self._hook = hook
        self._node: str | None = None
        self.own: Details | None = None
        """The details that are the kind's own, without what any hook event may carry: what rules ask for."""
        self._details: Details | None = None
        self._hook_args: Arguments | None = None
        self._arguments: tuple[HookArgument, ...] | None = None
        self._credentials: Credentials | Literal[False] | None = False
        """False: not read yet."""
        self._peer: Peer | Literal[False] | None = False

    @property
    def node(self) -> str:  # type: ignore[override] # a read-only view of what the base class stores
        """Name of the agent's node, made for who asks: 0.2 us, and the same for every event of an agent."""
        if self._node is None:
            self._node = str(self.envelope.node_name)
        return self._node

    @property
    def tid(self) -> int:  # type: ignore[override] # a read-only view of what the base class stores
        """Thread that acted; 0 when the agent did not say."""
        return 0 if self.type is _THROTTLE else int(self._message.process.tid.value)

    @property
    def details(self) -> Details:
        """What the kind adds; read from the message once."""
        if self._details is None:
            own = self.own or self.read()
            self._details = own if self._hook is None else completed(own, self._message)
        return self._details

    @property
    def network(self) -> Network | None:
        """As in the details, without reading the rest of them; so are the four below."""
        return (self.own or self.read()).network

    @property
    def file(self) -> FileAccess | None:
        """See `network`."""
        return (self.own or self.read()).file

    @property
    def payload(self) -> Payload | None:
        """See `network`."""
        return (self.own or self.read()).payload

    @property
    def operation(self) -> Operation | None:
        """See `network`."""
        return (self.own or self.read()).operation

    @property
    def exit(self) -> Exit | None:
        """See `network`."""
        return (self.own or self.read()).exit

    def hook_args(self) -> Arguments:
        """What the hook was called with, as readers take it: the kind may depend on it, and the details do."""
        found = self._hook_args
        if found is None:
            first = self._hook is not None and self._hook.reads_return
            found = self._hook_args = read_args(self._message, returned_first=first)
        return found

    def read(self) -> Details:
        """Read the details that are the kind's own."""
        hook = self._hook
        if hook is not None:
            read = hook.read_as.get(self.kind, hook.read) if hook.read_as else hook.read
            self.own = read(hook.name, self._hook_args or self.hook_args(), self._decoder.redact)
        else:
            self.own = self._read_plain()
        return self.own

    def _read_plain(self) -> Details:
        """Of an event without a hook."""
        message = self._message
        if self.type is _EXIT:
            duration = max(0, self.time_ns - self.process.start_ns) if self.process.start_ns else 0
            return Details(exit=Exit(message.status, message.signal, duration))
        if self.type is _THROTTLE:
            # The agent pads the cgroup's name with zero bytes to a fixed length.
            name = self._decoder.redact(message.cgroup.rstrip("\0"))[0]
            type_ = enum_name(events_pb2.ThrottleType, message.type).removeprefix("THROTTLE_").lower()
            return Details(operation=Operation(type_, name))
        return NO_DETAILS

    @property
    def arguments(self) -> tuple[HookArgument, ...]:
        """Of a hook; read from the message once."""
        if self._arguments is None:
            self._arguments = () if self._hook is None else self._read_arguments()
        return self._arguments

    def _read_arguments(self) -> tuple[HookArgument, ...]:
        """What the policy read at the call, then what it read beside it, which only some messages have."""
        return hook_arguments((*self._message.args, *getattr(self._message, "data", ())))

    @property
    def returned(self) -> int | None:
        """What the hooked function returned; asked of the message alone while the details are unread."""
        return returned_number(self._message) if self.type is _KPROBE else None

    @property
    def action(self) -> str:
        """What the policy made the agent do."""
        message = self._message
        if self._hook is None:
            return ""
        # Nearly always nothing, and asked of nearly every event; only kprobes have an action at their return.
        plain = message.action <= _POST and (self.type is not _KPROBE or message.return_action <= _POST)
        return "" if plain else action_name(message)

    @property
    def credentials(self) -> Credentials | None:
        """Ids and capabilities of the process at its exec; None unless the agent runs with `--enable-process-cred`."""
        if self._credentials is False:
            self._credentials = None if self.type is _THROTTLE else self._read_credentials()
        return self._credentials

    @property
    def gained(self) -> tuple[str, ...]:
        """How this exec gained privileges; mostly not at all, and then without a look at the rest."""
        if self._credentials is False and self.type is _EXEC:
            process = self._message.process
            # Of a plain program the agent sends no properties.
            told = process.HasField("binary_properties") and process.HasField("process_credentials")
            return _raised(process.binary_properties) if told else ()
        return super().gained

    def _read_credentials(self) -> Credentials | None:
        process = self._message.process
        if self.type is not _EXEC:  # of the others' process only what names it was read
            try:
                process = whole(process)
            except DecodeError:  # broken in a part that `decode` had no need to read
                return None
        if not process.HasField("process_credentials"):
            return None
        sent, binary = process.process_credentials, process.binary_properties
        links = binary.file.inode.links.value if binary.file.inode.HasField("links") else -1
        return Credentials(
            sent.uid.value,
            sent.gid.value,
            sent.euid.value,
            sent.egid.value,
            capability_names(process.cap.effective),
            _raised(binary),
            links,
        )

    @property
    def peer(self) -> "Peer | None":
        """Who is at the other end; looked up once, for another may have the address later."""
        if self._peer is False:
            self._peer = self._decoder.peer_of(self)
        return self._peer

    def ancestors(self) -> "Iterator[Process]":
        """Parent first, as far as the process table reaches."""
        return self._decoder.ancestors(self.process)


def _raised(binary: Any) -> tuple[str, ...]:
    changes = binary.privileges_changed
    if not (changes or binary.HasField("setuid") or binary.HasField("setgid")):  # nearly every exec, and each is asked
        return ()
    ids = [name for name in ("setuid", "setgid") if binary.HasField(name)]
    return (*ids, *(enum_name(capabilities_pb2.ProcessPrivilegesChanged, change) for change in changes))
