"""When a CollectorStatus is written, and that what it says fits the shape whatever the collector went through."""

import dataclasses
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keytrail import diagnosis
from keytrail.domain.agent import AgentFacts
from keytrail.domain.collector_status import CollectorState, IdentityUse, NodePolicyStatus
from keytrail.domain.shape import read
from keytrail.domain.status import PolicyState
from keytrail.kube.status import WritePlan
from keytrail.kube.status_content import (
    FIELD_FILTER,
    Picture,
    as_data,
    rounded_lag,
    rounded_rate,
    signature,
    state_of,
)
from keytrail.observe.snapshot import BackendPart, GapsPart, ReloadPart, RulesPart, Snapshot, StreamPart

STATES = st.lists(st.tuples(st.integers(1, 200), st.integers(0, 2), st.booleans()), max_size=200)
UNIT = st.floats(0, 1, exclude_max=True)
WORDS = st.text(max_size=1500)
NOW_NS = 1_700_000_000_000_000_000
unhurried = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine may stop anywhere for any time."""


@unhurried
@given(STATES, UNIT)
def test_writes_are_rare_and_none_is_forgotten(steps: list[tuple[int, int, bool]], random: float) -> None:
    """Never two tries within a minute, never eleven minutes without one; the last state is always told in the end."""
    now, plan, tries, told = 0.0, WritePlan(0.0, lambda: random), [0.0], None
    for seconds, state, works in steps:
        for _ in range(seconds // 5 + 1):
            now += 5
            if plan.is_due(now, state):
                assert now - tries[-1] >= 60 or len(tries) == 1
                tries.append(now)
                plan.tried(now, state, written=works)
                told = state if works else told
            assert now - tries[-1] <= 660
    last = steps[-1][1] if steps else 0
    for _ in range(40):
        now += 5
        if plan.is_due(now, last):
            plan.tried(now, last, written=True)
            told = last
    assert told == last


@unhurried
@given(
    st.builds(
        Snapshot,
        now_ns=st.just(NOW_NS),
        started_ns=st.just(NOW_NS),
        version=st.just("1.2.3"),
        accounting=st.just({}),
        events_per_second=st.one_of(st.none(), st.floats(0, 1e9)),
        stream=st.one_of(
            st.none(),
            st.builds(
                StreamPart,
                connected=st.booleans(),
                address=WORDS,
                reason=WORDS,
                agent_version=WORDS,
                lag_seconds=st.one_of(st.none(), st.floats(0, 1e7)),
            ),
        ),
        backend=st.one_of(
            st.none(),
            st.builds(
                BackendPart,
                endpoint=WORDS,
                reachable=st.sampled_from([None, True, False]),
                trouble=st.sampled_from(["", "unreachable", "denied", "rejecting_all"]),
                last_error=WORDS,
            ),
        ),
        reload=st.one_of(st.none(), st.builds(ReloadPart, problems=st.lists(WORDS, max_size=8).map(tuple))),
        rules=st.one_of(st.none(), st.builds(RulesPart, refused=st.dictionaries(WORDS, WORDS, max_size=8))),
        gaps=st.builds(GapsPart, lost=st.dictionaries(WORDS, st.integers(0, 1 << 40), max_size=3)),
    ),
    st.one_of(
        st.none(),
        st.builds(
            AgentFacts,
            captures_environment=st.sampled_from([None, True, False]),
            environment_filter=st.lists(WORDS, max_size=3).map(tuple),
            captures_credentials=st.sampled_from([None, True, False]),
        ),
    ),
)
def test_whatever_happened_the_api_server_takes_it(snapshot: Snapshot, agent: AgentFacts | None) -> None:
    """What is written fits the shape, whatever agent and backend said, and every condition that is False says more."""
    state = state_of(Picture(snapshot, agent))
    data = json.loads(json.dumps(as_data(state)))
    made, faults = read(CollectorState, data)
    assert not faults
    assert made == state
    assert [one.type for one in state.conditions] == [
        "AgentConnected",
        "EnvironmentCaptured",
        "CredentialsCaptured",
        "BackendReachable",
        "ConfigurationAccepted",
    ]
    assert all(one.message for one in state.conditions)


def picture(**changes: Any) -> Picture:
    """A collector that is well."""
    snapshot = Snapshot(NOW_NS, NOW_NS, "1", {}, 100.0, StreamPart(connected=True, lag_seconds=1.0))
    return Picture(dataclasses.replace(snapshot, **changes))


def test_figures_are_no_reason_to_write() -> None:
    """Rates, lag, uses and findings may change; connections, policies and the first loss are worth a write."""
    base = picture()
    about = signature(state_of(base))
    policy = NodePolicyStatus(name="a", state=PolicyState.LOADED)
    for quiet in (
        picture(events_per_second=1e6, now_ns=NOW_NS * 2),
        picture(stream=StreamPart(connected=True, lag_seconds=99.0, reason="x")),
        dataclasses.replace(
            base, findings24h={"a": 3}, identities=[IdentityUse(id="a", last_used="2026-01-01T00:00:00Z")]
        ),
    ):
        assert signature(state_of(quiet)) == about
    for loud in (
        picture(stream=StreamPart(connected=False)),
        picture(gaps=GapsPart(lost={"inbox_full": 1})),
        dataclasses.replace(base, policies=[policy]),
        dataclasses.replace(base, problems=["x"]),
    ):
        assert signature(state_of(loud)) != about


def test_long_lists_are_cut_and_say_so() -> None:
    """Beyond the bounds of the shape the rest is counted; the rules with the most findings stay."""
    identities = [IdentityUse(id=f"i{number}", last_used="2026-01-01T00:00:00Z") for number in range(300)]
    findings = {f"rule-{number}": number for number in range(600)}
    state = state_of(dataclasses.replace(picture(), identities=identities, findings24h=findings))
    assert (len(state.identities), state.identities_left_out) == (256, 44)
    assert (len(state.rules), state.rules_left_out) == (512, 88)
    assert state.rules[0].findings24h == 599
    assert read(CollectorState, as_data(state))[1] == []


def test_an_odd_name_costs_no_other() -> None:
    """A policy from a file may have a name that no object can have: it is left out, all others are told of."""
    policies = [NodePolicyStatus(name=name, state=PolicyState.LOADED) for name in ("Odd_Name", "egress")]
    state = state_of(dataclasses.replace(picture(), policies=policies))
    assert [one.name for one in state.policies] == ["egress"]
    assert state.policies_loaded == "1/1"


def test_rounding() -> None:
    """Rates are rounded down and lags up, to steps that a figure stays within for hours."""
    assert [rounded_rate(rate) for rate in (-1, 0, 0.9, 1, 2.9, 3, 29, 31, 5e9)] == [
        0,
        0,
        0,
        1,
        1,
        3,
        10,
        30,
        3_000_000,
    ]
    assert [rounded_lag(seconds) for seconds in (0, 1, 1.1, 59, 601, 1e9)] == ["1s", "1s", "10s", "1m", "1h", "100h"]


def test_the_filter_is_the_one_that_doctor_gives() -> None:
    """Two places tell people how to keep environments out of the agent's files: they say the same."""
    assert json.loads(FIELD_FILTER) == diagnosis.FIELD_FILTER
