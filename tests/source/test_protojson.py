"""The JSON export gives the messages of the gRPC stream."""

import contextlib
import json
from collections import Counter

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from keytrail.proto.tetragon import tetragon_pb2
from keytrail.proto.tetragon.events_pb2 import GetEventsResponse
from keytrail.source.protojson import event_from_json
from keytrail.source.recording import read_recording
from support.recordings import CORPUS, export_lines, messages
from support.variants import with_long

# How many of the stream's messages the export has as well. Missing are only library loads at the cut: they carry no
# time by which the recorder could have cut both alike. `throttle` limited its export to 120 events a minute;
# `kubernetes-restart` exported the agent after the one that the stream shows.
COMMON = {
    "burst": 4036,
    "kubernetes": 2723,
    "kubernetes-late": 796,
    "kubernetes-restart": 0,
    "odd-input": 280,
    "policy-library": 4382,
    "reference-policies": 733,
    "seed-demo": 49,
    "seed-demo-default-flags": 33,
    "sensors": 2033,
    "throttle": 198,
}


def comparable(message: bytes) -> bytes:
    """Drop the agent's reference counts, which go on changing, and put maps into a fixed order."""
    event = GetEventsResponse.FromString(message)
    inner = getattr(event, str(event.WhichOneof("event")))
    if hasattr(inner, "process"):
        for process in (inner.process, inner.parent, *getattr(inner, "ancestors", ())):
            process.ClearField("refcnt")
    return event.SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", with_long(sorted(COMMON), "burst", "kubernetes", "policy-library"))
def test_converted_lines_equal_the_stream(name: str) -> None:
    """Where a recording has an event both as JSON and as protobuf, the converted line is that message."""
    lines = list(read_recording(CORPUS / name / "export.json.zst"))
    assert len(lines) == json.loads((CORPUS / name / "counts.json").read_text())["json_total"]
    both = Counter(map(comparable, lines)) & Counter(map(comparable, messages(name)))
    assert both.total() == COMMON[name]


@pytest.mark.parametrize("name", ["kubernetes-restart", "throttle", "odd-input"])
def test_converted_lines_equal_the_standard_parser(name: str) -> None:
    """Also where the stream has no counterpart: protobuf's own JSON parser gives the same message."""
    for line in export_lines(name):
        expected = json_format.ParseDict(line, GetEventsResponse())
        assert GetEventsResponse.FromString(event_from_json(json.dumps(line).encode())) == expected


def event(line: str) -> GetEventsResponse:
    """Read a line."""
    return GetEventsResponse.FromString(event_from_json(line.encode()))


def test_both_spellings_of_names_are_read() -> None:
    """Proto names, camelCase and the capitals of environment variables all find their field."""
    got = event(
        '{"processExec":{"process":{"execId":"a","environment_variables":[{"Key":"K","Value":"V"}]}},"nodeName":"n"}'
    )
    assert (got.process_exec.process.exec_id, got.node_name) == ("a", "n")
    assert got.process_exec.process.environment_variables[0].Value == "V"


def test_what_json_spells_differently_is_converted() -> None:
    """64-bit numbers, bytes, enums, wrappers holding zero and null keep their meaning."""
    got = event(
        '{"process_kprobe":{"process":{"pid":0,"tid":null},"action":"KPROBE_ACTION_SIGKILL","return":{"long_arg":"-5"},'
        '"args":[{"size_arg":"18446744073709551615"},{"bytes_arg":"/wA="},{"int_arg":-1}]}}'
    ).process_kprobe
    assert got.process.HasField("pid")
    assert not got.process.HasField("tid")
    assert got.action == tetragon_pb2.KPROBE_ACTION_SIGKILL
    assert getattr(got, "return").long_arg == -5
    assert [a.size_arg or a.bytes_arg or a.int_arg for a in got.args] == [2**64 - 1, b"\xff\0", -1]


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [
        ("1970-01-01T00:00:00Z", 0, 0),
        ("2026-11-22T02:46:40.409948970Z", 1795315600, 409948970),
        ("2026-11-22T04:46:40.5+02:00", 1795315600, 500000000),
        ("1969-12-31T23:59:59.000000001Z", -1, 1),
    ],
)
def test_times_keep_their_nanoseconds(text: str, seconds: int, nanos: int) -> None:
    """RFC 3339 with any number of digits and any zone is exact to the nanosecond."""
    got = event(json.dumps({"process_exit": {}, "time": text})).time
    assert (got.seconds, got.nanos) == (seconds, nanos)


def test_a_newer_agents_fields_and_values_are_left_out() -> None:
    """Unknown fields, enum names and capabilities do not cost the event."""
    got = event(
        '{"process_kprobe":{"process":{"cap":{"effective":["CAP_NEW","CAP_KILL"]},"new_field":{"x":1}},'
        '"action":"KPROBE_ACTION_NEW"},"newer":[1]}'
    ).process_kprobe
    assert list(got.process.cap.effective) == [5]
    assert got.action == 0


def test_what_protobuf_allows_to_be_spelled_otherwise() -> None:
    """Enums as numbers, in lists too, and the other alphabet of base64: as protobuf's own parser reads them."""
    line = (
        '{"process_kprobe":{"process":{"cap":{"effective":[21,"CAP_KILL",63]}},"action":5,'
        '"args":[{"bytes_arg":"-_8="},{"bytes_arg":"+/8="}]}}'
    )
    expected = json_format.Parse(line, GetEventsResponse())
    assert GetEventsResponse.FromString(event_from_json(line.encode())) == expected


def test_a_newer_event_type_is_still_a_message() -> None:
    """It becomes a message without an event, which decode counts as unknown rather than as malformed."""
    got = event('{"process_new":{"process":{}},"node_name":"n"}')
    assert got.WhichOneof("event") is None
    assert got.node_name == "n"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "null",
        "[]",
        "{}",
        "7",
        '{"level":"info","msg":"a log line","time":"2026-11-22T02:46:40Z"}',
        '{"process_exec":[]}',
        '{"process_exec":{"process":{"pid":-1}}}',
        '{"process_exec":{"process":{"pid":"x"}}}',
        '{"process_exec":{"process":{"binary":5}}}',
        '{"process_exec":{"process":{"start_time":"yesterday"}}}',
        '{"process_exec":{"process":{"start_time":{}}}}',
        '{"process_exec":{"process":{"binary":"\\ud800"}}}',
        '{"process_exec":' + "[" * 100_000,
    ],
)
def test_lines_that_are_no_event_are_value_errors(line: str) -> None:
    """Whatever is wrong with a line, it is one kind of error."""
    with pytest.raises(ValueError):  # noqa: PT011 - the type is the contract, the text is free
        event_from_json(line.encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(["process", "args", "return", "action", "tags", "kernel_stack_trace"]), JSON)
def test_no_value_of_a_field_crashes(field: str, value: object) -> None:
    """A field of any JSON type gives a message or a ValueError, never another exception."""
    with contextlib.suppress(ValueError):
        event_from_json(json.dumps({"process_kprobe": {field: value}}).encode())
