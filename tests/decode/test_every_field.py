"""Every text that the agent's API has room for: what a process chooses is redacted, in each form and in a recording."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from keytrail.decode.decoder import Decoder
from keytrail.decode.details import DecodedEvent
from keytrail.decode.hooks import HOOKS
from keytrail.decode.redact import Redactor
from keytrail.decode.scrub import scrub
from keytrail.domain.drop import Drop
from keytrail.export.json_line import event_line
from keytrail.export.otlp_encode import RecordEncoder
from keytrail.export.terminal_line import terminal_line
from keytrail.proto.tetragon import events_pb2

CANARY = "ghp_Ab3dE6gH9jAb3dE6gH9jAb3dE6gH9jXy12Zw"
PIECES = {CANARY[start : start + 6].encode() for start in range(4, len(CANARY) - 5)}
DEEPEST = 7
_TEXT = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)

Path = tuple[str, ...]

OTHERS_CHOOSE = {
    "the agent or the kernel": {
        "exec_id", "parent_exec_id", "docker", "flags", "process_exit.signal", "buildid", "ima_hash", "function_name",
        "subsys", "event", "kernel_cap_t_arg", "cap_inheritable_arg", "cap_permitted_arg", "cap_effective_arg",
        "family", "protocol", "saddr", "daddr", "addr", "ProgType", "MapType", "Type",
    },
    "whoever creates a Pod": {
        "pod.namespace", "pod.name", "pod.uid", "pod.workload", "pod.workload_kind", "pod.pod_labels", "container.id",
        "container.name", "image.id", "image.name",
    },
    "whoever adds a user to the node": {"user.name"},
    "whoever loads a TracingPolicy": {"policy_name", "message", "tags", "label", "provider", "process_usdt.name"},
    "whoever runs the agent": {"node_name", "cluster_name", "node_labels"},
}  # fmt: skip
"""Names that are no process's to choose, by the end of their path; they stay as they are."""
KEPT = frozenset().union(*OTHERS_CHOOSE.values())


def paths(of: Any, depth: int = 0) -> Iterator[Path]:
    """Every way from a message to a text in it."""
    for field in of.fields:
        inner = field.message_type
        if field.type in _TEXT or (inner is not None and inner.GetOptions().map_entry):
            yield (field.name,)
        elif inner is not None and depth < DEEPEST:
            yield from ((field.name, *rest) for rest in paths(inner, depth + 1))


def put(message: Any, path: Path) -> None:
    """Write the canary at the end of a path."""
    name, *rest = path
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.type in _TEXT:
        value = CANARY.encode() if field.type == FieldDescriptor.TYPE_BYTES else CANARY
        getattr(message, name).append(value) if field.is_repeated else setattr(message, name, value)
    elif field.message_type.GetOptions().map_entry:
        getattr(message, name).update({CANARY: CANARY})
    else:
        inner = getattr(message, name)
        put(inner.add() if field.is_repeated else inner, tuple(rest))


def is_kept(path: Path) -> bool:
    """Whether a process has no say in what stands there."""
    return path[-1] in KEPT or ".".join(path[-2:]) in KEPT


ALL = list(paths(events_pb2.GetEventsResponse.DESCRIPTOR))


def shows(written: bytes) -> bool:
    """Whether six characters of the canary in a row are in it."""
    return any(piece in written for piece in PIECES)


def written_of(event: DecodedEvent) -> bytes:
    """All that any output writes of an event."""
    event.backfilled = False
    encoder = RecordEncoder({}, lambda: 1)
    key, record = encoder.encode(event)
    ancestors = [(up.binary, up.arguments, up.cwd, up.environment) for up in event.ancestors()]
    texts = (event_line(event), terminal_line(event, color=False), repr(key), repr(event.details), repr(ancestors))
    return record + "\n".join(texts).encode()


def test_the_api_has_no_text_that_was_forgotten() -> None:
    """Of hundreds of texts, in all places, those that a process chooses are in no output; new ones are found here."""
    decoded, shown = 0, set()
    for path in ALL:
        message = events_pb2.GetEventsResponse()
        put(message, path)
        event = Decoder(Redactor().redact).decode(message.SerializeToString())
        if isinstance(event, Drop):
            assert len(path) == 1  # a message without an event
            continue
        decoded += 1
        if shows(written_of(event)):
            shown.add(path)
    assert decoded > 900
    assert {path for path in shown if not is_kept(path)} == set()


def test_nor_has_a_recording() -> None:
    """The same of what `record` writes, in the bytes of the message."""
    redact = Redactor().redact
    kept = set()
    for path in ALL:
        message = events_pb2.GetEventsResponse()
        put(message, path)
        scrubbed = scrub(message.SerializeToString(), redact)
        if scrubbed is not None and shows(scrubbed):
            kept.add(path)
    assert {path for path in kept if not is_kept(path)} == set()


@pytest.mark.parametrize("event", ["process_kprobe", "process_lsm", "process_tracepoint", "process_uprobe"])
def test_no_reader_lets_a_text_through(event: str) -> None:
    """Every hook that Keytrail has words for, with each type of argument in each position, shows no piece of it."""
    arguments = [path[2:] for path in ALL if path[:2] == (event, "args") and not is_kept(path)]
    decoder, seen, shown = Decoder(Redactor().redact), 0, set()
    for function in HOOKS:
        for path in arguments:
            message = events_pb2.GetEventsResponse()
            inner = getattr(message, event)
            if event == "process_tracepoint":
                inner.subsys, _, inner.event = function.rpartition("/")
            elif event == "process_uprobe":
                inner.symbol = function
            else:
                inner.function_name = function
            for _ in range(4):
                put(inner.args.add(), path)
            found = decoder.decode(message.SerializeToString())
            assert not isinstance(found, Drop)
            if shows(repr(found.details).encode()):
                shown.add((function, path))
            seen += 1
    assert seen > 1_000
    assert shown == set()


@pytest.mark.parametrize("length", range(6, 20))
def test_half_a_credential_goes_with_its_word(length: int) -> None:
    """Arguments that the agent cut off lose their last word, whatever is left of it, here and in a recording."""
    message = events_pb2.GetEventsResponse()
    process = message.process_exec.process
    process.binary, process.arguments, process.flags = "/bin/run", f"--fast {CANARY[:length]}", "execve truncArgs"
    redact = Redactor().redact
    for raw in (message.SerializeToString(), scrub(message.SerializeToString(), redact) or b""):
        event = Decoder(redact).decode(raw)
        assert not isinstance(event, Drop)
        assert event.process.arguments == "--fast [cut]"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (f"{CANARY[:36]}.{CANARY[36:]}Zk9Lm2.t.evil.example", "[redacted].[redacted].t.evil.example"),
        (f"www.{CANARY}", "www.[redacted]"),
        (CANARY, "[redacted]"),
        ("selector2021.very-ordinary.example.org", "selector2021.very-ordinary.example.org"),
    ],
)
def test_a_credential_in_several_labels_of_a_host(name: str, shown: str) -> None:
    """A key that is looked up in pieces loses all that are long enough to say something; other names stay."""
    message = events_pb2.GetEventsResponse()
    message.process_kprobe.function_name = "tcp_sendmsg"
    message.process_kprobe.args.add(bytes_arg=f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
    event = Decoder(Redactor().redact).decode(message.SerializeToString())
    assert not isinstance(event, Drop)
    assert event.details.payload is not None
    assert event.details.payload.http_host == shown.lower()
