"""The OtlpSink's gRPC half: a real LogsService on a port.

In flow gRPC calls, each is handed to a `Receiver`, whose verdict becomes the answer. Knows nothing of SQL.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from keytrail.domain.errors import UsageError
from keytrail.testing.otlp_sink_faults import Refusal, Reset, Trickle, invalid
from keytrail.testing.otlp_sink_receiver import Receiver, ServerTls

SERVICE: Final = "opentelemetry.proto.collector.logs.v1.LogsService"
_WORKERS: Final = 8


class GrpcReceiver:
    """Serves LogsService/Export on one address; can be stopped and started again on the same port."""

    def __init__(self, address: str, receiver: Receiver, tls: ServerTls | None, max_request_bytes: int) -> None:
        self.address = address
        """`host:port`; after `start` with the port that was taken for port 0."""
        self._receiver = receiver
        self._tls = tls
        self._max_request_bytes = max_request_bytes
        self._server: grpc.Server | None = None
        self._changing = threading.Lock()

    def start(self) -> None:
        """Listen and serve; raises UsageError when the address cannot be had."""
        with self._changing:
            self._start()

    def stop(self) -> None:
        """Break all connections and stop listening."""
        with self._changing:
            self._stop()

    def restart(self) -> None:
        """Break all connections, then listen again on the same port."""
        with self._changing:
            if self._server is not None:  # else somebody stopped the sink meanwhile
                self._stop()
                self._start()

    def _start(self) -> None:
        server = grpc.server(
            ThreadPoolExecutor(_WORKERS, thread_name_prefix="otlp-sink-grpc"),
            options=[
                ("grpc.max_receive_message_length", self._max_request_bytes),
                # A second sink on the port must be an error, not half of the traffic.
                ("grpc.so_reuseport", 0),
            ],
        )
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
            self._export
        )  # no deserializer: the raw bytes
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": handler}),))
        try:
            if self._tls is None:
                port = server.add_insecure_port(self.address)
            else:
                port = server.add_secure_port(self.address, _credentials(self._tls))
        except RuntimeError as error:
            raise UsageError(f"cannot listen on {self.address} for OTLP/gRPC") from error
        self.address = f"{self.address.rpartition(':')[0]}:{port}"
        server.start()
        self._server = server

    def _stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.stop(grace=None).wait()

    def _export(self, raw: bytes, context: grpc.ServicerContext) -> bytes:
        headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        try:
            request = ExportLogsServiceRequest.FromString(raw)
        except DecodeError:
            _refuse(context, invalid("the request is no ExportLogsServiceRequest"))
        verdict = self._receiver.receive("grpc", headers, raw, request)
        if isinstance(verdict, Refusal):
            _refuse(context, verdict)
        if isinstance(verdict, Reset):
            # Stopping waits for this very handler, so another thread must do it.
            threading.Thread(target=self.restart, name="otlp-sink-reset").start()
            self._receiver.wait_for_break(context.is_active)
            context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
        if isinstance(verdict, Trickle):
            while context.is_active() and not self._receiver.stopping.wait(verdict.seconds):
                pass
            context.abort(grpc.StatusCode.CANCELLED, "nobody waited to the end")
        return verdict.SerializeToString()


def _credentials(tls: ServerTls) -> grpc.ServerCredentials:
    authorities = tls.client_authorities.read_bytes() if tls.client_authorities else None
    pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
    return grpc.ssl_server_credentials([pair], authorities, require_client_auth=authorities is not None)


def _refuse(context: grpc.ServicerContext, refusal: Refusal) -> NoReturn:
    if refusal.retry_after is not None:
        info = error_details_pb2.RetryInfo(retry_delay=_duration(refusal.retry_after))
        detail = AnyMessage()
        detail.Pack(info)
        status = status_pb2.Status(code=refusal.grpc_code.value[0], message=refusal.message, details=[detail])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(refusal.grpc_code, refusal.message)
    raise AssertionError  # abort does not return, which its published type does not say


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(round(seconds * 1000))
    return duration
