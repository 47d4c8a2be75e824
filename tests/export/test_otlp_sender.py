"""OtlpSender against a real OTLP receiver: order, batching, retries, faults, TLS, shutdown and exact accounting."""

import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs

from keytrail.domain.drop import DropReason
from keytrail.export.otlp_sender import (
    LONGEST_HINT_SECONDS,
    Entry,
    ExportQueue,
    OtlpSender,
    SenderState,
    SendLimits,
    encode_request,
    pause_seconds,
)
from keytrail.export.otlp_settings import OtlpSettings, otlp_settings
from keytrail.export.otlp_transport import Accepted, Answer, Rejected, Retry, TooLarge, open_transport
from keytrail.testing.otlp_sink import OtlpSink
from keytrail.testing.otlp_sink_faults import (
    Fault,
    Hang,
    PartialSuccess,
    Refusal,
    Reset,
    invalid,
    throttled,
    too_large,
    unavailable,
)
from keytrail.testing.otlp_sink_receiver import ServerTls

QUICK = SendLimits(linger=0.01, first_pause=0.01, longest_pause=0.05)
CANARY = "canary-0123456789-abcdef"

both_protocols = pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])


class Ledger:
    """What a listener is told."""

    def __init__(self) -> None:
        self.exported = 0
        self.dropped: Counter[DropReason] = Counter()
        self.changed = threading.Condition()

    def on_exported(self, count: int) -> None:
        """See ExportListener."""
        with self.changed:
            self.exported += count
            self.changed.notify_all()

    def on_dropped(self, count: int, reason: DropReason) -> None:
        """See ExportListener."""
        with self.changed:
            self.dropped[reason] += count
            self.changed.notify_all()

    def wait(self, settled: int) -> None:
        """Return when so many records were exported or dropped."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.exported + self.dropped.total() >= settled, timeout=20)


def resource_logs(*bodies: str) -> bytes:
    """Serialize a ResourceLogs with one record for each body."""
    message = ResourceLogs()
    records = message.scope_logs.add().log_records
    for body in bodies:
        records.add().body.string_value = body
    return message.SerializeToString()


def settings_for(sink: OtlpSink, protocol: str, **more: str) -> OtlpSettings:
    """Read settings as a user would give them; `more` are options such as TIMEOUT="500"."""
    endpoint = sink.grpc_endpoint if protocol == "grpc" else sink.http_endpoint
    options = {"ENDPOINT": endpoint, "PROTOCOL": protocol} | more
    return otlp_settings({f"OTEL_EXPORTER_OTLP_{name}": value for name, value in options.items()})


def is_exact(state: SenderState) -> bool:
    """Tell whether every record is accounted for."""
    return state.submitted == state.exported + state.queued + sum(state.dropped.values())


@contextmanager
def running(settings: OtlpSettings, limits: SendLimits = QUICK) -> Iterator[tuple[OtlpSender, Ledger]]:
    """Start a sender whose accounting is checked all the time from another thread, and close it at the end."""
    ledger = Ledger()
    sender = OtlpSender(settings, ledger, limits=limits)
    over, wrong = threading.Event(), []

    def watch() -> None:
        while not over.wait(0.001):
            state = sender.state()
            if not is_exact(state):
                wrong.append(state)

    watcher = threading.Thread(target=watch)
    watcher.start()
    sender.start()
    try:
        yield sender, ledger
    finally:
        sender.close(2)
        over.set()
        watcher.join()
    assert not wrong
    state = sender.state()
    assert (state.queued, state.queued_bytes) == (0, 0)
    assert (state.exported, dict(state.dropped)) == (ledger.exported, dict(ledger.dropped))


def bodies(sink: OtlpSink) -> list[str]:
    """Return the stored bodies in the order of arrival."""
    return [body for (body,) in sink.rows("SELECT body FROM records ORDER BY id")]


@both_protocols
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_records_arrive_in_order_in_bounded_batches(protocol: str, compression: str) -> None:
    """A thousand records arrive once each, in order, in requests within the limits, with the settings' headers."""
    names = [f"record {number}" for number in range(1000)]
    limits = SendLimits(linger=0.01, batch_records=64, batch_bytes=1500)
    with OtlpSink() as sink:
        options = {"COMPRESSION": compression, "HEADERS": f"authorization=Bearer%20{CANARY}"}
        with running(settings_for(sink, protocol, **options), limits) as (sender, ledger):
            for first in range(0, 1000, 4):
                sender.submit(resource_logs(*names[first : first + 4]), 4)
            ledger.wait(1000)
            assert sender.state().exported == 1000
            assert sender.state().reachable
            assert sender.state().last_success_ns is not None
        assert bodies(sink) == names
        for request in sink.requests():
            assert len(request.raw) <= 1500
            assert request.records <= 64
            assert request.headers["authorization"] == f"Bearer {CANARY}"
            assert request.headers["user-agent"].startswith("keytrail/")
            if protocol != "grpc":
                assert request.headers.get("content-encoding", "none") == compression


@both_protocols
def test_transient_faults_lose_and_repeat_nothing(protocol: str) -> None:
    """After refusals with and without a hint and after a broken connection every record is stored once, in order."""
    faults: list[Fault | None] = [unavailable(), throttled(0.05), Reset(), None, unavailable(0.05), Reset(), Reset()]
    with OtlpSink() as sink:
        sink.script(faults)
        names = [f"record {number}" for number in range(50)]
        limits = SendLimits(linger=0.01, first_pause=0.01, longest_pause=0.05, batch_records=10)
        with running(settings_for(sink, protocol), limits) as (sender, ledger):
            for name in names:
                sender.submit(resource_logs(name), 1)
            ledger.wait(50)
            assert sender.state().last_error != ""
        assert bodies(sink) == names
        assert ledger.exported == 50


CODES = {code: code.name in {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
         for code in grpc.StatusCode if code is not grpc.StatusCode.OK}  # fmt: skip
STATUSES = {400: False, 401: False, 403: False, 404: False, 408: False, 429: True, 500: False, 501: False, 502: True,
            503: True, 504: True}  # fmt: skip


@pytest.mark.parametrize(
    ("protocol", "code", "status", "retryable"),
    [("grpc", code, 500, retryable) for code, retryable in CODES.items()]
    + [("http/protobuf", grpc.StatusCode.UNKNOWN, status, retryable) for status, retryable in STATUSES.items()],
)
def test_the_specifications_table_decides_what_is_tried_again(
    protocol: str, code: grpc.StatusCode, status: int, retryable: bool
) -> None:
    """Retryable statuses cost nothing, all others reject the request for good, and the next request goes out."""
    with OtlpSink() as sink:
        sink.script([Refusal(code, status, "as scripted")])
        with running(settings_for(sink, protocol)) as (sender, ledger):
            sender.submit(resource_logs("first"), 1)
            ledger.wait(1)
            sender.submit(resource_logs("second"), 1)
            ledger.wait(2)
            assert "as scripted" in sender.state().last_error
        assert bodies(sink) == (["first", "second"] if retryable else ["second"])
        assert dict(ledger.dropped) == ({} if retryable else {DropReason.EXPORT_REJECTED: 1})


@both_protocols
@pytest.mark.parametrize(("rejected", "counted"), [(0, 0), (2, 2), (9, 3), (-5, 0)])
def test_partial_success_is_counted_and_not_tried_again(protocol: str, rejected: int, counted: int) -> None:
    """Rejected records are dropped as such, never more than were sent, and the backend's words are kept."""
    with OtlpSink() as sink:
        sink.script([PartialSuccess(rejected, "bad timestamps")])
        with running(settings_for(sink, protocol)) as (sender, ledger):
            sender.submit(resource_logs("a", "b", "c"), 3)
            ledger.wait(3)
            assert sender.state().last_error == "bad timestamps"
            assert sender.state().reachable
        assert (ledger.exported, ledger.dropped[DropReason.EXPORT_REJECTED]) == (3 - counted, counted)
        assert len(sink.requests()) == 1


@both_protocols
def test_a_request_over_the_backends_limit_is_split(protocol: str) -> None:
    """A backend with a smaller limit gets the same records in smaller requests; only what cannot fit is lost."""
    names = [f"{number:100}" for number in range(16)]
    with OtlpSink(max_request_bytes=500) as sink:
        with running(settings_for(sink, protocol), SendLimits(linger=0.2)) as (sender, ledger):
            for name in [*names[:7], "x" * 1000, *names[7:]]:
                sender.submit(resource_logs(name), 1)
            ledger.wait(17)
        assert bodies(sink) == names
        assert dict(ledger.dropped) == {DropReason.EXPORT_REJECTED: 1}


@both_protocols
def test_an_outage_loses_only_what_the_queue_cannot_hold(protocol: str) -> None:
    """While the backend is away the queue fills and newer records are dropped; when it is back, the queue arrives."""
    names = [f"record {number}" for number in range(100)]
    limits = SendLimits(linger=0.01, first_pause=0.01, longest_pause=0.05, queue_records=60, batch_records=7)
    with OtlpSink() as sink:
        with running(settings_for(sink, protocol), limits) as (sender, ledger):
            sender.submit(resource_logs("before"), 1)
            ledger.wait(1)
            sink.stop()
            for name in names:
                sender.submit(resource_logs(name), 1)
            assert dict(ledger.dropped) == {DropReason.EXPORT_QUEUE_FULL: 40}
            assert wait_until(lambda: sender.state().reachable is False)
            assert sender.state().queued == 60
            assert sender.state().last_error != ""
            sink.start()
            ledger.wait(101)
            assert sender.state().reachable
        assert bodies(sink) == ["before", *names[:60]]
        assert (ledger.exported, ledger.dropped.total()) == (61, 40)


@both_protocols
def test_a_late_answer_means_the_records_are_sent_again(protocol: str) -> None:
    """A request that times out is repeated, so that delivery is at least once; it is counted once."""
    with OtlpSink() as sink:
        sink.script([Hang(0.4)])
        with running(settings_for(sink, protocol, TIMEOUT="100")) as (sender, ledger):
            sender.submit(resource_logs("a"), 1)
            ledger.wait(1)
        sink.wait_for(2)
        assert bodies(sink) == ["a", "a"]
        assert ledger.exported == 1


@both_protocols
def test_closing_sends_what_waits(protocol: str) -> None:
    """A batch that still lingers is sent by close, and what is submitted afterwards is dropped as SHUTDOWN."""
    with OtlpSink() as sink:
        with running(settings_for(sink, protocol), SendLimits(linger=3600)) as (sender, ledger):
            sender.submit(resource_logs("a"), 1)
            sender.submit(resource_logs("b", "c"), 2)
            sender.close(10)
            sender.submit(resource_logs("late"), 1)
        assert bodies(sink) == ["a", "b", "c"]
        assert (ledger.exported, dict(ledger.dropped)) == (3, {DropReason.SHUTDOWN: 1})


@both_protocols
@pytest.mark.parametrize("fault", [Hang(30), unavailable(60), unavailable()])
def test_closing_without_an_answer_counts_the_rest(protocol: str, fault: Fault) -> None:
    """With a backend that hangs, asks for a long pause or refuses on, each record is dropped as SHUTDOWN once."""
    with OtlpSink() as sink:
        sink.script([fault] * 1000)
        with running(settings_for(sink, protocol), SendLimits(linger=0.01, first_pause=60, longest_pause=60)) as (
            sender,
            ledger,
        ):
            for number in range(10):
                sender.submit(resource_logs(f"record {number}"), 1)
            assert wait_until(lambda: len(sink.requests()) >= 1)
            sender.close(0.2)
            state = sender.state()
            assert (state.exported, dict(state.dropped), state.queued) == (0, {DropReason.SHUTDOWN: 10}, 0)
        if fault == unavailable(60):
            assert len(sink.requests()) == 1
    # The sink's end answers the hanging request: a late answer must change no count.
    sender._thread.join(10)
    assert sender.state() == state
    assert ledger.dropped.total() == 10


def test_closing_what_never_started_counts_everything() -> None:
    """Records of a sender that was never started are dropped as SHUTDOWN; closing twice changes nothing."""
    ledger = Ledger()
    sender = OtlpSender(otlp_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}), ledger)
    sender.submit(resource_logs("a", "b"), 2)
    sender.close(0)
    sender.close(0)
    assert dict(ledger.dropped) == {DropReason.SHUTDOWN: 2}
    assert is_exact(sender.state())


def test_the_queue_is_bounded_by_count_and_by_bytes() -> None:
    """Neither limit is ever passed; what is released makes room; a batch holds at least one entry however large."""
    queue = ExportQueue(most_records=10, most_bytes=100)
    assert queue.offer(Entry(bytes(60), 4))
    assert not queue.offer(Entry(bytes(41), 1))
    assert queue.offer(Entry(bytes(40), 6))
    assert not queue.offer(Entry(b"", 1))
    assert [entry.records for entry in queue.peek(10, 1000)] == [4, 6]
    assert [entry.records for entry in queue.peek(9, 1000)] == [4]
    assert [entry.records for entry in queue.peek(1, 1)] == [4]
    assert queue.release(1) == 4
    assert (queue.records, queue.bytes) == (6, 40)
    assert queue.clear() == 6
    assert (queue.records, queue.bytes, queue.peek(10, 1000)) == (0, 0, [])


def test_requests_are_what_protobuf_would_make() -> None:
    """Joined entries of any size equal protobuf's own serialization."""
    entries = [Entry(resource_logs("x" * size), 1) for size in (0, 1, 110, 127, 128, 16_300, 16_384, 70_000)]
    request = ExportLogsServiceRequest(resource_logs=[ResourceLogs.FromString(entry.data) for entry in entries])
    assert encode_request(entries) == request.SerializeToString()


def test_pauses_double_up_to_a_bound_with_jitter_and_honour_hints() -> None:
    """Own pauses lie between half and all of 1, 2, 4 ... 30 s; a hint is a lower bound, itself bounded."""
    limits = SendLimits()
    assert [pause_seconds(limits, attempt, None, 1.0) for attempt in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert [pause_seconds(limits, attempt, None, 0.0) for attempt in (0, 1, 1000)] == [0.5, 1, 15]
    assert pause_seconds(limits, 0, 7.0, 0.0) == 7.0
    assert 7.0 < pause_seconds(limits, 0, 7.0, 0.5) < 8.0
    assert pause_seconds(limits, 9, 7.0, 0.0) == 15
    assert pause_seconds(limits, 0, 1e9, 0.0) == LONGEST_HINT_SECONDS


@both_protocols
def test_answers_carry_the_servers_hint(protocol: str) -> None:
    """RetryInfo and Retry-After are read in seconds; a size refusal and a rejection are told apart from them."""
    with OtlpSink() as sink:
        transport = open_transport(settings_for(sink, protocol))
        sink.script([throttled(7), unavailable(8), unavailable(), too_large(), invalid(), None])
        answers = [transport.send(b"", 5) for _ in range(6)]
        transport.close()
    assert [answer.after_seconds if isinstance(answer, Retry) else type(answer) for answer in answers] == [
        7,
        8,
        None,
        TooLarge,
        Rejected,
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
        texts = [transport.send(b"", 5).text for _ in range(3)]
        transport.close()
    assert all("[redacted]" in text and CANARY not in text and text.isprintable() for text in texts), texts
    assert max(map(len, texts)) <= 300


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an authority, a server certificate for 127.0.0.1, a client certificate, and an authority nobody trusts."""
    folder = tmp_path_factory.mktemp("pki")
    new_key = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for name in ("ca", "other"):
        openssl([*new_key, "-x509", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}"], folder)
    for name, extension in (("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")):
        openssl(
            [*new_key, "-x509", "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", f"{name}.key", "-out", f"{name}.pem",
             "-subj", f"/CN={name}", "-addext", extension, "-addext", "basicConstraints=critical,CA:FALSE"],
            folder,
        )  # fmt: skip
    return folder


def openssl(command: list[str], folder: Path) -> None:
    """Run an openssl command."""
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@both_protocols
def test_tls_and_mutual_tls(pki: Path, protocol: str) -> None:
    """Records go to a server that the given authority vouches for, also one that wants a client certificate."""
    trust = {"CERTIFICATE": str(pki / "ca.pem")}
    identity = {"CLIENT_KEY": str(pki / "client.key"), "CLIENT_CERTIFICATE": str(pki / "client.pem")}
    for authorities, options in ((None, trust), (pki / "ca.pem", trust | identity)):
        with OtlpSink(tls=ServerTls(pki / "server.pem", pki / "server.key", authorities)) as sink:
            with running(settings_for(sink, protocol, **options)) as (sender, ledger):
                sender.submit(resource_logs("a"), 1)
                ledger.wait(1)
            assert bodies(sink) == ["a"]


@both_protocols
@pytest.mark.parametrize(
    "options", [{}, {"CERTIFICATE": "other.pem"}, {"CERTIFICATE": "ca.pem"}], ids=["no-ca", "other-ca", "no-client"]
)
def test_an_untrusted_connection_sends_nothing(pki: Path, protocol: str, options: dict[str, str]) -> None:
    """Without the right authority or the client certificate nothing is sent; the records wait and the error is kept."""
    with OtlpSink(tls=ServerTls(pki / "server.pem", pki / "server.key", pki / "ca.pem")) as sink:
        paths = {name: str(pki / file) for name, file in options.items()}
        with running(settings_for(sink, protocol, **paths)) as (sender, ledger):
            sender.submit(resource_logs("a"), 1)
            assert wait_until(lambda: sender.state().reachable is False)
            assert sender.state().queued == 1
            assert sender.state().last_error != ""
            sender.close(0)
        assert sink.requests() == []
        assert dict(ledger.dropped) == {DropReason.SHUTDOWN: 1}


@both_protocols
def test_certificates_may_be_replaced_while_running(pki: Path, tmp_path: Path, protocol: str) -> None:
    """A trust file that is wrong, then missing, then right is read anew at each connection."""
    trust = tmp_path / "trust.pem"
    trust.write_bytes((pki / "other.pem").read_bytes())
    with OtlpSink(tls=ServerTls(pki / "server.pem", pki / "server.key")) as sink:
        with running(settings_for(sink, protocol, CERTIFICATE=str(trust))) as (sender, ledger):
            sender.submit(resource_logs("a"), 1)
            assert wait_until(lambda: sender.state().reachable is False)
            trust.unlink()
            assert wait_until(
                lambda: "trust.pem" in sender.state().last_error or "No such" in sender.state().last_error
            )
            trust.write_bytes((pki / "ca.pem").read_bytes())
            ledger.wait(1)
        assert bodies(sink) == ["a"]


def test_netrc_does_not_replace_the_authorization_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ~/.netrc entry for the backend's host leaves our own header as it is."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with OtlpSink() as sink:
        transport = open_transport(settings_for(sink, "http/protobuf", HEADERS=f"authorization=Bearer {CANARY}"))
        assert transport.send(b"", 5) == Accepted()
        transport.close()
        assert sink.requests()[0].headers["authorization"] == f"Bearer {CANARY}"


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
        (200, {"content-type": "text/html"}, b"<html>log in</html>", Retry),
        (307, {"location": "http://127.0.0.1:1/elsewhere"}, b"", Retry),
        (503, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"", Retry("HTTP 503: ")),
        (503, {"retry-after": "12"}, b"", Retry("HTTP 503: ", 12.0)),
        (400, {"content-type": "application/json"}, b'{"message":"why"}', Rejected("HTTP 400: why")),
        (400, {"content-type": "application/json"}, b"[1]", Rejected("HTTP 400: ")),
        (401, {"content-type": "text/plain; charset=utf-8"}, b"who\n", Rejected("HTTP 401: who ")),
        (403, {"content-type": "application/x-protobuf"}, b"\xff", Rejected("HTTP 403: ")),
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
            answer = transport.send(b"request", 5)
            transport.close()
        finally:
            server.shutdown()
            thread.join()
    assert answer == expected if not isinstance(expected, type) else isinstance(answer, expected)


def wait_until(condition: Callable[[], bool]) -> bool:
    """Poll for up to ten seconds."""
    pause = threading.Event()
    return any(condition() or pause.wait(0.005) for _ in range(2000))
