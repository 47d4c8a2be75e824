"""What backends and agents answer: each answer means something, nothing raises, and no number is out of range.

An answer of success that cannot be read is still success: or its records would be sent again for ever.
"""

import math
from collections.abc import Iterator
from typing import Any

import grpc
import requests
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from requests.structures import CaseInsensitiveDict

from fuzz.feed import Feed
from keytrail.export.otlp_answer import Accepted, Answer, Denied, Rejected, Retry, TooLarge
from keytrail.export.otlp_grpc import GrpcTransport
from keytrail.export.otlp_http import HttpTransport
from keytrail.export.otlp_settings import OtlpSettings, Protocol
from keytrail.loss.agent_metrics import WATCHED, read_counters

KINDS = ("application/x-protobuf", "application/json", "text/html; charset=utf-8", "text/plain", "")
STATUSES = (200, 202, 204, 302, 400, 401, 404, 408, 413, 418, 429, 500, 503)
WORDS = (
    *(b"Sun, 22 Nov 2026 10:00:00 GMT", b" +9999999999999", b"-0000", b"99999999999", b"120", b"\xff", b"[[[[[["),
    *(b'{"partialSuccess":{"rejectedLogRecords":"', b'"errorMessage":"', b"-9223372036854775808", b"1e400", b"\\ud800"),
    *(next(iter(WATCHED)).encode(), b'{reason="}"} ', b" NaN\n", b" +Inf\n", b" 1e300\n"),
)
_PLAIN = OtlpSettings("http://127.0.0.1:4318/v1/logs", Protocol.HTTP, insecure=True)
_http = HttpTransport(_PLAIN)
_grpc = GrpcTransport(_PLAIN)


def seeds() -> Iterator[bytes]:
    """Yield answers as backends give them, and a page of an agent's counters."""
    partial = ExportLogsServiceResponse()
    partial.partial_success.rejected_log_records, partial.partial_success.error_message = 3, "too old"
    status = status_pb2.Status(code=8, message="slow down")
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=7)))
    body = b'{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"too old"}}'
    dates = b"Sun, 22 Nov 2026 10:00:30 GMT", b"Sun, 22 Nov 2026 10:00:00 GMT"
    for number in range(len(STATUSES)):
        yield _seed(partial.SerializeToString(), status=number)
        yield _seed(body, status=number, kind=1, after=b"120")
        yield _seed(b"try again", status=number, kind=3, after=dates[0], date=dates[1])
        yield _seed(status.SerializeToString(), status=number)
        yield _seed(status.SerializeToString(), what=1, status=number)
    yield _seed(b"".join(name.encode() + b'{reason="a b"} 17\n# HELP x\n' for name in WATCHED), what=2)


def _seed(
    body: bytes, *, what: int = 0, status: int = 0, kind: int = 0, after: bytes = b"", date: bytes = b""
) -> bytes:
    return bytes((what, status, kind, len(after))) + after + bytes((len(date),)) + date + body


def check(data: bytes) -> None:
    """Read an answer of one of the protocols, or a page of counters."""
    feed = Feed(data)
    what, status, kind = feed.number() % 3, feed.below(len(STATUSES)), feed.below(len(KINDS))
    after, date = (feed.take(feed.number()).decode("latin-1") for _ in range(2))
    body = feed.rest()
    if what == 0:
        answer = _http._answer(_response(STATUSES[status], KINDS[kind], after, date), body)
        _is_sound(answer)
        if STATUSES[status] < 300 and "html" not in KINDS[kind]:
            assert isinstance(answer, Accepted)
    elif what == 1:
        codes = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
        _is_sound(_grpc._refusal(_Call(codes[status], after, body)))
    else:
        assert all(isinstance(count, int) for count in read_counters(body, WATCHED).values())


def _response(status: int, kind: str, after: str, date: str) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response.headers = CaseInsensitiveDict({"content-type": kind, "retry-after": after, "date": date})
    return response


def _is_sound(answer: Answer) -> None:
    assert isinstance(answer, Accepted | Rejected | TooLarge | Denied | Retry)
    assert answer.text.isprintable()
    if isinstance(answer, Accepted):
        assert 0 <= answer.rejected < 2**63
    if isinstance(answer, Retry) and answer.after_seconds is not None:
        assert math.isfinite(answer.after_seconds)
        assert answer.after_seconds >= 0


class _Call(grpc.RpcError):
    """A failed call as grpcio gives it."""

    def __init__(self, code: grpc.StatusCode, details: str, status: bytes) -> None:
        super().__init__()
        self._answer = code, details, status

    def code(self) -> grpc.StatusCode:
        """How it failed."""
        return self._answer[0]

    def details(self) -> str:
        """The server's words."""
        return self._answer[1]

    def trailing_metadata(self) -> Any:
        """What came with it."""
        return (("x", "y"), ("grpc-status-details-bin", self._answer[2]))
