"""A real OpenTelemetry Collector as the backend, and what it wrote.

In: exporters in the words of its configuration. Out: its OTLP endpoints, and the log records that its file exporter
wrote. Knows nothing of who sends to it.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.components.child import Child, answers, free_ports

_HEAD = b'{"resourceLogs":'
"""How each request begins in the file, and nothing else can: quotes inside of texts are escaped."""


@dataclass(frozen=True)
class Written:
    """One log record as the file exporter wrote it."""

    event_name: str
    body: str
    severity: int
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]

    @property
    def uid(self) -> str:
        """What makes a repeat recognisable."""
        return str(self.attributes["log.record.uid"])


class OtelCollector(Child):
    """The Collector with OTLP coming in over both transports and a file going out, beside any other `exporters`."""

    def __init__(self, program: Path, folder: Path, exporters: Mapping[str, object] | None = None) -> None:
        grpc, http, health = free_ports(3)
        self.grpc_endpoint = f"http://127.0.0.1:{grpc}"
        self.http_endpoint = f"http://127.0.0.1:{http}"
        self.file = folder / "records.json"
        self._seen = 0
        self._written: list[Written] = []
        config = folder / "otelcol.json"
        config.write_text(json.dumps(self._config(folder, grpc, http, health, dict(exporters or {}))))
        super().__init__(
            "otelcol",
            [program, "--config", config],
            folder,
            ready=lambda: answers(f"http://127.0.0.1:{health}/"),
            environ={},
        )

    def _config(self, folder: Path, grpc: int, http: int, health: int, exporters: dict[str, object]) -> object:
        """No batch processor: it answers a sender before anything is written, and loses that when it is killed."""
        # With rotation the exporter writes at once; without, it answers while the data is in its memory for a second.
        exporters["file"] = {"path": str(self.file), "rotation": {"max_megabytes": 1000}}
        storage = folder / "storage"
        storage.mkdir(exist_ok=True)
        return {
            "receivers": {
                "otlp": {
                    "protocols": {"grpc": {"endpoint": f"127.0.0.1:{grpc}"}, "http": {"endpoint": f"127.0.0.1:{http}"}}
                }
            },
            "exporters": exporters,
            "extensions": {
                "health_check": {"endpoint": f"127.0.0.1:{health}"},
                "file_storage": {"directory": str(storage)},
            },
            "service": {
                "extensions": ["health_check", "file_storage"],
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"logs": {"receivers": ["otlp"], "exporters": list(exporters)}},
            },
        }

    def environ(self, protocol: str, compression: str = "none") -> dict[str, str]:
        """The variables that point a sender at it."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.grpc_endpoint if protocol == "grpc" else self.http_endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
        }

    def written(self) -> list[Written]:
        """What it wrote so far, repeats included."""
        if self.file.exists():
            with self.file.open("rb") as file:
                file.seek(self._seen)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._seen += len(whole)
            self._written += [record for request in _requests(whole) for record in _records(request)]
        return self._written


def _requests(lines: bytes) -> Iterator[dict[str, Any]]:
    """Parse lines, some of which a killed Collector may have left without their end: it did not acknowledge those."""
    for piece in lines.split(_HEAD)[1:]:
        with contextlib.suppress(ValueError):
            yield json.loads(_HEAD + piece)


def _records(request: dict[str, Any]) -> Iterator[Written]:
    """Flatten one request in OTLP's JSON."""
    for resource_logs in request["resourceLogs"]:
        resource = _attributes(resource_logs["resource"])
        for scope_logs in resource_logs["scopeLogs"]:
            for record in scope_logs["logRecords"]:
                body = record["body"]["stringValue"]
                yield Written(
                    record.get("eventName", ""), body, record["severityNumber"], _attributes(record), resource
                )


def _attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    return {one["key"]: _value(one["value"]) for one in holder.get("attributes", [])}


def _value(value: dict[str, Any]) -> Any:
    """A plain value of `{"intValue": "5"}`: 64-bit integers are text in OTLP's JSON."""
    kind, plain = next(iter(value.items()))
    if kind == "arrayValue":
        return [_value(one) for one in plain.get("values", [])]
    return int(plain) if kind == "intValue" else plain
