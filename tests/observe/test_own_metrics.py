"""Keytrail's own metrics: what is declared is what comes out of a real scrape, and docs/metrics.md says so."""

import re
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from opentelemetry.semconv._incubating.metrics import process_metrics

from keytrail.observe.exposition import OPEN_METRICS, TEXT, sample_name
from keytrail.observe.http_server import OwnHttp
from keytrail.observe.metric import Kind
from keytrail.observe.metric_table import METRICS
from keytrail.observe.metrics import OwnMetrics, markdown
from keytrail.observe.snapshot import Snapshot
from observe.pictures import RESOURCE, Given, changed, healthy, troubled

PAGE = Path(__file__).parent.parent.parent / "docs" / "metrics.md"
_SAMPLE = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\]|\\.)*",?)*)\})? (\S+)')
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


@pytest.fixture
def probe(running: tuple[Given, OwnHttp]) -> Given:
    """What it serves: every part filled, until the test says otherwise."""
    running[0].snapshot_ = troubled()
    return running[0]


def scrape(server: OwnHttp, accept: str = "") -> tuple[str, str]:
    """Content type and text of /metrics."""
    host, port = server.address
    request = Request(f"http://{host}:{port}/metrics", headers={"accept": accept} if accept else {})
    with urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
        return answer.headers["content-type"], answer.read().decode()


def samples(page: str) -> list[tuple[str, dict[str, str], float]]:
    """Name, labels and value of each sample; every line must be one or a comment."""
    found = []
    for line in page.splitlines():
        if not line.startswith("#"):
            match = _SAMPLE.fullmatch(line)
            assert match, line
            found.append((match[1], dict(_LABEL.findall(match[2] or "")), float(match[3])))
    return found


def total(page: str, name: str) -> float:
    """The sum over all samples of a name."""
    return sum(value for found, _, value in samples(page) if found == name)


def test_declared_is_produced_and_produced_is_declared(server: OwnHttp) -> None:
    """A scrape of a collector with every part holds each declared metric with its declared attributes, no other."""
    _, page = scrape(server)
    produced: dict[str, set[str]] = {}
    for name, labels, _ in samples(page):
        produced.setdefault(name, set()).update(labels)
    del produced["target_info"]
    declared = {sample_name(one): {key.replace(".", "_") for key in one.attributes} for one in METRICS}
    assert produced == declared
    assert re.findall(r"# TYPE (\S+)", page) == ["target_info", *declared]


def test_both_equations_hold_in_a_scrape(server: OwnHttp) -> None:
    """Received and made equal their parts, per contract, in the numbers that a monitoring system sees."""
    _, page = scrape(server)
    events = ("by_kind", "undecodable", "dropped")
    assert total(page, "keytrail_events_received_total") == 100
    assert sum(total(page, f"keytrail_events_{name}_total") for name in events) == 100
    records = ("exported_total", "queued", "suppressed_total", "dropped_total")
    assert total(page, "keytrail_records_made_total") == 56
    assert sum(total(page, f"keytrail_records_{name}") for name in records) == 56


def test_counters_of_known_reasons_start_at_zero(server: OwnHttp) -> None:
    """A reason that never happened is there with 0, marked whether it would be intended: a rate sees its first step."""
    _, page = scrape(server)
    drops = {
        labels["reason"]: (labels["intended"], value)
        for name, labels, value in samples(page)
        if name == "keytrail_events_dropped_total"
    }
    assert drops == {
        "queue_full": ("false", 3), "filtered": ("true", 0), "duplicate_hook": ("true", 5), "shutdown": ("false", 0)
    }  # fmt: skip


def test_one_collection_reads_one_snapshot() -> None:
    """All values of a scrape are of one moment: the probe is asked once for each collection."""
    probe = Given(healthy())
    own = OwnMetrics(probe, RESOURCE)
    for times in (1, 2, 3):
        own.collect()
        assert probe.asked == times
    own.close(5)


def test_what_is_gone_is_no_longer_reported(probe: Given, server: OwnHttp) -> None:
    """Gauges of a rule that was removed, and of parts that are not there, disappear instead of freezing."""
    probe.snapshot_ = changed(healthy(), rules={"enabled": ("key-elsewhere",)}, spool=None, backend=None)
    _, page = scrape(server)
    assert {labels["rule"] for name, labels, _ in samples(page) if name == "keytrail_rules_failed_total"} == {
        "key-elsewhere"
    }
    assert "keytrail_spool_bytes" not in page
    probe.snapshot_ = healthy()
    assert "keytrail_spool_bytes" in scrape(server)[1]


def test_every_part_may_be_missing(probe: Given, server: OwnHttp) -> None:
    """A collector that is starting, or has no spool, still answers."""
    optional = {field.name: None for field in fields(Snapshot) if "None" in str(field.type)}
    probe.snapshot_ = replace(healthy(), **optional)
    assert total(scrape(server)[1], "keytrail_events_received_total") == 100


def test_values_of_a_resource_are_escaped(server: OwnHttp) -> None:
    """Quotes, backslashes, line breaks and control characters in our own resource cannot forge a line."""
    for accept in ("", "application/openmetrics-text"):
        _, page = scrape(server, accept)
        assert all(char.isprintable() or char == "\n" for char in page)
        info = next(labels for name, labels, _ in samples(page) if name == "target_info")
        assert info["service_instance_id"] == r"node \"7\"\\ \\x1b[31m"


@pytest.mark.parametrize("form", [TEXT, OPEN_METRICS])
def test_prometheus_own_parser_reads_the_page(server: OwnHttp, form: str) -> None:
    """The reference parser of each format takes the page and finds every metric with its kind and unit."""
    openmetrics = pytest.importorskip("prometheus_client.openmetrics.parser", reason="prometheus-client is not there")
    plain = pytest.importorskip("prometheus_client.parser", reason="prometheus-client is not there")
    content_type, page = scrape(server, form)
    assert content_type == form
    parse: Any = (openmetrics if form == OPEN_METRICS else plain).text_string_to_metric_families
    found = {sample.name: family for family in parse(page) for sample in family.samples}
    assert set(found) == {"target_info", *map(sample_name, METRICS)}
    for one in METRICS:
        family = found[sample_name(one)]
        assert family.type == ("counter" if one.kind is Kind.COUNTER else "gauge")
        assert family.documentation == one.description
        if form == OPEN_METRICS:
            assert family.unit == {"By": "bytes", "s": "seconds"}.get(one.unit, "")


def test_names_follow_the_conventions() -> None:
    """Names are unique, dotted and lower-case; units are UCUM's; under process. names are OpenTelemetry's."""
    names = [one.name for one in METRICS]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    official = {value for key, value in vars(process_metrics).items() if key.isupper()}
    for one in METRICS:
        assert re.fullmatch(r"(keytrail|process)(\.[a-z][a-z_]*)+", one.name)
        assert one.unit in {"s", "By"} or re.fullmatch(r"\{[a-z_]+\}", one.unit)
        assert one.name.startswith("keytrail.") or one.name in official
        assert one.description.endswith(".")


def test_the_page_is_fresh() -> None:
    """docs/metrics.md is what `python -m keytrail.observe.metrics docs/metrics.md` would write."""
    assert PAGE.read_text("utf-8") == markdown()
