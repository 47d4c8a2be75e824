"""No secret value leaves the process: generated credentials through everything that Keytrail writes.

1,200 of them, every shape in every place; 3,000 with `--long`, in more wrappings.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from keytrail.decode.redact import Redactor
from keytrail.decode.scrub import scrub
from keytrail.source.recording import RecordingWriter, read_recording
from keytrail.testing.fake_tetragon import FakeTetragon
from keytrail.testing.fake_tetragon_agent import AgentProfile
from keytrail.testing.otlp_sink import OtlpSink
from support.canaries import Canary, generate
from support.commands import Ran, keytrail
from support.processes import CollectorProcess, wait_until
from support.synthetic import exec_event, exec_id, kprobe_event, process

COUNT, COUNT_LONG = 1_200, 3_000
PLACES = (
    "environment",
    "environment of the parent",
    "arguments",
    "working directory",
    "payload",
    "hook text",
    "path",
    "name of a variable",
)


def first_pid(index: int) -> int:
    """Each canary has process ids of its own, so that what is written about it can be found."""
    return 100_000 + 10 * index


def messages_of(index: int, canary: Canary) -> Iterator[bytes]:
    """The events of one canary, in one of the places where the agent shows what processes hold."""
    place = PLACES[index % len(PLACES)]
    pid = first_pid(index)
    text = canary.text.replace("\0", " ")
    acting = process(pid, binary="/usr/bin/curl", arguments=f"run {index}", cwd="/srv", environment={"LANG": "C"})
    sock = {"sock_arg": {"family": "AF_INET", "daddr": "192.0.2.1", "dport": 443, "cookie": pid}}
    if place == "environment":
        acting = process(
            pid,
            binary="/usr/bin/curl",
            arguments=f"run {index}",
            environment={"APP_API_KEY": canary.value, "NOTE": text},
        )
        yield exec_event(acting)
        yield kprobe_event(acting, "tcp_connect", sock)
    elif place == "environment of the parent":
        parent = process(pid + 1, binary="/bin/sh", arguments=text, environment={"DB_PASSWORD": canary.value})
        yield exec_event(acting, parent)
    elif place == "arguments":
        acting.arguments = text
        yield exec_event(acting)
        yield kprobe_event(acting, "tcp_connect", sock)
    elif place == "working directory":
        acting.cwd = "/srv/run " + text
        yield exec_event(acting)
    elif place == "payload":
        yield kprobe_event(acting, "tcp_sendmsg", sock, {"bytes_arg": text.encode()}, {"size_arg": len(text)})
        yield kprobe_event(
            acting, "__x64_sys_write", {"int_arg": 1}, {"bytes_arg": canary.value.encode()}, {"size_arg": 9}
        )
    elif place == "hook text":
        yield kprobe_event(acting, "__x64_sys_prctl", {"int_arg": 15}, {"string_arg": text})
        yield kprobe_event(acting, "security_kernel_module_request", {"string_arg": text})
        yield kprobe_event(acting, "security_path_symlink", {"path_arg": {"path": "/tmp"}}, {"string_arg": text})
    elif place == "path":
        yield kprobe_event(
            acting, "security_file_permission", {"file_arg": {"path": "/tmp/run " + text}}, {"int_arg": 4}
        )
        yield kprobe_event(
            acting, "security_socket_connect", {"sockaddrun_arg": {"family": "AF_UNIX", "path": "/tmp/run " + text}}
        )
    else:
        acting = process(pid, binary="/usr/bin/env", arguments=f"run {index}", environment={text: "1", "X": "2"})
        yield exec_event(acting)


@pytest.fixture(scope="module")
def canaries(pytestconfig: pytest.Config) -> list[Canary]:
    """The same credentials on every run, of at least 40 shapes."""
    made = generate(20261122, COUNT_LONG if pytestconfig.getoption("--long") else COUNT)
    assert len({canary.shape for canary in made}) >= 40
    return made


@pytest.fixture(scope="module")
def stream(canaries: list[Canary]) -> list[bytes]:
    """All events of all canaries."""
    return [message for index, canary in enumerate(canaries) for message in messages_of(index, canary)]


@pytest.fixture(scope="module")
def recording(stream: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file."""
    path = tmp_path_factory.mktemp("canaries") / "canaries.pb"
    with RecordingWriter(path) as writer:
        for message in stream:
            writer.write(message)
    return path


def leaks(text: str, canaries: list[Canary]) -> list[str]:
    """What was found of each canary in what was written about it, as shape, wrapping and place; never the value."""
    numbers = re.compile(r"\b(\d{6})\b")
    written: dict[int, list[str]] = {}
    for line in text.splitlines():
        for number in {int(found) // 10 * 10 for found in numbers.findall(line)}:
            written.setdefault(number, []).append(line)
    found = []
    for index, canary in enumerate(canaries):
        about = "\n".join(written.get(first_pid(index), ()))
        found += [
            f"{canary.shape}, {canary.wrapping}, in {PLACES[index % len(PLACES)]}"
            for form in canary.forms()
            if form in about
        ]
    return found


def everywhere(text: str, canaries: list[Canary]) -> list[str]:
    """A sample of the canaries looked for in the whole text, in case something is written out of place."""
    return [f"{canary.shape}, {canary.wrapping}" for canary in canaries[::25] if canary.value in text]


@pytest.mark.timeout(300)
def test_no_canary_in_what_a_live_collector_writes(canaries: list[Canary], stream: list[bytes], tmp_path: Path) -> None:
    """Standard output, debug log, OTLP records, state file and accounting of a running collector hold no value."""
    address = f"unix://{tmp_path}/tetragon.sock"
    profile = AgentProfile().with_flags({"enable-process-environment-variables": True})
    state = tmp_path / "state"
    with (
        OtlpSink(http=None, database=tmp_path / "sink.sqlite") as sink,
        FakeTetragon(address, profile=profile) as agent,
    ):
        options = (
            "--output",
            "json",
            "--output",
            "otlp",
            "--otlp-records",
            "events",
            "--otlp-records",
            "findings",
            "--output",
            "findings",
            "--rules",
            "all",
            "--agent",
            address,
            "--log-level",
            "debug",
            "--state-dir",
            str(state),
        )
        with CollectorProcess(
            tmp_path, *options, environ={"OTEL_EXPORTER_OTLP_ENDPOINT": sink.grpc_endpoint}
        ) as collector:
            assert agent.wait_for_listeners(timeout=60), collector.err
            agent.publish(stream, lossless=True)
            events = "SELECT count(*) FROM records WHERE event_name = 'keytrail.event'"
            assert wait_until(lambda: sink.rows(events) == [(len(stream),)], 200), collector.err
            collector.stop()
        records = "\n".join("|".join(map(str, row)) for row in sink.rows())
        lines, log = collector.out, collector.err
    kept = (state / "processes.json").read_text()
    assert "APP_API_KEY" in kept
    assert lines.count("[redacted]") > len(canaries) / 10
    for written in (lines, records):
        assert leaks(written, canaries) == []
    for written in (lines, records, log, kept, collector.summary_file.read_text()):
        assert everywhere(written, canaries) == []
    rows = kept.replace("],[", "],\n[")
    assert leaks(rows, canaries) == []


@pytest.mark.parametrize("form", ["json", "line"])
def test_no_canary_in_a_replay(form: str, recording: Path, canaries: list[Canary]) -> None:
    """Neither JSON nor text lines of a replay hold a value."""
    ran: Ran = keytrail("replay", recording, "--output", form)
    assert ran.code == 0
    if form == "json":
        assert leaks(ran.out, canaries) == []
    assert everywhere(ran.out + ran.err, canaries) == []


def test_no_canary_in_a_scrubbed_recording(stream: list[bytes], canaries: list[Canary], tmp_path: Path) -> None:
    """What `record` writes by default holds no value, in no field of the message, and still decodes."""
    redact = Redactor().redact
    path = tmp_path / "scrubbed.pb"
    with RecordingWriter(path) as writer:
        for message in stream:
            scrubbed = scrub(message, redact)
            assert scrubbed is not None
            writer.write(scrubbed)
    of_pid: dict[str, list[bytes]] = {}
    for message in read_recording(path):
        of_pid.setdefault(_exec_id_in(message), []).append(message)
    found = []
    for index, canary in enumerate(canaries):
        about = b"\n".join(of_pid[exec_id(first_pid(index))])
        found += [
            f"{canary.shape}, {canary.wrapping}, in {PLACES[index % len(PLACES)]}"
            for form in canary.forms()
            if form.encode() in about
        ]
    assert found == []


def _exec_id_in(message: bytes) -> str:
    from keytrail.proto.tetragon import events_pb2

    event = events_pb2.GetEventsResponse.FromString(message)
    acting: str = getattr(event, event.WhichOneof("event") or "").process.exec_id
    return acting
