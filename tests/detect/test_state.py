"""What rules count, against a plain account of what they should; and the keys that they count by."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keytrail.detect import state
from keytrail.detect.compiled import load
from keytrail.detect.made_event import made_event
from keytrail.detect.program import generate
from keytrail.detect.rule_check import check_rule
from keytrail.domain.event import EventKind
from keytrail.domain.rules import DetectionRule
from keytrail.domain.shape import read

COUNT, WINDOW, KEYS, ITEMS = 3, 10, 3, 6


class Plain:
    """Counts as the rule language says, without a thought of what it costs."""

    def __init__(self, *, distinct: bool) -> None:
        self.seen: dict[str, list[tuple[int, int]]] = {}
        self.distinct = distinct
        self.evicted = 0

    def reaches(self, key: str, value: int, now: int) -> bool:
        """Count, forget the key that is oldest where there is too much, answer."""
        before = [one for one in self.seen.pop(key, []) if not (self.distinct and one[0] == value)]
        self.seen[key] = [*before, (value, now)]
        while self.seen[key][0][1] <= now - WINDOW:
            del self.seen[key][0]
        reached = len(self.seen[key]) >= COUNT
        if len(self.seen) > KEYS or sum(map(len, self.seen.values())) > ITEMS:
            del self.seen[next(iter(self.seen))]
            self.evicted += 1
        if reached:
            self.seen.pop(key, None)
        return reached


steps = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 4), st.integers(-2, 6)), max_size=60)


@settings(max_examples=200, deadline=None)
@given(steps, st.booleans())
def test_a_counter_answers_as_a_plain_account(given_steps: list[tuple[str, int, int]], distinct: bool) -> None:
    """Whatever comes in whatever order, thresholds are reached, and keys forgotten, exactly when they should be."""
    counter, plain = state.Counter(COUNT, WINDOW, keys=KEYS, items=ITEMS), Plain(distinct=distinct)
    now = 0
    for key, value, later in given_steps:
        now += later
        reached = counter.reaches_distinct(key, value, now) if distinct else counter.reaches(key, now)
        assert reached == plain.reaches(key, value, now)
        assert counter.evicted == plain.evicted


@pytest.mark.parametrize(
    ("fields", "event", "key"),
    [
        (["process.exec_id"], {"process": {"exec_id": "a"}}, "a"),
        (["process.pid"], {"process": {"pid": 7}}, 7),
        (["process.exec_id", "process.pid"], {"process": {"exec_id": "a", "pid": 7}}, ("a", 7)),
        (["process.arguments"], {"process": {"arguments": "x" * 128}}, "x" * 128),
        (["process.arguments"], {"process": {"arguments": "x" * 129}}, bytes),
        (["process.binary", "process.arguments"], {"process": {"binary": "/b", "arguments": "x" * 127}}, bytes),
        (["process.environment"], {"process": {"environment": ["A"]}}, bytes),
        (["pod.labels"], {"pod": {"labels": {"app": "a"}}}, bytes),
    ],
)
def test_keys_that_are_kept_are_short(fields: list[str], event: dict[str, Any], key: object) -> None:
    """A key is what its fields hold while that is little, else 16 bytes; the same ones for the same event."""
    spec = {
        **dict.fromkeys(("title", "description", "message"), "t"),
        "severity": "low",
        "maturity": "stable",
        "events": ["exec"],
        "condition": "true",
        "threshold": {"count": 2, "window": "1m", "by": fields},
        "suppress": {"by": fields, "window": "1m"},
    }
    rule, faults = read(DetectionRule, {"metadata": {"name": "r"}, "spec": spec})
    assert rule is not None, faults
    (code,) = load(generate([check_rule(rule)]), lambda *_: None).rules
    made = code.suppressed_by(made_event(event, EventKind.EXEC))
    assert code.counted_by(made_event(event, EventKind.EXEC)) == (made, ())
    assert made == key if key is not bytes else isinstance(made, bytes) and len(made) == 16
