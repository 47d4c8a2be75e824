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
from keytrail.domain.event import NO_DETAILS, Details, Event, EventKind
from keytrail.domain.identity import NO_IDENTITY, Attribution
from keytrail.export import attributes
from keytrail.export.attributes import Group, Row, S, Subject
from keytrail.export.otlp_table import Table
from keytrail.export.otlp_wire import (
    RECORD_ATTRIBUTES,
    RESOURCE_ATTRIBUTES,
    Framing,
    attribute_writer,
    delimited,
    integer_prefixes,
    text_table,
    value_prefixes,
    varint,
    varint_text,
)
from keytrail.export.output import ProcessMemo
from keytrail.export.record_uid import event_digest, process_digest
from keytrail.export.terminal_line import identity_text, process_text, target_text

ResourceKey = NewType("ResourceKey", bytes)
"""The encoded Resource itself: records belong together when, and only when, their resources are equal."""

_RESOURCES = 4096
_CALLS = 4096
_ATTRIBUTIONS = 1024
_UINT64 = (1 << 64) - 1

# Fields of opentelemetry.proto.logs.v1, in the order of their numbers.
_TIME: Final = Struct("<BQ")  # tag and fixed64, of which there are two:
_TIME_TAG, _OBSERVED_TAG = 0x09, 0x59  # LogRecord.time_unix_nano (1) and observed_time_unix_nano (11)
_SEVERITY: Final = b"\x10\x09" + delimited(b"\x1a", b"INFO")  # severity_number (2) and severity_text (3)
_BODY: Final = text_table(value_prefixes(b"\x2a"), write_empty=True)  # body (5)
_EVENT_NAME: Final = delimited(b"\x62", b"keytrail.event")  # event_name (12)
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
_HOST: Final = Table(attributes.HOST)
_CONTAINER: Final = Table(attributes.CONTAINER)
_WORKLOAD: Final = Table(attributes.WORKLOAD)
_PROCESS: Final = Table(attributes.PROCESS)
_IDENTITY: Final = Table(attributes.IDENTITY)
_POD: Final = Table(attributes.POD)
_HOOK: Final = Table(attributes.EVENT, _rows(attributes.EVENT, *_OF_HOOKS))
_EVENT: Final = Table(
    attributes.EVENT, [row for row in attributes.EVENT.rows if row[0] not in {*_OF_HOOKS, attributes.THREAD_ID}]
)
_THREAD: Final = [one.decode("latin-1") for one in integer_prefixes(RECORD_ATTRIBUTES, attributes.THREAD_ID)]
_DETAILS: Final = Table(attributes.DETAILS)
_CREDENTIALS: Final = Table(attributes.CREDENTIALS)
_NETWORK: Final = Table(attributes.NETWORK)
_FILE: Final = Table(attributes.FILE)
_PAYLOAD: Final = Table(attributes.PAYLOAD)
_OPERATION: Final = Table(attributes.OPERATION)
_EXIT: Final = Table(attributes.EXIT)
_UID: Final = attribute_writer(RECORD_ATTRIBUTES, attributes.RECORD_UID, "string")(32 * "0")[:-32].decode("ascii")
_KIND: Final = attribute_writer(RECORD_ATTRIBUTES, attributes.RECORD_KIND, "string")("event")
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
    attributes: bytes
    uid: bytes
    """Digest of what identifies the process image and its identity."""
    process: str
    identity: str


class Head(NamedTuple):
    """What tells records of events and of findings apart."""

    severity: bytes
    """severity_number (2) and severity_text (3), encoded."""
    kind: bytes
    """The attribute `keytrail.record.kind`, encoded."""
    event_name: bytes
    """event_name (12), encoded."""
    attributes: bytes = b""
    """Further attributes, encoded."""
    time_ns: int = 0
    """0: that of the event."""


_OF_EVENTS: Final = Head(_SEVERITY, _KIND, _EVENT_NAME)


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
        self._hooks: _Bounded[tuple[int, int, str, str], bytes] = _Bounded(_CALLS)
        self._subjects: _Bounded[tuple[int, str, str], tuple[object, ResourceKey, bytes]] = _Bounded(_RESOURCES)
        self._identities: _Bounded[int, tuple[object, bytes, str]] = _Bounded(_ATTRIBUTIONS)

    def encode(self, event: Event) -> tuple[ResourceKey, bytes]:
        """One LogRecord message, and the key of the resource that it belongs to."""
        known, tid = self._memo.of(event), event.tid
        target = target_text(event)
        body = f"{event.kind} {known.process}{' ' if target else ''}{target}{known.identity}"
        uid = event_digest(event, known.uid, tid)
        return known.resource, self.record(event, known, tid, _OF_EVENTS, body=body, uid=uid)

    def known(self, event: Event) -> Known:
        """What the records of the event's process share."""
        return self._memo.of(event)

    def resource_key(self, event: Event) -> ResourceKey:
        """Key of the resource that the records of an event belong to."""
        return self._memo.of(event).resource

    def record(self, event: Event, known: Known, tid: int, head: Head, *, body: str, uid: bytes) -> bytes:
        """One LogRecord message about an event; `body` is printable ASCII."""
        details = event.details
        # A character for each byte, as in `otlp_table`.
        text = f"{_BODY[len(body)]}{body}{_UID}{uid.hex()}"
        if tid:
            thread = varint_text(tid)
            text = f"{text}{_THREAD[len(thread)]}{thread}"
        parts = [
            _TIME.pack(_TIME_TAG, (head.time_ns or event.time_ns) & _UINT64),
            head.severity,
            text.encode("latin-1"),
            head.kind,
            self._hook(event),
            _EVENT.encode(event),
            known.attributes,
        ]
        if details is not NO_DETAILS:
            _add_details(parts, details)
        kind = event.kind
        # They are those of the exec, and cold in the message: only where a reader looks for them.
        if kind is EventKind.EXEC or kind is EventKind.PRIVILEGE:
            parts.append(_CREDENTIALS.encode(event.credentials))
        parts += (head.attributes, _TIME.pack(_OBSERVED_TAG, self._clock_ns() & _UINT64), head.event_name)
        return b"".join(parts)

    def resource_logs(self, key: bytes, records: list[bytes]) -> bytes:
        """One ResourceLogs message of records that share a resource."""
        pieces = _LOG_RECORDS.pieces(records)
        size = varint(len(_SCOPE) + sum(map(len, pieces)) + len(_SCHEMA))
        # One join: records are a kilobyte or two each, and were copied three times over.
        return b"".join((delimited(_RESOURCE, key), _SCOPE_LOGS, size, _SCOPE, *pieces, _SCHEMA, _SCHEMA))

    def _hook(self, event: Event) -> bytes:
        # The enumerations' members are known by id, too: their hash is a function in Python.
        key = (id(event.kind), id(event.type), event.function, event.policy)
        known = self._hooks.get(key)
        return known if known is not None else self._hooks.keep(key, _HOOK.encode(event))

    def _learn(self, event: Event) -> Known:
        process = event.process
        resource, pod = self._subject(event)
        identity, identity_words = self._identity(process.attribution or NO_IDENTITY)
        return Known(
            resource,
            _PROCESS.encode(process) + identity + pod,
            process_digest(event),
            process_text(process),
            identity_words,
        )

    def _identity(self, attribution: Attribution) -> tuple[bytes, str]:
        known = self._identities.get(id(attribution))
        if known is None:
            text = identity_text(attribution)
            made = (attribution, _IDENTITY.encode(attribution), f" {text}" if text else "")
            known = self._identities.keep(id(attribution), made)
        return known[1], known[2]

    def _subject(self, event: Event) -> tuple[ResourceKey, bytes]:
        process = event.process
        pod = process.pod
        key = (id(pod), event.node, process.container_id)
        known = self._subjects.get(key)
        if known is None:
            resource = self._resource_of(Subject(event.node, pod, process.container_id))
            known = self._subjects.keep(key, (pod, resource, _POD.encode(pod)))
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


def _add_details(parts: list[bytes], details: Details) -> None:
    parts.append(_DETAILS.encode(details))
    if details.network is not None:
        parts.append(_NETWORK.encode(details.network))
    if details.file is not None:
        parts.append(_FILE.encode(details.file))
    if details.payload is not None:
        parts.append(_PAYLOAD.encode(details.payload))
    if details.operation is not None:
        parts.append(_OPERATION.encode(details.operation))
    if details.exit is not None:
        parts.append(_EXIT.encode(details.exit))
