"""The dashboards: every query of Loki finds something in a recorded cluster, every metric is one that is served."""

import datetime as dt
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from chart.rendering import CHART
from keytrail.observe.exposition import sample_name
from keytrail.observe.metric_table import METRICS
from keytrail.testing.fake_tetragon import FakeTetragon
from support.commands import replay
from support.components.backends_page import configuration
from support.components.loki import TENANT, Loki
from support.processes import CollectorProcess, wait_until

SECONDS = 60.0
DASHBOARDS = sorted((CHART / "files" / "dashboards").glob("*.json"))
Json = dict[str, Any]
MAPPING = {
    "apiVersion": "keytrail.io/v1alpha1",
    "kind": "ClusterIdentityMapping",
    "metadata": {"name": "stripe-live"},
    "spec": {
        "identity": {"kind": "api_key", "provider": "stripe", "owner": "payments"},
        "evidence": {"env": [{"name": "STRIPE_API_KEY"}]},
        "allowed": {"workloads": [{"namespace": "payments", "kind": "Deployment", "name": "checkout"}]},
    },
}


def targets(kind: str) -> list[tuple[str, str]]:
    """Panel and query of every target of a kind of data source."""
    return [
        (f"{file.stem}: {panel['title']}", target["expr"])
        for file in DASHBOARDS
        for panel in json.loads(file.read_text())["panels"]
        for target in panel["targets"]
        if target["datasource"]["type"] == kind
    ]


def test_dashboards_are_whole() -> None:
    """Each has an id of its own, its panels do not overlap, and data sources and variables are declared."""
    found = [json.loads(file.read_text()) for file in DASHBOARDS]
    assert len({one["uid"] for one in found}) == len(found) == 3
    for one in found:
        declared = {variable["name"] for variable in one["templating"]["list"]}
        used = set(re.findall(r"\$\{?([a-z]+)\}?", json.dumps(one["panels"])))
        assert used - {"__auto", "__range", "__rate_interval"} <= declared | {""}
        taken = [
            (x, y)
            for panel in one["panels"]
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(taken) == len(set(taken))
        assert max(x for x, _ in taken) < 24


def test_metrics_exist() -> None:
    """Every metric that a dashboard shows is one that the collector serves."""
    used = {name for _, query in targets("prometheus") for name in re.findall(r"(?:keytrail|process)_\w+", query)}
    assert used
    assert used <= {sample_name(metric) for metric in METRICS}


@pytest.fixture(scope="module")
def loki(programs: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loki]:
    """Loki, set up as docs/backends.md says."""
    folder = tmp_path_factory.mktemp("loki")
    with Loki(programs("loki") / "loki", folder, configuration("ingester")) as running:
        yield running


@pytest.mark.cluster("loki")
@pytest.mark.timeout(240)
def test_every_query_finds_something(loki: Loki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a recorded cluster's findings and a gap in Loki, each panel has data."""
    (tmp_path / "mapping.yaml").write_text(json.dumps(MAPPING))
    backend = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": loki.otlp_endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_HEADERS": f"{TENANT}=dashboards",
        "OTEL_RESOURCE_ATTRIBUTES": "k8s.cluster.name=recorded",
    }
    for name, value in backend.items():
        monkeypatch.setenv(name, value)
    moments = [time.time_ns()]
    for name in ("kubernetes", "seed-demo"):
        ran = replay(name, "--config", tmp_path, "--output", "otlp", "--output", "findings")
        assert ran.code == 0, ran.err
        moments.append(int(dt.datetime.fromisoformat(ran.records[0]["ts"][:19] + "+00:00").timestamp()) * 10**9)
    _make_a_gap(tmp_path, backend)
    loki.flush()  # a recording is old
    missing: list[str] = []

    def all_found() -> bool:
        missing[:] = [panel for panel, query in targets("loki") if not any(_ask(loki, query, at) for at in moments)]
        return not missing

    assert wait_until(all_found, SECONDS), missing


def _make_a_gap(folder: Path, environ: dict[str, str]) -> None:
    """A collector whose agent goes away tells of a gap."""
    address = f"unix://{folder}/tetragon.sock"
    options = ("--agent", address)
    with FakeTetragon(address) as agent, CollectorProcess(folder, *options, environ=environ | OFF) as collector:
        assert agent.wait_for_listeners(timeout=SECONDS), collector.err
        agent.stop()
        assert wait_until(lambda: "no events from the agent" in collector.err, SECONDS), collector.err
        collector.stop()


OFF = {"KEYTRAIL_HTTP_ADDRESS": "off", "KEYTRAIL_AGENT_METRICS_ADDRESS": "off", "KEYTRAIL_KUBERNETES": "never"}


def _ask(loki: Loki, query: str, at_ns: int) -> list[Json]:
    """Ask for a day as Grafana does, with its variables at their defaults."""
    for name, value in (("$__auto", "1h"), ("$__range", "1d"), ("$cluster", ".*"), ("$namespace", ".*"),
                        ("$rule", ".*"), ("$identity", ".+")):  # fmt: skip
        query = query.replace(name, value)
    half_a_day = 43_200 * 10**9
    answer = requests.get(
        f"{loki.url}/loki/api/v1/query_range",
        params={"query": query, "start": at_ns - half_a_day, "end": at_ns + half_a_day, "step": 3600},
        headers={TENANT: "dashboards"},
        timeout=30,
    )
    assert answer.ok, f"{query}: {answer.text}"
    return list(answer.json()["data"]["result"])
