"""Events made up by a test, in the agent's own messages: only where no recording can have the case."""

import base64
from collections.abc import Mapping
from typing import Any

from keytrail.proto.tetragon import events_pb2, tetragon_pb2

START = 1_795_000_000


def exec_id(pid: int, node: str = "node-1") -> str:
    """The agent's form of one: base64 of node, monotonic time and pid."""
    return base64.b64encode(f"{node}:{pid * 1000}:{pid}".encode()).decode()


def process(
    pid: int, *, environment: Mapping[str, str] | None = None, parent: int = 1, **fields: Any
) -> tetragon_pb2.Process:
    """A process message."""
    made = tetragon_pb2.Process(exec_id=exec_id(pid), parent_exec_id=exec_id(parent), flags="execve clone", **fields)
    made.pid.value = pid
    made.tid.value = pid
    made.uid.value = 1000
    made.start_time.seconds = START + pid
    for name, value in (environment or {}).items():
        made.environment_variables.add(Key=name, Value=value)
    return made


def exec_event(acting: tetragon_pb2.Process, parent: tetragon_pb2.Process | None = None) -> bytes:
    """A process_exec."""
    event = events_pb2.GetEventsResponse(node_name="node-1")
    event.time.seconds = START + acting.pid.value
    event.process_exec.process.CopyFrom(acting)
    if parent is not None:
        event.process_exec.parent.CopyFrom(parent)
    return event.SerializeToString()


def loader_event(acting: tetragon_pb2.Process, path: str) -> bytes:
    """A process_loader, which carries no time."""
    event = events_pb2.GetEventsResponse(node_name="node-1")
    event.process_loader.process.CopyFrom(acting)
    event.process_loader.path = path
    return event.SerializeToString()


def kprobe_event(
    acting: tetragon_pb2.Process, function: str, *args: Mapping[str, Any], policy: str = "p", nanos: int = 0
) -> bytes:
    """A process_kprobe; each argument is the fields of a KprobeArgument."""
    event = events_pb2.GetEventsResponse(node_name="node-1")
    event.time.seconds = START + acting.pid.value
    event.time.nanos = nanos
    kprobe = event.process_kprobe
    kprobe.process.CopyFrom(acting)
    kprobe.function_name = function
    kprobe.policy_name = policy
    for fields in args:
        kprobe.args.add(**fields)
    return event.SerializeToString()
