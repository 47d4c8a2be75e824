"""The OtlpSink's HTTP half: a real OTLP/HTTP server for `POST /v1/logs`, protobuf and JSON bodies, gzip or plain.

In flow HTTP requests, each is handed to a `Receiver`, whose verdict becomes the answer. Knows nothing of SQL.
"""

import contextlib
import json
import math
import os
import socket
import ssl
import struct
import threading
import zlib
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from keytrail.domain.errors import UsageError
from keytrail.testing.otlp_sink_faults import Refusal, Reset, Trickle
from keytrail.testing.otlp_sink_receiver import Receiver, ServerTls

PATH: Final = "/v1/logs"
IDLE_SECONDS: Final = 60
"""A connection on which nothing comes for so long is closed."""
_GZIP: Final = 16 + zlib.MAX_WBITS
_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"


class _BadRequestError(Exception):
    """A request that is answered with an HTTP error."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class HttpReceiver:
    """Serves OTLP/HTTP on one address; can be stopped and started again on the same port."""

    def __init__(self, address: str, receiver: Receiver, tls: ServerTls | None, max_request_bytes: int) -> None:
        self.address = address
        """`host:port`; after `start` with the port that was taken for port 0."""
        self._receiver = receiver
        self._tls = tls
        self._max_request_bytes = max_request_bytes
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen and serve; raises UsageError when the address cannot be had."""
        host, _, port = self.address.rpartition(":")
        try:
            server = _Server((host.strip("[]"), int(port)), self._receiver, self._max_request_bytes)
        except (OSError, ValueError, OverflowError) as error:
            raise UsageError(f"cannot listen on {self.address} for OTLP/HTTP: {error}") from error
        if self._tls is not None:
            # The handshake comes with the first read, in the connection's own thread: a silent client stalls nobody.
            server.socket = _tls_context(self._tls).wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.address = f"{host}:{server.server_address[1]}"
        self._thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="otlp-sink-http")
        self._thread.start()
        self._server = server

    def stop(self) -> None:
        """Break all connections and stop listening."""
        server, self._server = self._server, None
        if server is None or self._thread is None:
            return
        server.shutdown()
        server.break_connections()
        server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for them, and break_connections makes that short

    def __init__(self, address: tuple[str, int], receiver: Receiver, max_request_bytes: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.receiver = receiver
        self.max_request_bytes = max_request_bytes
        self._connections: set[Any] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def break_connections(self) -> None:
        """End connections that clients keep alive; without this a stopped sink would go on answering on them."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that break off or fail the handshake are this server's daily bread."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self._kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            # The body first: an answer before it was read would leave it to be taken for the next request.
            raw = self._body()
            request = self._request(raw)
        except _BadRequestError as error:
            self.close_connection = True
            self._answer(error.status, status_pb2.Status(message=str(error)))
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        protocol = "http/json" if self._kind == _JSON else "http/protobuf"
        verdict = self.server.receiver.receive(protocol, headers, raw, request)
        if isinstance(verdict, Reset):
            self._reset()
        elif isinstance(verdict, Trickle):
            self._trickle(verdict.seconds)
        elif isinstance(verdict, Refusal):
            status = status_pb2.Status(code=verdict.grpc_code.value[0], message=verdict.message)
            self._answer(HTTPStatus(verdict.http_status), status, retry_after=verdict.retry_after)
        else:
            self._answer(HTTPStatus.OK, verdict)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the name is the base class's
        """Say nothing; the store shows what came."""

    def _body(self) -> bytes:
        most = self.server.max_request_bytes
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            body = self._chunks(most)
        else:
            length = self.headers.get("content-length", "")
            if not (length.isascii() and length.isdigit()):
                raise _BadRequestError(HTTPStatus.LENGTH_REQUIRED, "a Content-Length is needed")
            if int(length) > most:
                raise _BadRequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"over {most} bytes")
            body = self.rfile.read(int(length))
        encoding = self.headers.get("content-encoding", "identity").lower()
        if encoding == "gzip":
            return _unzip(body, most)
        if encoding != "identity":
            raise _BadRequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content-encoding: expected gzip or none")
        return body

    def _chunks(self, most: int) -> bytes:
        body = bytearray()
        try:
            while size := int(self.rfile.readline(100).partition(b";")[0], 16):
                if not 0 < size <= most - len(body):
                    raise _BadRequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"over {most} bytes")
                body += self.rfile.read(size)
                self.rfile.readline(2)
        except ValueError as error:
            raise _BadRequestError(HTTPStatus.BAD_REQUEST, "the chunks cannot be read") from error
        while self.rfile.readline(1000).strip():
            pass  # trailers, up to the empty line that ends the body
        return bytes(body)

    def _request(self, raw: bytes) -> ExportLogsServiceRequest:
        if self.path.partition("?")[0] != PATH:
            raise _BadRequestError(HTTPStatus.NOT_FOUND, f"only {PATH} is served here")
        try:
            if self._kind == _PROTOBUF:
                return ExportLogsServiceRequest.FromString(raw)
            if self._kind == _JSON:
                message = _without_trace_ids(json.loads(raw))
                return json_format.ParseDict(message, ExportLogsServiceRequest(), ignore_unknown_fields=True)
        except (DecodeError, json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise _BadRequestError(HTTPStatus.BAD_REQUEST, "no ExportLogsServiceRequest") from error
        raise _BadRequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"content-type: expected {_PROTOBUF} or {_JSON}")

    def _answer(self, status: HTTPStatus, message: Message, *, retry_after: float | None = None) -> None:
        """Answer in the encoding of the request, as the specification asks."""
        as_json = self._kind == _JSON
        body = json_format.MessageToJson(message).encode() if as_json else message.SerializeToString()
        self.send_response(status)
        self.send_header("Content-Type", _JSON if as_json else _PROTOBUF)
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", str(math.ceil(retry_after)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _trickle(self, pause: float) -> None:
        """Begin an answer and never end it."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not self.server.receiver.stopping.wait(pause):
                self.wfile.write(b".")

    def _reset(self) -> None:
        # Zero lingering makes close send RST. The descriptor is closed here and now, since the socket object's close
        # waits for its file objects and would be preceded by a shutdown, which ends the connection politely.
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


def _tls_context(tls: ServerTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    if tls.client_authorities is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(tls.client_authorities)
    return context


def _unzip(data: bytes, most: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=_GZIP)
    try:
        body = unpacker.decompress(data, most)
    except zlib.error as error:
        raise _BadRequestError(HTTPStatus.BAD_REQUEST, "the body is not gzip") from error
    if unpacker.unconsumed_tail:
        raise _BadRequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"over {most} bytes when decompressed")
    if not unpacker.eof:
        raise _BadRequestError(HTTPStatus.BAD_REQUEST, "the gzip body is cut off")
    return body


def _without_trace_ids(request: dict[str, Any]) -> dict[str, Any]:
    """Remove what OTLP's JSON writes in hexadecimal where protobuf's has base64; the sink does not store them."""
    for resource_logs in request.get("resourceLogs", []):
        for scope_logs in resource_logs.get("scopeLogs", []):
            for record in scope_logs.get("logRecords", []):
                record.pop("traceId", None)
                record.pop("spanId", None)
    return request
