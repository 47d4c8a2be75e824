"""What a metric's declaration says, and how its points are read from a snapshot.

A `Snapshot` comes in, `Point`s go out; `metric_table` composes both. Knows nothing of OpenTelemetry's SDK.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from keytrail.domain.drop import DropReason
from keytrail.observe.snapshot import RequestPart, Snapshot, WatchPart


class Kind(StrEnum):
    """OpenTelemetry's instrument kinds; all observed, none costs the hot path anything."""

    COUNTER = "counter"
    UP_DOWN_COUNTER = "up-down counter"
    GAUGE = "gauge"


class Point(NamedTuple):
    """One value and the attributes that tell it from its siblings."""

    value: float
    attributes: Mapping[str, str | bool] = {}


Read = Callable[[Snapshot], Iterable[Point]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric's declaration."""

    name: str
    kind: Kind
    unit: str
    description: str
    read: Read
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Name -> the values that it can have, for a reader."""
    alert: str = ""
    """What to alert on, for a reader; empty when it only explains others."""


def one(pick: Callable[[Snapshot], float | None]) -> Read:
    """One point; none while the value is not known."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        value = pick(snapshot)
        if value is not None:
            yield Point(value)

    return read


def each(name: str, pick: Callable[[Snapshot], Mapping[str, int]], known: Iterable[str] = ()) -> Read:
    """One point for each key; `known` ones also at 0."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        for key, count in ({str(key): 0 for key in known} | dict(pick(snapshot))).items():
            yield Point(count, {name: str(key)})

    return read


def drops(section: str, known: Iterable[DropReason]) -> Read:
    """One point for each reason, `known` ones also at 0, with whether the drop was asked for."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        counts = {str(reason): 0 for reason in known} | snapshot.accounting[section]["dropped"]
        for reason, count in counts.items():
            yield Point(count, {"reason": reason, "intended": DropReason(reason).intended})

    return read


def count_of(section: str, name: str) -> Read:
    """One number of a section of the accounting."""
    return one(lambda snapshot: snapshot.accounting[section][name])


def findings(snapshot: Snapshot) -> Iterator[Point]:
    """Findings by rule and severity."""
    for rule, by_severity in snapshot.accounting["findings"].items():
        for severity, count in by_severity.items():
            yield Point(count, {"rule": rule, "severity": severity})


def cpu(snapshot: Snapshot) -> Iterator[Point]:
    """CPU time by mode."""
    yield Point(snapshot.usage.cpu_user_seconds, {"cpu.mode": "user"})
    yield Point(snapshot.usage.cpu_system_seconds, {"cpu.mode": "system"})


def threads(snapshot: Snapshot) -> Iterator[Point]:
    """How busy each watched thread is."""
    for thread in snapshot.threads:
        yield Point(thread.busy_seconds, {"thread": thread.name})


def build(snapshot: Snapshot) -> Iterator[Point]:
    """Versions, as attributes of a constant."""
    agent = snapshot.stream.agent_version if snapshot.stream else ""
    yield Point(1, {"version": snapshot.version, "agent.version": agent})


def watches(pick: Callable[[WatchPart, Snapshot], float | None]) -> Read:
    """One point for each collection of the API server that is watched."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        for watch in () if snapshot.cluster is None else snapshot.cluster.watches:
            value = pick(watch, snapshot)
            if value is not None:
                yield Point(value, {"resource": watch.resource})

    return read


def requests(pick: Callable[[RequestPart], int]) -> Read:
    """One point for each kind of request to the API server."""

    def read(snapshot: Snapshot) -> Iterator[Point]:
        for used in () if snapshot.cluster is None else snapshot.cluster.requests:
            yield Point(pick(used), {"verb": used.verb, "resource": used.resource})

    return read


def part(name: str, pick: Callable[[Any], float | None]) -> Read:
    """One point of a part that the collector may not have."""

    def value(snapshot: Snapshot) -> float | None:
        found = getattr(snapshot, name)
        return None if found is None else pick(found)

    return one(value)


def parts(of: str, name: str, pick: Callable[[Any], Mapping[str, int]], known: Iterable[str] = ()) -> Read:
    """`each` of a part that the collector may not have."""
    read = each(name, lambda snapshot: pick(getattr(snapshot, of)), known)
    return lambda snapshot: () if getattr(snapshot, of) is None else read(snapshot)


def age(snapshot: Snapshot, moment_ns: int | None) -> float | None:
    """Seconds since a moment; None when there is none."""
    # A wall clock that was set back must not make an age negative.
    return None if moment_ns is None else max(0.0, (snapshot.now_ns - moment_ns) / 1e9)
