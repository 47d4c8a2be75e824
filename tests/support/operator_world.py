"""Worlds for tests of the operator's reconcilers: objects as the operator keeps them, and what it writes put back."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from keytrail.domain.collector_status import CollectorState, IdentityUse, NodePolicyStatus, RuleFindings
from keytrail.domain.resources import ClusterIdentityMapping, IdentityMapping
from keytrail.domain.rules import DetectionRule
from keytrail.domain.shape import read
from keytrail.domain.status import Condition, ConditionStatus, PolicyState
from keytrail.kube.status_content import timestamp
from keytrail_operator.actions import Action, WriteStatus
from keytrail_operator.world import Applied, Collector, World

NOW = 1_795_359_600.0
"""2026-11-22T15:00:00Z."""


def mapped(name: str, namespace: str = "", *, uid: str = "", status: Any = None, **spec: Any) -> Any:
    """A mapping in the API server."""
    shape = IdentityMapping if namespace else ClusterIdentityMapping
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    value, faults = read(shape, {"metadata": metadata, "spec": spec})
    return Applied(namespace, name, uid or f"uid-{namespace}-{name}", 1, value, tuple(faults), status or {})


def env(*names: str, **more: Any) -> dict[str, Any]:
    """The spec of a mapping that names variables."""
    return {"evidence": {"env": [{"name": one} for one in names]}, **more}


def ruled(name: str, **spec: Any) -> Any:
    """A rule in the API server."""
    given = {
        "title": "T", "description": "D", "severity": "low", "maturity": "stable", "events": ["exec"],
        "condition": "process.uid == 0", "message": "m", **spec,
    }  # fmt: skip
    value, faults = read(DetectionRule, {"metadata": {"name": name}, "spec": given})
    return Applied("", name, f"uid-{name}", 1, value, tuple(faults))


def said(type_: str, status: str, reason: str = "Any", message: str = "") -> Condition:
    """A condition of a collector."""
    return Condition(
        type=type_,
        status=ConditionStatus(status),
        last_transition_time="2026-11-22T14:00:00Z",
        reason=reason,
        message=message,
    )


WELL = (said("EnvironmentCaptured", "True", "Captured"), said("ConfigurationAccepted", "True", "InForce"))


def collector(
    node: str,
    *,
    heard: float = NOW,
    uses: Iterable[tuple[str, str, tuple[str, ...]]] = (),
    findings: Mapping[str, int] | None = None,
    policies: Mapping[str, PolicyState] | None = None,
    conditions: tuple[Condition, ...] = WELL,
) -> Collector:
    """The collector of a node; uses are identity, time and workloads."""
    state = CollectorState(
        heartbeat_time=timestamp(int(heard * 1e9)),
        version="1.0",
        conditions=conditions,
        policies=tuple(NodePolicyStatus(name=name, state=one) for name, one in (policies or {}).items()),
        identities=tuple(IdentityUse(id=one[0], last_used=one[1], workloads=one[2]) for one in uses),
        rules=tuple(RuleFindings(name=name, findings24h=count) for name, count in (findings or {}).items()),
    )
    return Collector(node, f"uid-{node}", state, heard)


def world(*collectors: Collector, **parts: Any) -> World:
    """A cluster."""
    return World(collectors={one.node: one for one in collectors}, **parts)


def after(before: World, actions: Iterable[Action]) -> World:
    """The cluster once statuses were written."""
    written = {one.uid: dict(one.status) for one in actions if isinstance(one, WriteStatus)}

    def put(objects: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(replace(one, status=written.get(one.uid, one.status)) for one in objects)

    return replace(before, mappings=put(before.mappings), rules=put(before.rules))


def condition(status: Mapping[str, Any], type_: str) -> tuple[str, str, str]:
    """Status, reason and message of a condition."""
    found = next(one for one in status["conditions"] if one["type"] == type_)
    return found["status"], found["reason"], found["message"]
