"""A real Loki, which takes OTLP itself and is asked in LogQL.

In: a folder, and settings in the words of its configuration. Out: its OTLP endpoint, and the lines that a query finds.
Knows nothing of what the records are about.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from support.components.child import Child, answers, free_ports

TENANT = "X-Scope-OrgID"
"""Loki's header for whose records these are. Each test is a tenant of its own, and sees nothing of the others."""


class Loki(Child):
    """Loki as one process, with its data in a folder."""

    def __init__(self, program: Path, folder: Path, settings: Mapping[str, dict[str, object]]) -> None:
        http, grpc = free_ports(2)
        self.url = f"http://127.0.0.1:{http}"
        config = folder / "loki.json"
        sections = _config(folder / "data", http, grpc)
        for name, given in settings.items():
            sections.setdefault(name, {}).update(given)
        config.write_text(json.dumps({"auth_enabled": True, "target": "all", **sections}))
        super().__init__(
            "loki", [program, f"-config.file={config}"], folder, ready=lambda: answers(f"{self.url}/ready")
        )

    @property
    def otlp_endpoint(self) -> str:
        """What an exporter of OTLP over HTTP is given; it adds `/v1/logs` itself."""
        return f"{self.url}/otlp"

    def flush(self) -> None:
        """Have what is in memory stored: lines older than three hours are looked for only there."""
        assert requests.post(f"{self.url}/flush", headers={TENANT: "any"}, timeout=20).ok

    def query(self, logql: str, *, tenant: str, start_ns: int, end_ns: int) -> list[dict[str, Any]]:
        """Every line that a query finds: its time (`ts`), text (`line`), labels and structured metadata (`labels`)."""
        answer = requests.get(
            f"{self.url}/loki/api/v1/query_range",
            params={"query": logql, "start": str(start_ns), "end": str(end_ns), "limit": "1000"},
            headers={TENANT: tenant},
            timeout=20,
        )
        assert answer.ok, answer.text
        return [
            {"ts": int(time_ns), "line": line, "labels": stream["stream"]}
            for stream in answer.json()["data"]["result"]
            for time_ns, line in stream["values"]
        ]


def _config(data: Path, http: int, grpc: int) -> dict[str, dict[str, object]]:
    """Sections of its configuration: one process, nothing outside of loopback and the folder."""
    address = "127.0.0.1"
    return {
        "server": {
            "http_listen_address": address,
            "http_listen_port": http,
            "grpc_listen_address": address,
            "grpc_listen_port": grpc,
            "log_level": "warn",
        },
        "common": {
            "path_prefix": str(data),
            "replication_factor": 1,
            "instance_addr": address,
            "ring": {"kvstore": {"store": "inmemory"}, "instance_addr": address},
            "storage": {"filesystem": {"chunks_directory": f"{data}/chunks", "rules_directory": f"{data}/rules"}},
        },
        "schema_config": {
            "configs": [
                {
                    "from": "2024-01-01",
                    "store": "tsdb",
                    "object_store": "filesystem",
                    "schema": "v13",
                    "index": {"prefix": "index_", "period": "24h"},
                }
            ]
        },
        "limits_config": {
            "allow_structured_metadata": True,
            # A recording is as old as it is, or from the future of a machine whose clock is behind.
            "reject_old_samples": False,
            "creation_grace_period": "87600h",
        },
        "ingester": {"lifecycler": {"min_ready_duration": "0s"}},
        # One process finds its own parts at once by their address; by ring it would take ten seconds.
        "query_scheduler": {"use_scheduler_ring": False},
        "frontend": {"scheduler_address": f"{address}:{grpc}", "scheduler_dns_lookup_period": "250ms"},
        "frontend_worker": {"scheduler_address": f"{address}:{grpc}", "dns_lookup_duration": "250ms"},
        "analytics": {"reporting_enabled": False},
    }
