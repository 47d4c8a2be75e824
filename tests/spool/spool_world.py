"""What the tests of the spool share: a spool of small parts, whose records say who they are."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from keytrail.domain.drop import DropReason
from keytrail.export.spool.core import SpoolTuning
from keytrail.export.spool.durable import Spool
from keytrail.export.spool.entries import Entry, SpoolState
from keytrail.export.spool.ledger import SpoolLoss

HOUR_NS = 3600 * 1_000_000_000
MIB = 1 << 20
QUICK = SpoolTuning(gather=0.005, tidy=0.02, retry=0.05, pack_after=0.0, patience=60.0)


class Listener:
    """Counts as the collector's accounting does."""

    def __init__(self) -> None:
        self.found = 0
        self.exported = 0
        self.dropped: Counter[DropReason] = Counter()

    def recovered(self, count: int) -> None:
        """Records of an earlier run."""
        self.found += count

    def on_exported(self, count: int) -> None:
        """Records that arrived."""
        self.exported += count

    def on_dropped(self, count: int, reason: DropReason) -> None:
        """Records that are lost."""
        self.dropped[reason] += count


class Clock:
    """A wall clock that a test sets, beside time that passes as the test says."""

    def __init__(self, wall_ns: int = 1_795_000_000 * 1_000_000_000) -> None:
        self.wall_ns = wall_ns
        self.tick_ns = 0

    def pass_ns(self, length: int) -> None:
        """Let time pass on both."""
        self.wall_ns += length
        self.tick_ns += length


class World(Spool):
    """A spool with a listener and a memory for losses."""

    def __init__(self, folder: Path | None, **options: Any) -> None:
        self.listener = Listener()
        self.losses: list[SpoolLoss] = []
        clock = options.pop("clock", None)
        if clock is not None:
            options |= {"now_ns": lambda: clock.wall_ns, "tick_ns": lambda: clock.tick_ns}
        given = {"most_bytes": 64 * MIB, "longest_ns": 72 * HOUR_NS, "tuning": QUICK}
        super().__init__(folder, join, self.listener, on_loss=self.losses.append, **(given | options))

    def take_all(self, slot: int = 0, slots: int = 1, *, records: int = 1_000_000) -> list[Entry]:
        """Everything that a slot can have now."""
        found: list[Entry] = []
        while more := self.take_now(slot, slots, records):
            found += more
        return found

    def take_now(self, slot: int = 0, slots: int = 1, records: int = 1_000_000) -> list[Entry]:
        """Take without waiting for what is not there: a `take` that waits is woken until it returns."""
        found: list[Entry] = []
        done = threading.Event()

        def take() -> None:
            found.extend(self.take(slot, slots, records, 64 * MIB, 0.0))
            done.set()

        thread = threading.Thread(target=take)
        thread.start()
        while not done.wait(0.002):
            self.wake()
        thread.join()
        return found

    def when(self, condition: Callable[[SpoolState], object], seconds: float = 60.0) -> SpoolState:
        """Wait until the state is so; fails when it does not become so."""
        end = time.monotonic() + seconds
        while not condition(state := self.state()):
            assert time.monotonic() < end, state
            time.sleep(0.005)
        return state


def join(resource: bytes, records: list[bytes]) -> bytes:
    """Stand in for a ResourceLogs: readable back with `records_of`."""
    return b"\n".join((resource, *records))


def records_of(entries: Iterable[Entry]) -> list[bytes]:
    """The records of entries, in order."""
    return [record for entry in entries for record in entry.data.split(b"\n")[1:]]


def balanced(state: SpoolState) -> bool:
    """Whether the equation holds."""
    known = state.exported + state.queued + sum(state.dropped.values())
    return state.appended + state.recovered == known and sum(state.queued_by_lane.values()) == state.queued


def files(folder: Path, *suffixes: str) -> Sequence[Path]:
    """Files of the spool with one of these suffixes, in order."""
    return sorted(path for path in folder.rglob("*") if path.suffix in suffixes)
