"""A connection to the OTLP backend: the bytes of an ExportLogsServiceRequest in, an `Answer` out.

Nothing is kept between requests but the connection. Knows nothing of queues, batches or back-off; those are
`otlp_sender`'s, which comes before. What an answer means is said in `otlp_answer`.
"""

from typing import Protocol

from keytrail.export import otlp_settings
from keytrail.export.otlp_answer import Accepted, Answer, Denied, Rejected, Retry, TooLarge
from keytrail.export.otlp_grpc import GRPC_METHOD, GrpcTransport
from keytrail.export.otlp_settings import OtlpSettings

__all__ = [
    "GRPC_METHOD",
    "Accepted",
    "Answer",
    "Denied",
    "Rejected",
    "Retry",
    "TooLarge",
    "Transport",
    "open_transport",
]


class Transport(Protocol):
    """A connection to the backend, used by one thread."""

    def send(self, request: bytes, timeout_seconds: float) -> Answer:
        """Send one request and wait for its answer, no longer than the timeout in all. Failures are answers too."""
        ...

    def close(self) -> None:
        """Give the connection back; ends a request under way. Idempotent, callable from any thread."""
        ...


def open_transport(settings: OtlpSettings) -> Transport:
    """Make the transport that the settings ask for. Connects with the first request."""
    if settings.protocol is otlp_settings.Protocol.GRPC:
        return GrpcTransport(settings)
    from keytrail.export.otlp_http import HttpTransport  # and with it `requests`, which weighs 5 MB

    return HttpTransport(settings)
