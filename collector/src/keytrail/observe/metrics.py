"""Keytrail's own metrics: the table as OpenTelemetry instruments, and as docs/metrics.md.

A `Probe` is asked for one snapshot a collection, of which every instrument reads its part: the equations of the
accounting hold within a scrape. Nothing here is touched by the data path. `python -m keytrail.observe.metrics
docs/metrics.md` renews the page; a test fails when it is stale. How metrics leave is `exposition` (Prometheus) and
`otlp_metrics`.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader, MetricsData
from opentelemetry.sdk.resources import Resource

from keytrail import __version__
from keytrail.observe.exposition import sample_name
from keytrail.observe.metric import Kind, Metric
from keytrail.observe.metric_table import METRICS
from keytrail.observe.snapshot import Probe, Snapshot

SCOPE: Final = "keytrail"


class OwnMetrics:
    """The metrics of one collector, for scrapes and for the readers that send. `close` once at the end."""

    def __init__(self, probe: Probe, resource: Mapping[str, str], readers: Sequence[MetricReader] = ()) -> None:
        """`resource` as the records' own: service.name, service.version, service.instance.id, and the user's."""
        self._scrapes = InMemoryMetricReader()
        self._senders = tuple(readers)
        # Given in full, where the SDK would read it from the environment: a mistake there must not stop a collector.
        self._provider = MeterProvider(
            (self._scrapes, *self._senders),
            resource=Resource(dict(resource)),
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        meter = self._provider.get_meter(SCOPE, __version__)
        makers = {
            Kind.COUNTER: meter.create_observable_counter,
            Kind.UP_DOWN_COUNTER: meter.create_observable_up_down_counter,
            Kind.GAUGE: meter.create_observable_gauge,
        }
        moments = _Moments(probe)
        for metric in METRICS:
            makers[metric.kind](metric.name, [_callback(metric, moments)], metric.unit, metric.description)

    def collect(self) -> MetricsData | None:
        """Return all metrics as they are now, cumulative."""
        return self._scrapes.get_metrics_data()

    def close(self, seconds: float) -> None:
        """Have the readers send a last time, within the time, and stop them."""
        # Not MeterProvider.shutdown: it raises when the time is over before a reader's turn.
        deadline = time.monotonic() + seconds
        for reader in self._senders:
            reader.shutdown(timeout_millis=max(0.0, deadline - time.monotonic()) * 1000)


class _Moments(threading.local):
    """One snapshot for each collection. The SDK runs all callbacks of a collection in the thread that collects."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._snapshot: Snapshot | None = None
        self._readers: set[str] = set()

    def snapshot_for(self, name: str) -> Snapshot:
        """Return the collection's snapshot; who asks a second time begins the next collection."""
        if self._snapshot is None or name in self._readers:
            self._snapshot = self._probe.snapshot()
            self._readers.clear()
        self._readers.add(name)
        return self._snapshot


def _callback(metric: Metric, moments: _Moments) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_options: CallbackOptions) -> Iterator[Observation]:
        for point in metric.read(moments.snapshot_for(metric.name)):
            yield Observation(point.value, dict(point.attributes))

    return observe


_HEAD = """\
# Keytrail's own metrics

<!-- Made by `python -m keytrail.observe.metrics`; do not edit. -->

A running collector serves them to Prometheus at `/metrics` of `http_address` (default `127.0.0.1:9464`), in the text
format or as OpenMetrics, and sends them by OTLP when `OTEL_METRICS_EXPORTER` names `otlp`, or names nothing and
`OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT` is set. All are observed: they are read from the
collector's counters when somebody asks, all at the same moment, and cost the data path nothing. Attributes are bounded
by what is in force; none holds the name of a Pod, a path or anything else that a workload chooses.

Two equations hold in every scrape, and a difference would be a bug:

- `keytrail.events.received` = `keytrail.events.by_kind` + `keytrail.events.undecodable` + `keytrail.events.dropped`
- `keytrail.records.made` = `keytrail.records.exported` + `keytrail.records.queued` + `keytrail.records.suppressed` +
  `keytrail.records.dropped`

The same server answers `/healthz` (503 when a thread of the collector died or is stuck: restart it), `/readyz` (503
with the reasons while it does not do its work, such as no agent; with `degraded:` lines while it does, but not all is
well) and `/status`, which `keytrail status` shows.
"""
_GROUPS: Final = {
    "events": "Events",
    "records": "Records",
    "findings": "Findings",
    "stream": "The agent's stream",
    "inbox": "The agent's stream",
    "gaps": "Loss",
    "gap": "Loss",
    "processes": "State",
    "fingerprints": "State",
    "rules": "State",
    "reloads": "State",
    "config": "State",
    "kubernetes": "Kubernetes",
    "enrich": "Kubernetes",
    "spool": "Delivery",
    "export": "Delivery",
}


def markdown() -> str:
    """Return docs/metrics.md."""
    return _HEAD + "".join(
        f"\n## {group}\n\n" + "".join(map(_section, metrics))
        for group, metrics in groupby(
            METRICS, lambda metric: _GROUPS.get(metric.name.split(".")[1], "The collector itself")
        )
    ).replace("\n\n\n", "\n\n")


def _section(metric: Metric) -> str:
    lines = [
        f"### {metric.name}\n",
        f"{metric.description}\n",
        f"{metric.kind.capitalize()}, unit `{metric.unit}`. Prometheus: `{sample_name(metric)}`.",
    ]
    lines += [f"- `{name}`: {values}" for name, values in metric.attributes.items()]
    if metric.alert:
        lines.append(f"- **Alert on:** {metric.alert}")
    if len(lines) > 3:  # noqa: PLR2004 - a list needs an empty line before it
        lines.insert(3, "")
    return "\n".join(lines) + "\n\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown(), "utf-8")
