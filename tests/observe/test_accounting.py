"""The two equations, after every step of whatever order things happen in."""

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from keytrail.domain.drop import DropReason, Undecodable
from keytrail.observe.accounting import Accounting

COUNTS = st.integers(0, 1000)
STEPS = st.one_of(
    st.tuples(st.just("events"), st.just(({"exec": 3, "file": 1}, {"malformed": 1}, {"filtered": 2}))),
    st.tuples(st.just("lost_before_decode"), st.tuples(COUNTS, st.sampled_from([*DropReason, *Undecodable]))),
    st.tuples(st.just("made"), st.tuples(COUNTS)),
    st.tuples(st.just("recovered"), st.tuples(COUNTS)),
    st.tuples(st.just("on_exported"), st.tuples(COUNTS)),
    st.tuples(st.just("suppressed"), st.tuples(COUNTS, st.sampled_from(["repeated", "over_budget"]))),
    st.tuples(st.just("on_dropped"), st.tuples(COUNTS, st.sampled_from(list(DropReason)))),
    st.tuples(st.just("found"), st.just(({("r", "high"): 2, ("r", "low"): 1},))),
)


def balanced(summary: Mapping[str, Any]) -> bool:
    """Whether both equations hold, from the published numbers alone."""
    events, records = summary["events"], summary["records"]
    return (
        events["received"] == events["decoded"] + events["undecodable"] + sum(events["dropped"].values())
        and events["decoded"] == sum(events["by_kind"].values())
        and events["undecodable"] == sum(events["undecodable_by_reason"].values())
        and records["made"]
        == records["exported"]
        + records["queued"]
        + sum(records["suppressed"].values())
        + sum(records["dropped"].values())
    )


@given(st.lists(STEPS, max_size=30))
def test_both_equations_hold_after_every_step(steps: list[tuple[str, tuple[Any, ...]]]) -> None:
    """Any sequence of calls leaves received and made equal to the sum of what became of them."""
    accounting = Accounting()
    for name, arguments in steps:
        getattr(accounting, name)(*arguments)
        assert balanced(accounting.summary())


def test_what_was_recovered_is_made_and_has_to_end_somewhere() -> None:
    """Records of an earlier run are queued until exported, and told apart from those of this run."""
    accounting = Accounting()
    accounting.recovered(5)
    accounting.made(2)
    accounting.on_exported(6)
    records = accounting.summary()["records"]
    assert (records["made"], records["recovered"], records["exported"], records["queued"]) == (7, 5, 6, 1)


def test_findings_are_counted_by_rule_and_severity() -> None:
    """Batches add up; the summary nests severities under rules, as JSON has it."""
    accounting = Accounting()
    for _ in range(2):
        accounting.found({("shell", "high"): 2, ("key", "critical"): 1, ("shell", "low"): 1})
    summary = json.loads(json.dumps(accounting.summary()))
    assert summary["findings"] == {"key": {"critical": 2}, "shell": {"high": 4, "low": 2}}
