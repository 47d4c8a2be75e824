"""Records as the OpenTelemetry Collector's exporters store them.

In: what an OTLP receiver got. Out: rows of the ClickHouse exporter's table, documents of the OpenSearch exporter's
index. Both exporters are not to be had here, so this is what their published sources do to a log
record.
"""

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

from keytrail.testing.otlp_sink import OtlpSink

Json = dict[str, Any]
TABLE = """
CREATE TABLE otel_logs (
    Timestamp DateTime64(9), TimestampTime DateTime DEFAULT toDateTime(Timestamp),
    TraceId String, SpanId String, TraceFlags UInt8, SeverityText LowCardinality(String), SeverityNumber UInt8,
    ServiceName LowCardinality(String), Body String, ResourceSchemaUrl LowCardinality(String),
    ResourceAttributes Map(LowCardinality(String), String), ScopeSchemaUrl LowCardinality(String), ScopeName String,
    ScopeVersion LowCardinality(String), ScopeAttributes Map(LowCardinality(String), String),
    LogAttributes Map(LowCardinality(String), String)
) ENGINE = MergeTree PARTITION BY toDate(TimestampTime) PRIMARY KEY (ServiceName, TimestampTime)
ORDER BY (ServiceName, TimestampTime, Timestamp)
"""
"""The exporter's table but for its indices and codecs, which change no answer."""


def received(sink: OtlpSink, now_ns: int) -> list[Json]:
    """Every record, moved so that the latest is of now: the queries ask for the last day."""
    columns = ("time_unix_nano", "severity_number", "severity_text", "body", "resource", "attributes")
    found = [dict(zip(columns, row, strict=True)) for row in sink.rows(f"SELECT {', '.join(columns)} FROM records")]  # noqa: S608 - our own names
    later = now_ns - max(one["time_unix_nano"] for one in found)
    for one in found:
        one["time_unix_nano"] += later
        one["resource"], one["attributes"] = json.loads(one["resource"]), json.loads(one["attributes"])
    return found


def table_rows(records: list[Json]) -> Iterator[Json]:
    """Rows of `otel_logs`: every attribute is text, lists as JSON."""
    for one in records:
        yield {
            "Timestamp": _moment(one).strftime("%Y-%m-%d %H:%M:%S.%f"),
            "SeverityText": one["severity_text"],
            "SeverityNumber": one["severity_number"],
            "ServiceName": one["resource"]["service.name"],
            "Body": one["body"],
            "ResourceAttributes": _texts(one["resource"]),
            "LogAttributes": _texts(one["attributes"]),
        }


def documents(records: list[Json]) -> Iterator[Json]:
    """Documents of `ss4o_logs-default-namespace`: attributes as they are, those of the resource as text."""
    for one in records:
        yield {
            "@timestamp": _moment(one).isoformat(),
            "body": one["body"],
            "severity": {"text": one["severity_text"], "number": one["severity_number"]},
            "resource": _texts(one["resource"]),
            "attributes": {
                **one["attributes"],
                "data_stream": {"dataset": "default", "namespace": "namespace", "type": "record"},
            },
        }


def _moment(record: Json) -> dt.datetime:
    return dt.datetime.fromtimestamp(record["time_unix_nano"] / 10**9, dt.UTC)


def _texts(attributes: Json) -> dict[str, str]:
    return {
        name: value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        for name, value in attributes.items()
    }
