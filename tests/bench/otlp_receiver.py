"""The backend of the OTLP benchmark: counts records over gRPC and HTTP, on a core of its own.

In flow requests and, on standard input, commands; out go the endpoints and the number of records, as JSON lines.
"""

import gzip
import json
import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from keytrail.export.otlp_transport import GRPC_METHOD


class Receiver:
    """Counts records over gRPC and HTTP; `stop` and `start` are an outage."""

    def __init__(self) -> None:
        self.records = 0
        self._lock = threading.Lock()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._grpc_port = free.getsockname()[1]
        self._grpc: grpc.Server | None = None
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.take(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self.start()

    @property
    def addresses(self) -> dict[str, str]:
        """Endpoints by protocol."""
        return {
            "grpc": f"http://127.0.0.1:{self._grpc_port}",
            "http": f"http://127.0.0.1:{self._http.server_port}/v1/logs",
        }

    def take(self, body: bytes) -> bytes:
        """Count the records of a request."""
        request = ExportLogsServiceRequest.FromString(body)
        count = sum(len(scope.log_records) for one in request.resource_logs for scope in one.scope_logs)
        with self._lock:
            self.records += count
        return b""

    def start(self) -> None:
        """Listen for gRPC."""
        service, method = GRPC_METHOD.strip("/").split("/")
        handler: Any = grpc.unary_unary_rpc_method_handler(lambda body, _: self.take(body))
        server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_receive_message_length", 64 << 20)])
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        server.add_insecure_port(f"127.0.0.1:{self._grpc_port}")
        server.start()
        self._grpc = server

    def stop(self) -> None:
        """Break gRPC connections and refuse new ones."""
        if self._grpc is not None:
            self._grpc.stop(None).wait()


def receive() -> None:
    """Serve until standard input ends; a line is a command, its answer the number of records so far."""
    receiver = Receiver()
    print(json.dumps(receiver.addresses), flush=True)
    for line in sys.stdin:
        {"stop": receiver.stop, "start": receiver.start}.get(line.strip(), lambda: None)()
        print(json.dumps(receiver.records), flush=True)
    os._exit(0)
