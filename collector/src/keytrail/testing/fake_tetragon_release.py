"""What an older Tetragon does not have: a message goes in, the same message without newer fields comes out.

Only descriptors are touched: the release's own schema is built by taking out of ours what came later, a message is
parsed with it, and whatever that schema does not know is discarded, exactly as if the release had never written it.
Knows nothing of the server. Source of the table: Tetragon's release tags, compared field by field.
"""

from functools import cache
from typing import Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message

from keytrail.proto.tetragon import eventlogservice_pb2, events_pb2, sensors_pb2, tetragon_pb2

RELEASES: Final = ("1.4", "1.5", "1.6", "1.7", "1.8")

EVENT: Final = "tetragon.GetEventsResponse"

# Release -> message -> fields that it brought. 1.4 is the oldest agent that Keytrail reads.
_ADDED: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "1.5": {
        "Container": ("security_context",),
        "GetEventsResponse": ("node_labels",),
        "Pod": ("pod_annotations",),
        "ProcessUprobe": ("offset", "ref_ctr_offset"),
    },
    "1.6": {
        "Filter": ("container_name_regex",),
        "GetEventsResponse": ("process_usdt",),
        "KprobeArgument": ("bpf_prog_arg",),
        "Pod": ("uid",),
        "ProcessKprobe": ("data",),
        "ProcessUprobe": ("action",),
        "TracingPolicyStatus": ("stats",),
    },
    "1.7": {
        "CreateContainer": ("mounts",),
        "Filter": ("namespace_regex",),
        "KprobeArgument": ("error_arg", "sockaddrun_arg"),
        "Process": ("environment_variables",),
        "ProcessLoader": ("parent", "ancestors"),
        "ProcessUprobe": ("data",),
    },
    "1.8": {
        "AddTracingPolicyRequest": ("domain",),
        "ConfigureTracingPolicyRequest": ("domain",),
        "DeleteTracingPolicyRequest": ("domain",),
        "DisableTracingPolicyRequest": ("domain",),
        "EnableTracingPolicyRequest": ("domain",),
        "ListTracingPoliciesRequest": ("domain",),
        "TracingPolicyActionCounters": ("nopost",),
        "TracingPolicyStats": ("selector_action_counters",),
        "TracingPolicyStatus": ("domain", "hook_statuses"),
    },
}
_RPC_SINCE: Final = {"GetInfo": "1.7", "ListDomains": "1.8"}


def not_before(release: str | None, since: str) -> bool:
    """Whether `release` is `since` or newer; None is the newest."""
    return release is None or RELEASES.index(release) >= RELEASES.index(since)


def has_rpc(release: str | None, method: str) -> bool:
    """Whether an agent of this release answers the method at all, rather than UNIMPLEMENTED."""
    return not_before(release, _RPC_SINCE.get(method, RELEASES[0]))


def strip_to_release(message: bytes, release: str, message_type: str = EVENT) -> bytes:
    """Return the serialized message as an agent of `release` would have written it.

    Unchanged bytes when nothing in it is newer. An event of a kind that the release does not have gives `b""`, which no
    agent ever sends. Raises DecodeError for bytes that are no such message.
    """
    parsed = _message_class(release, message_type).FromString(message)
    size = parsed.ByteSize()
    parsed.DiscardUnknownFields()
    if message_type == EVENT and parsed.WhichOneof("event") is None:
        return b""
    return message if parsed.ByteSize() == size else parsed.SerializeToString(deterministic=True)


@cache
def _message_class(release: str, message_type: str) -> type[Message]:
    return message_factory.GetMessageClass(_pool(release).FindMessageTypeByName(message_type))


@cache
def _pool(release: str) -> descriptor_pool.DescriptorPool:
    """Build a schema of its own for the release: our files without the fields that came later."""
    newer = {
        (message, field)
        for since, messages in _ADDED.items()
        if not not_before(release, since)
        for message, fields in messages.items()
        for field in fields
    }
    pool = descriptor_pool.DescriptorPool()
    added: set[str] = set()

    def add(file: FileDescriptor) -> None:
        if file.name in added:
            return
        added.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        proto = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(proto)
        for message in proto.message_type:
            for index in reversed(range(len(message.field))):
                if file.package == "tetragon" and (message.name, message.field[index].name) in newer:
                    _remove_field(message, index)
        pool.Add(proto)

    for module in (tetragon_pb2, events_pb2, sensors_pb2, eventlogservice_pb2):
        add(module.DESCRIPTOR)
    return pool


def _remove_field(message: descriptor_pb2.DescriptorProto, index: int) -> None:
    """Delete a field, and the oneof that it leaves empty (proto3 `optional` is a oneof of one)."""
    field = message.field[index]
    oneof = field.oneof_index if field.HasField("oneof_index") else None
    del message.field[index]
    if oneof is None or any(f.HasField("oneof_index") and f.oneof_index == oneof for f in message.field):
        return
    del message.oneof_decl[oneof]
    for other in message.field:
        if other.HasField("oneof_index") and other.oneof_index > oneof:
            other.oneof_index -= 1
