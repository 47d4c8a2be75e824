"""From the policies that are there to those that shall be, so that at no moment a wanted hook is unloaded.

An agent unloads and reloads a policy on any change of it, and keeps nothing if that fails. So a policy is never
changed: the next one is made beside it, and deleted is only what another one of the same sensor makes superfluous on
every node, by the word of that node's collector. A node that cannot load the new one keeps the old one. Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from keytrail.domain.collector_status import NodePolicyStatus
from keytrail.domain.status import PolicyState
from keytrail_operator.actions import TRACING_POLICIES, Action, Create, Delete, Replace
from keytrail_operator.reconcile.desired import Desired, covers
from keytrail_operator.world import TracingPolicy, World

_OLD_NEWS_SECONDS: Final = 35.0
"""A collector asks its agent every half minute: so long after a deletion it may still call the policy loaded."""
_FORGET_SECONDS: Final = 3600.0
_REFUSED_SECONDS: Final = 600.0
"""What the API server refused is not tried again sooner: its resource definition would have to change."""


@dataclass(frozen=True, slots=True)
class RolloutMemory:
    """What is remembered between runs. All of it may be lost."""

    verified: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Generation of each policy, by uid, up to which its spec is known to be ours."""
    deleted: Mapping[str, float] = field(default_factory=dict, hash=False)
    """When policies were deleted, by name."""
    tried: Mapping[str, float] = field(default_factory=dict, hash=False)
    """When policies were to be made last, by name."""


@dataclass(frozen=True, slots=True)
class NodesOf:
    """What the nodes say of one policy."""

    loaded: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict, hash=False)
    """With what the agent says is wrong."""
    waiting: tuple[str, ...] = ()
    """Nodes that said neither yet."""
    disabled: tuple[str, ...] = ()

    @property
    def everywhere(self) -> bool:
        """Whether every node has it. Without any node nobody can say so."""
        return bool(self.loaded) and not (self.failed or self.waiting or self.disabled)


@dataclass(frozen=True, slots=True)
class Reports:
    """What collectors say, by policy: each is asked for twice in a run, and a node has some thirty."""

    heard: Mapping[str, float]
    """When a node's collector was heard, of the nodes to ask, in their order."""
    said: Mapping[str, Mapping[str, NodePolicyStatus]]
    """Policy -> node -> what it says."""


def reports_of(world: World) -> Reports:
    """Return what the nodes say.

    A node whose kubelet is not ready is not waited for: it may be away for days, and should its agent still run, it
    takes the new policy by itself. A collector that fell silent on a node that works is waited for.
    """
    heard: dict[str, float] = {}
    said: dict[str, dict[str, NodePolicyStatus]] = {}
    for node, collector in sorted(world.collectors.items()):
        known = world.nodes.get(node)
        if known is None or not known.ready:
            continue
        heard[node] = collector.heard
        for one in () if collector.state is None else collector.state.policies:
            said.setdefault(one.name, {}).setdefault(node, one)
    return Reports(heard, said)


def nodes_of(reports: Reports, name: str, since: float) -> NodesOf:
    """Return what the nodes say of a policy; what was said before `since` may be about an earlier one of that name."""
    loaded, waiting, disabled, failed = [], [], [], {}
    said = reports.said.get(name, {})
    for node, heard in reports.heard.items():
        found = said.get(node) if heard >= since else None
        if found is None or found.state in {PolicyState.LOADING, PolicyState.MISSING}:
            waiting.append(node)
        elif found.state is PolicyState.FAILED:
            failed[node] = found.message
        elif found.state is PolicyState.DISABLED:
            disabled.append(node)
        else:
            loaded.append(node)
    return NodesOf(tuple(loaded), failed, tuple(waiting), tuple(disabled))


def is_ours(world: World, policy: TracingPolicy) -> bool:
    """Whether the operator made it: by its label, or by its owner where somebody took the label away."""
    return policy.managed or (world.owner is not None and world.owner.uid in policy.owners)


def rollout(
    world: World, wanted: Iterable[Desired], memory: RolloutMemory, now: float
) -> tuple[list[Action], RolloutMemory, dict[str, NodesOf], dict[str, str]]:
    """Return what to do, and by sensor what nodes say of what is wanted and which names others have taken."""
    policies, reports = world.policies or {}, reports_of(world)
    ours: dict[str, list[TracingPolicy]] = {}
    for found in policies.values():
        if is_ours(world, found):
            ours.setdefault(_sensor_of(found), []).append(found)
    actions: list[Action] = []
    verified = {each.uid: memory.verified.get(each.uid, 1) for same in ours.values() for each in same}
    deleted = {name: at for name, at in memory.deleted.items() if now - at < _FORGET_SECONDS}
    tried = {name: at for name, at in memory.tried.items() if name in world.refused}
    nodes, taken = {}, {}
    for one in wanted:
        there = ours.pop(one.sensor, [])
        if one.body is None:
            nodes[one.sensor] = nodes_of(reports, there[0].name, 0.0) if there else NodesOf()
            continue
        current = policies.get(one.name)
        if current is not None and not is_ours(world, current):
            taken[one.sensor] = f"somebody else's TracingPolicy has the name {one.name}: delete or rename it"
            continue
        if current is None:
            waits = one.name in world.refused and now - tried.get(one.name, 0.0) < _REFUSED_SECONDS
            actions += [] if waits else [Create(TRACING_POLICIES, one.body)]
            tried[one.name] = tried.get(one.name, now) if waits else now
        else:
            actions += _made_right(one, current, verified)
        nodes[one.sensor] = nodes_of(reports, one.name, now if current is None else current.created)
        actions += _superfluous(one, there, {each.name: _sure(reports, each, deleted) for each in there})
    # What is left is of sensors that nothing wants any more.
    actions += [_delete(each, "nothing needs it") for same in ours.values() for each in same if not each.deleting]
    deleted |= {action.name: now for action in actions if isinstance(action, Delete)}
    return actions, RolloutMemory(verified, deleted, tried), nodes, taken


def _sensor_of(policy: TracingPolicy) -> str:
    """Return the sensor, from the name where somebody took the label away: keytrail-SENSOR-HASH."""
    return policy.sensor or policy.name.split("-", 1)[1].rpartition("-")[0]


def _sure(reports: Reports, policy: TracingPolicy, deleted: Mapping[str, float]) -> NodesOf:
    """Return what nodes say of this very policy: soon after one of its name was deleted, that one may be meant."""
    return nodes_of(reports, policy.name, max(policy.created, deleted.get(policy.name, 0.0) + _OLD_NEWS_SECONDS))


def _made_right(one: Desired, current: TracingPolicy, verified: dict[str, int]) -> list[Action]:
    """Make of the policy what it was, whatever somebody made of it.

    A spec that was never changed since it was made is of generation 1. One that was is put back once: if that changes
    nothing, the API server does not even tell the agents.
    """
    body: Any = one.body
    if current.deleting:
        return []
    known, labelled = verified[current.uid], current.managed and current.sensor == one.sensor
    if covers(body["spec"], current.spec):
        # Putting it back changed nothing: it was right.
        verified[current.uid] = min(known, current.generation)
        if labelled and known >= current.generation:
            return []
    elif labelled and known > current.generation:
        return []  # it was put back, and the API server keeps something else: not to be fought
    verified[current.uid] = current.generation + 1
    metadata = {**body["metadata"], "uid": current.uid, "resourceVersion": current.version}
    return [Replace(TRACING_POLICIES, {**body, "metadata": metadata}, "somebody changed it")]


def _superfluous(one: Desired, there: list[TracingPolicy], seen: Mapping[str, NodesOf]) -> list[Action]:
    """Delete what another one of the sensor makes superfluous: the wanted one, or else the newest complete one."""
    complete = [each for each in there if seen[each.name].everywhere and not each.deleting]
    names = [each.name for each in complete]
    if one.name in names:
        keep = {one.name}
    elif complete:
        keep = {one.name, max(complete, key=lambda each: (each.created, each.name)).name}
    else:
        return []
    return [
        _delete(each, f"{one.name if one.name in names else max(keep - {one.name})} is loaded on every node")
        for each in there
        if each.name not in keep and not each.deleting
    ]


def _delete(policy: TracingPolicy, why: str) -> Delete:
    return Delete(TRACING_POLICIES, policy.name, policy.uid, why)
