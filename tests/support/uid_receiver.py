"""A lean OTLP backend for many records: a real gRPC LogsService that keeps nothing but their uids.

`OtlpSink` makes a row of every attribute, which takes longer than sending; here a record is checked to be one, and its
uid is remembered.
"""

import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

_SERVICE = "opentelemetry.proto.collector.logs.v1.LogsService"
_UID = re.compile(rb"\x0a\x0elog\.record\.uid\x12\x22\x0a\x20([0-9a-f]{32})")
"""A KeyValue with a string of 32 characters, as it is serialized."""


class UidReceiver:
    """Refuses connections until `start`. A context manager: it never outlives the test."""

    def __init__(self) -> None:
        # A bound socket that does not listen refuses, and keeps the port from everybody but servers that share it.
        self._port = socket.socket()
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._port.bind(("127.0.0.1", 0))
        self._address = f"127.0.0.1:{self._port.getsockname()[1]}"
        self.endpoint = f"http://{self._address}"
        self.uids: set[int] = set()
        self.records = 0
        """All that arrived, repeats included."""
        self.requests = 0
        self.first_at = self.last_at = 0.0
        """When records arrived first and last, on the monotonic clock."""
        self._arrived = threading.Condition()
        self._server: grpc.Server | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._server is not None:
            self._server.stop(grace=None).wait()
        self._port.close()

    def start(self) -> None:
        """Come back: take what is sent."""
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 1)])
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._export)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Export": handler}),))
        self._server.add_insecure_port(self._address)
        self._server.start()

    def wait_for(self, uids: int, seconds: float) -> bool:
        """Wait until so many different records are here; False when none arrives for so long."""
        with self._arrived:
            while len(self.uids) < uids:
                before = self.records
                if not self._arrived.wait(seconds) and self.records == before:
                    return False
            return True

    def _export(self, raw: bytes, _context: grpc.ServicerContext) -> bytes:
        request = ExportLogsServiceRequest.FromString(raw)
        records = sum(len(scope.log_records) for logs in request.resource_logs for scope in logs.scope_logs)
        uids = [int(uid, 16) for uid in _UID.findall(raw)]
        assert len(uids) == records, f"{records} records with {len(uids)} uids"
        with self._arrived:
            self.last_at = time.monotonic()
            self.first_at = self.first_at or self.last_at
            self.uids.update(uids)
            self.records += records
            self.requests += 1
            self._arrived.notify_all()
        return b""
