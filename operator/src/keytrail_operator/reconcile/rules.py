"""The status of every DetectionRule of the user's: whether it can run, whether its sensors are there, what it found.

In flow the World with the rulebook's verdicts and the policies of each node; out flow status writes: conditions when
they change, findings at most once an hour. Pure but for the ledger, which is kept from run to run.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from keytrail.domain.rules import DetectionRule
from keytrail.domain.status import ConditionStatus, PolicyState
from keytrail_operator.actions import Action
from keytrail_operator.reconcile import Outcome, Reconciler
from keytrail_operator.reconcile.conditions import Said, conditions, false, true, unknown, write
from keytrail_operator.reconcile.usage import Ledger, is_fresh
from keytrail_operator.rulebook import Verdict
from keytrail_operator.world import Applied, World

_SPARING_SECONDS: Final = 3_600.0
"""Between two writes of a status in which only findings differ."""
_KIND: Final = "DetectionRule"
_SENSORS: Final = "SensorsAvailable"
_SHOWN: Final = 3
_FEATURES: Final = {"EnvironmentCaptured": "environment", "CredentialsCaptured": "process-credentials"}
"""Options of the agent that a rule may require, by the condition that tells of each."""
_EVERYWHERE: Final = frozenset({"ancestors"})
"""What any agent has that a collector works with."""


@dataclass(slots=True)
class Memory:
    """What is remembered between runs. All of it may be lost."""

    ledger: Ledger = field(default_factory=Ledger)
    written: dict[str, float] = field(default_factory=dict)
    """When the status of each rule was written, by uid."""


@dataclass(frozen=True, slots=True)
class Sensors:
    """On how many nodes each sensor is loaded, or option of the agent is on."""

    nodes: int
    """Whose collector is heard of."""
    loaded: Mapping[str, int]
    failures: Mapping[str, str]
    """What an agent said that could not load one."""


def rules() -> Reconciler[Memory]:
    """Return the reconciler."""
    return Reconciler("rules", reconcile, Memory())


def reconcile(world: World, memory: Memory, now: float) -> Outcome[Memory]:
    """Say what to write."""
    memory.ledger.update(world.collectors, now)
    found = sensors_of(world, now)
    actions: list[Action] = []
    for one in world.rules:
        status = {
            "observedGeneration": one.generation,
            "conditions": conditions(_said(one, world.rulebook.verdicts.get(one.name), found), one, now),
            "findings24h": memory.ledger.findings(one.name),
        }
        if _is_due(one, status, memory, now):
            actions += write(_KIND, one, status)
            memory.written[one.uid] = now
    memory.written = {one.uid: memory.written[one.uid] for one in world.rules if one.uid in memory.written}
    return Outcome(actions, memory)


def sensors_of(world: World, now: float) -> Sensors:
    """Count what the agents have loaded, by sensor: policies of ours by what they are made from, others by name."""
    made_from = {name: one.sensor or name for name, one in (world.policies or {}).items()}
    loaded: Counter[str] = Counter()
    failures: dict[str, str] = {}
    fresh = [one.state for one in world.collectors.values() if one.state is not None and is_fresh(one, now)]
    for state in fresh:
        here = {_FEATURES.get(one.type, "") for one in state.conditions if one.status is ConditionStatus.TRUE}
        for policy in state.policies:
            sensor = made_from.get(policy.name, policy.name)
            if policy.state is PolicyState.LOADED:
                here.add(sensor)
            elif policy.state is PolicyState.FAILED:
                failures.setdefault(sensor, policy.message)
        loaded.update(here)
    return Sensors(len(fresh), loaded, failures)


def _said(one: Applied[DetectionRule], verdict: Verdict | None, found: Sensors) -> Iterable[Said]:
    if one.value is None or verdict is None:
        faults = "; ".join(f"{fault.field}: {fault.message}" for fault in one.faults) or "it cannot be read"
        yield false("Ready", "Invalid", f"{faults}; collectors keep the last version that was right")
        return
    yield _ready(verdict)
    yield _available(verdict, found)


def _ready(verdict: Verdict) -> Said:
    if not verdict.enabled:
        return false(
            "Ready",
            "Disabled",
            f"rules of maturity {verdict.rule.spec.maturity} do not run: add it to spec.rules.maturity of the "
            "PolicyLibrary default, or enable this one in spec.rules.tune",
        )
    faults = verdict.untuned_faults or verdict.faults
    if faults:
        why = "; ".join(f"{fault.field}: {fault.message}" for fault in faults)
        if verdict.untuned_faults:
            return false("Ready", "InvalidCondition", f"{why}; collectors keep the last version that was right")
        return false("Ready", "InvalidTuning", f"as spec.rules.tune of the PolicyLibrary default tunes it: {why}")
    return true("Ready", "InForce", "collectors judge events by this rule")


def _available(verdict: Verdict, found: Sensors) -> Said:
    required = [name for name in verdict.rule.spec.requires if name not in _EVERYWHERE]
    if not required:
        return true(_SENSORS, "NoneRequired", "the rule requires no TracingPolicy and no option of the agent")
    if not found.nodes:
        return unknown(_SENSORS, "NoCollector", "no collector was heard of in the last twenty minutes")
    missing = [name for name in required if found.loaded.get(name, 0) < found.nodes]
    if not missing:
        return true(_SENSORS, "Loaded", f"all that it requires is loaded on all {found.nodes} nodes")
    said = next((f"; an agent says: {found.failures[name]}" for name in missing if found.failures.get(name)), "")
    named = ", ".join(f"{name} on {found.loaded.get(name, 0)} of {found.nodes}" for name in missing[:_SHOWN])
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    if not verdict.enabled:
        return false(_SENSORS, "NotLoaded", f"the rule does not run, so that nothing loads {named}{more}")
    message = f"loaded nodes of what it requires: {named}{more}{said}; see the status of the PolicyLibrary default"
    return false(_SENSORS, "NotLoaded", message)


def _is_due(one: Applied[DetectionRule], status: Mapping[str, Any], memory: Memory, now: float) -> bool:
    """Whether a status is to be written now: at once when a condition changed, else once an hour."""
    if dict(one.status) == status:
        return False
    return _told(one.status) != _told(status) or now - memory.written.get(one.uid, 0.0) >= _SPARING_SECONDS


def _told(status: Mapping[str, Any]) -> object:
    found = status.get("conditions")
    parts = [(one.get("type"), one.get("status"), one.get("reason")) for one in found] if found else []
    return status.get("observedGeneration"), parts
