"""Any order of append, take, settle, restart and kill against a model that fits on one page."""

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from keytrail.domain.drop import DropReason
from keytrail.export.spool.entries import Entry, Lane
from spool.spool_world import QUICK, World, balanced, records_of

TUNING = replace(QUICK, segment_bytes=600, hot_bytes=300)
"""Segments of a few entries, and hardly any memory: most is read back from disk."""


class Machine(RuleBasedStateMachine):
    """A spool beside the sets of what waits, what is under way and what is done."""

    @initialize(slots=st.integers(1, 3))
    def begin(self, slots: int) -> None:
        """Start on an empty folder."""
        self.root = Path(tempfile.mkdtemp())
        self.runs = 0
        self.slots = slots
        self.number = 0
        self.waiting: set[int] = set()
        self.flying: dict[int, Entry] = {}
        self.done: set[int] = set()
        self.refused: set[int] = set()
        self._open(self.root / "0")

    def _open(self, folder: Path) -> None:
        self.folder = folder
        self.spool = World(folder, tuning=TUNING)
        self.spool.start()

    @rule(lanes=st.lists(st.sampled_from(Lane), min_size=1, max_size=30), resources=st.integers(1, 9))
    def append(self, lanes: list[Lane], resources: int) -> None:
        """Append, and wait until it is on disk."""
        for lane in lanes:
            self.spool.append(lane, b"resource %d" % (self.number % resources), b"%d %s" % (self.number, bytes(99)))
            self.waiting.add(self.number)
            self.number += 1
        assert self.spool.sync(60)

    @rule(slot=st.integers(0, 2), records=st.integers(1, 40))
    def take(self, slot: int, records: int) -> None:
        """Nobody gets what another has, nothing unknown comes, and each workload's order is kept."""
        slot %= self.slots
        entries = self.spool.take_now(slot, self.slots, records)
        numbers = _numbers(entries)
        assert set(numbers) <= self.waiting
        for entry in entries:
            resource = entry.data.split(b"\n")[0]
            of_it = _numbers(one for one in entries if one.data.startswith(resource + b"\n"))
            assert of_it == sorted(of_it)
            self.flying[entry.sequence] = entry
        self.waiting -= set(numbers)

    def _some(self, share: int) -> list[Entry]:
        entries = [entry for number, entry in enumerate(self.flying.values()) if number % 3 >= share]
        for entry in entries:
            del self.flying[entry.sequence]
        return entries

    @rule(share=st.integers(0, 2))
    def exported(self, share: int) -> None:
        """The backend has some of what is under way."""
        entries = self._some(share)
        self.spool.exported(entries)
        self.done.update(_numbers(entries))

    @rule(share=st.integers(0, 2))
    def refuse(self, share: int) -> None:
        """The backend refuses some of what is under way."""
        entries = self._some(share)
        self.spool.refused(entries, "poison")
        self.refused.update(_numbers(entries))

    @rule(share=st.integers(0, 2))
    def give_back(self, share: int) -> None:
        """Some of what is under way could not be sent."""
        entries = self._some(share)
        self.spool.give_back(entries)
        self.waiting.update(_numbers(entries))

    @rule(slots=st.integers(1, 3))
    @precondition(lambda self: not self.flying)
    def divide(self, slots: int) -> None:
        """The sender comes back with another number of slots."""
        self.slots = slots

    @rule()
    def restart(self) -> None:
        """Close and open again: what was under way waits again."""
        self.spool.close(30)
        self._resume(self.folder)
        assert self.spool.previous.clean

    @rule()
    def kill(self) -> None:
        """Go on with a copy of the files as they are at this moment: all is there, and the end was not clean."""
        self.runs += 1
        copy = self.root / str(self.runs)
        with self.spool._writer.files, self.spool._core.lock:
            # Packing writes a .tmp file without these locks: it may get its name while it is copied.
            shutil.copytree(self.folder, copy, ignore=shutil.ignore_patterns("*.tmp"))
        self.spool.close(30)
        self._resume(copy)
        assert not self.spool.previous.clean

    def _resume(self, folder: Path) -> None:
        self.waiting.update(_numbers(self.flying.values()))
        self.flying.clear()
        self._open(folder)
        assert self.spool.state().recovered == len(self.waiting)
        self.done.clear()
        self.refused.clear()

    @invariant()
    def counts_agree(self) -> None:
        """Every figure of the state is the model's."""
        if not hasattr(self, "spool"):
            return
        state = self.spool.state()
        assert balanced(state)
        assert state.exported == self.spool.listener.exported == len(self.done)
        assert state.dropped.get(DropReason.EXPORT_REJECTED, 0) == len(self.refused)
        assert state.queued == len(self.waiting) + sum(entry.records for entry in self.flying.values())

    def teardown(self) -> None:
        """At the end the slots empty the spool: everything that waits is there, once."""
        if not hasattr(self, "spool"):
            return
        self.spool.give_back(list(self.flying.values()))
        self.waiting.update(_numbers(self.flying.values()))
        numbers = [n for slot in range(self.slots) for n in _numbers(self.spool.take_all(slot, self.slots, records=7))]
        self.spool.close(30)
        shutil.rmtree(self.root)
        assert len(numbers) == len(set(numbers))
        assert set(numbers) == self.waiting


def _numbers(entries: Iterable[Entry]) -> list[int]:
    return [int(one.split()[0]) for one in records_of(entries)]


TestSpoolModel = Machine.TestCase
TestSpoolModel.settings = settings(max_examples=12, stateful_step_count=20)
