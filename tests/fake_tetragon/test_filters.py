"""Filters of GetEvents: which real events pass them, and what is left of an event."""

import re
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from keytrail.proto.tetragon.events_pb2 import (
    EXCLUDE,
    INCLUDE,
    PROCESS_EXEC,
    PROCESS_EXIT,
    PROCESS_KPROBE,
    FieldFilter,
    Filter,
    GetEventsRequest,
    GetEventsResponse,
)
from keytrail.testing.fake_tetragon import FakeTetragon
from keytrail.testing.fake_tetragon_agent import AgentProfile

Start = Callable[..., FakeTetragon]
Connect = Callable[..., Any]
Recorded = Callable[[str], list[bytes]]


def _events(messages: list[bytes]) -> list[tuple[str, Any]]:
    """Give each event's kind and inner message."""
    events = []
    for message in messages:
        response = GetEventsResponse.FromString(message)
        kind = response.WhichOneof("event")
        assert kind
        events.append((kind, getattr(response, kind)))
    return events


@pytest.fixture
def recorded(recorded: Recorded) -> Recorded:
    """The first 1,500 messages of a recording: of all kinds, and some that each filter lets pass."""
    return lambda name: recorded(name)[:1_500]


@pytest.fixture
def served(start: Start, connect: Connect, recorded: Recorded) -> Callable[..., list[bytes]]:
    """Serve a recording through a request and give what came out."""

    def serve(name: str, request: GetEventsRequest, **options: Any) -> list[bytes]:
        agent = start(**options)
        stream = connect(agent).collect(request)
        assert agent.wait_for_listeners(timeout=60)
        agent.publish(recorded(name))
        assert agent.wait_until_drained(timeout=60)
        agent.go_away()
        stream.wait()
        assert not stream.failed
        messages: list[bytes] = stream.messages
        return messages

    return serve


FILTERS: dict[str, tuple[Filter, Callable[[str, Any], bool]]] = {
    "event_set": (
        Filter(event_set=[PROCESS_EXEC, PROCESS_KPROBE]),
        lambda kind, _: kind in ("process_exec", "process_kprobe"),
    ),
    "binary_regex is not anchored": (
        Filter(binary_regex=["curl", "ssh$"]),
        lambda _, event: bool(re.search("curl|ssh$", event.process.binary)),
    ),
    "parent_binary_regex": (
        Filter(parent_binary_regex=["^/usr/bin/python3"]),
        lambda _, event: event.parent.binary.startswith("/usr/bin/python3"),
    ),
    "arguments_regex": (
        Filter(arguments_regex=["tvm-window (begin|end)"]),
        lambda _, event: "tvm-window begin" in event.process.arguments or "tvm-window end" in event.process.arguments,
    ),
    "ancestor_binary_regex": (
        Filter(ancestor_binary_regex=["/usr/sbin/sshd"]),
        lambda _, event: any("/usr/sbin/sshd" in process.binary for process in event.ancestors),
    ),
    "policy_names": (
        Filter(policy_names=["obs-network"]),
        lambda _, event: getattr(event, "policy_name", None) == "obs-network",
    ),
    "the empty namespace is the host": (
        Filter(namespace=[""], event_set=[PROCESS_EXEC]),
        lambda kind, event: kind == "process_exec" and not event.process.HasField("pod"),
    ),
    "two fields are both required": (
        Filter(binary_regex=["curl"], event_set=[PROCESS_EXIT]),
        lambda kind, event: kind == "process_exit" and "curl" in event.process.binary,
    ),
}

IN_PODS: dict[str, tuple[Filter, Callable[[str, Any], bool]]] = {
    "namespace": (Filter(namespace=["payments"]), lambda _, event: event.process.pod.namespace == "payments"),
    "namespace_regex never matches the host": (
        Filter(namespace_regex=[".*"]),
        lambda _, event: event.process.HasField("pod"),
    ),
    "pod_regex": (Filter(pod_regex=["^chat"]), lambda _, event: event.process.pod.name.startswith("chat")),
    "container_id": (Filter(container_id=["^[0-9a-f]"]), lambda _, event: bool(event.process.docker)),
    "in_init_tree": (
        Filter(in_init_tree={"value": True}),
        lambda _, event: event.process.in_init_tree.value,
    ),
}


@pytest.mark.parametrize(
    ("recording", "spec", "expected"),
    [
        *(pytest.param("policy-library", *case, id=name) for name, case in FILTERS.items()),
        *(pytest.param("kubernetes", *case, id=name) for name, case in IN_PODS.items()),
    ],
)
def test_an_allow_list_lets_exactly_its_matches_pass(  # noqa: PLR0917  # fixtures and parameters
    served: Callable[..., list[bytes]],
    recorded: Recorded,
    packaged: Any,
    recording: str,
    spec: Filter,
    expected: Callable[[str, Any], bool],
) -> None:
    """Each kind of filter agrees with a plain reading of the recorded events, and those that pass keep their bytes."""
    profile = AgentProfile.of_recording(packaged / "policy-library")

    passed = served(recording, GetEventsRequest(allow_list=[spec]), profile=profile)

    messages = recorded(recording)
    matching = [
        message for message, event in zip(messages, _events(messages), strict=True) if expected(event[0], event[1])
    ]
    assert passed == matching
    assert len(passed) < len(messages)


def test_a_deny_list_wins_over_an_allow_list(served: Callable[..., list[bytes]]) -> None:
    """An event that both lists match is held back; several filters of a list are alternatives."""
    request = GetEventsRequest(
        allow_list=[Filter(event_set=[PROCESS_EXEC]), Filter(event_set=[PROCESS_EXIT])],
        deny_list=[Filter(binary_regex=["^/usr/bin/curl$"])],
    )

    passed = _events(served("policy-library", request))

    assert {kind for kind, _ in passed} == {"process_exec", "process_exit"}
    assert passed
    assert not [event for _, event in passed if event.process.binary == "/usr/bin/curl"]


def test_an_empty_filter_in_the_deny_list_silences_the_stream(served: Callable[..., list[bytes]]) -> None:
    """A filter without fields matches everything."""
    assert served("seed-demo", GetEventsRequest(deny_list=[Filter()])) == []


def test_filtered_events_take_slots_of_the_queue(start: Start, connect: Connect, recorded: Recorded) -> None:
    """Filters work behind the queue: what nobody wants pushes out what somebody does."""
    agent = start(queue_size=10)
    agent.stall()
    stream = connect(agent).collect(GetEventsRequest(allow_list=[Filter(event_set=[PROCESS_EXIT])]))
    assert agent.wait_for_listeners(timeout=60)

    agent.publish(recorded("seed-demo"))
    agent.resume()
    agent.wait_until_drained(timeout=60)
    agent.go_away()
    stream.wait()

    exits = [kind for kind, _ in _events(recorded("seed-demo")[:10])].count("process_exit")
    assert agent.overflowed == len(recorded("seed-demo")) - 10
    assert len(stream.messages) == exits


@pytest.mark.parametrize(
    ("spec", "code", "text"),
    [
        (Filter(binary_regex=["("]), grpc.StatusCode.UNKNOWN, "("),
        (Filter(ancestor_binary_regex=["sshd"]), grpc.StatusCode.UNKNOWN, "ancestors"),
        (Filter(labels=["app=web"]), grpc.StatusCode.UNIMPLEMENTED, "labels"),
        (Filter(cel_expression=["true"]), grpc.StatusCode.UNIMPLEMENTED, "cel_expression"),
    ],
    ids=["bad regex", "ancestors are off", "labels", "cel_expression"],
)
@pytest.mark.parametrize("which", ["allow_list", "deny_list"])
def test_a_filter_that_cannot_be_built_ends_the_call_at_once(  # noqa: PLR0917  # fixtures and parameters
    start: Start, connect: Connect, spec: Filter, code: grpc.StatusCode, text: str, which: str
) -> None:
    """The client learns of a wrong filter before any event, and the fake never ignores one that it cannot evaluate."""
    call = connect(start()).stream(GetEventsRequest(**{which: [spec]}))

    with pytest.raises(grpc.RpcError) as refused:
        next(call)

    assert refused.value.code() is code
    assert text in refused.value.details()


def test_excluded_fields_are_gone_and_all_others_stay(served: Callable[..., list[bytes]], recorded: Recorded) -> None:
    """Environments leave parents and ancestors everywhere, and processes of all kinds but exec; all else stays."""
    request = GetEventsRequest(
        field_filters=[
            FieldFilter(
                event_set=[PROCESS_EXEC],
                invert_event_set={"value": True},
                fields={"paths": ["process.environment_variables"]},
                action=EXCLUDE,
            ),
            FieldFilter(
                fields={"paths": ["parent.environment_variables", "ancestors.environment_variables"]}, action=EXCLUDE
            ),
        ]
    )

    reduced = served("policy-library", request)

    expected = [GetEventsResponse.FromString(message) for message in recorded("policy-library")]
    for response in expected:
        kind = response.WhichOneof("event")
        event: Any = getattr(response, kind or "")
        if kind != "process_exec":
            event.process.ClearField("environment_variables")
        event.parent.ClearField("environment_variables")
        for ancestor in event.ancestors:
            ancestor.ClearField("environment_variables")
    # A kind that has no parent at all must not have grown one.
    assert [GetEventsResponse.FromString(message).SerializeToString(deterministic=True) for message in reduced] == [
        response.SerializeToString(deterministic=True) for response in expected
    ]


def test_included_fields_are_all_that_stays(served: Callable[..., list[bytes]]) -> None:
    """INCLUDE keeps the listed paths of its kinds and the response's own fields; other kinds pass untouched."""
    request = GetEventsRequest(
        field_filters=[
            FieldFilter(event_set=[PROCESS_EXIT], fields={"paths": ["process.exec_id", "status"]}, action=INCLUDE)
        ]
    )

    reduced = [GetEventsResponse.FromString(message) for message in served("seed-demo", request)]

    exits = [response for response in reduced if response.HasField("process_exit")]
    execs = [response for response in reduced if response.HasField("process_exec")]
    assert exits
    for response in exits:
        assert {field.name for field, _ in response.process_exit.ListFields()} <= {"process", "status"}
        assert {field.name for field, _ in response.process_exit.process.ListFields()} == {"exec_id"}
        assert response.node_name
        assert response.HasField("time")
    assert all(response.process_exec.process.binary for response in execs)
