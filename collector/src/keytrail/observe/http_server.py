"""The collector's own small HTTP server: /metrics, /healthz, /readyz, /status; GET and HEAD only.

Requests come in from whoever reaches the address, pages made of a `Probe`'s snapshot go out. It must never harm what it
watches: few connections at once, each with one short request and a deadline for reading and writing together (a client
that sends or reads one byte at a time does not move it), and nothing of a request is ever repeated in an answer or
logged. No secret is in a snapshot, so there is nothing to protect but the collector's time.
"""

import logging
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from keytrail.observe import exposition
from keytrail.observe.address import parse_address
from keytrail.observe.health import degraded, not_ready, sick
from keytrail.observe.metrics import OwnMetrics
from keytrail.observe.snapshot import Probe
from keytrail.observe.status_page import status_json
from keytrail.observe.text import printable

log = logging.getLogger(__name__)

_PLAIN: Final = "text/plain; charset=utf-8"
_LINE_BYTES: Final = 2048
_HEAD_BYTES: Final = 16 * 1024

Page = tuple[HTTPStatus, str, str]
"""Status, content type, text."""


class OwnHttp:
    """A running server. `close` ends it and every connection."""

    def __init__(self, server: "_Server") -> None:
        self._server = server
        host, port = server.socket.getsockname()[:2]
        self.address: tuple[str, int] = (str(host), int(port))
        """Host and port that are listened on; of port 0, the one that was given."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="keytrail-http", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening and end what is open."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.end_connections(overdue_at=None)


def open_http(
    address: str, probe: Probe, metrics: OwnMetrics, *, connections: int = 16, seconds: float = 10.0
) -> OwnHttp | None:
    """Serve at `host:port`, `[ipv6]:port` or `:port` (every address); None for `off` or nothing.

    At most `connections` at once, each for at most `seconds`. Raises ValueError for an address that is none, OSError
    when it cannot be listened on.
    """
    where = parse_address(address)
    if where is None:
        return None
    found = socket.getaddrinfo(where[0] or None, where[1], type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # First IPv6: for every address its socket takes IPv4 as well. It may be switched off, then IPv4 is left.
    found.sort(key=lambda one: one[0] != socket.AF_INET6)
    failure = OSError(f"{where[0]} has no address")
    for family, *_, bound in found:
        try:
            return OwnHttp(_Server(family, bound[:2], _pages(probe, metrics), connections, seconds))
        except OSError as error:
            failure = error
    raise failure


def _pages(probe: Probe, metrics: OwnMetrics) -> dict[str, Callable[[str], Page]]:
    def healthz(_accept: str) -> Page:
        return _verdict(sick(probe.snapshot()), [])

    def readyz(_accept: str) -> Page:
        snapshot = probe.snapshot()
        return _verdict(not_ready(snapshot), degraded(snapshot))

    def status(_accept: str) -> Page:
        return HTTPStatus.OK, "application/json", status_json(probe.snapshot())

    def scrape(accept: str) -> Page:
        form = exposition.content_type(accept)
        return HTTPStatus.OK, form, exposition.render(metrics.collect(), form)

    return {"/metrics": scrape, "/healthz": healthz, "/readyz": readyz, "/status": status}


def _verdict(faults: list[str], complaints: list[str]) -> Page:
    if faults:
        return HTTPStatus.SERVICE_UNAVAILABLE, _PLAIN, "".join(f"{printable(fault)}\n" for fault in faults)
    return HTTPStatus.OK, _PLAIN, "ok\n" + "".join(f"degraded: {printable(one)}\n" for one in complaints)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 16

    def __init__(
        self,
        family: socket.AddressFamily,
        address: Any,
        pages: dict[str, Callable[[str], Page]],
        connections: int,
        seconds: float,
    ) -> None:
        self.address_family = family
        self.pages = pages
        self._connections = connections
        self._seconds = seconds
        self._open: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind, and leave out HTTPServer's look-up of our own name: DNS may be away when a node starts."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(self.server_address[0] != "::"))
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the connection a thread, or none when there are enough."""
        with self._lock:
            full = len(self._open) >= self._connections
            if not full:
                self._open[request] = time.monotonic() + self._seconds
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection and forget it."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """End the connections whose time is over; called several times a second."""
        self.end_connections(overdue_at=time.monotonic())

    def end_connections(self, overdue_at: float | None) -> None:
        """End those that are overdue by then, or all: their threads read the end of the stream."""
        with self._lock:
            for connection, deadline in self._open.items():
                if overdue_at is None or deadline <= overdue_at:
                    try:
                        connection.shutdown(socket.SHUT_RDWR)
                    except OSError:  # the client was quicker
                        continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no news, a page that fails is; the standard server would write a traceback."""
        del request, client_address
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            log.error("a page of the own HTTP server failed", exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    raw_requestline: bytes
    protocol_version = "HTTP/1.0"  # one request a connection

    def setup(self) -> None:
        super().setup()
        self.rfile = _Head(self.rfile)  # type: ignore[assignment]  # of a file, http.server calls readline and close

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            self._answer((HTTPStatus.NOT_FOUND, _PLAIN, "there are /metrics, /healthz, /readyz and /status\n"))
        else:
            self._answer(page(self.headers.get("accept", "")))

    do_HEAD = do_GET  # noqa: N815 - as above

    def parse_request(self) -> bool:
        """Refuse long requests and other methods before anything is done for them."""
        if len(self.raw_requestline) > _LINE_BYTES:
            self.command = ""
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
            return False
        if not super().parse_request():
            return False
        refusal = None
        if self.rfile.cut:  # type: ignore[attr-defined]  # as in setup
            refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        elif self.command not in {"GET", "HEAD"}:
            refusal = HTTPStatus.METHOD_NOT_ALLOWED
        if refusal is not None:
            self.send_error(refusal)
        return refusal is None

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with the status alone: http.server's own page repeats parts of the request."""
        del message, explain
        status = HTTPStatus(code)
        self._answer((status, _PLAIN, f"{status.phrase}\n"))

    def _answer(self, page: Page) -> None:
        status, content_type, text = page
        body = text.encode()
        # What is malformed counts as HTTP/0.9, whose answers have no status at all.
        self.request_version = self.protocol_version
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        """Say no more than needed."""
        return "keytrail"

    def log_message(self, *_args: object) -> None:
        """Log nothing: requests are text of others, and a scrape is no news."""


class _Head:
    """A request's first line and headers, read up to a limit; beyond, it reads as ended and says `cut`."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = _HEAD_BYTES
        self.cut = False

    def readline(self, limit: int) -> bytes:
        line: bytes = self._file.readline(min(limit, self._left))
        self._left -= len(line)
        self.cut = self.cut or self._left <= 0
        return line

    def close(self) -> None:
        self._file.close()
