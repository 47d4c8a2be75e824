"""The queries of docs/dashboards.md for ClickHouse and OpenSearch, asked of the real engines.

In them are the findings and events of a recorded cluster, each twice, since delivery is at least once.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from chart.rendering import ROOT
from cluster.stores.building import JAVA_TOOLS, clickhouse, opensearch
from cluster.stores.rows import TABLE, documents, received, table_rows
from keytrail.testing.otlp_sink import OtlpSink
from support.commands import replay
from support.components.build import Unavailable
from support.components.child import Child, answers, free_ports

# Half a gigabyte from PyPI and fifty jars from Maven Central: more than a run for every change should fetch.
pytestmark = [pytest.mark.cluster(), pytest.mark.long, pytest.mark.timeout(1200)]
Json = dict[str, Any]
IDENTITY = "stripe-live"
MAPPING = {
    "apiVersion": "keytrail.io/v1alpha1",
    "kind": "ClusterIdentityMapping",
    "metadata": {"name": IDENTITY},
    "spec": {"identity": {"owner": "payments"}, "evidence": {"env": [{"name": "STRIPE_API_KEY"}]}},
}


def _queries(language: str) -> list[str]:
    page = (ROOT / "docs" / "dashboards.md").read_text()
    blocks = re.findall(rf"```{language}\n(.+?)\n```", page, re.DOTALL)
    return [query for block in blocks for query in block.split(";\n\n")]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Json]:
    """What a backend gets of the recorded cluster."""
    config = tmp_path_factory.mktemp("manifests")
    (config / "mapping.yaml").write_text(json.dumps(MAPPING))
    options = ("--config", config, "--output", "otlp", "--otlp-records", "findings", "--otlp-records", "events")
    with OtlpSink(http=None) as sink, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.grpc_endpoint)
        ran = replay("kubernetes", *options)
        assert ran.code == 0, ran.err
        return received(sink, time.time_ns())


def _findings(records: list[Json]) -> dict[str, Json]:
    """Attributes of each finding, by its id."""
    attributes = (one["attributes"] for one in records)
    return {one["log.record.uid"]: one for one in attributes if one["keytrail.record.kind"] == "finding"}


def _of_identity(records: list[Json]) -> dict[str, Json]:
    return {uid: one for uid, one in _findings(records).items() if one.get("keytrail.identity.id") == IDENTITY}


def test_clickhouse(records: list[Json]) -> None:
    """The findings of an identity, each once; and who used which identity, counted without repeats and events."""
    try:
        folder = clickhouse()
    except Unavailable as error:
        pytest.skip(str(error))
    given = {"table": TABLE, "rows": [*table_rows(records * 2)], "queries": _queries("sql")}
    command = [sys.executable, Path(__file__).parent / "ask_clickhouse.py", folder]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, input=json.dumps(given), text=True, timeout=300)
    of_identity, usage = json.loads(ran.stdout)
    expected = Counter((one["security_rule.name"], IDENTITY) for one in _of_identity(records).values())
    assert Counter((row["rule"], row["identity"]) for row in of_identity) == expected
    assert expected
    fields = ("keytrail.identity.id", "keytrail.workload.namespace", "keytrail.workload.name")
    with_identity = (one for one in _findings(records).values() if "keytrail.identity.id" in one)
    used = Counter(tuple(one.get(field, "") for field in fields) for one in with_identity)
    assert {(row["identity"], row["namespace"], row["workload"]): int(row["findings"]) for row in usage} == used


@pytest.fixture
def node(tmp_path: Path) -> Iterator[str]:
    """OpenSearch's address."""
    if missing := [tool for tool in JAVA_TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"OpenSearch is brought by Maven and run by Java, and there is no {', '.join(missing)}")
    try:
        folder = opensearch()
    except Unavailable as error:
        pytest.skip(str(error))
    http, transport = free_ports(2)
    (tmp_path / "config").mkdir()
    url = f"http://127.0.0.1:{http}"
    java = ["java", "-Xmx512m", "-cp", f"{folder}:{folder}/*", "OneNode", tmp_path, str(http), str(transport)]
    with Child("opensearch", java, tmp_path, ready=lambda: answers(f"{url}/_cluster/health")):
        yield url


def test_opensearch(records: list[Json], node: str) -> None:
    """Every record is taken; the findings of an identity come each once, counted by workload without repeats."""
    action = {"create": {"_index": "ss4o_logs-default-namespace"}}
    lines = [json.dumps(line) for one in documents(records * 2) for line in (action, one)]
    headers = {"Content-Type": "application/x-ndjson"}
    taken = requests.post(f"{node}/_bulk?refresh=true", "\n".join([*lines, ""]), headers=headers, timeout=120).json()
    assert not taken["errors"], next(one for one in taken["items"] if one["create"]["status"] >= 300)
    (query,) = _queries("json")
    found = requests.post(f"{node}/ss4o_logs-*/_search", json=json.loads(query), timeout=60).json()
    uids = Counter(hit["_source"]["attributes"]["log.record.uid"] for hit in found["hits"]["hits"])
    expected = _of_identity(records)
    assert uids == Counter(expected.keys())
    workloads = Counter(one["keytrail.workload.name"] for one in expected.values())
    buckets = found["aggregations"]["workloads"]["buckets"]
    assert {one["key"]: one["findings"]["value"] for one in buckets} == workloads
