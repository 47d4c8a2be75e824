"""Collected metrics as Prometheus reads them: its text format 0.0.4, or OpenMetrics 1.0.

The SDK's data comes in, text goes out. Names, units and suffixes follow OpenTelemetry's "Prometheus and OpenMetrics
Compatibility" page: dots become underscores, a unit is appended once, counters end in `_total`, attributes of the
resource are `target_info`. Written here rather than taken from opentelemetry-exporter-prometheus: that package is a
beta pinned to one SDK release, brings a second metrics library, and mixes the answers of two scrapes at once.
Knows gauges and sums, which is all the table declares; next comes `http_server`.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

from opentelemetry.sdk.metrics.export import MetricsData, NumberDataPoint, Sum

from keytrail.observe.text import printable

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_UNITS: Final = {"By": "bytes", "s": "seconds"}
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
_HELP_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\n": "\\n"})


class Named(Protocol):
    """What decides a metric's name: its declaration and the SDK's metric both have it."""

    @property
    def name(self) -> str: ...  # noqa: D102 - as OpenTelemetry has it

    @property
    def unit(self) -> Any: ...  # noqa: D102 - as above; None is allowed in the SDK's


def content_type(accept: str) -> str:
    """Choose the format that a scraper's Accept header prefers; the text format when it names none of ours."""
    best, found = 0.0, TEXT
    for offer in accept.lower().split(","):
        media, *parameters = (part.strip() for part in offer.split(";"))
        quality = _quality(parameters)
        ours = {"application/openmetrics-text": OPEN_METRICS, "text/plain": TEXT, "text/*": TEXT, "*/*": TEXT}.get(
            media
        )
        wanted = {text.partition("=")[2] for text in parameters if text.startswith("version=")}
        if ours is OPEN_METRICS and wanted and not wanted & {"1.0.0"}:
            continue
        if ours is not None and quality > best:
            best, found = quality, ours
    return found


def _quality(parameters: Iterable[str]) -> float:
    for text in parameters:
        if re.fullmatch(r"q=(0(\.\d{1,3})?|1(\.0{1,3})?)", text):
            return float(text[2:])
    return 1.0


def family_name(metric: Named) -> str:
    """Return the name without `_total`, as OpenMetrics' metadata has it."""
    name = re.sub(r"[^a-zA-Z0-9_]+", "_", metric.name)
    unit = _UNITS.get(metric.unit or "", "")
    return f"{name}_{unit}" if unit and not name.endswith(f"_{unit}") else name


def sample_name(metric: Any) -> str:
    """Return the name of a declared metric's samples."""
    return family_name(metric) + ("_total" if metric.kind == "counter" else "")


def render(data: MetricsData | None, form: str) -> str:
    """Return the whole page."""
    return "\n".join(_lines(data, open_metrics=form == OPEN_METRICS)) + "\n"


def _lines(data: MetricsData | None, *, open_metrics: bool) -> Iterator[str]:
    for resource in data.resource_metrics if data is not None else ():
        info = "target" if open_metrics else "target_info"
        yield f"# HELP {info} What is measured."
        yield f"# TYPE {info} {'info' if open_metrics else 'gauge'}"
        yield f"target_info{_labels(resource.resource.attributes)} 1"
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                yield from _family(metric, open_metrics=open_metrics)
    if open_metrics:
        yield "# EOF"


def _family(metric: Any, *, open_metrics: bool) -> Iterator[str]:
    monotonic = isinstance(metric.data, Sum) and metric.data.is_monotonic
    family = family_name(metric)
    sample = f"{family}_total" if monotonic else family
    named = family if open_metrics else sample
    yield f"# HELP {named} {_help(metric.description, open_metrics=open_metrics)}"
    yield f"# TYPE {named} {'counter' if monotonic else 'gauge'}"
    if open_metrics and (unit := _UNITS.get(metric.unit)):
        yield f"# UNIT {named} {unit}"
    points: Iterable[NumberDataPoint] = metric.data.data_points
    for point in points:
        yield f"{sample}{_labels(point.attributes or {})} {_number(point.value)}"


def _help(text: str, *, open_metrics: bool) -> str:
    # The text format escapes no quotes in help; OpenMetrics does.
    return text.translate(_ESCAPES if open_metrics else _HELP_ESCAPES)


def _labels(attributes: Mapping[str, Any]) -> str:
    labels = sorted((re.sub(r"[^a-zA-Z0-9_]", "_", name), _label(value)) for name, value in attributes.items())
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}" if labels else ""


def _label(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return printable(text.replace("\n", " ")).translate(_ESCAPES)


def _number(value: float) -> str:
    if math.isinf(value) or math.isnan(value):
        return {math.inf: "+Inf", -math.inf: "-Inf"}.get(value, "NaN")
    return repr(value)
