"""What a failed gRPC call says about the agent, in words that tell a user what to do.

In: grpcio's errors, or status and text as our own reader got them. Out: a `Reason` and text. grpcio reports every way
not to reach a server as UNAVAILABLE and puts the system's own message into the details, the only place where the ways
differ.
"""

from enum import StrEnum
from typing import Any

import grpc

from keytrail.grpcio_text import unwrapped


class Reason(StrEnum):
    """Why a connection is as it is, as logs and metrics name it."""

    CONNECTED = "connected"
    NO_PROCESS_CACHE = "no_process_cache"
    """Connected, but the agent would not or could not list its processes: those already running are unknown."""
    ABSENT = "absent"
    """No such socket: the agent never started, or stopped cleanly and took its socket away."""
    UNKNOWN_HOST = "unknown_host"
    REFUSED = "refused"
    """A socket or host where nobody listens: an agent that was killed leaves its socket behind."""
    UNREACHABLE = "unreachable"
    DENIED = "denied"
    NOT_GRPC = "not_grpc"
    PROTOCOL = "protocol_error"
    """What came breaks HTTP/2 or gRPC, or is a part of them that our own reader does not know."""
    TLS = "tls"
    REMOVED = "stream_removed"
    """The connection broke under the stream: a restart, clean or not."""
    GOAWAY = "goaway"
    CANCELLED = "cancelled"
    ASKED_ANEW = "asked_anew"
    """We ended it ourselves, to ask for types of event that were left out so far."""
    ENDED = "ended"
    TOO_LARGE = "too_large"
    EXHAUSTED = "resource_exhausted"
    UNIMPLEMENTED = "unimplemented"
    NO_ANSWER = "no_answer"
    REJECTED = "rejected"
    """The agent refused the request itself: its text says why."""


_DETAILS = (
    ("GOAWAY received", Reason.GOAWAY),
    ("No such file", Reason.ABSENT),
    ("errors resolving", Reason.UNKNOWN_HOST),
    ("Domain name not found", Reason.UNKNOWN_HOST),
    ("Connection refused", Reason.REFUSED),
    ("Permission denied", Reason.DENIED),
    ("andshake failed", Reason.TLS),
    ("erification", Reason.TLS),
    ("certificate", Reason.TLS),
    ("Failed parsing HTTP/2", Reason.NOT_GRPC),
    ("failed to connect", Reason.UNREACHABLE),
)
_CODES = {
    grpc.StatusCode.UNAVAILABLE: Reason.REMOVED,
    grpc.StatusCode.CANCELLED: Reason.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED: Reason.UNIMPLEMENTED,
    grpc.StatusCode.DEADLINE_EXCEEDED: Reason.NO_ANSWER,
    grpc.StatusCode.PERMISSION_DENIED: Reason.DENIED,
    grpc.StatusCode.UNAUTHENTICATED: Reason.DENIED,
}


class StreamError(Exception):
    """An event stream could not be had or is over, as our own reader found; grpcio raises its own errors."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def reason_of(error: grpc.RpcError) -> Reason:
    """Classify a failed call."""
    return reason_for(code_of(error), _details(error))


def reason_for(code: grpc.StatusCode, text: str) -> Reason:
    """Classify a status other than OK."""
    if code is grpc.StatusCode.UNAVAILABLE:
        for part, reason in _DETAILS:
            if part in text:
                return reason
    # A server or proxy may be exhausted too; only our own side words it like this.
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "Received message larger than max" in text:
        return Reason.TOO_LARGE
    return _CODES.get(code, Reason.REJECTED)


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """Return the status; what grpcio raises for a finished call is that call, which its class does not say."""
    call: Any = error
    return call.code() if isinstance(call, grpc.Call) else grpc.StatusCode.UNKNOWN


def details_of(error: grpc.RpcError) -> str:
    """Return the agent's own text, or what grpcio's is about."""
    return unwrapped(_details(error))


def _details(error: grpc.RpcError) -> str:
    call: Any = error
    return call.details() or "" if isinstance(call, grpc.Call) else str(error)
