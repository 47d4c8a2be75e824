"""A raw message in, the same message read only as deep as the hot path needs out.

An agent repeats the whole process, its parent and its ancestors, environments included, in each event, which makes four
fifths of a message and of the time that parsing takes. The classes here are made from the declarations in `proto` with
three changes: of `process` only what tells it from others is read, `parent` and `ancestors` stay bytes, and what is the
same for each event of a node is left out. Nothing is lost: what is not declared is kept, and `whole` reads it.
"""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor

from keytrail.proto.tetragon import events_pb2
from keytrail.proto.tetragon import tetragon_pb2 as pb

_PROCESS: Final = ".tetragon.Process"
_KEPT: Final = {
    "Process": ("exec_id", "tid", "pod"),
    "GetEventsResponse": (
        *(field.name for field in events_pb2.GetEventsResponse.DESCRIPTOR.oneofs_by_name["event"].fields),
        "node_name",
        "time",
    ),
}
"""Fields that stay declared, of the messages that lose others."""


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
        if of_process or (message.name, field.name) == ("Process", "pod"):
            field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
            field.ClearField("type_name")


def _add(pool: descriptor_pool.DescriptorPool, file: FileDescriptor, added: set[str]) -> None:
    if file.name in added:
        return
    added.add(file.name)
    for dependency in file.dependencies:
        _add(pool, dependency, added)
    declared = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(declared)
    for message in declared.message_type:
        _reduce(message)
    pool.AddSerializedFile(declared.SerializeToString())


def _parser() -> Callable[[bytes], Any]:
    pool = descriptor_pool.DescriptorPool()
    _add(pool, events_pb2.DESCRIPTOR, set())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tetragon.GetEventsResponse")).FromString


parse: Final = _parser()
"""Parse one message of the stream. Raises DecodeError."""
