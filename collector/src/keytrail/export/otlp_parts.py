"""Requests out of stored entries, and smaller ones out of those that a backend refused.

In flow entries (each a serialized ResourceLogs), out come the bytes of an ExportLogsServiceRequest, or halves of what
was given. Joining parses nothing; only an entry that has to be divided is read, with OpenTelemetry's own messages.
Knows no connection.
"""

from collections.abc import Sequence
from typing import Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs

from keytrail.export.otlp_wire import Framing
from keytrail.export.spool.entries import Entry

_ENTRIES: Final = Framing(b"\x0a")
"""Of ExportLogsServiceRequest.resource_logs: field 1, length-delimited."""


def encode_request(entries: Sequence[Entry]) -> bytes:
    """Serialize an ExportLogsServiceRequest by joining what is serialized already."""
    return b"".join(_ENTRIES.pieces([entry.data for entry in entries]))


def count(entries: Sequence[Entry]) -> int:
    """Return how many records they hold."""
    return sum(entry.records for entry in entries)


def halves(part: Sequence[Entry]) -> list[Sequence[Entry]]:
    """Divide a part in two, in order: several entries between them, a single one between its records.

    Half an entry has its sequence and fewer records. Empty when there is nothing to divide.
    """
    if (middle := len(part) // 2) > 0:
        return [part[:middle], part[middle:]]
    return [[piece] for piece in _divided(part[0])]


def _divided(entry: Entry) -> list[Entry]:
    try:
        whole = ResourceLogs.FromString(entry.data)
    except DecodeError:
        return []
    places = [(scope, record) for scope, logs in enumerate(whole.scope_logs) for record in range(len(logs.log_records))]
    middle = len(places) // 2
    if middle == 0 or len(places) != entry.records:
        return []
    return [_without(entry, places[middle:], middle), _without(entry, places[:middle], len(places) - middle)]


def _without(entry: Entry, places: list[tuple[int, int]], left: int) -> Entry:
    kept = ResourceLogs.FromString(entry.data)
    for scope, record in reversed(places):
        del kept.scope_logs[scope].log_records[record]
    for scope in reversed(range(len(kept.scope_logs))):
        if not kept.scope_logs[scope].log_records:
            del kept.scope_logs[scope]
    return entry._replace(records=left, data=kept.SerializeToString())
