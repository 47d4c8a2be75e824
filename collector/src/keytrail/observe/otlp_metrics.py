"""Keytrail's own metrics by OTLP: what the standard variables ask for, and the exporter that does it.

Collected metrics come in from the SDK's periodic reader, serialized requests go out through a `Send` that the caller
gives: the transport of the records, with its headers, TLS and proxies. The SDK's own OTLP exporters are not used: they
read OTEL_EXPORTER_OTLP_TIMEOUT as seconds where the specification has milliseconds, an empty variable as a value, and
write a malformed OTEL_EXPORTER_OTLP_HEADERS, which holds credentials, into the log. Nothing is queued: values are
totals, and the next request makes up for a failed one.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)

from keytrail.domain.errors import SettingsError

log = logging.getLogger(__name__)

Send = Callable[[bytes], str]
"""Sends one serialized ExportMetricsServiceRequest within the transport's time; returns what went wrong, or nothing."""

EXPORTER: Final = "OTEL_METRICS_EXPORTER"
INTERVAL: Final = "OTEL_METRIC_EXPORT_INTERVAL"
TEMPORALITY: Final = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_DEFAULT_INTERVAL_MS: Final = 60_000
_SHORTEST_INTERVAL_MS: Final = 1_000
_LONGEST_INTERVAL_MS: Final = 3_600_000
_DELTA: Final[dict[type, AggregationTemporality]] = dict.fromkeys(
    (Counter, ObservableCounter, Histogram), AggregationTemporality.DELTA
)
# `lowmemory` is delta only for what is counted as it happens, and every instrument of ours is observed.
_TEMPORALITIES: Final[dict[str, dict[type, AggregationTemporality]]] = {
    "cumulative": {}, "delta": _DELTA, "lowmemory": {}
}  # fmt: skip


def wants_otlp(environ: Mapping[str, str]) -> bool:
    """Whether metrics go out by OTLP: asked for by name, or an endpoint is set and nothing else was asked for.

    `prometheus` and `none` switch only this off: the Prometheus page is `http_address`'s. Raises SettingsError for a
    name that means nothing here.
    """
    names = {name.strip().lower() for name in environ.get(EXPORTER, "").split(",") if name.strip()}
    unknown = names - {"otlp", "prometheus", "none"}
    if unknown:
        raise SettingsError(f"{EXPORTER}: expected otlp, prometheus or none, found {min(unknown)!r}")
    if names:
        return "otlp" in names
    return any(environ.get(name, "").strip() for name in _ENDPOINTS)


def otlp_reader(environ: Mapping[str, str], send: Send) -> PeriodicExportingMetricReader:
    """Return a reader that sends every OTEL_METRIC_EXPORT_INTERVAL milliseconds, and a last time when it is closed."""
    preference = environ.get(TEMPORALITY, "").strip().lower() or "cumulative"
    if preference not in _TEMPORALITIES:
        raise SettingsError(f"{TEMPORALITY}: expected {', '.join(_TEMPORALITIES)}, found {preference!r}")
    exporter = OtlpMetricExporter(send, _TEMPORALITIES[preference])
    # Given in full, where the SDK would read the environment by rules of its own.
    return PeriodicExportingMetricReader(exporter, _interval_ms(environ), export_timeout_millis=30_000)


def _interval_ms(environ: Mapping[str, str]) -> int:
    text = environ.get(INTERVAL, "").strip()
    if not text:
        return _DEFAULT_INTERVAL_MS
    if not (text.isascii() and text.isdigit() and _SHORTEST_INTERVAL_MS <= int(text[:9]) <= _LONGEST_INTERVAL_MS):
        wanted = f"milliseconds from {_SHORTEST_INTERVAL_MS} to {_LONGEST_INTERVAL_MS}"
        raise SettingsError(f"{INTERVAL}: expected {wanted}, found {text!r}")
    return int(text)


class OtlpMetricExporter(MetricExporter):
    """Encodes what was collected, sends it once, and says when that begins to fail and when it works again."""

    def __init__(self, send: Send, temporality: dict[type, AggregationTemporality]) -> None:
        super().__init__(preferred_temporality=temporality)
        self._send = send
        self._failing = False

    def export(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = 10_000,
        **kwargs: Any,
    ) -> MetricExportResult:
        """Send one collection."""
        del timeout_millis, kwargs  # the transport has its own, by OTEL_EXPORTER_OTLP_METRICS_TIMEOUT
        error = self._send(encode_metrics(metrics_data).SerializeToString())
        if error and not self._failing:
            log.warning("own metrics cannot be sent (%s); trying again, unless %s=none", error, EXPORTER)
        elif self._failing and not error:
            log.info("own metrics are sent again")
        self._failing = bool(error)
        return MetricExportResult.FAILURE if error else MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing is held back."""
        del timeout_millis
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """The transport belongs to whoever gave it."""
        del timeout_millis, kwargs
