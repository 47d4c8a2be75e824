"""One OTLP request to the backend, and what its answer means.

In flow the bytes of an ExportLogsServiceRequest, out comes an `Answer`: accepted, rejected for good, too large, or to
be tried again. Nothing is kept between requests but the connection. Knows nothing of queues, batches or back-off; those
are `otlp_sender`'s, which comes before.

Which status is retryable is the OTLP specification's table (sections "Failures" and "Retryable Response Codes"), with
two additions where dropping would lose records to a mistake in somebody's configuration: an HTTP redirect and a web
page instead of an answer are retried and show up as the last error.
"""

import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
import requests
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from keytrail import __version__
from keytrail.export import otlp_settings
from keytrail.export.otlp_settings import OtlpSettings

GRPC_METHOD: Final = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
ANSWER_LIMIT: Final = 64 * 1024
"""Bytes of an HTTP answer that are read. Answers are small; a hostile one need not be."""
ERROR_TEXT_LIMIT: Final = 300
USER_AGENT: Final = f"keytrail/{__version__}"

_RETRYABLE_GRPC: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_RETRYABLE_HTTP: Final = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Accepted:
    """The backend has the request; `rejected` of its records it refused for good, `text` says why or warns."""

    rejected: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The backend will never take this request."""

    text: str


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The backend will never take this request whole, but perhaps its parts."""

    text: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Nobody knows whether the backend has the request, or it asked for it again after `after_seconds`."""

    text: str
    after_seconds: float | None = None


Answer = Accepted | Rejected | TooLarge | Retry


class Transport(Protocol):
    """A connection to the backend, used by one thread."""

    def send(self, request: bytes, timeout_seconds: float) -> Answer:
        """Send one request and wait for its answer. Failures of the network are answers too."""
        ...

    def close(self) -> None:
        """Give the connection back; ends a gRPC call under way. Idempotent, callable from any thread."""
        ...


def open_transport(settings: OtlpSettings) -> Transport:
    """Make the transport that the settings ask for. Connects with the first request."""
    return GrpcTransport(settings) if settings.protocol is otlp_settings.Protocol.GRPC else HttpTransport(settings)


class GrpcTransport:
    """OTLP/gRPC with the bytes passed through as they are."""

    def __init__(self, settings: OtlpSettings) -> None:
        self._settings = settings
        self._channel: grpc.Channel | None = None
        self._export: Callable[..., Any] | None = None

    def send(self, request: bytes, timeout_seconds: float) -> Answer:
        """See Transport."""
        try:
            export = self._export or self._connect()
            response = export(request, timeout=timeout_seconds, metadata=self._settings.headers)
        except OSError as error:  # certificates are read at every connection, so that they can be rotated
            return Retry(f"certificate files: {error.strerror}")
        except grpc.RpcError as error:
            answer = _grpc_answer(error, self._settings)
            if isinstance(answer, Retry) and answer.after_seconds is None:
                # A dead peer behind a silent network stays "connected" until TCP gives up (15 minutes), and a refused
                # connection is held back by gRPC's own back-off on top of the sender's. A new channel has neither.
                self.close()
            return answer
        return _accepted(response, self._settings)

    def close(self) -> None:
        """See Transport."""
        self._export = None
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _connect(self) -> Callable[..., Any]:
        settings = self._settings
        compression = grpc.Compression.Gzip if settings.gzip else grpc.Compression.NoCompression
        # Without a subchannel pool of its own a new channel would inherit the old one's connection and back-off.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.primary_user_agent", USER_AGENT)]
        if settings.insecure:
            self._channel = grpc.insecure_channel(settings.endpoint, options=options, compression=compression)
        else:
            credentials = grpc.ssl_channel_credentials(
                *map(_contents, (settings.certificate, settings.client_key, settings.client_certificate))
            )
            self._channel = grpc.secure_channel(
                settings.endpoint, credentials, options=options, compression=compression
            )
        self._export = self._channel.unary_unary(GRPC_METHOD)  # no serializers: bytes in, bytes out
        return self._export


class HttpTransport:
    """OTLP/HTTP with protobuf bodies."""

    def __init__(self, settings: OtlpSettings) -> None:
        self._settings = settings
        self._session = requests.Session()
        # Proxies come from the environment as users expect, but ~/.netrc must not replace an Authorization header.
        self._session.auth = _leave_as_it_is
        self._headers = {"user-agent": USER_AGENT, **dict(settings.headers), "content-type": "application/x-protobuf"}
        if settings.gzip:
            self._headers["content-encoding"] = "gzip"

    def send(self, request: bytes, timeout_seconds: float) -> Answer:
        """See Transport."""
        settings = self._settings
        # requests opens the files at each connection and reports a missing one as OSError, as it does the network's.
        pair = (str(settings.client_certificate), str(settings.client_key)) if settings.client_certificate else None
        try:
            with self._session.post(
                settings.endpoint,
                data=_gzip(request) if settings.gzip else request,
                headers=self._headers,
                timeout=timeout_seconds,
                # A redirected POST becomes a GET, and our headers would go to whoever was named.
                allow_redirects=False,
                # Given with each request: REQUESTS_CA_BUNDLE would win over the session's.
                verify=str(settings.certificate) if settings.certificate else True,
                cert=pair,
                stream=True,
            ) as response:
                body = response.raw.read(ANSWER_LIMIT, decode_content=True) or b""
                return _http_answer(response, body, settings)
        except Exception as error:  # noqa: BLE001 requests, urllib3, ssl and http.client each have a tree of their own
            return Retry(_error_text(f"{type(error).__name__}: {error}", settings))

    def close(self) -> None:
        """See Transport."""
        self._session.close()


def _contents(path: Path | None) -> bytes | None:
    return path.read_bytes() if path else None


def _leave_as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _gzip(data: bytes) -> bytes:
    # Level 1: on OTLP records the higher levels cost several times the CPU for a tenth less bytes.
    packer = zlib.compressobj(level=1, wbits=31)
    return packer.compress(data) + packer.flush()


def _accepted(body: bytes, settings: OtlpSettings, *, is_json: bool = False) -> Accepted:
    """Read partial_success; an answer that cannot be parsed is still the backend's word that it has the request."""
    if not body:
        return Accepted()
    response = ExportLogsServiceResponse()
    try:
        if is_json:
            json_format.Parse(body, response, ignore_unknown_fields=True)
        else:
            response.ParseFromString(body)
    except (DecodeError, json_format.ParseError):
        return Accepted()
    partial = response.partial_success
    return Accepted(max(partial.rejected_log_records, 0), _error_text(partial.error_message, settings))


def _grpc_answer(error: grpc.RpcError, settings: OtlpSettings) -> Answer:
    # What a call raises is also the call itself, which the published types do not say.
    call: Any = error
    code: grpc.StatusCode = call.code()
    text = _error_text(f"{code.name}: {call.details() or ''}", settings)
    after = _retry_info(call.trailing_metadata() or ())
    if code in _RETRYABLE_GRPC:
        return Retry(text, after)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # With RetryInfo the server is throttling; without, the message is over its limit.
        return TooLarge(text) if after is None else Retry(text, after)
    return Rejected(text)


def _retry_info(metadata: Any) -> float | None:
    for key, value in metadata:
        if key != "grpc-status-details-bin":
            continue
        info = error_details_pb2.RetryInfo()
        try:
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(info):
                    return max(0.0, float(info.retry_delay.ToMilliseconds()) / 1000)
        except DecodeError:
            return None
    return None


def _http_answer(response: requests.Response, body: bytes, settings: OtlpSettings) -> Answer:
    status, kind = response.status_code, response.headers.get("content-type", "")
    if status < requests.codes.multiple_choices and "html" not in kind:
        return _accepted(body, settings, is_json="json" in kind)
    if status < requests.codes.bad_request:
        return Retry(f"HTTP {status}: a redirect or a web page instead of an OTLP answer; is the endpoint right?")
    text = _error_text(f"HTTP {status}: {_status_message(kind, body)}", settings)
    if status == requests.codes.request_entity_too_large:
        return TooLarge(text)
    if status not in _RETRYABLE_HTTP:
        return Rejected(text)
    after = response.headers.get("retry-after", "")
    # The specification has seconds here; a date (which HTTP allows too) is left to the back-off.
    return Retry(text, float(after) if after.isascii() and after.isdigit() else None)


def _status_message(kind: str, body: bytes) -> str:
    """Return the text of the google.rpc.Status that error answers carry."""
    try:
        if "protobuf" in kind:
            return str(status_pb2.Status.FromString(body).message)
        if "json" in kind:
            return str(json.loads(body).get("message", ""))
    except (DecodeError, ValueError, AttributeError, RecursionError):
        return ""
    return body.decode(errors="replace") if kind.startswith("text/plain") else ""


def _error_text(text: str, settings: OtlpSettings) -> str:
    """Make an error safe to log and show: backends repeat our credentials, and can send anything."""
    # `Bearer abc`: the scheme's name is no secret, what follows is one also by itself.
    secrets = {secret for _, value in settings.headers for secret in (value, value.rpartition(" ")[2]) if secret}
    if secrets:
        text = re.sub("|".join(map(re.escape, sorted(secrets, key=len, reverse=True))), "[redacted]", text)
    return "".join(c if c.isprintable() else " " for c in text)[:ERROR_TEXT_LIMIT]
