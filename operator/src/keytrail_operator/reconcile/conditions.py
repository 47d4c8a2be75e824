"""Conditions and statuses as plain data, written only when they say something new.

In flow what a reconciler says of an object, and the status that the object has; out flows at most one write. Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from keytrail.domain.objects import Resource
from keytrail.domain.status import ConditionStatus
from keytrail.observe.text import printable
from keytrail_operator.actions import WriteStatus
from keytrail_operator.world import Applied

LONGEST_MESSAGE: Final = 1024
R = TypeVar("R", bound=Resource)


@dataclass(frozen=True, slots=True)
class Said:
    """One condition of now."""

    type: str
    status: ConditionStatus
    reason: str
    message: str


def true(type_: str, reason: str, message: str) -> Said:
    """State that something is well."""
    return Said(type_, ConditionStatus.TRUE, reason, message)


def false(type_: str, reason: str, message: str) -> Said:
    """State that something is not well; the message says what to do about it."""
    return Said(type_, ConditionStatus.FALSE, reason, message)


def unknown(type_: str, reason: str, message: str) -> Said:
    """State that nobody can tell, and why."""
    return Said(type_, ConditionStatus.UNKNOWN, reason, message)


def conditions(said: Iterable[Said], of: Applied[R], now: float) -> list[dict[str, Any]]:
    """Return them as the API has them; one whose status is as it was keeps its time."""
    before = of.status.get("conditions")
    since = {
        (one.get("type"), one.get("status")): one.get("lastTransitionTime")
        for one in (before if isinstance(before, list) else ())
        if isinstance(one, Mapping)
    }
    return [
        {
            "type": one.type,
            "status": one.status.value,
            "observedGeneration": of.generation,
            "lastTransitionTime": since.get((one.type, one.status.value)) or timestamp(now),
            "reason": one.reason,
            "message": shortened(one.message),
        }
        for one in said
    ]


def write(kind: str, of: Applied[R], status: Mapping[str, Any]) -> list[WriteStatus]:
    """Return the write of a status; nothing when the object has it already."""
    if dict(of.status) == dict(status):
        return []
    return [WriteStatus(kind, of.name, of.uid, status, of.namespace)]


def shortened(text: str, most: int = LONGEST_MESSAGE) -> str:
    """Return text for one line, cut where the schema would refuse it."""
    line = printable(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def timestamp(seconds: float) -> str:
    """Return a time as Kubernetes writes them, to the second."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
