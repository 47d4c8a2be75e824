"""A raw message in, the same message read only as deep as the hot path needs out.

An agent repeats the whole process, its parent and its ancestors, environments included, in each event, which makes four
fifths of a message and of the time that parsing takes. The classes here are made from the declarations in `proto` with
four changes: of `process` only what tells it from others is read, but for an exec what its `Process` object needs;
`parent`, `ancestors`, namespaces and each variable of an environment stay bytes; labels and what is the same for each
event of a node are left out. Nothing is lost: what is not declared is kept, and `whole` and `whole_pod` read it.
"""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor

from keytrail.proto.tetragon import events_pb2
from keytrail.proto.tetragon import tetragon_pb2 as pb

_PROCESS: Final = ".tetragon.Process"
_READ_PROCESS: Final = "ReadProcess"
_READ_POD: Final = "ReadPod"
_KEPT: Final = {
    "Process": ("exec_id", "tid", "pod"),
    _READ_PROCESS: (
        "exec_id",
        "pid",
        "uid",
        "cwd",
        "binary",
        "arguments",
        "flags",
        "start_time",
        "auid",
        "pod",
        "docker",
        "parent_exec_id",
        "tid",
        "in_init_tree",
        "environment_variables",
        "ns",
        "cap",
        "binary_properties",
        "process_credentials",
    ),
    _READ_POD: ("namespace", "name", "uid", "container", "workload", "workload_kind"),
    "GetEventsResponse": (
        *(field.name for field in events_pb2.GetEventsResponse.DESCRIPTOR.oneofs_by_name["event"].fields),
        "node_name",
        "time",
    ),
}
"""Fields that stay declared, of the messages that lose others."""
_AS_BYTES: Final = {("Process", "pod"), (_READ_PROCESS, "environment_variables"), (_READ_PROCESS, "ns")}
_AS_READ: Final = {("ProcessExec", "process"): _READ_PROCESS, (_READ_PROCESS, "pod"): _READ_POD}
_COPIES: Final = {"Process": _READ_PROCESS, "Pod": _READ_POD}
"""Messages that are needed in a second form."""


def whole_pod(pod: Any) -> pb.Pod:
    """Read all of a pod that was read in part. Raises DecodeError."""
    return pb.Pod.FromString(pod.SerializeToString())


def whole(process: Any) -> pb.Process:
    """Read all of a process that was read in part. Raises DecodeError."""
    return pb.Process.FromString(process.SerializeToString())


def _reduce(message: descriptor_pb2.DescriptorProto) -> None:
    kept = _KEPT.get(message.name)
    if kept is not None:
        fields = [field for field in message.field if field.name in kept]
        del message.field[:]
        message.field.extend(fields)
    for field in message.field:
        of_process = field.type_name == _PROCESS and field.name != "process"
        if of_process or (message.name, field.name) in _AS_BYTES:
            field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
            field.ClearField("type_name")
        elif (message.name, field.name) in _AS_READ:
            field.type_name = f".tetragon.{_AS_READ[message.name, field.name]}"


def _add(pool: descriptor_pool.DescriptorPool, file: FileDescriptor, added: set[str]) -> None:
    if file.name in added:
        return
    added.add(file.name)
    for dependency in file.dependencies:
        _add(pool, dependency, added)
    declared = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(declared)
    for message in list(declared.message_type):
        if message.name in _COPIES:
            copy = declared.message_type.add()
            copy.CopyFrom(message)
            copy.name = _COPIES[message.name]
            del copy.nested_type[:]  # the entries of its maps, which are not read
    for message in declared.message_type:
        _reduce(message)
    pool.AddSerializedFile(declared.SerializeToString())


def _parsers() -> tuple[Callable[[bytes], Any], Callable[[bytes], Any]]:
    pool = descriptor_pool.DescriptorPool()
    _add(pool, events_pb2.DESCRIPTOR, set())
    event, process = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tetragon.{name}")).FromString
        for name in ("GetEventsResponse", _READ_PROCESS)
    )
    return event, process


parse, parse_process = _parsers()
"""Parse one message of the stream; a process as an exec event shows it. Raise DecodeError."""
