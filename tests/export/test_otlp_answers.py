"""Transports against real servers: what each answer means, and that no credential comes back out."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from export.sending import CANARY, bodies, both_protocols, resource_logs, running, settings_for
from keytrail.export.otlp_http import _retry_after
from keytrail.export.otlp_settings import otlp_settings
from keytrail.export.otlp_transport import Accepted, Answer, Denied, Rejected, Retry, TooLarge, open_transport
from keytrail.testing.otlp_sink import OtlpSink
from keytrail.testing.otlp_sink_faults import (
    Fault,
    Hang,
    PartialSuccess,
    Trickle,
    invalid,
    throttled,
    too_large,
    unauthenticated,
    unavailable,
)
from keytrail.testing.otlp_sink_receiver import ReceivedRequest
from support.processes import wait_until


@both_protocols
def test_backend_out_of_reach_is_said_in_the_systems_words(protocol: str) -> None:
    """Of a library's text the place and the reason stay."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{place}", "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        transport = open_transport(otlp_settings(environ))
        answer = transport.send(b"", 60)
        transport.close()
    assert isinstance(answer, Retry)
    kind = "UNAVAILABLE" if protocol == "grpc" else "ConnectionError"
    assert answer.text == f"{kind}: {place}: Connection refused"


@both_protocols
def test_answers_carry_the_servers_hint(protocol: str) -> None:
    """RetryInfo and Retry-After are read in seconds; a size refusal and a rejection are told apart from them."""
    with OtlpSink() as sink:
        transport = open_transport(settings_for(sink, protocol))
        sink.script([throttled(7), unavailable(8), unavailable(), too_large(), invalid(), unauthenticated(), None])
        answers = [transport.send(b"", 60) for _ in range(7)]
        transport.close()
    assert [answer.after_seconds if isinstance(answer, Retry) else type(answer) for answer in answers] == [
        7,
        8,
        None,
        TooLarge,
        Rejected,
        Denied,
        Accepted,
    ]


@both_protocols
def test_errors_hold_no_header_values_and_no_control_characters(protocol: str) -> None:
    """A backend that repeats our credential, or sends terminal escapes, does not get them into the state."""
    with OtlpSink() as sink:
        header = {"HEADERS": f"authorization=Bearer%20{CANARY},x-key=k{CANARY}"}
        sink.script(
            [
                invalid(f"bad key {CANARY} in Bearer {CANARY}"),
                unavailable(0, f"\x1b[31mk{CANARY}\x07 {'x' * 999}"),
                PartialSuccess(1, CANARY),
            ]
        )
        transport = open_transport(settings_for(sink, protocol, **header))
        texts = [transport.send(b"", 60).text for _ in range(3)]
        transport.close()
    assert all("[redacted]" in text and CANARY not in text and text.isprintable() for text in texts), texts
    assert max(map(len, texts)) <= 300


@both_protocols
@pytest.mark.parametrize("fault", [Hang(600), Trickle()])
def test_a_request_has_one_deadline(protocol: str, fault: Fault) -> None:
    """An answer that does not come, or comes a byte at a time, is given up; the next request finds a connection."""
    with OtlpSink() as sink:
        transport = open_transport(settings_for(sink, protocol))
        sink.script([None, fault])
        assert [type(transport.send(b"", seconds)) for seconds in (60, 0.2, 60)] == [Accepted, Retry, Accepted]
        transport.close()


@both_protocols
def test_a_rotated_token_is_picked_up(protocol: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An expired token costs nothing: once the headers file has a new one the records arrive, and no log shows either.

    In between the file is gone, and then holds no header, as half-finished rotations leave it.
    """
    file = tmp_path / "headers"
    file.write_text(f"authorization=Bearer old-{CANARY}\n")

    def guard(request: ReceivedRequest) -> Fault | None:
        token = request.headers.get("authorization", "")
        return None if token == f"Bearer new-{CANARY}" else unauthenticated(f"{token} has expired")

    with OtlpSink() as sink:
        sink.answer_by(guard)
        settings = otlp_settings(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": sink.grpc_endpoint if protocol == "grpc" else sink.http_endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "OTEL_EXPORTER_OTLP_TIMEOUT": "60000",
                "KEYTRAIL_OTLP_HEADERS_FILE": str(file),
            }
        )
        with running(settings) as (sender, queue):
            queue.put(resource_logs("a"))
            assert wait_until(lambda: sender.state().requests.get("denied", 0) > 1)
            file.unlink()
            assert wait_until(lambda: "stay in force" in caplog.text)
            file.write_text("no header")
            assert wait_until(lambda: caplog.text.count("stay in force") > 1)
            file.write_text(f"authorization=Bearer new-{CANARY}\n")
            queue.wait(1)
            assert "[redacted] has expired" in sender.state().last_error
        assert bodies(sink) == ["a"]
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        (204, {}, b"", Accepted()),
        (202, {"content-type": "application/x-protobuf"}, b"\xff\xff", Accepted()),
        (
            200,
            {"content-type": "application/json; charset=utf-8"},
            b'{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"no"},"more":1}',
            Accepted(2, "no"),
        ),
        (200, {"content-type": "application/json"}, b"[", Accepted()),
        (200, {"content-type": "application/json"}, b"\xff{}", Accepted()),
        (200, {"content-type": "text/html"}, b"<html>log in</html>", Retry),
        (307, {"location": "http://127.0.0.1:1/elsewhere"}, b"", Retry),
        (503, {"retry-after": "soon"}, b"", Retry("HTTP 503: ")),
        (503, {"retry-after": "12"}, b"", Retry("HTTP 503: ", 12.0)),
        (400, {"content-type": "application/json"}, b'{"message":"why"}', Rejected("HTTP 400: why")),
        (400, {"content-type": "application/json"}, b"[1]", Rejected("HTTP 400: ")),
        (401, {"content-type": "text/plain; charset=utf-8"}, b"who\n", Denied("HTTP 401: who ")),
        (403, {"content-type": "application/x-protobuf"}, b"\xff", Denied("HTTP 403: ")),
        (413, {}, bytes(1_000_000), TooLarge("HTTP 413: ")),
    ],
)
def test_answers_that_real_servers_and_proxies_give(
    status: int, headers: dict[str, str], body: bytes, expected: Answer | type[Retry]
) -> None:
    """JSON, empty, broken and huge answers, redirects and login pages each have their meaning."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Say nothing: a client need not read a huge answer to its end."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            transport = open_transport(
                otlp_settings({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"http://127.0.0.1:{server.server_port}/v1/logs"})
            )
            answer = transport.send(b"request", 60)
            transport.close()
        finally:
            server.shutdown()
            thread.join()
    assert answer == expected if not isinstance(expected, type) else isinstance(answer, expected)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ],
)
def test_an_answer_that_breaks_off_is_none(answer: bytes) -> None:
    """A server that closes in the middle of its answer has not accepted anything; nor has one of another protocol."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(65_536)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        transport = open_transport(otlp_settings({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{address}/v1/logs"}))
        found = transport.send(b"request", 60)
        transport.close()
        thread.join()
    assert isinstance(found, Retry)


def test_a_date_to_come_back_is_measured_by_the_servers_own_clock() -> None:
    """Retry-After as a date is compared with the answer's Date, whatever our clock says; without one it is no hint."""
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    assert _retry_after("Wed, 21 Oct 2026 07:28:30 GMT", date) == 30
    assert _retry_after("Wed, 21 Oct 2026 07:27:00 GMT", date) == 0
    assert _retry_after(date, "") is None
    assert _retry_after("", date) is None
    assert _retry_after("9" * 400, "") == 999_999_999
    assert _retry_after("Wed, 21 Oct 99999999999 07:28:30 GMT", date) is None
