"""What both servers of the OtlpSink do with a request: follow the script, store, remember, answer.

In flow parsed requests with their headers, out comes a verdict (a response, a refusal or a reset), which each server
puts into its own protocol.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from keytrail.testing.otlp_sink_faults import Fault, Hang, PartialSuccess, Refusal, Reset, Trickle
from keytrail.testing.otlp_sink_store import RecordStore, count_records

REMEMBERED_REQUESTS = 1000


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files of a server; with `client_authorities` clients must show a certificate of theirs (mTLS)."""

    certificate: Path
    key: Path
    client_authorities: Path | None = None


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request as it came in. In memory only: headers hold credentials."""

    protocol: str
    """`grpc`, `http/protobuf` or `http/json`."""
    headers: Mapping[str, str] = field(repr=False)
    """Lower-case names."""
    raw: bytes = field(repr=False)
    """The message, decompressed."""
    records: int
    answer: str = ""
    """`stored`, or the name of the fault that it met."""


Rule = Callable[[ReceivedRequest], Fault | None]
"""Decides on requests by what is in them, such as a token or a record that the backend dislikes."""


def _take_all(_request: ReceivedRequest) -> None:
    return None


class Receiver:
    """Decides on each request; called from the servers' threads."""

    def __init__(self, store: RecordStore, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._store = store
        self._now_ns = now_ns
        self._lock = threading.Lock()
        self._script: deque[Fault | None] = deque()
        self._rule: Rule | None = None
        self._requests: deque[ReceivedRequest] = deque(maxlen=REMEMBERED_REQUESTS)
        self.stopping = threading.Event()
        """Ends hangs when the sink stops."""

    def script(self, faults: Iterable[Fault | None]) -> None:
        """Answer the next requests so, one each; None is the normal answer, which also follows the last."""
        with self._lock:
            self._script = deque(faults)

    def answer_by(self, rule: Rule | None) -> None:
        """Ask a rule about each request for which nothing is scripted; None ends that."""
        with self._lock:
            self._rule = rule

    def requests(self) -> list[ReceivedRequest]:
        """Return the last thousand requests, oldest first."""
        with self._lock:
            return list(self._requests)

    def receive(
        self, protocol: str, headers: Mapping[str, str], raw: bytes, request: ExportLogsServiceRequest
    ) -> ExportLogsServiceResponse | Refusal | Reset | Trickle:
        """Follow the script, or else the rule, for one request."""
        received = ReceivedRequest(protocol, headers, raw, count_records(request))
        with self._lock:
            rule: Rule = self._rule or _take_all
            fault = self._script.popleft() if self._script else rule(received)
            self._requests.append(replace(received, answer=type(fault).__name__ if fault else "stored"))
        if isinstance(fault, Refusal | Reset):
            return fault
        if isinstance(fault, Trickle):
            self._store.add(request, self._now_ns())
            return fault
        if isinstance(fault, Hang):
            self.stopping.wait(fault.seconds)
        response = ExportLogsServiceResponse()
        leave_out = 0
        if isinstance(fault, PartialSuccess):
            leave_out = fault.rejected
            response.partial_success.rejected_log_records = fault.rejected
            response.partial_success.error_message = fault.message
        self._store.add(request, self._now_ns(), leave_out=leave_out)
        return response

    def wait_for_break(self, is_connected: Callable[[], bool]) -> None:
        """Return when the connection is gone, or after a second at most."""
        end = time.monotonic() + 1
        while is_connected() and time.monotonic() < end:
            self.stopping.wait(0.005)
