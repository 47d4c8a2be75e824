"""A real OTLP logs receiver to test against: gRPC and HTTP on loopback, into SQLite.

Records of any OTLP client flow in, rows flow out:

    with OtlpSink() as sink:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = sink.grpc_endpoint
        ...
        sink.wait_for(3)
        sink.rows("SELECT event_name, attributes ->> 'process.pid' FROM records ORDER BY id")

`script` and `answer_by` make it fail as real backends do (see `otlp_sink_faults`). It authenticates nobody unless TLS
asks for client certificates, and is meant for tests and demonstrations.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from keytrail.testing.otlp_sink_faults import Fault
from keytrail.testing.otlp_sink_grpc import GrpcReceiver
from keytrail.testing.otlp_sink_http import HttpReceiver
from keytrail.testing.otlp_sink_receiver import ReceivedRequest, Receiver, Rule, ServerTls
from keytrail.testing.otlp_sink_store import RecordStore

MAX_REQUEST_BYTES: Final = 4 * 1024 * 1024
"""What OTLP receivers take by default over gRPC."""


class OtlpSink:
    """Receives OTLP logs while started. A context manager; otherwise call `start` and `close`."""

    def __init__(
        self,
        database: Path | None = None,
        *,
        grpc: str | None = "127.0.0.1:0",
        http: str | None = "127.0.0.1:0",
        tls: ServerTls | None = None,
        max_request_bytes: int = MAX_REQUEST_BYTES,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Prepare a sink; addresses are `host:port`, port 0 takes a free one, None leaves that protocol out.

        Without `database` the records are kept in memory. A database file that holds records is added to.
        """
        self._store = RecordStore(database)
        self._receiver = Receiver(self._store, now_ns)
        self._grpc = GrpcReceiver(grpc, self._receiver, tls, max_request_bytes) if grpc else None
        self._http = HttpReceiver(http, self._receiver, tls, max_request_bytes) if http else None
        self._scheme = "https" if tls else "http"

    def __enter__(self) -> Self:
        """Start."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close."""
        self.close()

    def start(self) -> None:
        """Listen; after a `stop` on the same ports again. Raises UsageError when an address cannot be had."""
        self._receiver.stopping.clear()
        for server in (self._grpc, self._http):
            if server is not None:
                server.start()

    def stop(self) -> None:
        """Break all connections and stop listening, as a backend that went away. What was stored stays."""
        self._receiver.stopping.set()
        for server in (self._grpc, self._http):
            if server is not None:
                server.stop()

    def close(self) -> None:
        """Stop for good and close the database."""
        self.stop()
        self._store.close()

    @property
    def grpc_endpoint(self) -> str:
        """URL for `OTEL_EXPORTER_OTLP_ENDPOINT` with protocol `grpc`; empty when gRPC is left out."""
        return f"{self._scheme}://{self._grpc.address}" if self._grpc else ""

    @property
    def http_endpoint(self) -> str:
        """URL for `OTEL_EXPORTER_OTLP_ENDPOINT` with protocol `http/protobuf`; empty when HTTP is left out."""
        return f"{self._scheme}://{self._http.address}" if self._http else ""

    def script(self, faults: Iterable[Fault | None]) -> None:
        """Answer the next requests so, one each; None is the normal answer, which also follows the last."""
        self._receiver.script(faults)

    def answer_by(self, rule: Rule | None) -> None:
        """Ask a rule about each request for which nothing is scripted, such as `lambda request: invalid()`."""
        self._receiver.answer_by(rule)

    def requests(self) -> list[ReceivedRequest]:
        """Return the last thousand requests with their headers, oldest first, refused ones too."""
        return self._receiver.requests()

    def count(self) -> int:
        """Return how many records are stored."""
        return self._store.count()

    def rows(self, sql: str = "SELECT * FROM records ORDER BY id", params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query; the table is `records` (see `otlp_sink_store.SCHEMA`)."""
        return self._store.rows(sql, params)

    def wait_for(self, count: int, timeout: float = 10) -> None:
        """Return when at least `count` records are stored; raises TimeoutError after `timeout` seconds."""
        self._store.wait_for(count, timeout)
