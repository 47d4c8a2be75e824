"""What an agent says of itself, from GetVersion and GetInfo, live or as stored beside a recording.

In: `tetragon.GetInfoResponse`. Out: `AgentFacts` for those behind the source, all flags for doctor.
"""

import re

from google.protobuf import any_pb2, struct_pb2, wrappers_pb2

from keytrail.domain.agent import AgentFacts
from keytrail.proto.tetragon import sensors_pb2

Flag = bool | int | str | tuple[str, ...]

_SCALARS = (
    wrappers_pb2.BoolValue,
    wrappers_pb2.StringValue,
    wrappers_pb2.Int64Value,
    wrappers_pb2.Int32Value,
    wrappers_pb2.UInt64Value,
    wrappers_pb2.UInt32Value,
)


def flags_of(info: sensors_pb2.GetInfoResponse) -> dict[str, Flag]:
    """Return the agent's flags by name, without the dashes; a value of a type that no flag has is left out."""
    return {entry.key: value for entry in info.conf if (value := _unpacked(entry.value)) is not None}


def _unpacked(value: any_pb2.Any) -> Flag | None:
    if value.Is(struct_pb2.ListValue.DESCRIPTOR):
        items = struct_pb2.ListValue.FromString(value.value)
        return tuple(item.string_value for item in items.values)
    for scalar in _SCALARS:
        if value.Is(scalar.DESCRIPTOR):
            return scalar.FromString(value.value).value
    return None


def facts_of(version: str, info: sensors_pb2.GetInfoResponse) -> AgentFacts:
    """Summarise. A flag that the agent does not list is a feature that it does not have."""
    flags = flags_of(info)
    if not flags:
        return AgentFacts(version=version or info.version)
    names = flags.get("filter-environment-variables", ())
    return AgentFacts(
        version=version or info.version,
        captures_environment=flags.get("enable-process-environment-variables", False) is True,
        # A list given through a ConfigMap or the environment may have stayed one string.
        environment_filter=names if isinstance(names, tuple) else tuple(re.split(r"[,\s]+", str(names).strip())),
        captures_credentials=flags.get("enable-process-cred", False) is True,
    )
