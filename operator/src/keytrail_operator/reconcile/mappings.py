"""The status of every identity mapping: what is wrong with it, who uses it, when it was used last.

In flow the World, what was observed beside it, and what collectors report; out flow status writes, few of them: a
condition that changed is written at once, figures at most once an hour, since each write reaches every collector. An
Event tells when a mapping stops being ready, once. Pure but for the ledger, which is kept from run to run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from keytrail_operator.actions import Action
from keytrail_operator.reconcile import Outcome, Reconciler
from keytrail_operator.reconcile.claims import Claim, ambiguities, told
from keytrail_operator.reconcile.conditions import Said, conditions, false, true, write
from keytrail_operator.reconcile.mapping_checks import (
    Picture,
    Seen,
    env_captured,
    names_nobody,
    nodes_reporting,
    picture_of,
    secrets_resolved,
)
from keytrail_operator.reconcile.mapping_events import not_ready
from keytrail_operator.reconcile.usage import Ledger
from keytrail_operator.world import Mapped, World

_SPARING_SECONDS: Final = 3_600.0
"""Between two writes of a status in which only figures differ."""
_MOST_EVENTS: Final = 20
"""Of one run: when something that all mappings need breaks, their conditions say it."""
READY: Final = "Ready"
_AMBIGUOUS: Final = "Unambiguous"


@dataclass(slots=True)
class Memory:
    """What is remembered between runs. All of it may be lost."""

    ledger: Ledger = field(default_factory=Ledger)
    claimed: tuple[object, Mapping[str, tuple[Claim, ...]]] = (None, {})
    """The mappings that were compared last, and what they share: comparing them again costs more than all else."""
    written: dict[str, float] = field(default_factory=dict)
    """When the status of each mapping was written, by uid."""


def mappings(observe: Callable[[World], Seen]) -> Reconciler[Memory]:
    """Return the reconciler; `observe` gives what is known beside the World, without waiting for it."""
    return Reconciler("mappings", partial(_observed, observe), Memory())


def _observed(observe: Callable[[World], Seen], world: World, memory: Memory, now: float) -> Outcome[Memory]:
    return reconcile(world, memory, now, observe(world))


def reconcile(world: World, memory: Memory, now: float, seen: Seen) -> Outcome[Memory]:
    """Say what to write."""
    memory.ledger.update(world.collectors, now)
    compared = tuple((one.uid, one.generation) for one in world.mappings)
    if memory.claimed[0] != compared:
        memory.claimed = compared, ambiguities(world.mappings)
    picture, shared = picture_of(world, now), memory.claimed[1]
    actions: list[Action] = []
    told_of = 0
    for one in world.mappings:
        said = list(_said(world, picture, seen, one, shared.get(one.uid, ())))
        status = _status(one, said, picture, memory.ledger, now)
        if not _is_due(one, status, memory, now):
            continue
        applied: Any = one
        actions += write(kind_of(one), applied, status)
        memory.written[one.uid] = now
        if told_of < _MOST_EVENTS and _turned(one, said[0]):
            # Right behind the status, which says that it was told: between both an operator may be killed.
            actions.append(not_ready(kind_of(one), one, said[0], now))
            told_of += 1
    memory.written = {one.uid: memory.written[one.uid] for one in world.mappings if one.uid in memory.written}
    return Outcome(actions, memory)


def kind_of(one: Mapped) -> str:
    """Return the kind; only one of both is in a namespace."""
    return "IdentityMapping" if one.namespace else "ClusterIdentityMapping"


def _said(world: World, picture: Picture, seen: Seen, one: Mapped, claims: tuple[Claim, ...]) -> list[Said]:
    """Return the conditions, the summary first."""
    given = one.value
    if given is None:
        fault = one.faults[0] if one.faults else None
        why = "it cannot be read" if fault is None else f"{fault.field}: {fault.message}"
        return [false(READY, "Invalid", f"{why}; collectors keep the last version that was right")]
    secrets, captured = secrets_resolved(picture, seen, given), env_captured(picture, given)
    unambiguous = (
        false(_AMBIGUOUS, "ClaimedTwice", told(claims, one))
        if claims
        else true(_AMBIGUOUS, "OnlyClaim", "no other mapping of this scope and priority claims the same")
    )
    parts = [unambiguous, secrets, captured]
    wrong = [(part.reason, part.message) for part in parts if part.status.value == "False"]
    wrong += names_nobody(world, seen, given)
    if wrong:
        return [false(READY, *wrong[0]), *parts]
    return [true(READY, "InForce", "collectors attribute what they see by this mapping"), *parts]


def _status(one: Mapped, said: list[Said], picture: Picture, ledger: Ledger, now: float) -> dict[str, Any]:
    identity = "" if one.value is None else one.value.identity_id
    applied: Any = one
    # What is no longer reported was used all the same: the status remembers.
    last = max(str(one.status.get("lastUsed") or ""), ledger.last_used(identity) if identity else "")
    name = f"{one.namespace}/{one.name}" if one.namespace else one.name
    return {
        "observedGeneration": one.generation,
        "conditions": conditions(said, applied, now),
        **({"identityId": identity} if identity else {}),
        "workloadsUsing": ledger.workloads(identity) if identity else 0,
        "nodesReporting": nodes_reporting(picture, kind_of(one), name) if identity else 0,
        **({"lastUsed": last} if last else {}),
    }


def _is_due(one: Mapped, status: Mapping[str, Any], memory: Memory, now: float) -> bool:
    """Whether a status is to be written now: at once when it says something new, else once an hour."""
    if dict(one.status) == status:
        return False
    return _told(one.status) != _told(status) or now - memory.written.get(one.uid, 0.0) >= _SPARING_SECONDS


def _told(status: Mapping[str, Any]) -> object:
    """What is worth a write of its own: figures in messages, such as a number of nodes, are not."""
    found = status.get("conditions")
    return (
        status.get("observedGeneration"),
        status.get("identityId"),
        "lastUsed" in status,
        [(one.get("type"), one.get("status"), one.get("reason")) for one in found] if isinstance(found, list) else [],
    )


def _turned(one: Mapped, ready: Said) -> bool:
    """Whether the mapping was not said to be unready for this reason before."""
    found: Any = one.status.get("conditions") or ()
    before: Any = next((each for each in found if each.get("type") == READY), {})
    return ready.status.value == "False" and (before.get("status"), before.get("reason")) != ("False", ready.reason)
