"""How the library stands, in its own words: what was decided and what nodes say in, the status as plain data out.

Every condition that is False says what to do about it. Figures are those of the policy that is wanted; what stays
loaded in its place is said in its message. Pure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from keytrail.domain.policy_library import PolicyLibrary
from keytrail.domain.status import PolicyState
from keytrail_operator.reconcile.conditions import Said, conditions, false, shortened, true, unknown
from keytrail_operator.reconcile.desired import CLUSTER_RANGES, Desired
from keytrail_operator.reconcile.ranges import Ranges
from keytrail_operator.reconcile.rollout import NodesOf
from keytrail_operator.reconcile.wanted import Wanted
from keytrail_operator.world import Applied, World

_SHOWN: Final = 3
_OLDEST_AGENT: Final = "1.4"
_STAYS: Final = "What was loaded before stays."


@dataclass(frozen=True, slots=True)
class Picture:
    """What was decided, and what the nodes say of it."""

    off: bool = False
    desired: tuple[Desired, ...] = ()
    nodes: Mapping[str, NodesOf] = field(default_factory=dict, hash=False)
    """By sensor."""
    taken: Mapping[str, str] = field(default_factory=dict, hash=False)
    """By sensor, why it cannot be made."""
    wanted: Wanted = field(default_factory=lambda: Wanted({}, {}))
    ranges: Ranges = field(default_factory=lambda: Ranges((), "", ""))


def library_status(world: World, library: Applied[PolicyLibrary], picture: Picture, now: float) -> dict[str, Any]:
    """Return the whole status."""
    entries = [_entry(world, picture, one) for one in picture.desired]
    said = list(_said(world, library, picture, entries))
    return {
        "observedGeneration": library.generation,
        "conditions": conditions([_ready(library, picture, entries, said), *said], library, now),
        **({"policies": entries} if entries else {}),
        "rules": {"enabled": world.rulebook.enabled, "failing": len(world.rulebook.failing)},
    }


def _entry(world: World, picture: Picture, one: Desired) -> dict[str, Any]:
    nodes = picture.nodes.get(one.sensor, NodesOf())
    state, message = _state(world, picture, one, nodes)
    entry = {
        "name": one.sensor,
        "state": state.value,
        "nodesLoaded": len(nodes.loaded),
        "nodesFailed": len(nodes.failed),
    }
    return entry | ({"message": shortened(message)} if message else {})


def _state(world: World, picture: Picture, one: Desired, nodes: NodesOf) -> tuple[PolicyState, str]:  # noqa: PLR0911 - one return for each state of affairs
    """Return the worst of all nodes, and why it is not loaded everywhere."""
    if one.body is None:
        stays = "; what is loaded stays" if nodes.loaded or nodes.waiting or nodes.failed else ""
        lacks = one.reason != "InvalidParameter"
        return (PolicyState.MISSING if lacks else PolicyState.FAILED), f"{one.problem}{stays}"
    if world.policies is None:
        return PolicyState.MISSING, "Tetragon's resource definitions are not installed"
    if one.name in world.refused and one.name not in world.policies:
        return PolicyState.FAILED, f"{world.refused[one.name]}: is Tetragon too old for it? {_STAYS}"
    if one.sensor in picture.taken:
        return PolicyState.FAILED, picture.taken[one.sensor]
    if nodes.failed:
        told = [f"{node}: {why or 'it does not say why'}" for node, why in sorted(nodes.failed.items())]
        return PolicyState.FAILED, _listed(told, f"{len(told)} nodes cannot load it and keep what they had: ")
    if nodes.disabled:
        return PolicyState.DISABLED, _listed(nodes.disabled, "somebody disabled it (tetra tracingpolicy enable) on ")
    if nodes.waiting:
        return PolicyState.LOADING, _listed(nodes.waiting, "no word yet of ")
    if not nodes.loaded:
        return PolicyState.LOADING, "no collector reports: are the collectors installed?"
    return PolicyState.LOADED, ""


def _listed(items: Any, before: str) -> str:
    shown, more = "; ".join(items[:_SHOWN]), len(items) - _SHOWN
    return before + shown + (f"; and {more} more" if more > 0 else "")


def _said(
    world: World, library: Applied[PolicyLibrary], picture: Picture, entries: list[dict[str, Any]]
) -> Iterator[Said]:
    if library.value is None:
        return
    yield _installed(world)
    yield _accepted(world, picture)
    if any(_fills_ranges(one) for one in picture.desired):
        if picture.ranges.networks:
            yield true("ClusterRangesKnown", picture.ranges.reason, picture.ranges.message)
        else:
            yield false("ClusterRangesKnown", picture.ranges.reason, f"egress is not loaded: {picture.ranges.message}")
    waiting = [str(one["name"]) for one in entries if one["state"] != PolicyState.LOADED.value]
    if waiting:
        worst = "Failed" if any(one["state"] == PolicyState.FAILED.value for one in entries) else "InProgress"
        yield false("PoliciesLoaded", worst, _listed(waiting, "not loaded on every node: "))
    else:
        yield true("PoliciesLoaded", "Loaded", f"{len(entries)} policies are loaded on every node")


def _installed(world: World) -> Said:
    if world.policies is None:
        return false(
            "TetragonInstalled",
            "NoDefinitions",
            f"the API server has no TracingPolicy: install Tetragon {_OLDEST_AGENT} or newer with its CRDs; it is "
            "asked again every half minute",
        )
    connected = [one for one in world.collectors.values() if one.state is not None and one.state.tetragon_version]
    if not connected:
        return unknown("TetragonInstalled", "NoAgentSeen", "no collector has told of an agent yet")
    return true("TetragonInstalled", "Found", f"{len(connected)} collectors tell of an agent")


def _accepted(world: World, picture: Picture) -> Said:
    """Whether all that the library says can be done."""
    problems = [f"spec.policies: {why}" for _, why in sorted(picture.wanted.unknown.items())]
    problems += [one.problem for one in picture.desired if one.reason == "InvalidParameter"]
    problems += [f"rule {name}: {why}" for name, why in sorted(world.rulebook.failing.items())]
    if not problems:
        return true("Accepted", "Accepted", "all that the library says is in force")
    reason = "InvalidParameter" if any(one.reason == "InvalidParameter" for one in picture.desired) else "InvalidEntry"
    return false("Accepted", reason, _listed(problems, "what was in force before stays: "))


def _fills_ranges(one: Desired) -> bool:
    return one.sensor == "egress" or CLUSTER_RANGES in one.problem


def _ready(library: Applied[PolicyLibrary], picture: Picture, entries: list[dict[str, Any]], said: list[Said]) -> Said:
    if library.value is None:
        wrong = "; ".join(f"{fault.field}: {fault.message}" for fault in library.faults)
        return false("Ready", "InvalidSpec", f"what was in force before stays: {wrong}")
    bad = [one for one in said if one.status.value == "False"]
    if bad:
        return false("Ready", bad[0].reason, bad[0].message)
    if picture.off:
        return true("Ready", "Off", "mode is off: no policy is loaded")
    return true("Ready", "InForce", f"{len(entries)} policies are loaded on every node")
