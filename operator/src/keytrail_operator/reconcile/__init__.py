"""What shall be done: pure functions from a `World` to actions, without kopf, I/O, clock or randomness.

A reconciler is `(world, memory, now) -> Outcome`. What it must remember between runs (since when a change is gathered)
it puts into the outcome's memory and gets back; memory may be lost at any moment, with the process, and then only
costs time. `worker` calls all of them in the order of `keytrail_operator.app`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from keytrail_operator.actions import Action
from keytrail_operator.world import World

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[M]):
    """What one reconciler wants."""

    actions: Sequence[Action]
    memory: M
    again: float | None = None
    """Seconds from now after which to ask again, even if nothing changes until then."""


@dataclass(frozen=True, slots=True)
class Reconciler(Generic[M]):
    """A function with a name for the log and metrics, and the memory that it begins with."""

    name: str
    reconcile: Callable[[World, M, float], Outcome[M]]
    """`now` is wall clock, seconds since the epoch."""
    begins_with: M


AnyReconciler = Reconciler[Any]
