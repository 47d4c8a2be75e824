"""What the tests of loss share: a clock that they turn, a place where gaps arrive, events made to measure."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from keytrail.domain.event import Event, EventKind, EventType
from keytrail.domain.gap import Gap, GapCause, GapPhase
from keytrail.domain.process import Process

SECOND = 1_000_000_000


@dataclass
class Clock:
    """Wall clock in nanoseconds that stands until it is turned."""

    ns: int = 1_795_000_000 * SECOND

    def __call__(self) -> int:
        """Tell the time."""
        return self.ns

    def turn(self, seconds: float) -> None:
        """Let time pass."""
        self.ns += int(seconds * SECOND)


@dataclass
class Gaps:
    """Takes reports."""

    all: list[Gap] = field(default_factory=list)

    def __call__(self, gap: Gap) -> None:
        """Take one."""
        self.all.append(gap)

    def of(self, cause: GapCause, phase: GapPhase | None = None) -> list[Gap]:
        """Return those of a cause."""
        return [gap for gap in list(self.all) if gap.cause is cause and phase in (None, gap.phase)]


@pytest.fixture
def clock() -> Clock:
    """Give a clock that stands."""
    return Clock()


@pytest.fixture
def gaps() -> Gaps:
    """Give a place where gaps arrive."""
    return Gaps()


@pytest.fixture
def event() -> Callable[..., Event]:
    """Make an event of a process that was cloned and executed."""

    def make(exec_id: str, time_ns: int, *, type_: EventType = EventType.EXEC, policy: str = "") -> Event:
        process = Process(exec_id, pid=1, flags="execve clone", start_ns=time_ns)
        kind = EventKind.EXEC if type_ is EventType.EXEC else EventKind.EXIT
        return Event(kind, type_, process, time_ns=time_ns, node="node-1", policy=policy)

    return make
