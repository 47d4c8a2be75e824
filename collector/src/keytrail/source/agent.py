"""Single questions and orders to an agent: version, flags, health, TracingPolicies; for commands, not the data path.

In: an address. Out: frozen values with the columns that Tetragon's own tool shows. gRPC errors become AgentError here,
once, with the agent's own words.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

import grpc
import yaml
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message

from keytrail.domain.errors import AgentError
from keytrail.proto.tetragon import sensors_pb2, tetragon_pb2
from keytrail.source.address import Address
from keytrail.source.channel import SERVICE, TlsOptions, open_channel
from keytrail.source.facts import Flag, flags_of
from keytrail.source.status import Reason, code_of, details_of, reason_of

_Reply = TypeVar("_Reply", bound=Message)
_POLL_SECONDS = 0.5
_SETTLED = frozenset({"enabled", "disabled", "load_error", "error", "skipped", "partially_enabled"})
_FAILED = frozenset({"load_error", "error"})
ADVICE = {
    Reason.ABSENT: "is Tetragon running, and is its socket's folder visible here?",
    Reason.UNKNOWN_HOST: "no such host is known here: a socket is given by its whole path or as unix:///PATH",
    Reason.REFUSED: "nobody listens there: is Tetragon running?",
    Reason.DENIED: "the socket belongs to root: run as root or in its group",
    Reason.NOT_GRPC: "something else than a Tetragon agent listens there",
    Reason.TLS: "check the TLS options, and whether the agent speaks TLS at all",
}
"""What to do, or to look at, when the agent cannot be asked."""


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """A TracingPolicy as one agent has it, with the columns of `tetra tracingpolicy list`."""

    id: int
    name: str
    state: str
    """`enabled`, `disabled`, `load_error`, `error`, `loading`, `unloading` or `unknown`; from 1.8 on also `skipped`
    (meant for other nodes) and `partially_enabled`."""
    filter_id: int
    """0 when the policy holds for every process."""
    namespace: str
    """Empty for a policy of the whole cluster."""
    sensors: tuple[str, ...]
    kernel_memory_bytes: int
    mode: str
    """`enforce`, `monitor`, `monitor_only`, `unknown`."""
    npost: int
    """Events posted, as the kernel counts them; 0 from agents before 1.6, as the next two."""
    nenforce: int
    nmonitor: int
    """Enforcements that did not happen because of the mode."""
    error: str


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """What GetInfo says."""

    version: str
    commit: str
    flags: Mapping[str, Flag]
    """By name, without the dashes."""
    probes: Mapping[str, bool]
    """Kernel features that the agent found, or not."""


class AgentClient:
    """Calls to one agent; a context manager. Every method raises AgentError; `timeout` is seconds for one call."""

    def __init__(self, address: Address, tls: TlsOptions | None = None, *, timeout: float = 10.0) -> None:
        self._address = address
        self._channel = open_channel(address, tls)
        self._timeout = timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def version(self) -> str:
        """Return the agent's version, such as `v1.7.0`."""
        return self._call("GetVersion", sensors_pb2.GetVersionRequest(), sensors_pb2.GetVersionResponse).version

    def info(self) -> AgentInfo:
        """Return flags and kernel features. Agents before 1.7 do not know the call: status UNIMPLEMENTED."""
        reply = self._call("GetInfo", sensors_pb2.GetInfoRequest(), sensors_pb2.GetInfoResponse)
        probes = {probe.Name: probe.Enabled.value for probe in reply.probes}
        return AgentInfo(reply.version, reply.build.commit, flags_of(reply), probes)

    def health(self) -> str:
        """Return `running`, `stopped`, `error` or `undef`."""
        request = tetragon_pb2.GetHealthStatusRequest(event_set=[tetragon_pb2.HEALTH_STATUS_TYPE_STATUS])
        reply = self._call("GetHealth", request, tetragon_pb2.GetHealthStatusResponse)
        results = [status.status for status in reply.health_status]
        return _word(tetragon_pb2.HealthStatusResult, results[0] if results else 0, "HEALTH_STATUS_")

    def list_policies(self) -> list[PolicyStatus]:
        """Return all policies of the agent, sorted by id."""
        request = sensors_pb2.ListTracingPoliciesRequest()
        reply = self._call("ListTracingPolicies", request, sensors_pb2.ListTracingPoliciesResponse)
        return sorted(map(_policy, reply.policies), key=lambda policy: policy.id)

    def add_policy(
        self,
        manifest: str,
        wait_seconds: float = 60.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> PolicyStatus:
        """Load a policy and wait until the agent has settled on it; AgentError when it failed, with the agent's reason.

        A call that takes too long has not failed: the verifier can need minutes, and the agent goes on. So the list of
        policies decides, until `wait_seconds` are over.
        """
        end = clock() + wait_seconds
        try:
            self._call(
                "AddTracingPolicy",
                sensors_pb2.AddTracingPolicyRequest(yaml=manifest),
                sensors_pb2.AddTracingPolicyResponse,
                timeout=min(self._timeout, wait_seconds),
            )
        except AgentError as error:
            if error.status != grpc.StatusCode.DEADLINE_EXCEEDED.name:
                raise
        name, namespace = _name_of(manifest)
        while True:
            found = next((p for p in self.list_policies() if (p.name, p.namespace) == (name, namespace)), None)
            if found is not None and found.state in _FAILED:
                raise AgentError(f"policy {name}: {found.state}: {found.error}")
            if found is not None and found.state in _SETTLED:
                return found
            if clock() >= end:
                state = found.state if found is not None else "not listed"
                raise AgentError(f"policy {name}: still {state} after {wait_seconds:g} s; the agent may yet load it")
            sleep(_POLL_SECONDS)

    def delete_policy(self, name: str, namespace: str = "") -> None:
        """Unload a policy and forget it."""
        request = sensors_pb2.DeleteTracingPolicyRequest(name=name, namespace=namespace)
        self._call("DeleteTracingPolicy", request, sensors_pb2.DeleteTracingPolicyResponse)

    def _call(self, method: str, request: Message, reply: type[_Reply], *, timeout: float | None = None) -> _Reply:
        call = self._channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=reply.FromString,
        )
        try:
            answer: _Reply = call(request, timeout=timeout or self._timeout)
        except grpc.RpcError as error:
            raise self._error(method, error) from None
        return answer

    def _error(self, method: str, error: grpc.RpcError) -> AgentError:
        status = code_of(error).name
        advice = ADVICE.get(reason_of(error))
        text = f"agent at {self._address}: {method}: {details_of(error) or status}"
        return AgentError(f"{text} ({advice})" if advice else text, status)


def _policy(status: sensors_pb2.TracingPolicyStatus) -> PolicyStatus:
    counts = status.stats.action_counters
    return PolicyStatus(
        id=status.id,
        name=status.name,
        state=_word(sensors_pb2.TracingPolicyState, status.state, "TP_STATE_"),
        filter_id=status.filter_id,
        namespace=status.namespace,
        sensors=tuple(status.sensors),
        kernel_memory_bytes=status.kernel_memory_bytes,
        mode=_word(sensors_pb2.TracingPolicyMode, status.mode, "TP_MODE_"),
        npost=counts.post,
        nenforce=counts.signal + counts.override + counts.notify_enforcer + counts.set,
        nmonitor=(
            counts.monitor_signal + counts.monitor_override + counts.monitor_notify_enforcer + counts.monitor_set
        ),
        error=status.error,
    )


def _word(enum: EnumTypeWrapper, number: int, prefix: str) -> str:
    """Return a value's name in the spelling of Tetragon's tool; the number where a newer agent has more of them."""
    known = enum.DESCRIPTOR.values_by_number.get(number)
    return known.name.removeprefix(prefix).lower() if known is not None else str(number)


def _name_of(manifest: str) -> tuple[str, str]:
    """Return name and namespace of a policy that the agent accepted: how it is listed."""
    try:
        metadata = yaml.safe_load(manifest)["metadata"]
        return str(metadata["name"]), str(metadata.get("namespace", ""))
    except (yaml.YAMLError, TypeError, KeyError, AttributeError):
        raise AgentError("the policy was sent, but has no metadata.name to look for in the agent's list") from None
