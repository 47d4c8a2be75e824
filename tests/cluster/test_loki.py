"""A real Loki as the backend: the queries of docs/backends.md find the findings, by either way into it."""

import copy
import datetime as dt
import json
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from support.commands import replay
from support.components.backends_page import configuration, queries
from support.components.collector import OtelCollector
from support.components.loki import TENANT, Loki
from support.processes import wait_until

pytestmark = [pytest.mark.cluster("collector", "loki"), pytest.mark.timeout(240)]
SECONDS = 60.0
MAPPING = {
    "apiVersion": "keytrail.io/v1alpha1",
    "kind": "ClusterIdentityMapping",
    "metadata": {"name": "stripe-live"},
    "spec": {
        "identity": {"kind": "api_key", "provider": "stripe", "owner": "payments"},
        "evidence": {"env": [{"name": "STRIPE_API_KEY"}]},
    },
}
BY: dict[str, Callable[[dict[str, Any]], bool]] = {
    "identity": lambda line: (line.get("identity") or {}).get("id") == "stripe-live",
    "rule": lambda line: line["rule"] == "credential-brought-into-container",
    "workload": lambda line: (line.get("pod") or {}).get("workload") == "chat-api",
}
"""What each query is to find, said in the words of the findings on standard output."""


@pytest.fixture(params=["directly", "through a Collector that is killed while Loki is away"])
def found(
    request: pytest.FixtureRequest,
    loki: Loki,
    otel_collector: Callable[..., OtelCollector],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, list[dict[str, Any]]]:
    """Send the findings of a recorded cluster to Loki; its tenant, and the findings."""
    direct = request.param == "directly"
    tenant = "direct" if direct else "collector"
    config = tmp_path / "manifests"
    config.mkdir()
    (config / "stripe-live.yaml").write_text(json.dumps(MAPPING))
    send = partial(replay, "kubernetes", "--config", config, "--output", "findings", "--output", "otlp")
    if direct:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", loki.otlp_endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"{TENANT}={tenant}")
        ran = send()
    else:
        here = {"endpoint": loki.otlp_endpoint, "headers": {TENANT: tenant}}
        exporter = configuration("receivers")["exporters"]["otlp_http/loki"] | here
        backend = otel_collector({"otlp_http/loki": exporter})
        for variable, value in backend.environ("grpc", "gzip").items():
            monkeypatch.setenv(variable, value)
        loki.stop()
        ran = send()
        backend.kill()
        loki.start()
        backend.start()
    assert ran.code == 0, ran.err
    return tenant, ran.records


def test_the_documented_queries_find_the_findings(found: tuple[str, list[dict[str, Any]]], loki: Loki) -> None:
    """By identity, by rule and by workload, Loki answers with exactly the findings that standard output has of them."""
    tenant, lines = found
    times = [_nanoseconds(line["ts"]) for line in lines]
    assert len(queries()) == len(BY)
    for query, wanted in zip(queries(), BY.values(), strict=True):
        expected = {line["uid"]: line for line in lines if wanted(line)}
        assert expected

        ask = partial(loki.query, query, tenant=tenant, start_ns=min(times), end_ns=max(times) + 1)
        assert wait_until(partial(_as_many, loki, ask, len(expected)), SECONDS), query
        rows = {row["labels"]["log_record_uid"]: row for row in ask()}
        assert rows.keys() == expected.keys()
        for uid, row in rows.items():
            assert row["line"] == expected[uid]["message"]
            assert row["labels"]["keytrail_record_kind"] == "finding"


def test_records_of_a_long_outage_are_taken(loki: Loki) -> None:
    """With the documented settings Loki takes records that are hours older than the newest one of their workload."""
    now = time.time_ns()
    for hours in (0, 11):
        attributes = [{"key": "service.name", "value": {"stringValue": "keytrail"}}]
        record = {"timeUnixNano": str(now - hours * 3600 * 10**9), "body": {"stringValue": f"{hours} hours ago"}}
        scopes = [{"logRecords": [record]}]
        request = {"resourceLogs": [{"resource": {"attributes": attributes}, "scopeLogs": scopes}]}
        answer = requests.post(
            f"{loki.otlp_endpoint}/v1/logs", json=request, headers={TENANT: "outage"}, timeout=SECONDS
        )
        assert answer.status_code == 204, answer.text


def test_the_documented_collector_configuration_is_one(programs: Callable[[str], Path], tmp_path: Path) -> None:
    """The Collector accepts the configuration of the page, on a machine that has the folder for its queue."""
    config = copy.deepcopy(configuration("receivers"))
    config["extensions"]["file_storage"]["directory"] = str(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    ran = subprocess.run(
        [programs("collector") / "otelcol", "validate", f"--config={tmp_path / 'config.yaml'}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr


def _as_many(loki: Loki, ask: Callable[[], list[dict[str, Any]]], count: int) -> bool:
    loki.flush()  # a recording is old
    return len(ask()) >= count


def _nanoseconds(text: str) -> int:
    """RFC 3339 with nanoseconds, which datetime cannot hold."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    whole = dt.datetime.fromisoformat(f"{seconds}+00:00").timestamp()
    return int(whole) * 10**9 + int(fraction.ljust(9, "0"))
