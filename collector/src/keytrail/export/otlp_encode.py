"""Events as OTLP log records, in bytes.

Events with their attribution come in; out come bytes of `LogRecord` and `ResourceLogs` messages, made once and never
parsed again on their way. Which attributes there are is said in `attributes`, how bytes look in `otlp_wire`; where
they go is the sender's business (next: `otlp_output`).

Everything that is the same for all events of a process is made once for each process, everything that is the same
for all events of a container once for each container: that takes an event from some 75 microseconds to about ten.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, NamedTuple, NewType

from keytrail import __version__
from keytrail.domain.event import Event, EventKind
from keytrail.domain.identity import NO_IDENTITY
from keytrail.export import attributes
from keytrail.export.attributes import Group, S, Subject
from keytrail.export.otlp_wire import RECORD_ATTRIBUTES, RESOURCE_ATTRIBUTES, attribute_writer, delimited
from keytrail.export.output import ProcessMemo
from keytrail.export.record_uid import event_digest, process_digest
from keytrail.export.terminal_line import identity_text, process_text, target_text

ResourceKey = NewType("ResourceKey", bytes)
"""The encoded Resource itself: records belong together when, and only when, their resources are equal."""

_Writer = Callable[[Any], bytes]
_RESOURCES = 4096
_UINT64 = (1 << 64) - 1

# Fields of opentelemetry.proto.logs.v1, in the order of their numbers.
_TIME: Final = b"\x09"  # LogRecord.time_unix_nano (1), fixed64
_SEVERITY: Final = b"\x10\x09" + delimited(b"\x1a", b"INFO")  # severity_number (2) and severity_text (3)
_BODY: Final = b"\x2a"  # body (5)
_OBSERVED_TIME: Final = b"\x59"  # observed_time_unix_nano (11), fixed64
_EVENT_NAME: Final = delimited(b"\x62", b"keytrail.event")  # event_name (12)
_RESOURCE: Final = b"\x0a"  # ResourceLogs.resource (1)
_SCOPE_LOGS: Final = b"\x12"  # ResourceLogs.scope_logs (2)
_LOG_RECORDS: Final = b"\x12"  # ScopeLogs.log_records (2)
_SCHEMA: Final = delimited(b"\x1a", attributes.SCHEMA_URL.encode())  # schema_url (3) of both
_SCOPE: Final = delimited(  # ScopeLogs.scope (1): name (1) and version (2)
    b"\x0a", delimited(b"\x0a", b"keytrail") + delimited(b"\x12", __version__.encode())
)


class Table(Generic[S]):
    """The attributes of a group with a writer each."""

    def __init__(self, group: Group[S]) -> None:
        tag = RESOURCE_ATTRIBUTES if group.where == "resource" else RECORD_ATTRIBUTES
        self.rows = [(value_of, attribute_writer(tag, name, type_)) for name, type_, _, value_of in group.rows]

    def encode(self, source: S | None) -> bytes:
        """All attributes that the source has; none for a source that is None."""
        if source is None:
            return b""
        parts = []
        for value_of, write in self.rows:
            value = value_of(source)
            if value or value == 0:  # None, an empty text and an empty list are absent; 0 and False are values
                parts.append(write(value))
        return b"".join(parts)


_HOST: Final = Table(attributes.HOST)
_CONTAINER: Final = Table(attributes.CONTAINER)
_WORKLOAD: Final = Table(attributes.WORKLOAD)
_PROCESS: Final = Table(attributes.PROCESS)
_IDENTITY: Final = Table(attributes.IDENTITY)
_POD: Final = Table(attributes.POD)
_EVENT: Final = Table(attributes.EVENT)
_DETAILS: Final = Table(attributes.DETAILS)
_CREDENTIALS: Final = Table(attributes.CREDENTIALS)
_NETWORK: Final = Table(attributes.NETWORK)
_FILE: Final = Table(attributes.FILE)
_PAYLOAD: Final = Table(attributes.PAYLOAD)
_OPERATION: Final = Table(attributes.OPERATION)
_EXIT: Final = Table(attributes.EXIT)
_UID: Final[_Writer] = attribute_writer(RECORD_ATTRIBUTES, attributes.RECORD_UID, "string")
_KIND: Final = attribute_writer(RECORD_ATTRIBUTES, attributes.RECORD_KIND, "string")("event")
_OBSERVED_ONLY: Final = frozenset(
    name for group in (attributes.CONTAINER, attributes.WORKLOAD) for name, _, _, _ in group.rows
)


class _Known(NamedTuple):
    """What the records of one process share."""

    resource: bytes
    attributes: bytes
    uid: bytes
    """Digest of what identifies the process image and its identity."""
    process: str
    identity: str


class Head(NamedTuple):
    """What tells records about one event apart: the event's own, and those of findings."""

    severity: bytes
    """severity_number (2) and severity_text (3), encoded."""
    body: str
    """Printable ASCII."""
    uid: bytes
    kind: bytes
    """The attribute `keytrail.record.kind`, encoded."""
    event_name: bytes
    """event_name (12), encoded."""
    attributes: bytes = b""
    """Further attributes, encoded."""
    time_ns: int = 0
    """0: that of the event."""


def _shows_credentials(kind: EventKind) -> bool:
    # They are those of the exec, and cold in the message: only where a reader looks for them.
    return kind is EventKind.EXEC or kind is EventKind.PRIVILEGE


class RecordEncoder:
    """Makes records of events. For one thread; keeps bounded memories of processes and containers."""

    def __init__(self, resource: Mapping[str, str], clock_ns: Callable[[], int]) -> None:
        self._resource = {
            # A collector's own pod, say from OTEL_RESOURCE_ATTRIBUTES, must not be taken for the observed one.
            name: attribute_writer(RESOURCE_ATTRIBUTES, name, "string")(value)
            for name, value in resource.items()
            if name not in _OBSERVED_ONLY
        }
        self._clock_ns = clock_ns
        self._memo = ProcessMemo(self._learn)
        self._resources: dict[Subject, bytes] = {}

    def encode(self, event: Event) -> tuple[ResourceKey, bytes]:
        """One LogRecord message, and the key of the resource that it belongs to."""
        known = self._memo.of(event)
        target = target_text(event)
        body = f"{event.kind} {known.process}{' ' if target else ''}{target}{known.identity}"
        uid = event_digest(event, known.uid)
        return ResourceKey(known.resource), self.record(event, Head(_SEVERITY, body, uid, _KIND, _EVENT_NAME))

    def resource_key(self, event: Event) -> ResourceKey:
        """Key of the resource that the records of an event belong to."""
        return ResourceKey(self._memo.of(event).resource)

    def record(self, event: Event, head: "Head") -> bytes:
        """One LogRecord message about an event."""
        known, details = self._memo.of(event), event.details
        return b"".join(
            (
                _TIME,
                struct.pack("<Q", (head.time_ns or event.time_ns) & _UINT64),
                head.severity,
                delimited(_BODY, delimited(b"\x0a", head.body.encode("ascii"))),
                _UID(head.uid.hex()),
                head.kind,
                _EVENT.encode(event),
                known.attributes,
                _DETAILS.encode(details),
                _CREDENTIALS.encode(event.credentials if _shows_credentials(event.kind) else None),
                _NETWORK.encode(details.network),
                _FILE.encode(details.file),
                _PAYLOAD.encode(details.payload),
                _OPERATION.encode(details.operation),
                _EXIT.encode(details.exit),
                head.attributes,
                _OBSERVED_TIME,
                struct.pack("<Q", self._clock_ns() & _UINT64),
                head.event_name,
            )
        )

    def resource_logs(self, key: ResourceKey, records: list[bytes]) -> bytes:
        """One ResourceLogs message of records that share a resource."""
        content = _SCOPE + b"".join(delimited(_LOG_RECORDS, record) for record in records) + _SCHEMA
        return delimited(_RESOURCE, key) + delimited(_SCOPE_LOGS, content) + _SCHEMA

    def _learn(self, event: Event) -> _Known:
        process, attribution = event.process, event.process.attribution or NO_IDENTITY
        identity = identity_text(attribution)
        return _Known(
            self._resource_of(Subject(event.node, process.pod, process.container_id)),
            _PROCESS.encode(process) + _IDENTITY.encode(attribution) + _POD.encode(process.pod),
            process_digest(event),
            process_text(process),
            f" {identity}" if identity else "",
        )

    def _resource_of(self, subject: Subject) -> bytes:
        known = self._resources.get(subject)
        if known is not None:
            return known
        own = dict(self._resource)
        if subject.node:
            # The agent knows where it runs; a recording's node is not that of the collector which reads it.
            own.pop("host.name", None)
            if subject.pod is not None:
                own.pop("k8s.node.name", None)
        made = b"".join(
            (*own.values(), _HOST.encode(subject), _CONTAINER.encode(subject), _WORKLOAD.encode(subject.pod))
        )
        if len(self._resources) >= _RESOURCES:
            self._resources.clear()
        self._resources[subject] = made
        return made
