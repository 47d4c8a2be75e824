"""What the fake says of itself: the JSON replies stored beside a recording come in, Tetragon's messages go out.

Proto JSON as a real agent's replies were stored: GetInfo carries every flag as a google.protobuf.Any, whose types must
be registered to be read. Knows nothing of events.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self, TypeVar

from google.protobuf import json_format, struct_pb2, wrappers_pb2
from google.protobuf.message import Message

from keytrail.proto.tetragon.sensors_pb2 import (
    GetInfoResponse,
    GetVersionResponse,
    ListTracingPoliciesResponse,
    TracingPolicyStatus,
)

Flag = bool | int | str | list[str]

_WRAPPERS: Final = (wrappers_pb2.BoolValue, wrappers_pb2.Int64Value, wrappers_pb2.StringValue, struct_pb2.ListValue)
"""Types of a flag's value; importing them is what registers them with json_format."""

_Reply = TypeVar("_Reply", bound=Message)


@dataclass(frozen=True, slots=True)
class AgentProfile:
    """One agent's version, flags and the policies that it loads at start (from `--tracing-policy-dir`)."""

    version: str = "v1.7.0"
    info: GetInfoResponse = field(default_factory=GetInfoResponse)
    policies: tuple[TracingPolicyStatus, ...] = ()

    @classmethod
    def of_recording(cls, path: Path) -> Self:
        """Read the replies stored with a recording, given its folder or its file; a missing reply is left empty."""
        folder = path if path.is_dir() else path.parent
        version = _read(folder / "GetVersion.json", GetVersionResponse()).version
        info = _read(folder / "GetInfo.json", GetInfoResponse())
        policies = _read(folder / "ListTracingPolicies.json", ListTracingPoliciesResponse()).policies
        return cls(version or info.version or cls().version, info, tuple(policies))

    def with_flags(self, flags: Mapping[str, Flag]) -> Self:
        """Return the same agent started with other flags, by their names on the agent's command line."""
        info = GetInfoResponse()
        info.CopyFrom(self.info)
        for name, value in flags.items():
            entry = next((entry for entry in info.conf if entry.key == name), None) or info.conf.add(key=name)
            entry.value.Pack(_wrap(value))
        return replace(self, info=info)

    def with_version(self, version: str) -> Self:
        """Return the same agent in another version."""
        return replace(self, version=version)

    def flag(self, name: str) -> Flag | None:
        """Return a flag's value, None when the profile does not say."""
        for entry in self.info.conf:
            if entry.key == name:
                for wrapper in _WRAPPERS:
                    value = wrapper()
                    if entry.value.Unpack(value):
                        return list(map(str, value)) if isinstance(value, struct_pb2.ListValue) else value.value
        return None

    def reply_to_get_info(self) -> GetInfoResponse:
        """Return what GetInfo answers."""
        reply = GetInfoResponse(name="tetragon")
        reply.MergeFrom(self.info)
        reply.version = self.version
        return reply


def _wrap(value: Flag) -> Message:
    match value:
        case bool():
            return wrappers_pb2.BoolValue(value=value)
        case int():
            return wrappers_pb2.Int64Value(value=value)
        case str():
            return wrappers_pb2.StringValue(value=value)
    wrapped = struct_pb2.ListValue()
    wrapped.extend(value)
    return wrapped


def _read(path: Path, reply: _Reply) -> _Reply:
    if path.exists():
        json_format.Parse(path.read_text(encoding="utf-8"), reply)
    return reply
