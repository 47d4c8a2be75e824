"""What the agent is asked for, proved by an agent that applies it."""

import pytest

from keytrail.domain.event import EventKind
from keytrail.domain.filters import EventFilter
from keytrail.proto.tetragon.events_pb2 import PROCESS_THROTTLE, PROCESS_USDT, EventType, GetEventsResponse
from keytrail.source.request import Asked, events_request, types_of
from keytrail.testing.fake_tetragon_filters import EventFilter as AgentFilter
from support.recordings import STREAMS, decoded_once, messages


def passed(wanted: EventFilter, name: str) -> dict[str, int]:
    """Count by type what an agent sends of a recording."""
    agent = AgentFilter(events_request(wanted), ancestors=True)
    counts: dict[str, int] = {}
    for message in messages(name):
        event = GetEventsResponse.FromString(message)
        if agent.passes(event):
            kind = str(event.WhichOneof("event"))
            counts[kind] = counts.get(kind, 0) + 1
    return counts


def test_no_filter_is_an_empty_request() -> None:
    """Everything is asked for by saying nothing: an empty filter in a list would mean something else elsewhere."""
    assert events_request(EventFilter()).ByteSize() == 0


@pytest.mark.parametrize(
    ("kinds", "types"),
    [
        ({EventKind.EXEC}, {"process_exec"}),
        ({EventKind.EXIT, EventKind.EXEC}, {"process_exec", "process_exit"}),
        ({EventKind.CONNECT}, {"process_kprobe", "process_tracepoint", "process_lsm"}),
        ({EventKind.HOOK}, {"process_kprobe", "process_tracepoint", "process_lsm", "process_uprobe"}),
        ({EventKind.LIBRARY}, {"process_kprobe", "process_tracepoint", "process_lsm", "process_loader"}),
    ],
)
def test_kinds_leave_other_types_at_the_agent(kinds: set[EventKind], types: set[str]) -> None:
    """Only event types that may be of a wanted kind are sent; every kind has its types."""
    assert passed(EventFilter(kinds=frozenset(kinds)), "policy-library").keys() == types


@pytest.mark.parametrize("name", STREAMS)
def test_no_event_of_a_wanted_kind_stays_with_the_agent(name: str) -> None:
    """Whatever an event of any recording turns out to be, the type that brought it is among those of its kind."""
    brought = {(event.kind, str(event.envelope.WhichOneof("event"))) for event in decoded_once(name)}
    for kind, type_ in brought:
        asked = types_of(EventFilter(kinds=frozenset({kind}))) | {PROCESS_THROTTLE}
        assert EventType.Value(type_.upper()) in asked, kind


def test_kinds_of_all_types_are_no_restriction() -> None:
    """Where something of every type is wanted, the agent is not made to compare each event with a list of all."""
    everything = Asked.for_(EventFilter(kinds=frozenset(EventKind)))
    assert everything == Asked.for_(EventFilter())
    assert (everything.request, everything.left_out) == (b"", ())


def test_what_is_left_out_has_the_agents_names() -> None:
    """A person can look them up in the agent's documentation."""
    asked = Asked.for_(EventFilter(kinds=frozenset({EventKind.EXEC, EventKind.CONNECT})))
    assert asked.left_out == ("PROCESS_EXIT", "PROCESS_LOADER", "PROCESS_UPROBE", "PROCESS_USDT")


@pytest.mark.parametrize("kind", list(EventKind))
def test_every_kind_can_be_asked_for(kind: EventKind) -> None:
    """No kind gives a filter without an event set, which would match everything."""
    request = events_request(EventFilter(kinds=frozenset({kind}), namespaces=frozenset({"ml"})))
    assert request.allow_list
    assert all(allowed.event_set for allowed in request.allow_list)


def test_restrictions_by_process_never_hide_throttling() -> None:
    """Throttle events name no process and say that others are being lost: they come through every filter."""
    assert passed(EventFilter(binaries=("^/nowhere$",)), "throttle") == {"process_throttle": 4}


def test_the_empty_namespace_is_everything_outside_pods() -> None:
    """Namespaces are exact, and the empty one selects host processes."""
    everything = passed(EventFilter(), "kubernetes")
    outside = passed(EventFilter(namespaces=frozenset({""})), "kubernetes")
    inside = passed(EventFilter(namespaces=frozenset({"ml"})), "kubernetes")
    assert 0 < outside["process_exec"] < everything["process_exec"]
    assert 0 < inside["process_exec"] <= everything["process_exec"] - outside["process_exec"]


def test_policies_leave_out_what_no_policy_made_but_never_usdt() -> None:
    """The agent knows no policy of usdt events: asked for by name it would withhold them all."""
    request = events_request(EventFilter(policies=frozenset({"obs-network"})))
    assert [list(allowed.event_set) for allowed in request.allow_list][1:] == [[PROCESS_USDT], [PROCESS_THROTTLE]]
    assert passed(EventFilter(policies=frozenset({"obs-network"})), "policy-library").keys() == {"process_kprobe"}


def test_the_request_only_uses_what_costs_the_agent_little() -> None:
    """No field filters (three times its CPU) and no aggregation (drops) are ever asked for."""
    request = events_request(EventFilter(kinds=frozenset(EventKind), pods=("^web",), binaries=("curl$",)))
    assert not request.field_filters
    assert not request.HasField("aggregation_options")
    assert not request.deny_list
