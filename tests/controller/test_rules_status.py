"""What the operator says of the user's rules."""

from dataclasses import replace
from typing import Any

import pytest

from keytrail.domain.policy_library import PolicyLibrary
from keytrail.domain.shape import read
from keytrail.domain.status import DetectionRuleStatus, PolicyState
from keytrail.tracing import sensors
from keytrail_operator.actions import WriteStatus
from keytrail_operator.reconcile.rules import Memory, reconcile
from keytrail_operator.rulebook import Rulebook, rulebook
from keytrail_operator.world import TracingPolicy, World
from support.operator_world import NOW, WELL, after, collector, condition, ruled, said, world


def library(**rules: Any) -> PolicyLibrary:
    """A library that tunes rules."""
    made, faults = read(PolicyLibrary, {"metadata": {"name": "default"}, "spec": {"rules": rules}})
    assert made is not None, faults
    return made


def judged(at: World, *rules: Any, by: PolicyLibrary | None = None) -> World:
    """The world with verdicts, as the stores make it."""
    book = rulebook([one.value for one in rules if one.value is not None], by, sensors(), Rulebook())
    return replace(at, rules=rules, rulebook=book)


def status_of(at: World, memory: Memory | None = None, now: float = NOW) -> dict[str, Any]:
    """The status that the one rule gets, which its shape takes."""
    [found] = reconcile(at, memory or Memory(), now).actions
    assert isinstance(found, WriteStatus)
    _, faults = read(DetectionRuleStatus, dict(found.status))
    assert not faults
    return dict(found.status)


def loaded(*names: str, state: PolicyState = PolicyState.LOADED) -> dict[str, PolicyState]:
    """What an agent has."""
    return dict.fromkeys(names, state)


def test_a_rule_that_is_well() -> None:
    """It runs, its sensors are loaded on every node, and what all nodes found is added up."""
    rule = ruled("one", requires=["tcp-connect", "environment"])
    ours = TracingPolicy(
        name="keytrail-tcp-connect-1a2b", uid="u", version="1", generation=1, created=0.0, sensor="tcp-connect",
        managed=True, owners=frozenset(),
    )  # fmt: skip
    at = world(
        collector("a", findings={"one": 2, "other": 9}, policies=loaded(ours.name)),
        collector("b", findings={"one": 3}, policies=loaded("tcp-connect")),
        policies={ours.name: ours},
    )
    status = status_of(judged(at, rule))
    assert condition(status, "Ready")[:2] == ("True", "InForce")
    assert condition(status, "SensorsAvailable")[:2] == ("True", "Loaded")
    assert status["findings24h"] == 5


def test_a_condition_that_means_nothing() -> None:
    """The engine's own words, with the field; collectors keep the last good version."""
    found = condition(status_of(judged(world(collector("a")), ruled("one", condition="process.nme == 1"))), "Ready")
    assert found[:2] == ("False", "InvalidCondition")
    assert "spec.condition" in found[2]


@pytest.mark.parametrize(
    ("tuning", "reason"),
    [
        ({"maturity": ["sandbox"]}, "Disabled"),
        ({"tune": [{"name": "one", "enabled": False}]}, "Disabled"),
        ({"tune": [{"name": "one", "parameters": {"missing": 1}}]}, "InvalidTuning"),
    ],
)
def test_what_the_library_makes_of_it(tuning: dict[str, Any], reason: str) -> None:
    """A rule that is right and does not run, or is tuned wrongly: said with where to change that."""
    at = judged(world(collector("a")), ruled("one"), by=library(**tuning))
    found = condition(status_of(at), "Ready")
    assert found[:2] == ("False", reason)
    assert "PolicyLibrary default" in found[2]


def test_sensors_that_are_missing_somewhere() -> None:
    """Loaded on one of two nodes, refused by the other agent: both are in the message."""
    rule = ruled("one", requires=["tcp-connect"])
    at = world(
        collector("a", policies=loaded("tcp-connect")),
        collector("b", policies=loaded("tcp-connect", state=PolicyState.FAILED)),
    )
    found = condition(status_of(judged(at, rule)), "SensorsAvailable")
    assert found[:2] == ("False", "NotLoaded")
    assert "tcp-connect on 1 of 2" in found[2]
    assert condition(status_of(judged(world(), rule)), "SensorsAvailable")[:2] == ("Unknown", "NoCollector")


def test_an_option_that_the_agent_lacks() -> None:
    """A rule that requires environments is not served by an agent that shows none."""
    blind = (said("EnvironmentCaptured", "False", "NotCaptured"), WELL[1])
    at = judged(world(collector("a", conditions=blind)), ruled("one", requires=["environment"]))
    assert "environment on 0 of 1" in condition(status_of(at), "SensorsAvailable")[2]


def test_findings_are_written_once_an_hour_and_a_quiet_cluster_nothing() -> None:
    """More findings wait for the hour to be over; what changes nothing is not written, by a new operator neither."""
    memory, rule = Memory(), ruled("one")
    at = judged(world(collector("a", findings={"one": 1})), rule)
    first = reconcile(at, memory, NOW).actions
    at = after(at, first)
    assert not reconcile(at, memory, NOW + 60).actions
    assert not reconcile(at, Memory(), NOW + 60).actions
    more = replace(at, collectors={"a": collector("a", heard=NOW + 3000, findings={"one": 7})})
    assert not reconcile(more, memory, NOW + 3000).actions
    assert status_of(more, memory, NOW + 3700)["findings24h"] == 7


def test_a_shape_that_is_wrong_is_said() -> None:
    """What an older definition let in."""
    found = condition(status_of(judged(world(collector("a")), ruled("one", severity="deadly"))), "Ready")
    assert found[:2] == ("False", "Invalid")
    assert "spec.severity" in found[2]
