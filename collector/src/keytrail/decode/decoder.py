"""One serialized message in, one `Event` (or the reason why not) out: the decode stage.

Hot path: a message is parsed once and only in part (`shallow`), its process is looked up by exec_id, and nearly all
else stays in the message until somebody asks. What comes out next goes to `identify`. Knows nothing of rules,
identities or outputs.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from keytrail.decode.details import DecodedEvent
from keytrail.decode.hooks import Hook, hook_for, plain_function
from keytrail.decode.processes import LAST_NS, NANOSECONDS, ProcessReader, Redact
from keytrail.decode.shallow import parse, parse_process
from keytrail.decode.table import ProcessTable
from keytrail.domain.agent import AgentFacts
from keytrail.domain.drop import Drop, Undecodable
from keytrail.domain.event import Details, Event, EventKind, EventType, FileAccess
from keytrail.domain.peer import Peer
from keytrail.domain.process import Process

# Asked for with every event: before Python 3.12 a member of an enum costs four times as much as a global.
_KPROBE, _LSM, _TRACEPOINT = EventType.KPROBE, EventType.LSM, EventType.TRACEPOINT
_EXEC_KIND, _EXEC = EventKind.EXEC, EventType.EXEC
_EXIT_KIND, _EXIT = EventKind.EXIT, EventType.EXIT
_LIBRARY_KIND, _LOADER = EventKind.LIBRARY, EventType.LOADER
_ABOUT = frozenset({EventKind.CONNECT, EventKind.FILE, EventKind.SEND})
"""Kinds that say nothing without the connection or file that they are about: it is read with the event."""

MALFORMED = Drop(Undecodable.MALFORMED)
UNKNOWN_EVENT = Drop(Undecodable.UNKNOWN_EVENT)

_LIBRARIES_LIMIT = 1_024
"""Of at most a path's 4 KiB each; a node's programs load a few hundred libraries over and over."""
_FROM_FILE_LIMIT = 4_096
_HOOKS_LIMIT = 4_096
"""Far more hooks than an agent can load; bounds what a hostile stream can make us remember."""


class Decoder:
    """Decodes one agent's stream, in order. One thread only."""

    def __init__(self, redact: Redact, table: ProcessTable | None = None) -> None:
        self.table = table if table is not None else ProcessTable()
        self._reader = ProcessReader(redact)
        self.redact: Redact = self._reader.text
        self.fingerprints = self._reader.fingerprints
        """Off until it is given a key."""
        self._kernel_hooks: dict[str, tuple[str, Hook]] = {}
        self._user_hooks: dict[str, tuple[str, Hook]] = {}
        self._libraries: dict[tuple[str, bytes], Details] = {}
        self._from_file: dict[str, None] = {}
        """Processes without environment that only the agent's export file told of: the stream may know more."""
        self.last_ns = 0
        """Time of the latest message that had one."""
        self.peer_of: Callable[[Event], Peer | None] = _nobody
        """Who is at the other end of an event's connection: for those who ask an event."""
        self._make: dict[str | None, Callable[[Any, int], DecodedEvent]] = {
            "process_exec": self._exec,
            "process_exit": self._exit,
            "process_kprobe": self._kprobe,
            "process_lsm": self._lsm,
            "process_tracepoint": self._tracepoint,
            "process_uprobe": self._uprobe,
            "process_usdt": self._usdt,
            "process_loader": self._loader,
            "process_throttle": self._throttle,
        }

    def connect(self, facts: AgentFacts, processes: Sequence[bytes] = ()) -> None:
        """Begin a connection: learn what the agent captures, and fill the table from its process cache.

        Entries that do not parse are left out: the cache is a convenience, each event carries its whole process.
        """
        self._reader.learn(facts)
        for raw in processes:
            try:
                message = parse_process(raw)
                if message.exec_id and self.table.get(message.exec_id) is None:
                    self.table.add(self._reader.read(message), announced=True)
            except DecodeError:
                continue

    def decode(self, raw: bytes) -> DecodedEvent | Drop:
        """Decode one message. Never raises: what cannot be read is answered with a `Drop`."""
        try:
            message = parse(raw)
            which = message.WhichOneof("event")
            make = self._make.get(which)
            if make is None:  # a type newer than our declarations, or one that only export files hold
                return UNKNOWN_EVENT
            time = message.time
            time_ns = time.seconds * NANOSECONDS + time.nanos  # as `nanoseconds`, without a call for each event
            # Library loads carry no time: their place in the stream is their only clock.
            estimated = not 0 < time_ns <= LAST_NS
            if estimated:
                time_ns = self.last_ns
            else:
                self.last_ns = time_ns
            event = make(getattr(message, which), time_ns)
        except DecodeError:
            return MALFORMED
        event.envelope = message
        event.time_estimated = estimated
        event.backfilled = False
        return event

    def decode_past(self, raw: bytes) -> DecodedEvent | Drop:
        """Decode a message of the agent's export file, whose word on a process counts less than the stream's."""
        self._reader.from_file = True
        event = self.decode(raw)
        self._reader.from_file = False
        if isinstance(event, DecodedEvent):
            event.backfilled = True
            if event.process.environment is None and event.process.exec_id:
                if len(self._from_file) >= _FROM_FILE_LIMIT:
                    self._from_file.clear()
                self._from_file[event.process.exec_id] = None
        return event

    def ancestors(self, process: Process) -> Iterator[Process]:
        """Parent first; for `DecodedEvent`."""
        return self.table.ancestors(process)

    # -- one method for each kind of message; each returns an event whose envelope and time mark `decode` fills in

    def _exec(self, inner: Any, time_ns: int) -> DecodedEvent:
        process = self._reader.read(inner.process)
        parent = self._parent(inner, process.parent_exec_id)
        if parent is not None:
            process.parent_exec_id = parent.exec_id  # one text for all its children
        self.table.add(process, announced=True)
        return DecodedEvent(_EXEC_KIND, _EXEC, process, time_ns, "", "", parent, inner, self, None)

    def _exit(self, inner: Any, time_ns: int) -> DecodedEvent:
        process = self._process(inner)
        if process.exec_id:
            self.table.exit(process)
        parent = self.table.get(process.parent_exec_id)
        return DecodedEvent(_EXIT_KIND, _EXIT, process, time_ns, "", "", parent, inner, self, None)

    def _loader(self, inner: Any, time_ns: int) -> DecodedEvent:
        process = self._process(inner)
        parent = self.table.get(process.parent_exec_id)
        event = DecodedEvent(_LIBRARY_KIND, _LOADER, process, time_ns, "", "", parent, inner, self, None)
        event.own = self._library(inner.path, inner.buildid)
        return event

    def _throttle(self, inner: Any, time_ns: int) -> DecodedEvent:
        return DecodedEvent(
            EventKind.THROTTLE, EventType.THROTTLE, Process(""), time_ns, "", "", None, inner, self, None
        )

    def _kprobe(self, inner: Any, time_ns: int) -> DecodedEvent:
        name = inner.function_name
        return self._hooked(_KPROBE, inner, time_ns, self._kernel_hooks.get(name) or self._kernel_hook(name))

    def _lsm(self, inner: Any, time_ns: int) -> DecodedEvent:
        name = inner.function_name
        return self._hooked(_LSM, inner, time_ns, self._kernel_hooks.get(name) or self._kernel_hook(name))

    def _tracepoint(self, inner: Any, time_ns: int) -> DecodedEvent:
        name = f"{inner.subsys}/{inner.event}"
        return self._hooked(_TRACEPOINT, inner, time_ns, self._kernel_hooks.get(name) or self._kernel_hook(name))

    def _uprobe(self, inner: Any, time_ns: int) -> DecodedEvent:
        name = inner.symbol or f"{inner.path}+{inner.offset:#x}"
        return self._hooked(EventType.UPROBE, inner, time_ns, self._user_hook(name))

    def _usdt(self, inner: Any, time_ns: int) -> DecodedEvent:
        return self._hooked(EventType.USDT, inner, time_ns, self._user_hook(f"{inner.provider}:{inner.name}"))

    def _hooked(self, type_: EventType, inner: Any, time_ns: int, known: tuple[str, Hook]) -> DecodedEvent:
        function, hook = known
        process = self._process(inner)
        parent = self.table.get(process.parent_exec_id)
        policy = inner.policy_name
        event = DecodedEvent(hook.kind, type_, process, time_ns, function, policy, parent, inner, self, hook)
        if hook.refine is not None:
            event.kind = hook.refine(inner, event.hook_args)
        if event.kind in _ABOUT:
            event.read()
        return event

    def _library(self, path: str, build_id: bytes) -> Details:
        """Details of a loaded library, shared by all who load it."""
        known = self._libraries.get((path, build_id))
        if known is None:
            known = Details(file=FileAccess(self.redact(path)[0], "load"), build_id=build_id.hex())
            if len(self._libraries) >= _LIBRARIES_LIMIT:
                self._libraries.clear()
            self._libraries[path, build_id] = known
        return known

    # -- hooks: two caches, for a symbol that is named like a kernel function (`connect` of libc) is not that function

    def _kernel_hook(self, name: str) -> tuple[str, Hook]:
        """Look up a hook that is not known yet."""
        function = plain_function(name)
        found = function, hook_for(function)
        if len(self._kernel_hooks) < _HOOKS_LIMIT:
            self._kernel_hooks[name] = found
        return found

    def _user_hook(self, name: str) -> tuple[str, Hook]:
        known = self._user_hooks.get(name)
        if known is None:
            known = self.redact(name)[0], hook_for("")
            if len(self._user_hooks) < _HOOKS_LIMIT:
                self._user_hooks[name] = known
        return known

    # -- processes

    def _process(self, inner: Any) -> Process:
        sent = inner.process
        process = self.table.get(sent.exec_id)
        if process is None or (self._from_file and self._is_told_anew(sent.exec_id)):
            return self._enter(inner)
        if process.pod is None and process.container_id and sent.pod and not process.disowned:
            # Pod metadata may come later than the process: what was concluded without it is void.
            process.pod = self._reader.pod(parse_process(sent.SerializeToString()))
            process.attribution, process.placed_at = None, -1
        return process

    def _is_told_anew(self, exec_id: str) -> bool:
        """Whether it is the first that the stream tells of a process of the file."""
        if self._reader.from_file or exec_id not in self._from_file:
            return False
        del self._from_file[exec_id]
        return True

    def _enter(self, inner: Any) -> Process:
        """Read a process that no exec event told of: a fork without exec, or one older than the stream."""
        process = self._reader.read(parse_process(inner.process.SerializeToString()))
        if process.exec_id:  # none while the agent throttles: its exit events then carry an empty process
            self._parent(inner, process.parent_exec_id)
            self.table.add(process, announced=False)
        return process

    def _parent(self, inner: Any, exec_id: str) -> Process | None:
        """Return the parent, entered into the table with the ancestors that came along when it was not known yet."""
        parent = self.table.get(exec_id)
        if parent is not None or not exec_id or not inner.parent:
            return parent
        for raw in (*reversed(inner.ancestors), inner.parent):
            sent = parse_process(raw)
            if sent.exec_id and self.table.get(sent.exec_id) is None:
                self.table.add(self._reader.read(sent), announced=False)
        return self.table.get(exec_id)


def _nobody(_event: Event) -> Peer | None:
    return None
