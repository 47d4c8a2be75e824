"""The JSON line of an event: the documented form, and inert whatever a process is called."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keytrail.decode.decoder import Decoder
from keytrail.domain.event import (
    NO_DETAILS,
    Details,
    Event,
    EventKind,
    EventType,
    Exit,
    FileAccess,
    HookArgument,
    Network,
)
from keytrail.domain.identity import Attribution, Evidence, EvidenceKind, Unknown
from keytrail.domain.process import Container, Pod, Process
from keytrail.export.json_line import event_line
from support.recordings import messages

DOCUMENTED = re.findall(
    r"```json\n(.*)\n```", (Path(__file__).parent.parent.parent / "docs" / "telemetry.md").read_text("utf-8")
)
TEN_PAST = 1754675050100000000
EXEC_TIME = 1754675047730801281
HOOK_TIME = 1754675049979226315
PROVIDED = Evidence(EvidenceKind.ENV, "OPENAI_API_KEY", "openai_api_key-present")
MAPPED = Evidence(
    EvidenceKind.ENV,
    "OPENAI_API_KEY",
    "openai-prod",
    mapping="openai-prod",
    provider="openai",
    identity_kind="api_key",
    owner="team-ml",
)
ON_COMMAND_LINE = Evidence(EvidenceKind.ARGV, "openai", "argv-openai")
POD = Pod(
    "ml",
    "chat-api-0",
    "0b1f6a1e-7f6e-4d43-9b6f-1f9d3f4b7a10",
    workload="chat-api",
    workload_kind="Deployment",
    service_account="chat-api",
    container=Container(name="chat"),
)


class SeenEvent(Event):
    """An event with the details that a test gives it."""

    __slots__ = ("held", "seen")
    seen: Details
    held: tuple[HookArgument, ...]

    @property
    def arguments(self) -> tuple[HookArgument, ...]:
        """What the test gave."""
        return self.held

    @property
    def details(self) -> Details:
        """What the test gave."""
        return self.seen


def seen(
    kind: EventKind,
    type_: EventType,
    time_ns: int,
    *,
    function: str = "",
    details: Details = NO_DETAILS,
    identity: Attribution | None = None,
    parent: Process | None = None,
    pod: Pod | None = None,
    node: str = "ubuntu",
    time_estimated: bool = False,
) -> SeenEvent:
    """Make an event of curl."""
    process = Process("tvm:1", pid=72704, binary="/usr/bin/curl", arguments="openai.com", pod=pod)
    process.attribution = identity or Attribution()
    event = SeenEvent(
        kind,
        type_,
        process,
        time_ns=time_ns,
        function=function,
        node=node,
        parent=parent,
        time_estimated=time_estimated,
    )
    event.seen = details
    return event


def _documented_events() -> list[Event]:
    key = Attribution((PROVIDED, ON_COMMAND_LINE))
    exec_, kprobe = (EventKind.EXEC, EventType.EXEC), EventType.KPROBE
    socket = Network("AF_INET", "IPPROTO_TCP", "192.168.23.137", 41724, "104.18.33.45", 80)
    library = Details(file=FileAccess("/usr/lib/libssl.so.3", "load"))
    return [
        seen(*exec_, EXEC_TIME, identity=key, parent=Process("tvm:0", pid=72685, binary="/bin/bash")),
        seen(EventKind.CONNECT, kprobe, HOOK_TIME, function="tcp_connect", identity=key, details=Details(socket)),
        seen(
            EventKind.FILE,
            kprobe,
            HOOK_TIME,
            function="security_file_permission",
            details=Details(file=FileAccess("/etc/shadow", "read")),
        ),
        seen(EventKind.EXIT, EventType.EXIT, TEN_PAST, details=Details(exit=Exit())),
        seen(EventKind.LIBRARY, EventType.LOADER, TEN_PAST, details=library, time_estimated=True),
        seen(*exec_, EXEC_TIME, node="node-1", pod=POD, identity=Attribution(unknown=Unknown.NOT_CAPTURED)),
        seen(*exec_, EXEC_TIME, identity=Attribution((MAPPED, ON_COMMAND_LINE))),
    ]


@pytest.mark.parametrize(("event", "line"), list(zip(_documented_events(), DOCUMENTED, strict=True)))
def test_documented_line(event: Event, line: str) -> None:
    """Every line that the documentation shows is what the product writes, byte for byte."""
    assert event_line(event) == line


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        (Attribution(), None),
        (Attribution(unknown=Unknown.REDACTED_UPSTREAM), {"type": "unknown", "reason": "redacted_upstream"}),
        (Attribution((ON_COMMAND_LINE, PROVIDED)), {"type": "argv", "name": "openai", "id": "argv-openai"}),
        (
            Attribution((Evidence(EvidenceKind.ENV, "CLOSEDAI_API_KEY", "closedai_api_key-present", mapped=False),)),
            {
                "type": "env",
                "key": "CLOSEDAI_API_KEY",
                "present": True,
                "id": "closedai_api_key-present",
                "mapped": False,
            },
        ),
        (
            Attribution((Evidence(EvidenceKind.ENV, "K", "k-present", provider="openai", identity_kind="api_key"),)),
            {"type": "env", "key": "K", "present": True, "id": "k-present", "provider": "openai", "kind": "api_key"},
        ),
        (
            Attribution((Evidence(EvidenceKind.FILE, "/run/secrets/x", "x"),)),
            {"type": "file", "name": "/run/secrets/x", "id": "x"},
        ),
    ],
)
def test_identity_forms(identity: Attribution, expected: object) -> None:
    """No identity, nobody could look, command line, unmapped variable, provider and other evidence have their forms."""
    line = json.loads(event_line(seen(EventKind.EXEC, EventType.EXEC, 0, identity=identity)))
    assert line["identity"] == expected


def test_later_attribution_and_pod_are_seen() -> None:
    """What is remembered of a process is not used after its attribution or its pod changed."""
    event = seen(EventKind.EXEC, EventType.EXEC, 0)
    assert json.loads(event_line(event))["identity"] is None
    event.process.attribution = Attribution((ON_COMMAND_LINE,))
    event.process.pod = POD
    line = json.loads(event_line(event))
    assert line["identity"]["id"] == "argv-openai"
    assert line["pod"]["uid"] == POD.uid


def test_signal_instead_of_code() -> None:
    """A process that a signal ended shows the signal, not the exit code 0 that the agent leaves in the message."""
    killed = seen(EventKind.EXIT, EventType.EXIT, 0, details=Details(exit=Exit(signal="SIGKILL")))
    assert json.loads(event_line(killed))["exit"] == {"signal": "SIGKILL"}


@pytest.mark.parametrize("time_ns", [-1, 10**30])
def test_impossible_times(time_ns: int) -> None:
    """A damaged timestamp still gives a line with a year of four digits."""
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{9}Z", json.loads(event_line(seen(EventKind.EXEC, EventType.EXEC, time_ns)))["ts"]
    )


ANY_TEXT = st.text(st.characters(), max_size=40)


@given(binary=ANY_TEXT, arguments=ANY_TEXT, name=ANY_TEXT, path=ANY_TEXT, function=ANY_TEXT)
def test_hostile_text(binary: str, arguments: str, name: str, path: str, function: str) -> None:
    """Whatever text a process chose, lone surrogates included, the line is printable ASCII and parses back to it."""
    process = Process("x", binary=binary, arguments=arguments)
    process.attribution = Attribution((Evidence(EvidenceKind.ENV, name, "id", mapping=name),))
    event = SeenEvent(EventKind.FILE, EventType.KPROBE, process, time_ns=1, function=function)
    event.seen = Details(file=FileAccess(path, "read"))
    event.held = (HookArgument(0, "", "string", "held-back"),)
    line = event_line(event)
    assert line.isascii()
    assert line.isprintable()
    assert "held-back" not in line
    parsed = json.loads(line)
    assert (parsed["binary"], parsed["args"], parsed["file"]["path"]) == (binary, arguments, path)
    assert (parsed["identity"]["key"], parsed["event"]) == (name, f"kprobe:{function}")


@pytest.mark.parametrize("recording", ["odd-input", "policy-library", "kubernetes", "throttle"])
def test_recorded_events(recording: str) -> None:
    """Every recorded event gives one line that parses, with the fields of its category."""
    decoder = Decoder(lambda text, *_: (text, ()))
    fields = {"ts", "category", "hostname", "event", "pid", "binary", "args", "identity"}
    for raw in messages(recording):
        event = decoder.decode(raw)
        assert isinstance(event, Event)
        line = event_line(event)
        assert line.isprintable()
        parsed = json.loads(line)
        assert parsed.keys() >= fields
        assert ("network" in parsed) == (event.details.network is not None)
