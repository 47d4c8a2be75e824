"""The OtlpSink's memory: OTLP log records as rows of SQLite.

In flow parsed ExportLogsServiceRequest messages from both servers, out come rows for whoever asks in SQL, also from
another process while the sink runs. Knows no transport and keeps no headers: those of real clients hold credentials.
"""

import base64
import json
import math
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS records (
    id INTEGER PRIMARY KEY,                     -- order of arrival
    request_id INTEGER NOT NULL,                -- records of one request share it
    received_at INTEGER NOT NULL,               -- nanoseconds since the epoch, as are the next two
    time_unix_nano INTEGER NOT NULL,
    observed_time_unix_nano INTEGER NOT NULL,
    severity_number INTEGER NOT NULL,
    severity_text TEXT NOT NULL,
    event_name TEXT NOT NULL,
    body TEXT NOT NULL,                         -- a text body as it is, any other as JSON
    resource TEXT NOT NULL,                     -- resource attributes, JSON object
    scope TEXT NOT NULL,                        -- name of the instrumentation scope
    attributes TEXT NOT NULL,                   -- record attributes, JSON object
    record_bytes INTEGER NOT NULL               -- size of the serialized record
)
"""
_INSERT: Final = "INSERT INTO records VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_LARGEST_INTEGER: Final = 2**63 - 1
"""SQLite's; OTLP's times are unsigned, and a sink must survive whatever it is sent."""


class RecordStore:
    """Rows in one SQLite database; every method may be called from any thread."""

    def __init__(self, database: Path | None = None) -> None:
        """Open or make the database; raises sqlite3.Error for a file that is none."""
        self._stored = threading.Condition()
        """Guards the connection, which SQLite lets threads share one at a time."""
        self._connection = sqlite3.connect(database or ":memory:", check_same_thread=False)
        try:
            # Readers in other processes do not block the sink with a write-ahead log, nor it them.
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(SCHEMA)
            ((count, last),) = self._connection.execute("SELECT count(*), max(request_id) FROM records")
        except sqlite3.Error:
            self._connection.close()
            raise
        self._count: int = count
        self._requests: int = last or 0

    def add(self, request: ExportLogsServiceRequest, received_at: int, *, leave_out: int = 0) -> int:
        """Store the request's records but the last `leave_out`; returns how many were stored."""
        with self._stored:
            self._requests += 1
            stored = max(0, count_records(request) - leave_out)
            with self._connection:
                self._connection.executemany(_INSERT, islice(_rows(request, self._requests, received_at), stored))
            self._count += stored
            self._stored.notify_all()
            return stored

    def count(self) -> int:
        """Return how many records there are."""
        with self._stored:
            return self._count

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._stored:
            return self._connection.execute(sql, params).fetchall()

    def wait_for(self, count: int, timeout: float) -> None:
        """Return when there are at least `count` records; raises TimeoutError after `timeout` seconds."""
        with self._stored:
            if not self._stored.wait_for(lambda: self._count >= count, timeout):
                raise TimeoutError(f"{self._count} of {count} records arrived within {timeout:g} seconds")

    def close(self) -> None:
        """Close the database; a file then stands by itself, without its write-ahead log."""
        with self._stored:
            self._connection.close()


def count_records(request: ExportLogsServiceRequest) -> int:
    """Return the number of log records in a request."""
    return sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)


def _rows(request: ExportLogsServiceRequest, request_id: int, received_at: int) -> Iterator[tuple[Any, ...]]:
    for resource_logs in request.resource_logs:
        resource = _json(_attributes(resource_logs.resource.attributes))
        for scope_logs in resource_logs.scope_logs:
            for record in scope_logs.log_records:
                body = _plain(record.body)
                yield (
                    request_id,
                    received_at,
                    min(record.time_unix_nano, _LARGEST_INTEGER),
                    min(record.observed_time_unix_nano, _LARGEST_INTEGER),
                    record.severity_number,
                    record.severity_text,
                    record.event_name,
                    body if isinstance(body, str) else _json(body),
                    resource,
                    scope_logs.scope.name,
                    _json(_attributes(record.attributes)),
                    record.ByteSize(),
                )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _plain(pair.value) for pair in pairs}


def _plain(value: AnyValue) -> Any:
    """Turn an AnyValue into what json.dumps takes; depth is bounded by protobuf's parser."""
    match value.WhichOneof("value"):
        case "array_value":
            return [_plain(item) for item in value.array_value.values]
        case "kvlist_value":
            return _attributes(value.kvlist_value.values)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "double_value":
            # JSON has no NaN and no infinity, and SQLite's JSON functions refuse them.
            return value.double_value if math.isfinite(value.double_value) else str(value.double_value)
        case None:
            return None
        case kind:
            return getattr(value, kind)
