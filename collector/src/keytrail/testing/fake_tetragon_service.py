"""Tetragon's gRPC methods: requests come in as bytes, answers go out; what they work on is one running agent's state.

GetEvents hands events on as the bytes that were published, so that a client receives what the recorder received. Errors
of the agent are plain Go errors, which gRPC turns into status UNKNOWN with their text. A method that the emulated
release does not have is UNIMPLEMENTED, and fields of a request that it does not know are not seen.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError, Message

from keytrail.proto.tetragon import events_pb2, sensors_pb2, tetragon_pb2
from keytrail.testing.fake_tetragon_agent import AgentProfile
from keytrail.testing.fake_tetragon_field_filters import FieldMasks
from keytrail.testing.fake_tetragon_filters import EventFilter, FilterError
from keytrail.testing.fake_tetragon_listeners import Listeners
from keytrail.testing.fake_tetragon_policies import PolicyTable
from keytrail.testing.fake_tetragon_policy_yaml import PolicyError
from keytrail.testing.fake_tetragon_process_cache import ProcessCache
from keytrail.testing.fake_tetragon_release import has_rpc, strip_to_release

SERVICE: Final = "tetragon.FineGuidanceSensors"

_DEPRECATED: Final = ("ListSensors", "EnableSensor", "DisableSensor", "RemoveSensor")


@dataclass(slots=True)
class Script:
    """What is to go wrong, and how slowly; may be changed while the agent runs and survives a restart."""

    load_seconds: float = 0.0
    """How long loading a policy takes."""
    load_errors: dict[str, str] = field(default_factory=dict)
    """Policy name to the error that loading it ends with."""
    refusals: dict[str, deque[tuple[grpc.StatusCode, str]]] = field(default_factory=dict)
    """Method name to the statuses that its next calls end with."""
    counters: dict[str, int] = field(default_factory=dict)
    """Metrics that nothing here can raise, such as those of loss in the kernel: series, with labels, to value."""
    metrics_status: int = 200
    """What the metrics page answers with; other than 200 there is no page."""


@dataclass(slots=True)
class AgentState:
    """What one agent process knows; a restart begins with a new one."""

    profile: AgentProfile
    release: str | None
    listeners: Listeners
    policies: PolicyTable
    script: Script
    processes: ProcessCache = field(default_factory=ProcessCache)
    stopped: threading.Event = field(default_factory=threading.Event)
    published: int = 0


class TetragonService(grpc.GenericRpcHandler):
    """Finds the handler of a method by its name; None is UNIMPLEMENTED."""

    def __init__(self, state: AgentState) -> None:
        self._state = state
        self._methods: dict[str, Callable[[Any], Message]] = {
            "GetVersion": lambda _: sensors_pb2.GetVersionResponse(version=state.profile.version),
            "GetInfo": lambda _: state.profile.reply_to_get_info(),
            "GetHealth": lambda _: _RUNNING,
            "GetDebug": self._get_debug,
            "ListTracingPolicies": lambda _: sensors_pb2.ListTracingPoliciesResponse(
                policies=state.policies.statuses()
            ),
            "AddTracingPolicy": self._add_policy,
            "DeleteTracingPolicy": self._delete_policy,
            "ConfigureTracingPolicy": self._configure_policy,
            "EnableTracingPolicy": partial(_refuse, "EnableTracingPolicy is deprecated, use ConfigureTracingPolicy"),
            "DisableTracingPolicy": partial(_refuse, "DisableTracingPolicy is deprecated, use ConfigureTracingPolicy"),
            **{name: partial(_refuse, f"{name} is deprecated") for name in _DEPRECATED},
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """Answer grpcio's question who handles a call."""
        service, _, name = handler_call_details.method.lstrip("/").partition("/")
        if service != SERVICE or not has_rpc(self._state.release, name):
            return None
        if name == "GetEvents":
            return grpc.unary_stream_rpc_method_handler(self._get_events)
        method = self._methods.get(name)
        if method is None:
            return None
        return grpc.unary_unary_rpc_method_handler(lambda raw, context: self._answer(name, method, raw, context))

    def _answer(self, name: str, method: Callable[[Any], Message], raw: bytes, context: grpc.ServicerContext) -> bytes:
        self._refuse_if_scripted(name, context)
        request = self._parse(_REQUESTS.get(name, _EMPTY), raw)
        try:
            reply = method(request).SerializeToString()
        except PolicyError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        if self._state.release is None:
            return reply
        reply_type = f"tetragon.{'GetHealthStatus' if name == 'GetHealth' else name}Response"
        return strip_to_release(reply, self._state.release, reply_type)

    def _get_events(self, raw: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._refuse_if_scripted("GetEvents", context)
        request = self._parse(events_pb2.GetEventsRequest, raw)
        try:
            event_filter = EventFilter(request, ancestors=bool(self._state.profile.flag("enable-ancestors")))
        except FilterError as error:
            code = grpc.StatusCode.UNKNOWN if error.supported else grpc.StatusCode.UNIMPLEMENTED
            context.abort(code, str(error))
        masks = FieldMasks(request.field_filters)
        listener = self._state.listeners.open()
        # The first message may be hours away: headers now, so that a client knows that it is connected.
        context.send_initial_metadata(())
        if not context.add_callback(listener.close):
            listener.close()
        try:
            if event_filter.passes_all and not masks:
                yield from listener
                return
            for message in listener:
                wanted = _apply(event_filter, masks, message)
                if wanted is not None:
                    yield wanted
        finally:
            self._state.listeners.remove(listener)

    def _parse(self, request_type: type[Any], raw: bytes) -> Any:
        if self._state.release is not None:
            raw = strip_to_release(raw, self._state.release, request_type.DESCRIPTOR.full_name)
        return request_type.FromString(raw)

    def _refuse_if_scripted(self, name: str, context: grpc.ServicerContext) -> None:
        refusals = self._state.script.refusals.get(name)
        if refusals:
            context.abort(*refusals.popleft())

    def _get_debug(self, request: sensors_pb2.GetDebugRequest) -> Message:
        reply = sensors_pb2.GetDebugResponse(flag=request.flag)
        if request.flag == sensors_pb2.CONFIG_FLAG_DUMP_PROCESS_CACHE:
            reply.processes.processes.extend(self._state.processes.dump(request.dump))
            reply.processes.SetInParent()
        else:
            reply.level = sensors_pb2.LOG_LEVEL_INFO
        return reply

    def _add_policy(self, request: sensors_pb2.AddTracingPolicyRequest) -> Message:
        self._state.policies.add(request.yaml, self._load)
        return sensors_pb2.AddTracingPolicyResponse()

    def _load(self, name: str) -> str | None:
        self._state.stopped.wait(self._state.script.load_seconds)
        return self._state.script.load_errors.get(name)

    def _delete_policy(self, request: sensors_pb2.DeleteTracingPolicyRequest) -> Message:
        self._state.policies.delete(request.name, request.namespace)
        return sensors_pb2.DeleteTracingPolicyResponse()

    def _configure_policy(self, request: sensors_pb2.ConfigureTracingPolicyRequest) -> Message:
        self._state.policies.configure(request)
        return sensors_pb2.ConfigureTracingPolicyResponse()


_EMPTY: Final = sensors_pb2.GetVersionRequest
"""Stands for every request of which nothing is read."""
_REQUESTS: Final[dict[str, type[Message]]] = {
    "GetDebug": sensors_pb2.GetDebugRequest,
    "AddTracingPolicy": sensors_pb2.AddTracingPolicyRequest,
    "DeleteTracingPolicy": sensors_pb2.DeleteTracingPolicyRequest,
    "ConfigureTracingPolicy": sensors_pb2.ConfigureTracingPolicyRequest,
}
_RUNNING: Final = tetragon_pb2.GetHealthStatusResponse(
    health_status=[
        tetragon_pb2.HealthStatus(
            event=tetragon_pb2.HEALTH_STATUS_TYPE_STATUS, status=tetragon_pb2.HEALTH_STATUS_RUNNING, details="running"
        )
    ]
)


def _refuse(text: str, _request: Message) -> Message:
    raise PolicyError(text)


def _apply(event_filter: EventFilter, masks: FieldMasks, message: bytes) -> bytes | None:
    """Return what the stream gets of an event, None when it is filtered out; unmasked events keep their bytes."""
    try:
        response = events_pb2.GetEventsResponse.FromString(message)
    except DecodeError:
        return message  # published on purpose by a test: no agent can have looked into it
    if not event_filter.passes(response):
        return None
    if not masks:
        return message
    masks.apply(response)
    return response.SerializeToString()
