"""The agent's metrics page: numbers come in by name, Prometheus text goes out over plain HTTP.

Only what a collector reads of an agent is there. Which stream lost an event is not: the agent has one counter for all.
"""

import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

Numbers = Mapping[str, int]
"""Metric name, with labels if it has any, to value; names ending in `_total` are counters, others gauges."""


class MetricsPage:
    """An HTTP server with one page, `/metrics`."""

    def __init__(self, address: str, numbers: Callable[[], Numbers], status: Callable[[], int]) -> None:
        """Listen on `host:port` at once (port 0: a free one, see `address`). Raises OSError.

        `status` is what a request is answered with; any other than 200 takes the page away.
        """
        host, _, port = address.rpartition(":")
        self._server = ThreadingHTTPServer((host or "127.0.0.1", int(port)), _handler(numbers, status))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="fake-tetragon-metrics")
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it listens, as `host:port`."""
        host, port = self._server.server_address[:2]
        return f"{host if isinstance(host, str) else host.decode()}:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and wait until the server's thread has ended."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def render(numbers: Numbers) -> str:
    """Write the text format, version 0.0.4."""
    lines: list[str] = []
    announced: set[str] = set()
    for series, value in numbers.items():
        name = series.partition("{")[0]
        if name not in announced:
            announced.add(name)
            lines.append(f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}")
        lines.append(f"{series} {value}")
    return "\n".join([*lines, ""])


def _handler(numbers: Callable[[], Numbers], status: Callable[[], int]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            if status() != HTTPStatus.OK:
                self.send_error(status())
                return
            page = render(numbers()).encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            """Keep requests off standard error."""

    return Handler
