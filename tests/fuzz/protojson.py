"""The agent's JSON export: a line is an event or a ValueError, and an event survives being written as JSON again.

The lines of a file give the same events however it is cut, and each line that is not blank is an event or is counted.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress

from google.protobuf import json_format

from fuzz.feed import Feed, cut
from keytrail.proto.tetragon.events_pb2 import GetEventsResponse
from keytrail.source.framing import JsonLines, Rejected
from keytrail.source.protojson import event_from_json
from support.recordings import export_lines

WORDS = (
    *(b'"process_exec"', b'"processKprobe"', b'"process"', b'"args"', b'"string_arg"', b'"bytes_arg"', b'"size_arg"'),
    *(b'"start_time"', b'"2026-11-22T10:00:00.123456789Z"', b'"9999-12-31T23:59:59+23:59"', b'"0001-01-01T00:00:00Z"'),
    *(b'"\\ud800"', b"1e400", b"-0", b"NaN", b"Infinity", b'"18446744073709551616"', b"null", b"true", b"[[[[", b"{}"),
    *(b'"cap"', b'"permitted"', b'"CAP_SYS_ADMIN"', b'"pod_labels"', b'"environment_variables"', b"\xff", b"\n"),
)


_SPELLED = (
    b'{"time":"2026-11-22T10:00:00.5Z","process_exec":{"process":{"pid":"7","exec_id":"\\u00e9","cap":{"permitted":[21]}}}}',
    b'{"time":"2026-11-22T10:00:00+01:30","processExec":{"process":{"pid":7.0,"startTime":"2026-11-22T10:00:00.123Z"}}}',
    b'{"process_kprobe":{"args":[{"bytes_arg":"AP8="},{"size_arg":"9"},{"int_arg":-1}],"action":"KPROBE_ACTION_NEWER"}}',
    b'{"process_kprobe":{"args":[{"long_arg":1e3},{"newer_arg":{}}],"action":5,"newer":[1],"functionName":null}}',
    b'{"process_newer":{},"node_name":"n"}',
)
"""The same spelled otherwise, as protobuf's JSON allows, or by a newer agent."""


def seeds() -> Iterator[bytes]:
    """Yield one line of each kind of event and hook, and some together."""
    yield from (b"\x05" + one for one in _SPELLED)
    found: dict[str, bytes] = {}
    for name in ("reference-policies", "odd-input"):
        for line in export_lines(name):
            which = next((key for key in line if key.startswith("process_")), "")
            event = line.get(which, {})
            hook = f"{which} {event.get('function_name', '')}{event.get('subsys', '')}"
            found.setdefault(hook, json.dumps(line, separators=(",", ":")).encode())
    for one in found.values():
        yield b"\x05" + one
    yield b"\x05" + b"\n\r\n".join([*list(found.values())[:2], b"{", b"{}", b""])


def check(data: bytes) -> None:
    """Read one line, and the same bytes as the lines of a file."""
    feed = Feed(data)
    seed, content = feed.number(), feed.rest()
    _one_line(content)
    whole = _lines((content,))
    assert _lines(cut(content, seed)) == whole
    events, rejected = whole
    assert len(events) + sum(rejected) == sum(1 for line in content.split(b"\n") if line.strip())


def _one_line(line: bytes) -> None:
    try:
        event = event_from_json(line)
    except ValueError:
        return
    with suppress(json_format.ParseError, UnicodeDecodeError):
        expected = json_format.Parse(line, GetEventsResponse(), ignore_unknown_fields=True)
        assert GetEventsResponse.FromString(event) == expected, "not what protobuf's own reader reads"
    try:
        written = json_format.MessageToJson(GetEventsResponse.FromString(event), preserving_proto_field_name=True)
    except (ValueError, OverflowError):  # a time that RFC 3339 cannot write
        return
    if GetEventsResponse.FromString(event).WhichOneof("event") is not None:
        again = GetEventsResponse.FromString(event_from_json(written.encode("utf-8", "surrogatepass")))
        assert again == GetEventsResponse.FromString(event)


def _lines(chunks: Iterable[bytes]) -> tuple[list[bytes], Rejected]:
    lines = JsonLines()
    events = [event for chunk in chunks for event in lines.feed(chunk)]
    return events + lines.finish(), lines.rejected()
