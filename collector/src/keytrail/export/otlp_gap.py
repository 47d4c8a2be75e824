"""Gaps as OTLP log records, in bytes.

A gap comes in; out come the bytes of a `LogRecord` and the key of the node's own resource, so that gaps travel with the
events of the host. How records are grouped and sent is the same as for those: `otlp_encode`, `otlp_output`.
"""

# ruff: noqa: E501 - tables, read row by row

import struct
from collections.abc import Callable
from typing import Final

from keytrail.domain.event import Event, EventKind, EventType
from keytrail.domain.gap import Gap, GapPhase
from keytrail.domain.process import Process
from keytrail.export.attributes import RECORD_KIND, RECORD_UID, Group
from keytrail.export.gap_line import gap_sentence
from keytrail.export.otlp_encode import RecordEncoder
from keytrail.export.otlp_known import ResourceKey
from keytrail.export.otlp_table import Table
from keytrail.export.otlp_wire import RECORD_ATTRIBUTES, attribute_writer, delimited
from keytrail.export.output import rfc3339
from keytrail.export.record_uid import digest
from keytrail.export.spool.entries import Lane

_UINT64: Final = (1 << 64) - 1
_TIME: Final = b"\x09"  # LogRecord.time_unix_nano (1), fixed64
_INFO: Final = b"\x10\x09" + delimited(b"\x1a", b"INFO")  # severity_number (2) and severity_text (3)
_WARN: Final = b"\x10\x0d" + delimited(b"\x1a", b"WARN")
_BODY: Final = b"\x2a"  # body (5)
_OBSERVED_TIME: Final = b"\x59"  # observed_time_unix_nano (11), fixed64
_EVENT_NAME: Final = delimited(b"\x62", b"keytrail.gap")  # event_name (12)
_KIND: Final = attribute_writer(RECORD_ATTRIBUTES, RECORD_KIND, "string")("gap")
_UID: Final = attribute_writer(RECORD_ATTRIBUTES, RECORD_UID, "string")

GAP: Final = Group[Gap](
    "Gap",
    "record",
    (
        ("keytrail.gap.cause", "string", "What the loss came from, such as `reader_slow`.", lambda g: str(g.cause)),
        ("keytrail.gap.id", "string", "The same for all records of one episode; the last of them counts.", lambda g: g.id),
        ("keytrail.gap.phase", "string", "`open` as soon as it begins, `closed` with the totals, `backfilled` after the agent's export file was searched.", lambda g: str(g.phase)),
        ("keytrail.gap.start", "string", "The earliest that the loss can have begun, ISO 8601 in UTC.", lambda g: rfc3339(g.start_ns)),
        ("keytrail.gap.end", "string", "Its end, or how long it has lasted so far.", lambda g: rfc3339(g.end_ns)),
        ("keytrail.gap.lost", "int", "Events lost (records, for `spool_damaged` and `records_evicted`) since its start; absent when nobody can know.", lambda g: g.lost),
        ("keytrail.gap.exact", "boolean", "Whether that was counted rather than estimated.", lambda g: None if g.lost is None else g.exact),
        ("keytrail.gap.suspected", "boolean", "True for a sign of loss that is no proof.", lambda g: g.suspected or None),
        ("keytrail.gap.backfilled", "int", "Events of it that the agent's export file had.", lambda g: g.backfilled if g.phase is GapPhase.BACKFILLED else None),
        ("keytrail.gap.lag", "int", "Nanoseconds between the latest event's time and its arrival.", lambda g: g.lag_ns or None),
        ("keytrail.gap.policy", "string", "TracingPolicy whose events are missing.", lambda g: g.policy),
        ("keytrail.gap.subject", "string[]", "What tells similar gaps apart, each `NAME:VALUE`, such as the throttled cgroup.", lambda g: tuple(f"{name}:{value}" for name, value in g.facts)),
        ("keytrail.gap.node", "string", "Node whose agent it is about, as that reports it.", lambda g: g.node),
    ),
)  # fmt: skip
_GAP: Final = Table(GAP)


def _is_quiet(gap: Gap) -> bool:
    return gap.suspected or gap.phase is GapPhase.BACKFILLED


def gap_lane(gap: Gap) -> Lane:
    """Return the lane of a gap, by its severity as a log record."""
    return Lane.INFO if _is_quiet(gap) else Lane.MEDIUM


class GapEncoder:
    """Makes records of gaps, with the resources of an encoder of events. For that encoder's thread."""

    def __init__(self, events: RecordEncoder, clock_ns: Callable[[], int]) -> None:
        self._events = events
        self._clock_ns = clock_ns

    def encode(self, gap: Gap) -> tuple[ResourceKey, bytes]:
        """One LogRecord message, and the key of the resource that it belongs to."""
        uid = digest(("gap", gap.id, gap.node, str(gap.phase), gap.end_ns, gap.lost, gap.backfilled))
        record = b"".join(
            (
                _TIME,
                struct.pack("<Q", gap.start_ns & _UINT64),
                _INFO if _is_quiet(gap) else _WARN,
                delimited(_BODY, delimited(b"\x0a", gap_sentence(gap).encode("ascii"))),
                _UID(uid.hex()),
                _KIND,
                _GAP.encode(gap),
                _OBSERVED_TIME,
                struct.pack("<Q", self._clock_ns() & _UINT64),
                _EVENT_NAME,
            )
        )
        # A gap is the node's, as an event without a process would be.
        node = Event(EventKind.THROTTLE, EventType.THROTTLE, Process(""), time_ns=gap.start_ns, node=gap.node)
        return self._events.resource_key(node), record
