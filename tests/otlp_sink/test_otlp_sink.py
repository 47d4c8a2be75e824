"""OtlpSink: what real OTLP clients send arrives as rows, faults come as scripted, and bad requests are refused."""

import gzip
import http.client
import json
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest
import requests
from google.rpc import error_details_pb2, status_pb2
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from keytrail.domain.errors import UsageError
from keytrail.testing.otlp_sink import OtlpSink
from keytrail.testing.otlp_sink_faults import (
    Hang,
    PartialSuccess,
    Refusal,
    Reset,
    Trickle,
    invalid,
    throttled,
    unavailable,
)
from support.processes import wait_until

METHOD = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
PROTOBUF = {"content-type": "application/x-protobuf"}


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    """Start a sink in memory."""
    with OtlpSink() as started:
        yield started


def request_of(*bodies: str) -> ExportLogsServiceRequest:
    """Build a request with one record for each body."""
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for body in bodies:
        scope.log_records.add().body.string_value = body
    return request


def export(sink: OtlpSink, request: bytes, timeout: float = 60) -> ExportLogsServiceResponse:
    """Send over gRPC, on a connection of its own."""
    with grpc.insecure_channel(urlsplit(sink.grpc_endpoint).netloc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(METHOD, response_deserializer=ExportLogsServiceResponse.FromString)
        response: ExportLogsServiceResponse = call(request, timeout=timeout)
        return response


def give_up(sink: OtlpSink, request: bytes) -> bool:
    """Send over gRPC, and give up as soon as the request is there; whether there was no answer yet."""
    before = len(sink.requests())
    with grpc.insecure_channel(urlsplit(sink.grpc_endpoint).netloc) as channel:
        call = channel.unary_unary(METHOD).future(request)
        assert wait_until(lambda: len(sink.requests()) > before)
        return call.cancel()


def post(sink: OtlpSink, body: bytes, headers: dict[str, str] | None = None) -> requests.Response:
    """Send over HTTP."""
    return requests.post(f"{sink.http_endpoint}/v1/logs", data=body, headers=PROTOBUF | (headers or {}), timeout=60)


def bodies(sink: OtlpSink) -> list[str]:
    """Return the stored bodies in the order of arrival."""
    return [body for (body,) in sink.rows("SELECT body FROM records ORDER BY id")]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_records_of_opentelemetrys_own_exporters_arrive_whole(sink: OtlpSink, protocol: str) -> None:
    """The SDK's gRPC and gzip HTTP exporters are served, and every field of a record is in its row."""
    exporter = (
        GrpcExporter(endpoint=sink.grpc_endpoint, compression=grpc.Compression.Gzip)
        if protocol == "grpc"
        else HttpExporter(endpoint=f"{sink.http_endpoint}/v1/logs")
    )
    provider = LoggerProvider(Resource({"service.name": "client", "host.id": 7}))
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    provider.get_logger("a-scope").emit(
        timestamp=1_700_000_000_000_000_001,
        observed_timestamp=1_700_000_000_000_000_002,
        severity_number=SeverityNumber.WARN,
        severity_text="WARN",
        body="hello",
        event_name="an.event",
        attributes={"text": "ä", "number": 5, "flag": True, "list": ["a", "b"], "real": 1.5},
    )
    provider.shutdown()
    sink.wait_for(1, timeout=60)
    ((*fields, resource, attributes, size),) = sink.rows(
        "SELECT time_unix_nano, observed_time_unix_nano, severity_number, severity_text, event_name, body, scope,"
        " resource, attributes, record_bytes FROM records"
    )
    assert fields == [1_700_000_000_000_000_001, 1_700_000_000_000_000_002, 13, "WARN", "an.event", "hello", "a-scope"]
    assert json.loads(resource) == {"service.name": "client", "host.id": 7}
    assert json.loads(attributes) == {"text": "ä", "number": 5, "flag": True, "list": ["a", "b"], "real": 1.5}
    (received,) = sink.requests()
    assert (
        size
        == ExportLogsServiceRequest.FromString(received.raw).resource_logs[0].scope_logs[0].log_records[0].ByteSize()
    )


def test_json_bodies_arrive_and_are_answered_in_json(sink: OtlpSink) -> None:
    """OTLP/JSON with hexadecimal trace ids, string integers and unknown fields is stored like protobuf."""
    record = {"timeUnixNano": "5", "body": {"intValue": "9"}, "traceId": "5b8efff798038103d269b633813fc60c", "new": 1}
    message = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    answer = requests.post(f"{sink.http_endpoint}/v1/logs", json=message, timeout=60)
    assert (answer.status_code, answer.headers["content-type"], answer.json()) == (200, "application/json", {})
    assert sink.rows("SELECT time_unix_nano, body FROM records") == [(5, "9")]


def test_gzip_and_chunked_bodies_arrive_on_one_connection(sink: OtlpSink) -> None:
    """Compressed and chunked requests are read to their end, so that a kept connection stays in step."""
    connection = http.client.HTTPConnection(urlsplit(sink.http_endpoint).netloc, timeout=60)
    packed = gzip.compress(request_of("packed").SerializeToString())
    connection.request("POST", "/v1/logs", packed, PROTOBUF | {"content-encoding": "gzip"})
    assert connection.getresponse().read() == b""
    pieces = [bytes([byte]) for byte in request_of("chunked").SerializeToString()]
    connection.request("POST", "/v1/logs", iter(pieces), PROTOBUF, encode_chunked=True)
    assert connection.getresponse().read() == b""
    connection.close()
    assert bodies(sink) == ["packed", "chunked"]


def test_hostile_values_are_stored(sink: OtlpSink) -> None:
    """Times beyond SQLite's integers, numbers that JSON lacks, empty and nested values are rows like any others."""
    request = request_of("")
    record = request.resource_logs[0].scope_logs[0].log_records[0]
    record.time_unix_nano = 2**64 - 1
    record.body.kvlist_value.values.add(key="nothing")
    record.attributes.add(key="nan").value.double_value = float("nan")
    record.attributes.add(key="bytes").value.bytes_value = b"\x00\xff"
    export(sink, request.SerializeToString())
    ((time, body, attributes),) = sink.rows("SELECT time_unix_nano, body, attributes FROM records")
    assert (time, json.loads(body), json.loads(attributes)) == (
        2**63 - 1,
        {"nothing": None},
        {"nan": "nan", "bytes": "AP8="},
    )


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"\xff\xff", {}, 400),
        (b"{", {"content-type": "application/json"}, 400),
        (b"[]", {"content-type": "application/json"}, 400),
        (b"x", {"content-type": "text/plain"}, 415),
        (b"x", {"content-encoding": "br"}, 415),
        (b"x", {"content-encoding": "gzip"}, 400),
        (gzip.compress(bytes(100), mtime=0)[:-3], {"content-encoding": "gzip"}, 400),
        (gzip.compress(bytes(20_000), mtime=0), {"content-encoding": "gzip"}, 413),
        (bytes(20_000), {}, 413),
    ],
    ids=["protobuf", "json", "json-list", "type", "encoding", "no-gzip", "cut-gzip", "gzip-bomb", "large"],
)
def test_bad_http_requests_are_refused(body: bytes, headers: dict[str, str], status: int) -> None:
    """Undecodable, unknown and oversized bodies get the specification's status and store nothing."""
    with OtlpSink(max_request_bytes=10_000) as sink:
        assert post(sink, body, headers).status_code == status
        assert sink.count() == 0


def test_other_paths_and_methods_are_refused(sink: OtlpSink) -> None:
    """Only `POST /v1/logs` is served."""
    assert requests.post(f"{sink.http_endpoint}/v1/traces", data=b"", headers=PROTOBUF, timeout=60).status_code == 404
    assert requests.get(f"{sink.http_endpoint}/v1/logs", timeout=60).status_code == 501


def test_bad_grpc_requests_are_refused() -> None:
    """An undecodable message is INVALID_ARGUMENT, one over the limit RESOURCE_EXHAUSTED."""
    with OtlpSink(max_request_bytes=10_000) as sink:
        for request, code in ((b"\xff", "INVALID_ARGUMENT"), (bytes(20_000), "RESOURCE_EXHAUSTED")):
            with pytest.raises(grpc.RpcError) as raised:
                export(sink, request)
            assert raised.value.code().name == code
        assert sink.count() == 0


@pytest.mark.parametrize("fault", [unavailable(2.5), throttled(2.5), invalid("no"), unavailable()])
def test_scripted_refusals_carry_status_message_and_hint(sink: OtlpSink, fault: Refusal) -> None:
    """Each refusal is what the specification describes in either protocol, and the request after it is stored."""
    sink.script([fault, fault])
    request = request_of("a").SerializeToString()
    with pytest.raises(grpc.RpcError) as raised:
        export(sink, request)
    assert (raised.value.code(), raised.value.details()) == (fault.grpc_code, fault.message)
    details = dict(raised.value.trailing_metadata() or ()).get("grpc-status-details-bin")
    if fault.retry_after is None:
        assert details is None
    else:
        info = error_details_pb2.RetryInfo()
        assert status_pb2.Status.FromString(details).details[0].Unpack(info)
        assert info.retry_delay.ToMilliseconds() == 2500
    answer = post(sink, request)
    assert (answer.status_code, answer.headers.get("retry-after")) == (
        fault.http_status,
        None if fault.retry_after is None else "3",
    )
    assert status_pb2.Status.FromString(answer.content).message == fault.message
    assert sink.count() == 0
    assert post(sink, request).status_code == 200
    assert bodies(sink) == ["a"]
    assert [received.answer for received in sink.requests()] == ["Refusal", "Refusal", "stored"]


def test_scripted_partial_success_and_hang(sink: OtlpSink) -> None:
    """Partial success leaves the last records out; a hang answers late, after the client gave up, but stores."""
    sink.script([PartialSuccess(2, "two are bad"), Hang(0.1), None])
    response = export(sink, request_of("a", "b", "c").SerializeToString())
    assert response.partial_success.rejected_log_records == 2
    assert response.partial_success.error_message == "two are bad"
    assert bodies(sink) == ["a"]
    give_up(sink, request_of("late").SerializeToString())
    sink.wait_for(2, timeout=60)


def test_an_answer_that_trickles_never_ends(sink: OtlpSink) -> None:
    """A client that waits for each read alone waits on while the bytes come; a gRPC client waits until it gives up."""
    sink.script([Trickle(), Trickle()])
    request = request_of("a").SerializeToString()
    assert give_up(sink, request)
    address = urlsplit(sink.http_endpoint)
    with socket.create_connection((address.hostname, address.port), timeout=60) as client:
        head = (
            f"POST /v1/logs HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nContent-Length: {len(request)}\r\n\r\n"
        )
        client.sendall(head.encode() + request)
        received = b""
        while received.count(b".") < 5:
            received += client.recv(100)
    assert b"\r\n\r\n" not in received
    assert bodies(sink) == ["a", "a"]


def test_a_rule_answers_what_no_script_does(sink: OtlpSink) -> None:
    """The script comes first, then the rule, which sees headers and content; without a rule everything is taken."""
    sink.script([None])
    sink.answer_by(lambda received: unavailable() if b"bad" in received.raw and received.records == 1 else None)
    codes = [post(sink, request_of(body).SerializeToString()).status_code for body in ("bad", "bad", "good")]
    sink.answer_by(None)
    codes.append(post(sink, request_of("bad").SerializeToString()).status_code)
    assert codes == [200, 503, 200, 200]
    assert [received.answer for received in sink.requests()] == ["stored", "Refusal", "stored", "stored"]


def test_scripted_resets_break_the_connection(sink: OtlpSink) -> None:
    """A reset gives the client no answer in either protocol, stores nothing, and the sink serves on."""
    sink.script([Reset(), Reset()])
    request = request_of("a").SerializeToString()
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        post(sink, request)
    with pytest.raises(grpc.RpcError):
        export(sink, request)
    assert post(sink, request).status_code == 200
    with grpc.insecure_channel(urlsplit(sink.grpc_endpoint).netloc) as channel:
        channel.unary_unary(METHOD)(request, timeout=60, wait_for_ready=True)
    assert bodies(sink) == ["a", "a"]


def test_a_stopped_sink_answers_nobody_and_starts_again_on_its_ports(sink: OtlpSink) -> None:
    """Stop breaks kept connections too; start takes the same ports, with the records still there."""
    request = request_of("a").SerializeToString()
    with requests.Session() as session:
        url = f"{sink.http_endpoint}/v1/logs"
        assert session.post(url, data=request, headers=PROTOBUF, timeout=60).status_code == 200
        sink.stop()
        with pytest.raises(requests.ConnectionError):
            session.post(url, data=request, headers=PROTOBUF, timeout=60)
        with pytest.raises(grpc.RpcError):
            export(sink, request)
        sink.start()
        assert session.post(url, data=request, headers=PROTOBUF, timeout=60).status_code == 200
    export(sink, request)
    assert sink.count() == 3


def test_a_database_file_is_readable_meanwhile_and_kept(tmp_path: Path) -> None:
    """Another connection sees the rows while the sink runs, and a new sink on the file adds to them."""
    database = tmp_path / "records.db"
    for expected in (1, 2):
        with OtlpSink(database, http=None) as sink:
            export(sink, request_of("a").SerializeToString())
            reader = sqlite3.connect(database)
            assert reader.execute("SELECT count(*), max(request_id) FROM records").fetchone() == (expected, expected)
            reader.close()
            assert sink.http_endpoint == ""
    assert [path.name for path in tmp_path.iterdir()] == ["records.db"]


def test_waiting_in_vain_says_how_far_it_came(sink: OtlpSink) -> None:
    """`wait_for` raises with both counts."""
    export(sink, request_of("a").SerializeToString())
    with pytest.raises(TimeoutError, match="1 of 2 records"):
        sink.wait_for(2, timeout=0.05)


def test_an_address_in_use_is_a_usage_error(sink: OtlpSink) -> None:
    """A second sink on the same port says which address it could not have, and leaves nothing behind."""
    for taken in ({"grpc": urlsplit(sink.grpc_endpoint).netloc}, {"http": urlsplit(sink.http_endpoint).netloc}):
        with pytest.raises(UsageError, match=r"127\.0\.0\.1:"), OtlpSink(**taken):
            pass
