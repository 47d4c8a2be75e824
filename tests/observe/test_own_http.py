"""The collector's HTTP server: what each page says, and that nobody who connects can harm the collector."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException

import pytest

from keytrail.observe.http_server import OwnHttp, open_http
from keytrail.observe.metrics import OwnMetrics
from keytrail.observe.snapshot import Snapshot, ThreadPart
from observe.pictures import RESOURCE, Given, changed, healthy, troubled
from support.processes import wait_until

Open = Callable[..., OwnHttp]


@pytest.fixture
def open_(probe: Given) -> Iterator[Open]:
    """Open further servers on free ports; all are closed."""
    metrics = OwnMetrics(probe, RESOURCE)
    opened: list[OwnHttp] = []

    def start(address: str = "127.0.0.1:0", **limits: float) -> OwnHttp:
        server = open_http(address, probe, metrics, **limits)  # type: ignore[arg-type]  # a test's own numbers
        assert server is not None
        opened.append(server)
        return server

    yield start
    for server in opened:
        server.close()
    metrics.close(5)


def ask(server: OwnHttp, path: str, method: str = "GET") -> tuple[int, str]:
    """Status and text."""
    connection = HTTPConnection(*server.address, timeout=60)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def answers(server: OwnHttp) -> bool:
    """Whether it answers now: a server with few places or little time may have none left."""
    try:
        return ask(server, "/healthz") == (200, "ok\n")
    except (OSError, HTTPException):
        return False


def raw(server: OwnHttp, request: bytes) -> bytes:
    """What comes back for bytes that are no tidy request; nothing when the connection was reset."""
    with socket.create_connection(server.address, 60) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError:
            return b""


def is_ended(connection: socket.socket) -> bool:
    """Wait until the other side ends a connection."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_healthy_and_ready(server: OwnHttp) -> None:
    """A collector that does its work is healthy and ready, each in one word."""
    assert ask(server, "/healthz") == (200, "ok\n")
    assert ask(server, "/readyz") == (200, "ok\n")


def test_a_stuck_or_dead_thread_is_unhealthy(probe: Given, server: OwnHttp) -> None:
    """/healthz looks at threads: one that is stuck and one that is gone are named, with 503."""
    stuck = ThreadPart("decide", alive=True, busy_seconds=31.0, longest_seconds=30.0)
    gone = ThreadPart("read", alive=False, busy_seconds=0.0, longest_seconds=30.0)
    probe.snapshot_ = changed(healthy(), threads=(stuck, gone))
    assert ask(server, "/healthz") == (
        503,
        "thread decide has been at one thing for 31 s\nthread read has ended\n",
    )


@pytest.mark.parametrize(
    ("snapshot", "reason"),
    [
        (changed(healthy(), stream=None), "starting: the agent's stream was not opened yet"),
        (
            changed(healthy(), stream={"connected": False, "reason": "refused\x1b[2J\nready"}),
            "not connected to the agent at unix:/run/t.sock: refused\\x1b[2J\\nready",
        ),
        (changed(healthy(), rules={"loaded": False}), "detection rules are not loaded"),
        (changed(healthy(), spool={"fault": "no space"}), "undelivered records are not on disk: no space"),
    ],
)
def test_not_ready_says_why(probe: Given, server: OwnHttp, snapshot: Snapshot, reason: str) -> None:
    """Each thing without which the collector does not do its work gives 503 and one line, with nothing raw in it."""
    probe.snapshot_ = snapshot
    assert ask(server, "/readyz") == (503, f"{reason}\n")
    assert ask(server, "/healthz")[0] == 200


def test_degraded_is_ready_and_says_so(probe: Given, server: OwnHttp) -> None:
    """What only needs attention leaves the collector ready; each complaint is a line."""
    probe.snapshot_ = troubled()
    status, text = ask(server, "/readyz")
    assert (status, text.splitlines()) == (
        200,
        [
            "ok",
            "degraded: events are decided on 9 s after they happened",
            "degraded: 60000 of at most 65536 events wait to be decided on",
            "degraded: what is known of services, nodes may be old: no answer in time",
            (
                "degraded: objects in the API server are not in force as given: "
                "DetectionRule mine: spec.condition: no such field (and 1 more)"
            ),
            "degraded: rules not in force as given: mine",
            "degraded: rules that had no answer for some events within the last hour: shell-in-container",
            "degraded: the last reload failed: the last good rules, mappings and settings are in force",
            "degraded: the backend does not take records (unreachable): UNAVAILABLE: no",
            "degraded: undelivered records take 1048576000 of at most 1073741824 bytes",
            "degraded: 5 records were refused by the backend and set aside: see `keytrail spool list`",
            "degraded: 2 gaps within the last hour, 110 or more events or records lost for good",
            "degraded: 1 suspected gaps within the last hour",
        ],
    )


def test_status_is_one_json_document(probe: Given, server: OwnHttp) -> None:
    """/status carries the accounting as --summary has it, the verdicts, and moments as text."""
    document = json.loads(ask(server, "/status")[1])
    assert document["accounting"] == probe.snapshot_.accounting
    assert (document["healthy"], document["ready"], document["reasons"], document["degraded"]) == (True, True, [], [])
    assert document["backend"]["failed"] == "2026-11-18T11:06:10Z"
    assert document["backend"]["last_error"] == "UNAVAILABLE: no"


def test_other_paths_and_methods_are_refused(server: OwnHttp) -> None:
    """404 lists the pages without repeating what was asked for; only GET and HEAD are answered."""
    status, text = ask(server, "/<script>")
    assert (status, "script" in text) == (404, False)
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"):
        assert ask(server, "/metrics", method) == (405, "Method Not Allowed\n")
    assert ask(server, "/healthz", "HEAD") == (200, "")
    assert ask(server, "/healthz?verbose=1") == (200, "ok\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", b" 414 "),
        (b"GET /healthz HTTP/1.1\r\n" + b"x: " + b"a" * 20_000 + b"\r\n\r\n", b" 431 "),
        (b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * 5000 + b"\r\n", b" 431 "),
        (b"evil\x1b[31m<b> HTTP\r\n\r\n", b" 400 "),
        (b"GET /healthz HTTP/1.1\r\nx" + b" " * 20_000 + b"\r\n\r\n", b" 431 "),
        (b"GET / HTTP/9.9\r\n\r\n", b" 505 "),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 \r\n\r\n", b" 400 "),
    ],
)
def test_what_is_no_short_request_is_refused(server: OwnHttp, request_: bytes, status: bytes) -> None:
    """Too long, malformed or another protocol: a short answer in which nothing of the request is repeated."""
    answer = raw(server, request_)
    assert status in answer or answer == b""  # the kernel resets a connection that is closed with bytes unread
    assert len(answer) < 400
    assert b"evil" not in answer
    assert ask(server, "/healthz") == (200, "ok\n")


def test_a_slow_client_is_cut_off(open_: Open) -> None:
    """A client that sends a byte now and then is ended when its time is over, however often it moves."""
    server = open_(seconds=1.0)
    with socket.create_connection(server.address, 60) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.05):
                try:
                    connection.send(b"x")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert is_ended(connection)
        finally:
            stop.set()
            dripping.join()
    assert wait_until(lambda: answers(server))


def test_connections_are_bounded(open_: Open) -> None:
    """With every place taken a further connection is ended at once; a place that gets free is used again."""
    server = open_(connections=3, seconds=600.0)
    held = [socket.create_connection(server.address, 60) for _ in range(3)]
    try:
        assert wait_until(lambda: len(server._server._open) == 3)
        with socket.create_connection(server.address, 60) as further:
            assert is_ended(further)
    finally:
        for connection in held:
            connection.close()
    assert wait_until(lambda: answers(server))


def test_a_page_that_fails_ends_only_its_connection(
    probe: Given, server: OwnHttp, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault in a snapshot gives no answer, one log entry, and the next request is served."""
    good = probe.snapshot_
    probe.snapshot_ = None  # type: ignore[assignment]  # the fault
    with pytest.raises((HTTPException, OSError)):
        ask(server, "/readyz")
    assert wait_until(
        lambda: [record.getMessage() for record in caplog.records] == ["a page of the own HTTP server failed"]
    )
    probe.snapshot_ = good
    assert ask(server, "/readyz")[0] == 200


def test_close_ends_what_is_open(open_: Open) -> None:
    """After close nobody listens, and a connection that was open is ended rather than left."""
    server = open_(seconds=600.0)
    with socket.create_connection(server.address, 60) as connection:
        assert wait_until(lambda: bool(server._server._open))
        where = server.address
        server.close()
        assert is_ended(connection)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where, 60)


def test_ipv6_and_every_address(open_: Open) -> None:
    """An IPv6 address is taken in brackets; an address without a host is reached by IPv4 too."""
    everywhere = open_(":0").address[1]
    with socket.create_connection(("127.0.0.1", everywhere), 60):
        pass
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = open_("[::1]:0")
    assert server.address[0] == "::1"
    assert ask(server, "/healthz") == (200, "ok\n")


def test_off_wrong_and_taken_addresses(probe: Given, server: OwnHttp) -> None:
    """`off` serves nothing, what is no address is a ValueError, a taken one an OSError for the caller to judge."""
    metrics = OwnMetrics(probe, RESOURCE)
    assert open_http("off", probe, metrics) is None
    for wrong in ("localhost", "localhost:", "::1:80", "host:99999", "host:1x", "9464"):
        with pytest.raises(ValueError, match="expected host:port"):
            open_http(wrong, probe, metrics)
    host, port = server.address
    with pytest.raises(OSError, match="in use"):
        open_http(f"{host}:{port}", probe, metrics)
    metrics.close(5)
