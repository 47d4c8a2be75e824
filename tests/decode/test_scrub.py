"""Scrubbed messages: no secret left, and all that identities and rules need."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keytrail.decode.decoder import Decoder
from keytrail.decode.redact import Redactor
from keytrail.decode.scrub import scrub
from keytrail.proto.tetragon import events_pb2
from keytrail.proto.tetragon import tetragon_pb2 as pb
from support.canaries import generate
from support.recordings import STREAMS, decode_each, decoded_once, messages
from support.variants import with_long

redact = Redactor().redact
FAKE = (b"test-not-a-real-key", b"sk-test-not-a-real", b"sk-ant-")


@cache
def scrubbed(name: str) -> tuple[bytes, ...]:
    """A recording as `record` writes it; fails when a message cannot be."""
    made = [scrub(raw, redact) for raw in messages(name)]
    kept = tuple(raw for raw in made if raw is not None)
    assert len(kept) == len(made)
    return kept


@pytest.mark.parametrize("name", with_long(STREAMS, "burst", "event-flood", "policy-library"))
def test_recorded_events_mean_the_same(name: str) -> None:
    """A scrubbed recording has the same kinds, processes, variables, files, sockets and names sent in clear."""
    events = decode_each(Decoder(redact), scrubbed(name))
    for before, after in zip(decoded_once(name), events, strict=True):
        assert (after.kind, after.function, after.time_ns, after.tid) == (
            before.kind,
            before.function,
            before.time_ns,
            before.tid,
        )
        a, b = before.process, after.process
        assert (b.exec_id, b.binary, b.arguments, b.cwd, b.uid) == (a.exec_id, a.binary, a.arguments, a.cwd, a.uid)
        if a.environment:
            assert b.environment == a.environment
        assert after.details.network == before.details.network
        assert after.details.file == before.details.file
        assert after.details.operation == before.details.operation
        sent, kept = before.details.payload, after.details.payload
        assert (sent is None) is (kept is None)
        if sent is not None and kept is not None:
            assert (kept.size, kept.protocol) == (sent.size, sent.protocol)
            assert (kept.server_name, kept.http_host, kept.dns_name) == (
                sent.server_name,
                sent.http_host,
                sent.dns_name,
            )


@pytest.mark.parametrize("name", ["policy-library", "kubernetes", "sensors", "seed-demo"])
def test_the_keys_of_the_recordings_are_gone(name: str) -> None:
    """None of the keys that the recordings' processes were given is left, in any field of any process."""
    before = b"".join(messages(name))
    after = b"".join(scrubbed(name))
    assert any(key in before for key in FAKE)
    assert not any(key in after for key in FAKE)


def _carrying(text: str, value: str, place: str) -> events_pb2.GetEventsResponse:
    message = events_pb2.GetEventsResponse()
    process = pb.Process(exec_id="a", binary="/usr/bin/app", pid={"value": 7})
    variable = process.environment_variables.add()
    variable.Key, variable.Value = "SERVICE_TOKEN", "kept"
    pod = process.pod
    pod.name = "web"
    if place == "environment":
        variable.Value = value
    elif place == "arguments":
        process.arguments = text
    elif place == "annotation":
        pod.pod_annotations["last-applied"] = text
    kprobe = message.process_kprobe
    kprobe.function_name = "tcp_sendmsg"
    kprobe.args.add().sock_arg.family = "AF_INET"
    if place == "payload":
        kprobe.args.add().bytes_arg = text.encode()
    elif place == "hello":
        kprobe.args.add().bytes_arg = b"\x16\x03\x01\x02\x00\x01" + text.encode()
    elif place == "cut payload":
        kprobe.args.add().truncated_bytes_arg.bytes_arg = text.encode()
    elif place == "text":
        kprobe.args.add().string_arg = text
    elif place == "return":
        getattr(kprobe, "return").bytes_arg = text.encode()
    kprobe.args.add().size_arg = 900
    if place == "ancestor":
        process.arguments = text
        kprobe.ancestors.add().CopyFrom(process)
        process.arguments = ""
    kprobe.process.CopyFrom(process)
    kprobe.parent.CopyFrom(process)
    return message


PLACES = ("environment", "payload", "hello", "cut payload", "text", "return", "annotation", "arguments", "ancestor")


@pytest.mark.parametrize("place", PLACES)
def test_canaries(place: str) -> None:
    """No generated credential survives in the bytes of a scrubbed message, wherever it was."""
    survivors = []
    for canary in generate(7, 300):
        raw = scrub(_carrying(canary.text, canary.value, place).SerializeToString(), redact)
        assert raw is not None
        if canary.value.encode() in raw:
            survivors.append(f"{canary.shape}, {canary.wrapping}")
        found = next(decode_each(Decoder(redact), [raw]))
        assert found.kind == "send"
        assert found.process.environment == ("SERVICE_TOKEN",)
        assert found.process.pod is not None
        assert found.process.pod.name == "web"
    assert survivors == []


def test_text_of_user_space_functions_goes() -> None:
    """What a uprobe or usdt reads is what a program handles, such as a password: none of it is kept."""
    for event in (
        events_pb2.GetEventsResponse(process_uprobe={"symbol": "readline", "args": [{"string_arg": "hunter2"}]}),
        events_pb2.GetEventsResponse(process_usdt={"name": "query", "args": [{"bytes_arg": b"hunter2"}]}),
    ):
        raw = scrub(event.SerializeToString(), redact)
        assert raw is not None
        assert b"hunter2" not in raw


def test_fields_that_nobody_declared_go() -> None:
    """A newer agent's fields may hold anything, at any depth."""
    message = events_pb2.GetEventsResponse(process_exec={"process": {"exec_id": "a"}})
    message.process_exec.process.MergeFromString(b"\xc2\x3e\x06secret")
    assert b"secret" in message.SerializeToString()
    assert b"secret" not in (scrub(message.SerializeToString(), redact) or b"")


def test_what_was_not_sent_is_not_made() -> None:
    """Scrubbing adds no process, parent or pod that a message did not have."""
    message = events_pb2.GetEventsResponse(process_kprobe={"function_name": "f", "process": {"exec_id": "a"}})
    raw = message.SerializeToString()
    assert scrub(raw, redact) == raw


@pytest.mark.parametrize("raw", [b"\xff", b"", events_pb2.GetEventsResponse(node_name="n").SerializeToString()])
def test_what_cannot_be_read_is_not_kept(raw: bytes) -> None:
    """Nobody knows what is in bytes that cannot be parsed or hold no known event."""
    assert scrub(raw, redact) is None


@given(st.sampled_from(messages("policy-library")[:200]), st.binary(min_size=1, max_size=20), st.integers(0, 400))
def test_damaged_messages_never_raise(raw: bytes, noise: bytes, at: int) -> None:
    """Whatever damage, the answer is a message or None."""
    found = scrub(raw[:at] + noise + raw[at:], redact)
    assert found is None or isinstance(found, bytes)
