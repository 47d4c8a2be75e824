"""kill -9 of `keytrail collect` under load, again and again on one state folder, with a backend that takes its time."""

import time
from collections import Counter
from collections.abc import Set as AbstractSet
from itertools import pairwise
from pathlib import Path
from random import Random
from threading import Event, Thread

import pytest

from delivery.delivery_world import ARRIVED, PODS, SECONDS, collector_of_events, numbered, on_disk
from keytrail.export.otlp_pace import DEFAULT_LIMITS
from keytrail.settings import Settings
from keytrail.testing.fake_tetragon import FakeTetragon
from keytrail.testing.otlp_sink import OtlpSink
from keytrail.testing.otlp_sink_faults import Hang
from keytrail.testing.otlp_sink_receiver import ReceivedRequest
from support.processes import CollectorProcess, wait_until

CHUNK, CHUNKS = 100, 25
"""Events published at once, and how often in one run: all together fit into the queues, so that none is dropped."""
IN_FLIGHT = Settings().requests_in_flight * DEFAULT_LIMITS.batch_records
CAUSES = """SELECT attributes ->> '$."keytrail.gap.cause"' FROM records WHERE event_name = 'keytrail.gap'"""


class Backend:
    """An OTLP sink that answers late, so that a kill finds requests in flight, and what arrived there."""

    def __init__(self, sink: OtlpSink) -> None:
        self._sink = sink
        self.endpoint = sink.grpc_endpoint
        self.requests = 0
        self._taken = 0
        self._last = 0
        self.arrived: dict[str, int] = {}
        """Uid and number of each event."""
        self.times: Counter[str] = Counter()
        sink.answer_by(self._late)

    @property
    def repeats(self) -> int:
        """How many times an event came that had come before."""
        return self.times.total() - len(self.times)

    def look(self) -> AbstractSet[str]:
        """Wait until every request is dealt with; uids of all events that are here."""
        assert wait_until(lambda: self._sink.count() == self._taken, SECONDS)
        for row, uid, number in self._sink.rows(ARRIVED, (self._last,)):
            self._last = row
            self.arrived[uid] = int(number)
            self.times[uid] += 1
        return self.arrived.keys()

    def _late(self, request: ReceivedRequest) -> Hang:
        self._taken += request.records
        self.requests += 1
        return Hang(0.1)


def acknowledged(run: range, seen: set[int]) -> set[int]:
    """Numbers of a run that were on disk for certain, since a later one of the same workload was seen behind them."""
    last = {number % PODS: number for number in run if number in seen}
    return {number for number in run if number <= last.get(number % PODS, -1)}


class Feed:
    """Publishes numbered events to whoever listens until it is stopped, or no queue could hold more."""

    def __init__(self, agent: FakeTetragon, first: int) -> None:
        self._agent, self._first = agent, first
        self._stop = Event()
        self.next = first
        self._thread = Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.005) and self.next < self._first + CHUNKS * CHUNK:
            if self._agent.wait_for_listeners(timeout=0.1):
                self._agent.publish([numbered(number) for number in range(self.next, self.next + CHUNK)])
                self.next += CHUNK

    def stop(self) -> range:
        """End it; all numbers that were published."""
        self._stop.set()
        self._thread.join()
        return range(self._first, self.next)

    def wait(self, chunks: int) -> None:
        """Wait until so many chunks are published."""
        assert wait_until(lambda: self.next >= self._first + chunks * CHUNK, SECONDS)


class Victims:
    """Collectors on one state folder, each killed, and what was on disk when they were."""

    def __init__(self, folder: Path, agent: FakeTetragon, backend: Backend, random: Random) -> None:
        self._folder, self._agent, self._backend, self._random = folder, agent, backend, random
        self._state = folder / "state"
        self.runs: list[range] = []
        """Numbers of the events that each was given."""
        self.on_disk: dict[str, int] = {}
        """Uid and number of what was not settled at one kill or another."""
        self.repeats: list[int] = []
        """How many events had arrived once more at each kill: those before it have caused them."""

    def start(self) -> CollectorProcess:
        """Run a collector, which sends events."""
        return collector_of_events(self._folder, self._agent.address, self._backend.endpoint, self._state)

    def kill_one(self) -> None:
        """Start one, give it events, kill it, and look at what it leaves behind."""
        feed = Feed(self._agent, self.runs[-1].stop if self.runs else 2)
        try:
            with self.start() as collector:
                self._wait_for_a_moment(feed)
                collector.process.kill()
        finally:
            self.runs.append(feed.stop())
        assert wait_until(lambda: not self._agent.listeners, SECONDS)
        self._backend.look()
        self.repeats.append(self._backend.repeats)
        self.on_disk |= dict(on_disk(self._state))

    def _wait_for_a_moment(self, feed: Feed) -> None:
        """At a start, with what was left to be read; under load; or when a request has just gone out."""
        kind, before = self._random.randrange(5) if self.runs else 4, self._backend.requests  # one is sure to find some
        if kind > 0:
            feed.wait(self._random.randrange(1, 16))
        if kind > 2:
            more = self._random.randrange(1, 3)
            assert wait_until(lambda: self._backend.requests >= before + more, SECONDS)
        else:
            time.sleep(self._random.uniform(0.0, 0.3))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.long)])
def test_kill_at_random_moments(tmp_path: Path, kills: int, capsys: pytest.CaptureFixture[str]) -> None:
    """What was on disk at a kill arrives; only that, and at most the batches in flight, arrives twice."""
    with OtlpSink(http=None) as sink, FakeTetragon(f"unix://{tmp_path}/tetragon.sock") as agent:
        backend = Backend(sink)
        victims = Victims(tmp_path, agent, backend, Random(kills))  # noqa: S311 - not for secrets
        for _ in range(kills):
            victims.kill_one()
        with victims.start() as collector:
            assert agent.wait_for_listeners(timeout=SECONDS), collector.err  # from then on SIGTERM is a clean end
            assert wait_until(lambda: backend.look() >= victims.on_disk.keys(), SECONDS), collector.err
            records = collector.stop()["records"]
            backend.look()
        causes = sink.rows(CAUSES)
    numbers = set(backend.arrived.values())
    seen = numbers | set(victims.on_disk.values())
    must = {number for run in victims.runs for number in acknowledged(run, seen)}
    repeats = [*victims.repeats, backend.repeats]
    most = max(after - before for before, after in pairwise(repeats))
    with capsys.disabled():
        print(  # noqa: T201 - how much a kill repeats is a promise
            f"\n{kills} kills, {sum(map(len, victims.runs))} events, {len(must)} acknowledged, {len(must - numbers)} "
            f"of them lost; {repeats[-1]} repeats, at most {most} in one run"
        )
    assert must
    assert must <= numbers
    assert len(numbers) == len(backend.arrived)  # one uid for each event, however often it came
    assert {uid for uid, times in backend.times.items() if times > 1} <= victims.on_disk.keys()
    assert all(known <= before * IN_FLIGHT for before, known in enumerate(repeats))
    assert ("collector_killed",) in causes
    assert (records["queued"], records["dropped"]) == (0, {})
