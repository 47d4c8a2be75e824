"""Events as OTLP log records, in bytes.

Events with their attribution come in; out come bytes of `LogRecord` and `ResourceLogs` messages, made once and never
parsed again on their way. Which attributes there are is said in `attributes`, how they become bytes in `otlp_table`
and `otlp_wire`; where records go is the spool's business (next: `otlp_output`).

What is the same for all events of a process, of a container, of a hook, or of an identity is made once for each of
them. Objects that many events share are known by their id (and kept, so that it stays theirs): hashing a pod or an
attribution by its fields costs as much as encoding an event.
"""

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Final, Generic, NamedTuple, NewType, TypeVar

from keytrail import __version__
from keytrail.domain.event import NO_DETAILS, Details, Event, EventKind, Payload
from keytrail.domain.identity import NO_IDENTITY, Attribution
from keytrail.domain.peer import Peer
from keytrail.export import attributes
from keytrail.export.attributes import Group, Row, S, Subject
from keytrail.export.otlp_table import Table
from keytrail.export.otlp_wire import (
    RECORD_ATTRIBUTES,
    RESOURCE_ATTRIBUTES,
    Framing,
    IntegerTexts,
    attribute_writer,
    delimited,
    text_table,
    value_prefixes,
    varint,
)
from keytrail.export.output import ProcessMemo
from keytrail.export.record_uid import call_text, event_digest, process_digest
from keytrail.export.terminal_line import identity_text, process_text, target_text

ResourceKey = NewType("ResourceKey", bytes)
"""The encoded Resource itself: records belong together when, and only when, their resources are equal."""

_RESOURCES = 4096
_CALLS = 4096
_ATTRIBUTIONS = 1024
_PEERS = 1024
_UINT64 = (1 << 64) - 1

# Fields of opentelemetry.proto.logs.v1. Protobuf lets them come in any order: what is fixed is written in one piece.
_TIMES: Final = Struct("<BQBQ")  # tag and fixed64, twice:
_TIME_TAG, _OBSERVED_TAG = 0x09, 0x59  # LogRecord.time_unix_nano (1) and observed_time_unix_nano (11)
_BODY: Final = text_table(value_prefixes(b"\x2a"), write_empty=True)  # body (5)
_RESOURCE: Final = b"\x0a"  # ResourceLogs.resource (1)
_SCOPE_LOGS: Final = b"\x12"  # ResourceLogs.scope_logs (2)
_LOG_RECORDS: Final = Framing(b"\x12")  # ScopeLogs.log_records (2)
_SCHEMA: Final = delimited(b"\x1a", attributes.SCHEMA_URL.encode())  # schema_url (3) of both
_SCOPE: Final = delimited(  # ScopeLogs.scope (1): name (1) and version (2)
    b"\x0a", delimited(b"\x0a", b"keytrail") + delimited(b"\x12", __version__.encode())
)


def _rows(group: Group[S], *names: str) -> list[Row[S]]:
    return [row for row in group.rows if row[0] in names]


_OF_HOOKS: Final = ("keytrail.event.kind", "keytrail.event.type", "keytrail.event.function", "keytrail.event.policy")
_MARKS: Final = ("keytrail.event.time_estimated", "keytrail.backfilled")
_HOST: Final = Table(attributes.HOST)
_CONTAINER: Final = Table(attributes.CONTAINER)
_WORKLOAD: Final = Table(attributes.WORKLOAD)
_PROCESS: Final = Table(attributes.PROCESS)
_IDENTITY: Final = Table(attributes.IDENTITY)
_POD: Final = Table(attributes.POD)
_HOOK: Final = Table(attributes.EVENT, _rows(attributes.EVENT, *_OF_HOOKS))
_MARKED: Final = Table(attributes.EVENT, _rows(attributes.EVENT, *_MARKS))
_THREAD: Final = IntegerTexts(RECORD_ATTRIBUTES, attributes.THREAD_ID)
_PARENT: Final = IntegerTexts(RECORD_ATTRIBUTES, "process.parent_pid")
_DETAILS: Final = Table(attributes.DETAILS)
_CREDENTIALS: Final = Table(attributes.CREDENTIALS)
_NETWORK: Final = Table(attributes.NETWORK)
_PEER: Final = Table(attributes.PEER, [row for row in attributes.PEER.rows if row[0] != "server.address"])
_PEER_HOST: Final = Table(attributes.PEER, _rows(attributes.PEER, "server.address"))
_FILE: Final = Table(attributes.FILE)
_PAYLOAD: Final = Table(attributes.PAYLOAD)
_OPERATION: Final = Table(attributes.OPERATION)
_EXIT: Final = Table(attributes.EXIT)
_UID: Final = attribute_writer(RECORD_ATTRIBUTES, attributes.RECORD_UID, "string")(32 * "0")[:-32].decode("ascii")
_OBSERVED_ONLY: Final = frozenset(
    name for group in (attributes.CONTAINER, attributes.WORKLOAD) for name, _, _, _ in group.rows
)

K = TypeVar("K")
V = TypeVar("V")


class _Bounded(dict[K, V], Generic[K, V]):
    """A memory that is forgotten when it is full: what is in use is soon there again."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def keep(self, key: K, value: V) -> V:
        if len(self) >= self._most:
            self.clear()
        self[key] = value
        return value


class Known(NamedTuple):
    """What the records of one process share."""

    resource: ResourceKey
    attributes: str
    """Encoded, a character for each byte, as everything that becomes part of a record."""
    identified: str
    """Attributes of its identity, the same text for all processes that have it: most of a process is in memory once."""
    placed: str
    """Attributes of its pod, likewise."""
    thread: str
    """The thread's attribute when it is the first one, as nearly always."""
    uid: bytes
    """Digest of what identifies the process image and its identity."""
    process: str
    identity: str


class Hook(NamedTuple):
    """What the records of events of one kind from one hook share."""

    attributes: str
    call: str
    """Its part of a record's uid."""
    kind: str


def head(severity: int, severity_text: str, kind: str, more: str = "") -> str:
    """Encode what tells records of events, findings and gaps apart; `more` are further attributes, encoded."""
    fixed = b"".join(
        (
            b"\x10" + bytes((severity,)),  # severity_number (2)
            delimited(b"\x1a", severity_text.encode()),  # severity_text (3)
            attribute_writer(RECORD_ATTRIBUTES, attributes.RECORD_KIND, "string")(kind),
            delimited(b"\x62", f"keytrail.{kind}".encode()),  # event_name (12)
        )
    )
    return fixed.decode("latin-1") + more


_OF_EVENTS: Final = head(9, "INFO", "event")


class RecordEncoder:
    """Makes records of events. For one thread; keeps bounded memories of processes, containers, hooks, identities."""

    def __init__(self, resource: Mapping[str, str], clock_ns: Callable[[], int]) -> None:
        self._resource = {
            # A collector's own pod, say from OTEL_RESOURCE_ATTRIBUTES, must not be taken for the observed one.
            name: attribute_writer(RESOURCE_ATTRIBUTES, name, "string")(value)
            for name, value in resource.items()
            if name not in _OBSERVED_ONLY
        }
        self._clock_ns = clock_ns
        self._memo = ProcessMemo(self._learn)
        self._hooks: _Bounded[tuple[int, int, str, str], Hook] = _Bounded(_CALLS)
        self._subjects: _Bounded[tuple[int, str, str], tuple[object, ResourceKey, str]] = _Bounded(_RESOURCES)
        self._identities: _Bounded[int, tuple[object, str, str]] = _Bounded(_ATTRIBUTIONS)
        self._peers: _Bounded[int, tuple[Peer, str, str]] = _Bounded(_PEERS)

    def encode(self, event: Event) -> tuple[ResourceKey, bytes]:
        """One LogRecord message, and the key of the resource that it belongs to."""
        known, hook, tid = self._memo.of(event), self.hook(event), event.tid
        target = target_text(event)
        body = f"{hook.kind} {known.process}{' ' if target else ''}{target}{known.identity}"
        uid = event_digest(event, known.uid, tid, hook.call)
        return known.resource, self.record(event, known, hook, tid, _OF_EVENTS, event.time_ns, body, uid)

    def known(self, event: Event) -> Known:
        """What the records of the event's process share."""
        return self._memo.of(event)

    def hook(self, event: Event) -> Hook:
        """What the records of events of this kind from this hook share."""
        # The enumerations' members are known by id, too: their hash is a function in Python.
        key = (id(event.kind), id(event.type), event.function, event.policy)
        known = self._hooks.get(key)
        if known is None:
            known = self._hooks.keep(key, Hook(_HOOK.text(event), call_text(event), event.kind.value))
        return known

    def resource_key(self, event: Event) -> ResourceKey:
        """Key of the resource that the records of an event belong to."""
        return self._memo.of(event).resource

    def record(  # noqa: PLR0917 - made of every event: positional, no keyword parsing on the hot path
        self, event: Event, known: Known, hook: Hook, tid: int, start: str, time_ns: int, body: str, uid: bytes
    ) -> bytes:
        """One LogRecord message about an event; `start` is a `head`, `body` printable ASCII."""
        details, kind, parent = event.details, event.kind, event.parent
        more = "" if details is NO_DETAILS else _details_text(details)
        if details.network is not None and (peer := event.peer) is not None:
            more += self._peer(peer, details.payload)
        if tid:
            more += known.thread if tid == event.process.pid else _THREAD[tid]
        if parent is not None:
            more += _PARENT[parent.pid]
        if event.time_estimated or event.backfilled:
            more += _MARKED.text(event)
        # They are those of the exec, and cold in the message: only where a reader looks for them.
        if (kind is EventKind.EXEC or kind is EventKind.PRIVILEGE) and (credentials := event.credentials) is not None:
            more += _CREDENTIALS.text(credentials)
        text = (
            f"{start}{_BODY[len(body)]}{body}{_UID}{uid.hex()}{hook.attributes}"
            f"{known.attributes}{known.identified}{known.placed}{more}"
        )
        times = _TIMES.pack(_TIME_TAG, time_ns & _UINT64, _OBSERVED_TAG, self._clock_ns() & _UINT64)
        return times + text.encode("latin-1")

    def resource_logs(self, key: bytes, records: list[bytes]) -> bytes:
        """One ResourceLogs message of records that share a resource."""
        pieces = _LOG_RECORDS.pieces(records)
        size = varint(len(_SCOPE) + sum(map(len, pieces)) + len(_SCHEMA))
        # One join: records are a kilobyte or two each, and were copied three times over.
        return b"".join((delimited(_RESOURCE, key), _SCOPE_LOGS, size, _SCOPE, *pieces, _SCHEMA, _SCHEMA))

    def _peer(self, peer: Peer, payload: Payload | None) -> str:
        known = self._peers.get(id(peer))
        if known is None:
            known = self._peers.keep(id(peer), (peer, _PEER.text(peer), _PEER_HOST.text(peer)))
        # Of two names the one that this very event carries is its server's.
        named = payload is not None and (payload.server_name or payload.http_host)
        return known[1] if named else known[1] + known[2]

    def _learn(self, event: Event) -> Known:
        process = event.process
        resource, pod = self._subject(event)
        identity, identity_words = self._identity(process.attribution or NO_IDENTITY)
        return Known(
            resource,
            _PROCESS.text(process),
            identity,
            pod,
            _THREAD[process.pid],
            process_digest(event),
            process_text(process),
            identity_words,
        )

    def _identity(self, attribution: Attribution) -> tuple[str, str]:
        known = self._identities.get(id(attribution))
        if known is None:
            text = identity_text(attribution)
            made = (attribution, _IDENTITY.text(attribution), f" {text}" if text else "")
            known = self._identities.keep(id(attribution), made)
        return known[1], known[2]

    def _subject(self, event: Event) -> tuple[ResourceKey, str]:
        process = event.process
        pod = process.pod
        key = (id(pod), event.node, process.container_id)
        known = self._subjects.get(key)
        if known is None:
            resource = self._resource_of(Subject(event.node, pod, process.container_id))
            known = self._subjects.keep(key, (pod, resource, _POD.text(pod)))
        return known[1], known[2]

    def _resource_of(self, subject: Subject) -> ResourceKey:
        own = dict(self._resource)
        if subject.node:
            # The agent knows where it runs; a recording's node is not that of the collector which reads it.
            own.pop("host.name", None)
            if subject.pod is not None:
                own.pop("k8s.node.name", None)
        made = (*own.values(), _HOST.encode(subject), _CONTAINER.encode(subject), _WORKLOAD.encode(subject.pod))
        return ResourceKey(b"".join(made))


def _details_text(details: Details) -> str:
    network = details.network
    text = "" if network is None else _NETWORK.text(network)
    if details.returned is not None or details.action or details.build_id or details.message or details.tags:
        text += _DETAILS.text(details)
    if details.file is not None:
        text += _FILE.text(details.file)
    if details.payload is not None:
        text += _PAYLOAD.text(details.payload)
    if details.operation is not None:
        text += _OPERATION.text(details.operation)
    if details.exit is not None:
        text += _EXIT.text(details.exit)
    return text
