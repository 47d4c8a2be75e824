"""OTLP over gRPC: one request with its bytes passed through as they are, and what the status means.

In flow serialized requests from `otlp_sender`, out come `Answer`s (`otlp_answer`). Knows nothing of batches.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from keytrail import __version__
from keytrail.export.otlp_answer import Accepted, Answer, Denied, Rejected, Retry, TooLarge, read_partial_success
from keytrail.export.otlp_credentials import Credentials
from keytrail.export.otlp_settings import OtlpSettings, Signal
from keytrail.grpcio_text import unwrapped

GRPC_METHOD: Final = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
_METHODS: Final = {
    Signal.LOGS: GRPC_METHOD,
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}

_RETRYABLE: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_DENIED: Final = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNIMPLEMENTED,  # no LogsService there: gRPC's way to say 404, and what it makes of an HTTP 404
    }
)


class GrpcTransport:
    """See otlp_transport.Transport."""

    def __init__(self, settings: OtlpSettings) -> None:
        self._settings = settings
        self._credentials = Credentials(settings)
        self._channel: grpc.Channel | None = None
        self._export: Callable[..., Any] | None = None

    def send(self, request: bytes, timeout_seconds: float) -> Answer:
        """See Transport."""
        if self._credentials.tls_changed():
            self.close()
        try:
            export = self._export or self._connect()
            response = export(request, timeout=timeout_seconds, metadata=self._credentials.headers())
        except OSError as error:  # certificates are read at every connection, so that they can be rotated
            return Retry(self._credentials.safe_text(f"certificate files: {error.strerror}"))
        except grpc.RpcError as error:
            answer = self._refusal(error)
            if isinstance(answer, Retry) and answer.after_seconds is None:
                # A dead peer behind a silent network stays "connected" until TCP gives up (15 minutes), and a refused
                # connection is held back by gRPC's own back-off on top of the sender's. A new channel has neither.
                self.close()
            return answer
        accepted = read_partial_success(response)
        return Accepted(accepted.rejected, self._credentials.safe_text(accepted.text))

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
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.primary_user_agent", f"keytrail/{__version__}")]
        if settings.insecure:
            channel = grpc.insecure_channel(settings.endpoint, options=options, compression=compression)
        else:
            pair = map(_contents, (settings.certificate, settings.client_key, settings.client_certificate))
            channel = grpc.secure_channel(
                settings.endpoint, grpc.ssl_channel_credentials(*pair), options=options, compression=compression
            )
        export: Callable[..., Any] = channel.unary_unary(
            _METHODS[settings.signal]
        )  # no serializers: bytes in, bytes out
        self._channel, self._export = channel, export
        return export

    def _refusal(self, error: grpc.RpcError) -> Answer:
        # What a call raises is also the call itself, which the published types do not say.
        call: Any = error
        code: grpc.StatusCode = call.code()
        details = call.details() or ""
        told = unwrapped(details)
        where = "" if told == details else f"{self._settings.endpoint}: "  # what went with grpcio's own words
        text = self._credentials.safe_text(f"{code.name}: {where}{told}")
        after = _retry_info(call.trailing_metadata() or ())
        if code in _RETRYABLE:
            return Retry(text, after)
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            # With RetryInfo the server is throttling; without, the message is over its limit.
            return TooLarge(text) if after is None else Retry(text, after)
        return Denied(text) if code in _DENIED else Rejected(text)


def _contents(path: Path | None) -> bytes | None:
    return path.read_bytes() if path else None


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
