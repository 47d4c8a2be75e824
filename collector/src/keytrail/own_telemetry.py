"""The collector's own metrics, health and status: served over HTTP, and sent by OTLP where the variables say so.

In flow settings, OpenTelemetry's variables and a probe; nothing flows out but what others fetch or what is sent. A
page that cannot be served must not keep a node unwatched, unless its address was asked for.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Self

from keytrail.domain.errors import SettingsError
from keytrail.observe.http_server import OwnHttp, open_http
from keytrail.observe.metrics import OwnMetrics
from keytrail.observe.otlp_metrics import otlp_reader, wants_otlp
from keytrail.observe.snapshot import Probe
from keytrail.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader

    from keytrail.export.otlp_transport import Transport

log = logging.getLogger(__name__)

_LAST_SECONDS = 0.5


class OwnTelemetry:
    """Open within `with`. Raises SettingsError for an address that was set and cannot be served."""

    def __init__(self, settings: Settings, probe: Probe, environ: Mapping[str, str]) -> None:
        sent = _sent(environ) if wants_otlp(environ) else None
        self._transport = None if sent is None else sent.transport
        resource = {"service.name": "keytrail"} if sent is None else sent.resource
        self._metrics = OwnMetrics(probe, resource, [] if sent is None else [sent.reader])
        self._http = _serve(settings, probe, self._metrics)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._http is not None:
            self._http.close()
        self._metrics.close(_LAST_SECONDS)
        if self._transport is not None:
            self._transport.close()


class _Sent(NamedTuple):
    """What it takes to send metrics by OTLP."""

    transport: "Transport"
    resource: dict[str, str]
    reader: "MetricReader"


def _sent(environ: Mapping[str, str]) -> _Sent:
    from keytrail.delivery import own_resource  # encoder, spool and sender weigh 3 MB
    from keytrail.export.otlp_answer import Accepted
    from keytrail.export.otlp_settings import Signal, otlp_settings
    from keytrail.export.otlp_transport import open_transport

    otlp = otlp_settings(environ, Signal.METRICS)
    transport = open_transport(otlp)

    def send(body: bytes) -> str:
        answer = transport.send(body, otlp.timeout_seconds)
        return "" if isinstance(answer, Accepted) else answer.text or type(answer).__name__

    return _Sent(transport, own_resource(otlp, environ), otlp_reader(environ, send))


def _serve(settings: Settings, probe: Probe, metrics: OwnMetrics) -> OwnHttp | None:
    address, origin = settings.http_address, settings.origins.get("http_address")
    try:
        return open_http(address, probe, metrics)
    except ValueError as error:
        raise SettingsError(f"http_address {address!r}: {error}") from None
    except OSError as error:
        if origin is not None:
            raise SettingsError(f"{origin}: cannot serve at {address!r}: {error.strerror or error}") from None
        log.warning("no /metrics, /healthz, /readyz and /status: cannot serve at %s (%s)", address, error.strerror)
        return None
