"""Processes as the decoder reads them, in part and with a memory, beside the plainest reading that there is."""

from typing import Any

import pytest
from google.protobuf.message import DecodeError

from keytrail.decode.decoder import MALFORMED, Decoder
from keytrail.decode.redact import Redactor
from keytrail.domain.agent import AgentFacts
from keytrail.domain.event import EventKind
from keytrail.domain.process import Process
from keytrail.proto.tetragon import events_pb2
from keytrail.proto.tetragon import tetragon_pb2 as pb
from support.recordings import STREAMS, decode_each, messages


def plain(text: str, _program: str = "", /) -> tuple[str, tuple[str, ...]]:
    """Leave the text as it is."""
    return text, ()


def of_whole_message(sent: pb.Process) -> dict[str, Any]:
    """Read a process as plainly as can be: everything parsed, nothing remembered."""
    ids = {name: getattr(sent, name).value if sent.HasField(name) else -1 for name in ("uid", "auid")}
    names = [variable.Key for variable in sent.environment_variables if variable.Value]
    seen = sent.ns.pid.inum and sent.ns.mnt.inum
    pod = sent.pod if sent.HasField("pod") else None
    return {
        "exec_id": sent.exec_id,
        "pid": sent.pid.value,
        "binary": sent.binary,
        "arguments": sent.arguments,
        "cwd": sent.cwd,
        "flags": sent.flags,
        "uid": -1 if ids["uid"] == 4_294_967_295 else ids["uid"],
        "auid": -1 if ids["auid"] == 4_294_967_295 else ids["auid"],
        "start_ns": sent.start_time.ToNanoseconds(),
        "parent_exec_id": sent.parent_exec_id,
        "container_id": sent.docker,
        "in_init_tree": sent.in_init_tree.value,
        "host_namespaces": sent.ns.pid.is_host and sent.ns.mnt.is_host if seen else None,
        "names": tuple(dict.fromkeys(names)) or None,
        "pod": pod and (pod.namespace, pod.name, pod.uid, pod.workload, pod.workload_kind),
        "container": pod and (pod.container.id.rpartition("//")[2], pod.container.name, pod.container.image.name),
    }


def of_process(process: Process) -> dict[str, Any]:
    """Show what the decoder made of it in the same words."""
    pod, same = process.pod, ("binary", "arguments", "cwd", "flags", "uid", "auid", "start_ns", "parent_exec_id")
    return {
        **{name: getattr(process, name) for name in ("exec_id", "pid", *same)},
        **{name: getattr(process, name) for name in ("container_id", "in_init_tree", "host_namespaces")},
        "names": process.environment or None,
        "pod": pod and (pod.namespace, pod.name, pod.uid, pod.workload, pod.workload_kind),
        "container": pod and (pod.container.id, pod.container.name, pod.container.image),
    }


@pytest.mark.parametrize("name", STREAMS)
def test_a_process_is_what_its_whole_message_says(name: str) -> None:
    """Reading a message in part, and knowing environments and pods again, changes nothing of any process.

    But for labels, which may be a second old.
    """
    execs = 0
    for raw, event in zip(messages(name), decode_each(Decoder(plain), messages(name)), strict=True):
        if event.kind is EventKind.EXEC:
            sent = events_pb2.GetEventsResponse.FromString(raw).process_exec.process
            assert of_process(event.process) == of_whole_message(sent)
            execs += 1
    assert execs


def test_environments_without_end_are_not_remembered_without_end() -> None:
    """Whoever gives each process other variables makes the decoder forget, what it knows by a hash included."""
    decoder = Decoder(plain)
    for number in range(300):
        process = pb.Process(exec_id=f"id-{number}")
        process.environment_variables.extend(pb.EnvVar(Key=f"N{number}_{at}", Value="x") for at in range(1_000))
        message = events_pb2.GetEventsResponse(process_exec=pb.ProcessExec(process=process))
        next(decode_each(decoder, [message.SerializeToString()]))
    kept = decoder._reader._read_before.values()
    assert 0 < sum(map(len, kept)) <= 262_144


def test_a_text_that_held_a_credential_is_known_again_without_keeping_it() -> None:
    """Read twice, a command line is redacted once, the same both times; what is kept has no value, and is bounded."""
    asked: list[str] = []

    def redact(text: str, program: str = "", /) -> tuple[str, tuple[str, ...]]:
        asked.append(text)
        return Redactor().redact(text, program)

    def start(decoder: Decoder, number: int, password: str) -> Process:
        process = pb.Process(exec_id=f"id-{number}", binary="/bin/redis-cli", arguments=f"-a {password} ping")
        message = events_pb2.GetEventsResponse(process_exec=pb.ProcessExec(process=process))
        return next(decode_each(decoder, [message.SerializeToString()])).process

    decoder = Decoder(redact)
    first, again = (start(decoder, number, "hunter-2-hunter") for number in range(2))
    assert asked.count("-a hunter-2-hunter ping") == 1
    assert first.arguments == again.arguments == "-a [redacted] ping"
    assert first.argument_credentials == again.argument_credentials != ()
    assert "hunter" not in repr((decoder._reader._redacted, decoder._reader._harmless))
    for number in range(1_100):
        start(decoder, number, f"other-secret-{number}")
    assert 0 < len(decoder._reader._redacted) <= 1_024
    assert start(decoder, 0, "hunter-2-hunter").arguments == "-a [redacted] ping"


def test_namespaces_that_cannot_be_read_make_a_message_malformed() -> None:
    """They are read apart from the rest: an event that has broken ones is undecodable, a process is left out."""
    broken = (
        pb.Process(exec_id="broken").SerializeToString() + b"\x7a\x02\x0a\x7f"
    )  # ns (15): cut inside its first field
    with pytest.raises(DecodeError):
        pb.Process.FromString(broken)
    decoder = Decoder(plain)
    assert decoder.decode(b"\x0a" + bytes([len(broken) + 2]) + b"\x0a" + bytes([len(broken)]) + broken) == MALFORMED
    decoder.connect(AgentFacts(), [broken, pb.Process(exec_id="whole").SerializeToString()])
    assert [process.exec_id for process in decoder.table] == ["whole"]
