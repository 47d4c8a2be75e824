"""Events as OTLP log records, in bytes.

Events with their attribution come in; out come bytes of `LogRecord` and `ResourceLogs` messages, made once and never
parsed again on their way. Which attributes there are is said in `attributes`, how they become bytes in `otlp_table`
and `otlp_wire`, what all events of a process share in `otlp_known`; where records go is the spool's business (next:
`otlp_output`).
"""

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Final, NamedTuple

from keytrail import __version__
from keytrail.domain.event import NO_DETAILS, Details, Event, EventKind, Payload
from keytrail.domain.peer import Peer
from keytrail.export import attributes
from keytrail.export.attributes import Group, Row, S
from keytrail.export.bounded import Bounded
from keytrail.export.otlp_known import THREAD, Known, KnownProcesses, ResourceKey
from keytrail.export.otlp_table import Shared, Table
from keytrail.export.otlp_wire import (
    RECORD_ATTRIBUTES,
    Framing,
    IntegerTexts,
    attribute_writer,
    delimited,
    text_table,
    value_prefixes,
    varint,
)
from keytrail.export.record_uid import call_text, event_digest
from keytrail.export.terminal_line import target_text

_CALLS = 4096
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
_HOOK: Final = Table(attributes.EVENT, _rows(attributes.EVENT, *_OF_HOOKS))
_MARKED: Final = Table(attributes.EVENT, _rows(attributes.EVENT, *_MARKS))
_PARENT: Final = IntegerTexts(RECORD_ATTRIBUTES, "process.parent_pid")
_DETAILS: Final = Table(attributes.DETAILS)
_CREDENTIALS: Final = Table(attributes.CREDENTIALS)
_NETWORK: Final = Table(
    attributes.NETWORK, shared=(Shared("network.transport", "network.type", "s.family, s.protocol"),)
)
_PEER: Final = Table(attributes.PEER, [row for row in attributes.PEER.rows if row[0] != "server.address"])
_PEER_HOST: Final = Table(attributes.PEER, _rows(attributes.PEER, "server.address"))
_FILE: Final = Table(attributes.FILE)
_PAYLOAD: Final = Table(attributes.PAYLOAD)
_OPERATION: Final = Table(attributes.OPERATION)
_EXIT: Final = Table(attributes.EXIT)
_UID: Final = attribute_writer(RECORD_ATTRIBUTES, attributes.RECORD_UID, "string")(32 * "0")[:-32].decode("ascii")
# Asked of every event: before Python 3.12 a member of an enum costs four times as much as a global.
_EXEC, _PRIVILEGE = EventKind.EXEC, EventKind.PRIVILEGE


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
    """Makes records of events. For one thread; keeps bounded memories of processes, hooks and peers."""

    def __init__(self, resource: Mapping[str, str], clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self.known = KnownProcesses(resource).of
        """What the records of an event's process share."""
        self._hooks: Bounded[tuple[int, int, str, str], Hook] = Bounded(_CALLS)
        self._peers: Bounded[int, tuple[Peer, str, str]] = Bounded(_PEERS)

    def encode(self, event: Event) -> tuple[ResourceKey, bytes]:
        """One LogRecord message, and the key of the resource that it belongs to."""
        known, hook, tid = self.known(event), self.hook(event), event.tid
        target = target_text(event)
        body = f"{hook.kind} {known.process}{' ' if target else ''}{target}{known.identity}"
        uid = event_digest(event, known.uid, tid, hook.call)
        return known.resource, self.record(event, known, hook, tid, _OF_EVENTS, event.time_ns, body, uid)

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
        return self.known(event).resource

    def record(  # noqa: PLR0917 - made of every event: positional, no keyword parsing on the hot path
        self, event: Event, known: Known, hook: Hook, tid: int, start: str, time_ns: int, body: str, uid: bytes
    ) -> bytes:
        """One LogRecord message about an event; `start` is a `head`, `body` printable ASCII."""
        details, kind, parent = event.details, event.kind, event.parent
        more = "" if details is NO_DETAILS else _details_text(details)
        if details.network is not None and (peer := event.peer) is not None:
            more += self._peer(peer, details.payload)
        if tid:
            more += known.thread if tid == event.process.pid else THREAD[tid]
        if parent is not None:
            more += _PARENT[parent.pid]
        if event.time_estimated or event.backfilled:
            more += _MARKED.text(event)
        # They are those of the exec, and cold in the message: only where a reader looks for them.
        if (kind is _EXEC or kind is _PRIVILEGE) and (credentials := event.credentials) is not None:
            more += _CREDENTIALS.text(credentials)
        times = _TIMES.pack(_TIME_TAG, time_ns & _UINT64, _OBSERVED_TAG, self._clock_ns() & _UINT64).decode("latin-1")
        text = (
            f"{times}{start}{_BODY[len(body)]}{body}{_UID}{uid.hex()}{hook.attributes}"
            f"{known.attributes}{known.identified}{known.placed}{more}"
        )
        return text.encode("latin-1")

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
