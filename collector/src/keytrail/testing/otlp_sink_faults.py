"""Faults that a test can script into an OtlpSink, in the words of the OTLP specification.

A fault is plain data that says what to answer in either protocol, so that one script serves gRPC and HTTP. Knows
neither server; `otlp_sink_grpc` and `otlp_sink_http` act on it.
"""

from dataclasses import dataclass

import grpc


@dataclass(frozen=True, slots=True)
class Refusal:
    """Answer with a status and store nothing."""

    grpc_code: grpc.StatusCode
    http_status: int
    message: str = ""
    retry_after: float | None = None
    """Seconds: RetryInfo in gRPC, Retry-After (rounded up) in HTTP."""


@dataclass(frozen=True, slots=True)
class PartialSuccess:
    """Store all but the last `rejected` records and say so. With 0 rejected the message is a warning."""

    rejected: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Hang:
    """Answer after so many seconds, having stored the records: a client that gave up earlier sends them again."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reset:
    """Break the connection without an answer, with nothing stored.

    HTTP: the one connection is reset (RST). gRPC: grpcio owns the sockets, so the whole gRPC server is stopped and
    started again on its port, which breaks every connection to it.
    """


@dataclass(frozen=True, slots=True)
class Trickle:
    """Store the records and answer a byte at a time, with so many seconds between, without an end.

    HTTP only: a client's timeout for each read never passes. Over gRPC it is a hang, as grpcio sends answers whole.
    """

    seconds: float = 0.02


Fault = Refusal | PartialSuccess | Hang | Reset | Trickle


def unavailable(retry_after: float | None = None, message: str = "try again later") -> Refusal:
    """UNAVAILABLE, or HTTP 503: the retryable failure."""
    return Refusal(grpc.StatusCode.UNAVAILABLE, 503, message, retry_after)


def throttled(retry_after: float | None, message: str = "slow down") -> Refusal:
    """RESOURCE_EXHAUSTED with RetryInfo, or HTTP 429 with Retry-After. Without a time, gRPC's means too large."""
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, message, retry_after)


def too_large(message: str = "message is too large") -> Refusal:
    """RESOURCE_EXHAUSTED without RetryInfo, or HTTP 413: not to be sent again as it is."""
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, 413, message)


def invalid(message: str = "bad data") -> Refusal:
    """INVALID_ARGUMENT, or HTTP 400: the permanent failure."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, 400, message)


def unauthenticated(message: str = "who are you?") -> Refusal:
    """UNAUTHENTICATED, or HTTP 401."""
    return Refusal(grpc.StatusCode.UNAUTHENTICATED, 401, message)


def forbidden(message: str = "not yours") -> Refusal:
    """PERMISSION_DENIED, or HTTP 403."""
    return Refusal(grpc.StatusCode.PERMISSION_DENIED, 403, message)


def not_found(message: str = "no such path") -> Refusal:
    """UNIMPLEMENTED, which is gRPC's way to say so, or HTTP 404."""
    return Refusal(grpc.StatusCode.UNIMPLEMENTED, 404, message)
