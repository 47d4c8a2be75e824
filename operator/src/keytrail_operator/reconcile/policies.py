"""The policies of the library, kept as they shall be: a World in, TracingPolicies and the library's status out.

`wanted` says which sensors, `ranges` what the cluster's networks are, `desired` makes manifests, `rollout` gets there,
`library_status` says how it stands. Here they are put together, and changes of ranges are gathered: nodes come and go,
and each new policy is loaded by every agent. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from keytrail.domain.objects import API_VERSION
from keytrail.domain.policy_library import LIBRARY_NAME, LibraryMode, PolicyLibrarySpec, PolicyTuning
from keytrail.tracing import Policy, sensors
from keytrail_operator.actions import OWN, Action, Create
from keytrail_operator.reconcile import Outcome, Reconciler
from keytrail_operator.reconcile.conditions import write
from keytrail_operator.reconcile.desired import Desired, desired, ranges_in, wants_ranges
from keytrail_operator.reconcile.library_status import Picture, library_status
from keytrail_operator.reconcile.ranges import Ranges, ranges
from keytrail_operator.reconcile.rollout import NodesOf, RolloutMemory, is_ours, rollout
from keytrail_operator.reconcile.wanted import paths_of_mappings, wanted
from keytrail_operator.world import Owner, World

_SPARING_SECONDS: Final = 60.0
"""Between two writes of a status in which only figures differ: each reaches every collector."""
_CREDENTIAL_FILES: Final = "credential-files"


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered between runs. All of it may be lost."""

    rollout: RolloutMemory = field(default_factory=RolloutMemory)
    ranges_since: float | None = None
    """Since when the cluster's ranges differ from those in force."""
    written: float = 0.0
    """When the status was written last."""


def policies(*, gather_seconds: float, shipped: Mapping[str, Policy] | None = None) -> Reconciler[Memory]:
    """Return the reconciler. `shipped` is the library, by default the one that travels with the program."""
    library = sensors() if shipped is None else shipped
    return Reconciler("policies", partial(reconcile, shipped=library, gather_seconds=gather_seconds), Memory())


def reconcile(
    world: World, memory: Memory, now: float, *, shipped: Mapping[str, Policy], gather_seconds: float
) -> Outcome[Memory]:
    """Say what to do."""
    if world.library is None:
        return Outcome([_default_library(world.owner)] if world.libraries_served else [], memory)
    spec = world.library.value.spec if world.library.value is not None else None
    if spec is None:  # what is loaded stays, until somebody mends the library
        status = library_status(world, world.library, Picture(), now)
        return _with_status([], status, world, memory, now)
    found, choice = ranges(world), wanted(world, spec, shipped)
    made, since = [], None
    for sensor in choice.sensors:
        tuning = next((one for one in spec.policies if one.name == sensor), None)
        one = _desired(world, shipped[sensor], tuning, found)
        if wants_ranges(shipped[sensor], tuning):
            held = _held(world, one, shipped[sensor], tuning)
            if held is not None:
                since = now if memory.ranges_since is None else memory.ranges_since
                one = held if now - since < gather_seconds else one
        made.append(one)
    actions: list[Action] = []
    nodes: Mapping[str, NodesOf] = {}
    taken: Mapping[str, str] = {}
    remembered = memory.rollout
    if world.policies is not None:
        actions, remembered, nodes, taken = rollout(world, made, remembered, now)
    picture = Picture(spec.mode is LibraryMode.OFF, tuple(made), nodes, taken, choice, found)
    memory = replace(memory, rollout=remembered, ranges_since=since)
    outcome = _with_status(actions, library_status(world, world.library, picture, now), world, memory, now)
    if since is None:
        return outcome
    return replace(outcome, again=min(outcome.again or gather_seconds, max(1.0, since + gather_seconds - now)))


def _default_library(owner: Owner | None) -> Create:
    """Make the library that nobody changed yet: everything that the shipped rules need."""
    metadata: dict[str, Any] = {"name": LIBRARY_NAME}
    if owner is not None:
        metadata["ownerReferences"] = [owner.reference()]
    return Create(
        OWN["PolicyLibrary"],
        {
            "apiVersion": API_VERSION,
            "kind": "PolicyLibrary",
            "metadata": metadata,
            "spec": {"mode": PolicyLibrarySpec().mode.value},
        },
    )


def _desired(world: World, policy: Policy, tuning: PolicyTuning | None, found: Ranges) -> Desired:
    more = paths_of_mappings(world, policy) if policy.name == _CREDENTIAL_FILES else {}
    return desired(policy, tuning, found, more, _owner(world))


def _owner(world: World) -> Owner | None:
    """Return who owns the policies: the release, so that deleting the library by mistake unloads nothing."""
    if world.owner is not None or world.library is None:
        return world.owner
    return Owner(API_VERSION, "PolicyLibrary", world.library.name, world.library.uid)


def _held(world: World, one: Desired, policy: Policy, tuning: PolicyTuning | None) -> Desired | None:
    """Return the policy that is there already, if only the ranges make it another one than `one`."""
    there = [each for each in (world.policies or {}).values() if each.sensor == policy.name and is_ours(world, each)]
    if one.body is None or any(each.name == one.name for each in there):
        return None
    for each in sorted(there, key=lambda each: each.created, reverse=True):
        known = ranges_in(policy, each)
        before = _desired(world, policy, tuning, Ranges(known, "", "")) if known else one
        if before.name == each.name:
            return before
    return None


def _with_status(
    actions: list[Action], status: Mapping[str, Any], world: World, memory: Memory, now: float
) -> Outcome[Memory]:
    """Add the write of the status, unless only figures changed a moment ago."""
    library = world.library
    if library is None or dict(library.status) == dict(status):
        return Outcome(actions, memory)
    wait = memory.written + _SPARING_SECONDS - now
    if wait > 0 and _told(library.status) == _told(status):
        return Outcome(actions, memory, again=wait)
    return Outcome([*actions, *write("PolicyLibrary", library, status)], replace(memory, written=now))


def _told(status: Mapping[str, Any]) -> object:
    """What is worth a write of its own."""
    conditions = status.get("conditions") or ()
    states = status.get("policies") or ()
    return (
        status.get("observedGeneration"),
        [(one.get("type"), one.get("status"), one.get("reason")) for one in conditions],
        [(one.get("name"), one.get("state")) for one in states],
    )
