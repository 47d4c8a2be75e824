"""Own metrics by OTLP: when they are sent, in what form, and that a backend which fails harms nothing."""

import logging
import threading
from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from keytrail.domain.errors import SettingsError
from keytrail.observe.metric_table import METRICS
from keytrail.observe.metrics import OwnMetrics
from keytrail.observe.otlp_metrics import INTERVAL, TEMPORALITY, otlp_reader, wants_otlp
from observe.pictures import RESOURCE, Given, troubled
from support.processes import wait_until

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}


class Backend:
    """Takes requests as a transport's other end would, and answers what it was told to."""

    def __init__(self) -> None:
        self.requests: list[ExportMetricsServiceRequest] = []
        self.error = ""
        self.hangs = threading.Event()
        self.hangs.set()

    def send(self, request: bytes) -> str:
        """Decode and keep one request."""
        self.hangs.wait(60)
        self.requests.append(ExportMetricsServiceRequest.FromString(request))
        return self.error

    def metrics(self, number: int) -> dict[str, Metric]:
        """The metrics of one request, by name."""
        (resource,) = self.requests[number].resource_metrics
        (scope,) = resource.scope_metrics
        assert scope.scope.name == "keytrail"
        return {metric.name: metric for metric in scope.metrics}


@pytest.fixture
def backend() -> Iterator[Backend]:
    """A backend that accepts, and is let go at the end."""
    made = Backend()
    yield made
    made.hangs.set()


def value(metric: Metric) -> float:
    """The sum over all points."""
    return sum(point.as_int or point.as_double for point in metric.sum.data_points or metric.gauge.data_points)


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318/v1/metrics"}, True),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://collector:4317"}, False),
        (ENDPOINT | {"OTEL_METRICS_EXPORTER": "none"}, False),
        (ENDPOINT | {"OTEL_METRICS_EXPORTER": "prometheus"}, False),
        (ENDPOINT | {"OTEL_METRICS_EXPORTER": " Prometheus, OTLP "}, True),
        (ENDPOINT | {"OTEL_METRICS_EXPORTER": " "}, True),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, True),
    ],
)
def test_when_metrics_are_sent(environ: dict[str, str], wanted: bool) -> None:
    """An endpoint for metrics or for all switches it on, OTEL_METRICS_EXPORTER has the last word."""
    assert wants_otlp(environ) is wanted


@pytest.mark.parametrize(
    ("variable", "text"),
    [(INTERVAL, "10s"), (INTERVAL, "5"), (INTERVAL, "-1"), (INTERVAL, "9" * 30), (TEMPORALITY, "often")],
)
def test_wrong_variables_are_settings_errors(variable: str, text: str) -> None:
    """What cannot be meant is refused with the variable's name before anything starts."""
    with pytest.raises(SettingsError, match=variable):
        otlp_reader({variable: text}, lambda _: "")
    with pytest.raises(SettingsError, match="OTEL_METRICS_EXPORTER"):
        wants_otlp({"OTEL_METRICS_EXPORTER": "console"})


def test_every_metric_arrives_at_every_interval_and_at_the_end(backend: Backend) -> None:
    """Each request holds all declared metrics with unit and resource; the last goes out when metrics are closed."""
    own = OwnMetrics(Given(troubled()), RESOURCE, [otlp_reader({INTERVAL: "1000"}, backend.send)])
    assert wait_until(lambda: bool(backend.requests))
    before = len(backend.requests)
    own.close(60)
    assert len(backend.requests) > before
    found = backend.metrics(-1)
    assert {name: one.unit for name, one in found.items()} == {one.name: one.unit for one in METRICS}
    assert value(found["keytrail.events.received"]) == 100
    resource = backend.requests[-1].resource_metrics[0].resource.attributes
    assert {one.key: one.value.string_value for one in resource} == RESOURCE


@pytest.mark.parametrize(
    ("preference", "delta"), [("", False), ("cumulative", False), ("lowmemory", False), ("Delta", True)]
)
def test_temporality_is_as_asked_for(backend: Backend, preference: str, delta: bool) -> None:
    """Totals by default; increases where the backend wants them, and then 0 for what stood still."""
    own = OwnMetrics(Given(troubled()), RESOURCE, [otlp_reader({TEMPORALITY: preference}, backend.send)])
    own._provider.force_flush()
    own.close(60)
    first, second = (backend.metrics(number)["keytrail.events.received"] for number in (0, 1))
    kind = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA if delta else (
        AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    )  # fmt: skip
    assert first.sum.aggregation_temporality == kind
    assert (value(first), value(second)) == (100, 0 if delta else 100)


def test_failures_are_told_once_and_their_end(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """A backend that fails makes one log entry however long it fails, and one when it works again."""
    caplog.set_level(logging.INFO, "keytrail")
    own = OwnMetrics(Given(troubled()), RESOURCE, [otlp_reader({}, backend.send)])
    backend.error = "UNAVAILABLE: refused"
    for _ in range(3):
        own._provider.force_flush()
    backend.error = ""
    own._provider.force_flush()
    own.close(60)
    assert [record.getMessage() for record in caplog.records] == [
        "own metrics cannot be sent (UNAVAILABLE: refused); trying again, unless OTEL_METRICS_EXPORTER=none",
        "own metrics are sent again",
    ]


@pytest.mark.parametrize("seconds", [0.1, 0.0, -1.0])
def test_close_does_not_wait_for_a_backend_that_hangs(backend: Backend, seconds: float) -> None:
    """The last request gets the time that is left, and no more: close returns while it is still under way."""
    own = OwnMetrics(Given(troubled()), RESOURCE, [otlp_reader({}, backend.send)])
    backend.hangs.clear()
    own.close(seconds)
    assert backend.requests == []


def test_scrapes_stay_totals_beside_a_sender_of_increases(backend: Backend) -> None:
    """What Prometheus reads does not depend on what the OTLP backend prefers."""
    own = OwnMetrics(Given(troubled()), RESOURCE, [otlp_reader({TEMPORALITY: "delta"}, backend.send)])
    for _ in range(2):
        own._provider.force_flush()
        data = own.collect()
        assert data is not None
        received = next(
            metric for metric in data.resource_metrics[0].scope_metrics[0].metrics if metric.name.endswith("received")
        )
        assert [point.value for point in received.data.data_points] == [100]
    own.close(60)
