"""What a backend's answer to one OTLP request means, whichever protocol brought it.

In flow bodies and status texts from `otlp_grpc` and `otlp_http`, out come `Answer`s. Knows no connection and no queue;
what follows from an answer is decided in `otlp_delivery`.

Which status is which differs from the OTLP specification's table ("Failures", "Retryable Response Codes") where
following it would lose records to somebody's mistake: it knows only "try again" and "drop". Here a status that is
about us and not about the records (no valid token, no such path, not implemented) is `Denied`, and the records wait.
"""

from dataclasses import dataclass

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse


@dataclass(frozen=True, slots=True)
class Accepted:
    """The backend has the request; `rejected` of its records it refused for good, `text` says why or warns."""

    rejected: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The backend will never take this request as it is: something in it is wrong, or it fails on it."""

    text: str


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The backend will never take this request whole, but perhaps its parts."""

    text: str


@dataclass(frozen=True, slots=True)
class Denied:
    """The backend takes nothing from us until somebody changes something: a token, a path, a right."""

    text: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Nobody knows whether the backend has the request, or it asked for it again after `after_seconds`."""

    text: str
    after_seconds: float | None = None


Answer = Accepted | Rejected | TooLarge | Denied | Retry


def read_partial_success(body: bytes, *, is_json: bool = False) -> Accepted:
    """Read an ExportLogsServiceResponse; one that cannot be parsed is still the backend's word that it has all."""
    try:
        response = _from_json(body) if is_json else ExportLogsServiceResponse.FromString(body)
    except (DecodeError, ValueError, RecursionError):
        return Accepted()
    partial = response.partial_success
    return Accepted(max(partial.rejected_log_records, 0), partial.error_message)


def _from_json(body: bytes) -> ExportLogsServiceResponse:
    """Raises ValueError."""
    from google.protobuf import json_format  # 0.2 MB that few backends make use of

    try:
        return json_format.Parse(body, ExportLogsServiceResponse(), ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise ValueError from error
