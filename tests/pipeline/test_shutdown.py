"""The end of a collector: what was read is decided on or counted, and held-back repeats are told."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from keytrail.app import Collector
from keytrail.commands.live import stop_on_signals
from keytrail.domain.agent import AgentFacts
from keytrail.domain.event import Event
from keytrail.observe.accounting import Accounting
from keytrail.records import Outputs
from keytrail.settings import Settings
from keytrail.source.base import Batch
from keytrail.source.recording import RecordingWriter
from reload.config_map import SUPPRESS, rule
from support.commands import keytrail
from support.processes import wait_until
from support.synthetic import exec_event, process


class Waiting:
    """A source of given batches that then waits until it is closed, as a live one does."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches
        self._closed = threading.Event()
        self.all_read = threading.Event()

    def batches(self) -> Iterator[Batch]:
        """Give everything at once."""
        yield from self._batches
        self.all_read.set()
        self._closed.wait()

    def close(self) -> None:
        """End."""
        self._closed.set()


class Slow:
    """An output that takes its time."""

    def __init__(self, accounting: Accounting, seconds: float) -> None:
        self._accounting = accounting
        self._seconds = seconds
        self.pids: list[int] = []

    def write(self, event: Event) -> None:
        """Keep the process id."""
        time.sleep(self._seconds)
        self.pids.append(event.process.pid)
        self._accounting.on_exported(1)

    def flush(self) -> None:
        """Nothing is kept."""

    def close(self, deadline: float) -> None:
        """Nothing to end."""


def single_batches(count: int) -> list[Batch]:
    """Events that are never merged into one batch, as each comes with news of the agent."""
    return [Batch([exec_event(process(pid))], 1, AgentFacts()) for pid in range(2, count + 2)]


def run_and_stop(collector: Collector, source: Waiting) -> None:
    """Run until everything was read, then stop as on SIGTERM."""
    stop = threading.Event()
    stopper = threading.Thread(target=lambda: (source.all_read.wait(60), stop.set()))
    stopper.start()
    collector.run_live(stop)
    stopper.join()


@pytest.mark.parametrize("seconds", [0.0, 0.02])
def test_what_was_read_is_decided_on_or_counted(seconds: float) -> None:
    """On SIGTERM what waits is decided on in order for as long as there is time; the rest is lost by number."""
    accounting = Accounting()
    source, slow = Waiting(single_batches(400)), Slow(accounting, seconds)
    run_and_stop(Collector(Settings(rules="none"), source, Outputs((slow,)), accounting, live=True), source)
    assert wait_until(lambda: "keytrail-decide" not in {one.name for one in threading.enumerate()})
    events = accounting.summary()["events"]
    lost = events["dropped"].get("shutdown", 0)
    assert events["received"] == 400 == events["decoded"] + lost
    assert slow.pids == list(range(2, events["decoded"] + 2))
    assert lost or not seconds


def held_back(tmp_path: Path) -> tuple[Path, Path]:
    """A recording of ten execs of one program, and a rule that tells of the first and sums up the others."""
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "rule.yaml").write_text(rule("one", more=SUPPRESS))
    with RecordingWriter(tmp_path / "whole.pb") as writer:
        for pid in range(2, 12):
            writer.write(exec_event(process(pid, binary="/bin/x")))
    return tmp_path / "whole.pb", rules


def test_damaged_recording_still_tells_what_was_held_back(tmp_path: Path) -> None:
    """A recording that is cut in a message tells all findings of what was whole, summaries too; exit code 1."""
    whole, rules = held_back(tmp_path)
    damaged = tmp_path / "damaged.pb"
    damaged.write_bytes(whole.read_bytes()[:-5])
    ran = keytrail("replay", damaged, "--output", "findings", "--rules", rules, "--summary", tmp_path / "summary.json")
    assert (ran.code, len(ran.records)) == (1, 2)
    assert [found.get("suppressed", 0) for found in ran.records] == [0, 8]
    records = json.loads((tmp_path / "summary.json").read_text())["records"]
    assert (records["made"], records["exported"], records["suppressed"]) == (10, 2, {"over_budget": 0, "repeated": 8})


def test_whole_recording_tells_the_same_at_its_end(tmp_path: Path) -> None:
    """An undamaged recording ends without an error and with the same summaries."""
    whole, rules = held_back(tmp_path)
    ran = keytrail("replay", whole, "--output", "findings", "--rules", rules)
    assert ran.code == 0
    assert [found.get("suppressed", 0) for found in ran.records] == [0, 9]


def test_signals_stop_and_hangup_calls() -> None:
    """SIGHUP makes the call and stops nothing, SIGTERM stops; afterwards the handlers are those of before."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    hangups: list[int] = []
    with stop_on_signals(lambda: hangups.append(1)) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert wait_until(lambda: bool(hangups))
        assert (hangups, stop.is_set()) == ([1], False)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(60)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert "keytrail-signals" not in {one.name for one in threading.enumerate()}


def test_hangup_is_left_alone_where_nobody_wants_it() -> None:
    """Without a call for it SIGHUP keeps its meaning: a terminal that closes ends what runs in it."""
    before = signal.getsignal(signal.SIGHUP)
    with stop_on_signals():
        assert signal.getsignal(signal.SIGHUP) is before


def test_signal_that_meets_the_main_thread_inside_of_the_event_stops_it() -> None:
    """A handler that set the event itself could wait forever for the lock that the code it interrupted holds."""
    with stop_on_signals() as stop:
        condition = stop._cond
        with condition:
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(60)
