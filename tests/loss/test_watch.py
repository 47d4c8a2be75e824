"""What the stream itself shows: recorded loss is found, recorded streams without loss give none, episodes end."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from keytrail.decode.decoder import Decoder
from keytrail.decode.redact import Redactor
from keytrail.domain.agent import AgentFacts
from keytrail.domain.event import Event, EventType
from keytrail.domain.gap import Gap, GapCause, GapPhase
from keytrail.loss.unannounced import Unannounced
from keytrail.loss.watch import LossWatch
from keytrail.source.base import Batch
from keytrail.source.grpc_stream import State, Transition
from keytrail.source.recording import read_recording
from keytrail.source.status import Reason
from support.recordings import CORPUS, STREAMS, decode_each, decoded_once

SECOND = 1_000_000_000
NOTHING = Batch((), 0)


def feed(watch: LossWatch, events: Iterable[Event], size: int = 64) -> None:
    """Give events in batches, after the batch that begins a connection."""
    watch.batch((), Batch((), 0, AgentFacts()))
    events = list(events)
    for start in range(0, len(events), size):
        watch.batch(events[start : start + size], NOTHING)


def consumer(name: str) -> list[Event]:
    """One of the three streams that watched the same burst."""
    decoder = Decoder(Redactor().redact)
    return list(decode_each(decoder, read_recording(CORPUS / "slow-consumer" / f"{name}.pb.zst")))


def moved(state: State, at_ns: int, reason: Reason = Reason.REFUSED) -> Transition:
    """A transition of the connection."""
    return Transition(state, reason, "unix:///t.sock", 1, "", at_ns)


@pytest.mark.parametrize(("name", "lost"), [("fast", 0), ("slow", 78), ("stalled", 0)])
def test_processes_whose_exec_was_dropped_are_counted(name: str, lost: int, gaps: Any, clock: Any) -> None:
    """Of a real agent's drops for a slow reader all 78 exits whose exec is missing are found, and for a fast one none.

    The stalled reader lost both exec and exit of each process: of those nothing is left to tell.
    """
    watch = LossWatch(gaps, now_ns=clock)
    feed(watch, consumer(name))
    clock.turn(40)
    watch.tick()
    assert [(gap.cause, gap.lost, gap.suspected) for gap in gaps.all] == [
        (GapCause.EXIT_WITHOUT_EXEC, 78, True) for _ in range(bool(lost))
    ]


@pytest.mark.parametrize("name", STREAMS)
def test_streams_without_loss_give_no_gap_of_missing_execs(name: str, gaps: Any, clock: Any) -> None:
    """Forks without exec, processes from before the stream and execs held back are not taken for loss."""
    watch = LossWatch(gaps, now_ns=clock)
    feed(watch, decoded_once(name))
    watch.close()
    causes = {gap.cause for gap in gaps.all}
    assert causes <= {GapCause.THROTTLED}
    assert bool(causes) == (name == "throttle")


def test_exec_that_comes_late_is_no_loss(gaps: Any, clock: Any, event: Callable[..., Event]) -> None:
    """The agent may hold an exec back for 30 s while another event of the process passes it: nothing is reported."""
    watch = LossWatch(gaps, now_ns=clock)
    feed(watch, [event("a", clock.ns), event("b", clock.ns, type_=EventType.EXIT)])
    clock.turn(30)
    watch.tick()
    watch.batch([event("b", clock.ns)], NOTHING)
    clock.turn(60)
    watch.tick()
    assert gaps.all == []


def test_processes_from_before_the_connection_are_not_missed(
    gaps: Any, clock: Any, event: Callable[..., Event]
) -> None:
    """Counting begins with the first exec of each connection: what started earlier belongs to the gap before it."""
    watch = LossWatch(gaps, now_ns=clock)
    feed(watch, [event("old", clock.ns, type_=EventType.EXIT), event("first", clock.ns + 1)])
    watch.batch((), Batch((), 0, AgentFacts()))
    watch.batch([event("between", clock.ns + 2, type_=EventType.EXIT), event("next", clock.ns + 3)], NOTHING)
    watch.batch([event("lost", clock.ns + 4, type_=EventType.EXIT)], NOTHING)
    clock.turn(40)
    watch.tick()
    assert [gap.lost for gap in gaps.all] == [1]


def test_forgotten_processes_are_not_missed(gaps: Any, clock: Any, event: Callable[..., Event]) -> None:
    """A process whose exec is older than what is remembered is not counted when it exits; a younger one is."""
    unannounced = Unannounced(gaps, generation=10)
    execs = [event(f"p{number}", clock.ns + number * SECOND) for number in range(50)]
    for one in execs:
        unannounced.look([one], clock.ns)
    exits = [event(f"p{number}", clock.ns + number * SECOND, type_=EventType.EXIT) for number in range(50)]
    unannounced.look(exits, clock.ns)
    unannounced.look([event("lost", clock.ns + 60 * SECOND, type_=EventType.EXIT)], clock.ns)
    unannounced.close(clock.ns)
    assert [(gap.phase, gap.lost) for gap in gaps.all] == [(GapPhase.OPEN, 1), (GapPhase.CLOSED, 1)]


def test_throttled_cgroup_is_one_gap_from_start_to_stop(gaps: Any, clock: Any) -> None:
    """START opens a gap that names the cgroup, STOP closes it; time makes up for a STOP that never comes."""
    watch = LossWatch(gaps, now_ns=clock)
    feed(watch, decoded_once("throttle"))
    opened = gaps.of(GapCause.THROTTLED, GapPhase.OPEN)
    assert [dict(gap.facts)["cgroup"] for gap in opened] == ["ssh.service", "drv-throttle2.service"]
    (closed,) = gaps.of(GapCause.THROTTLED, GapPhase.CLOSED)
    assert closed.id == opened[0].id
    assert closed.start_ns == opened[0].start_ns < closed.end_ns
    clock.turn(700)
    watch.tick()
    assert [gap.id for gap in gaps.of(GapCause.THROTTLED, GapPhase.CLOSED)] == [gap.id for gap in opened]


def test_lateness_is_one_gap_with_the_largest_lag(gaps: Any, clock: Any, event: Callable[..., Event]) -> None:
    """Events that keep arriving late give one gap; one held-back event among fresh ones gives none."""
    watch = LossWatch(gaps, now_ns=clock)
    feed(watch, [event("x", clock.ns - 25 * SECOND), event("y", clock.ns)])
    clock.turn(6)
    feed(watch, [event("z", clock.ns - 25 * SECOND), event("w", clock.ns)])
    assert gaps.all == []
    for lag in (12, 20, 15, 12):
        feed(watch, [event(f"late{lag}", clock.ns - lag * SECOND)])
        clock.turn(3)
    feed(watch, [event("fresh", clock.ns)])
    clock.turn(20)
    watch.tick()
    opened, closed = gaps.all
    assert (opened.phase, closed.phase) == (GapPhase.OPEN, GapPhase.CLOSED)
    assert (opened.cause, opened.id) == (GapCause.LATE, closed.id)
    assert closed.lag_ns == 20 * SECOND
    assert closed.lost is None


def test_recording_served_as_an_agent_is_not_late(gaps: Any, clock: Any, event: Callable[..., Event]) -> None:
    """Events that are hours old come from no queue."""
    watch = LossWatch(gaps, now_ns=clock)
    for _ in range(5):
        feed(watch, [event("x", clock.ns - 7200 * SECOND)])
        clock.turn(3)
    assert gaps.all == []


def test_agent_away_is_told_at_once_and_closed_on_return(gaps: Any, clock: Any, event: Callable[..., Event]) -> None:
    """The gap begins where all was known to be well, the last event, and ends with the connection."""
    watch = LossWatch(gaps, now_ns=clock)
    feed(watch, [event("x", clock.ns)])
    lost_ns = clock.ns + 2 * SECOND
    watch.transition(moved(State.AWAY, lost_ns))
    watch.transition(moved(State.AWAY, lost_ns + SECOND, Reason.ABSENT))
    watch.transition(moved(State.CONNECTED, lost_ns + 5 * SECOND, Reason.CONNECTED))
    watch.transition(moved(State.CONNECTED, lost_ns + 6 * SECOND, Reason.CONNECTED))
    assert [(gap.phase, gap.start_ns, gap.end_ns, gap.lost) for gap in gaps.all] == [
        (GapPhase.OPEN, clock.ns, lost_ns, None),
        (GapPhase.CLOSED, clock.ns, lost_ns + 5 * SECOND, None),
    ]
    assert {gap.node for gap in gaps.all} == {"node-1"}


def test_idle_stream_does_not_stretch_the_gap(gaps: Any, clock: Any, event: Callable[..., Event]) -> None:
    """After an hour without events a lost connection is a gap of seconds, not of an hour."""
    watch = LossWatch(gaps, now_ns=clock)
    feed(watch, [event("x", clock.ns)])
    clock.turn(3600)
    watch.transition(moved(State.AWAY, clock.ns))
    assert gaps.all[0].start_ns == clock.ns - 30 * SECOND


def test_an_agent_that_was_never_reached_is_missed_from_the_start(gaps: Any, clock: Any) -> None:
    """The first attempt may take ten seconds to fail: the gap does not begin with its end."""
    began = clock.ns
    watch = LossWatch(gaps, now_ns=clock)
    clock.turn(10)
    watch.transition(moved(State.AWAY, clock.ns))
    assert (gaps.all[0].start_ns, gaps.all[0].end_ns) == (began, clock.ns)


def test_gap_still_open_at_the_end_is_closed(gaps: Any, clock: Any) -> None:
    """A collector that stops while its agent is away says so with both times."""
    watch = LossWatch(gaps, now_ns=clock)
    watch.transition(moved(State.AWAY, clock.ns))
    clock.turn(9)
    watch.close()
    assert [(gap.phase, gap.end_ns) for gap in gaps.all] == [
        (GapPhase.OPEN, clock.ns - 9 * SECOND),
        (GapPhase.CLOSED, clock.ns),
    ]


@pytest.mark.parametrize(("clean", "cause"), [(True, GapCause.COLLECTOR_STOPPED), (False, GapCause.COLLECTOR_KILLED)])
def test_time_without_a_collector_is_a_gap(clean: bool, cause: GapCause, gaps: Any, clock: Any) -> None:
    """From the last sign of life of the run before to this start, and no gap where there was none before.

    One that was killed had read what it had not decided on yet. A clock that was set back in between hides how long it
    was, not that it was.
    """
    watch = LossWatch(gaps, now_ns=clock)
    watch.started(clean, None)
    watch.started(clean, clock.ns - 60 * SECOND)
    watch.started(clean, clock.ns + SECOND)
    assert gaps.all[:1] == [Gap(cause, clock.ns - (60 if clean else 65) * SECOND, clock.ns)]
    [unknown] = gaps.all[1:]
    assert (unknown.cause, unknown.start_ns, unknown.end_ns) == (cause, clock.ns, clock.ns)
    assert "the clock was set back" in unknown.detail


def test_own_drops_are_counted_exactly(gaps: Any, clock: Any) -> None:
    """What our own queue had no room for is told at the next look, and the total when it is over."""
    dropped = 5
    watch = LossWatch(gaps, inbox_dropped=lambda: dropped, now_ns=clock)
    watch.tick()
    began = clock.ns
    for more in (100, 20, 0, 0, 0, 0, 0):
        clock.turn(2)
        dropped += more
        watch.tick()
    opened, closed = gaps.all
    assert (opened.cause, opened.lost, opened.exact, opened.start_ns) == (GapCause.INBOX_FULL, 100, True, began)
    assert (closed.lost, closed.end_ns, closed.id) == (120, began + 4 * SECOND, opened.id)


def test_a_clock_that_is_set_back_holds_no_total_back(gaps: Any, clock: Any) -> None:
    """What was lost before is told in total at once, and what is lost afterwards is an episode of its own."""
    dropped = 0
    watch = LossWatch(gaps, inbox_dropped=lambda: dropped, now_ns=clock)
    for more in (100, 20):
        dropped += more
        clock.turn(2)
        watch.tick()
    clock.turn(-86_400)
    watch.tick()
    dropped += 7
    clock.turn(2)
    watch.tick()
    assert [(gap.phase, gap.lost) for gap in gaps.all] == [
        (GapPhase.OPEN, 100),
        (GapPhase.CLOSED, 120),
        (GapPhase.OPEN, 7),
    ]
    assert all(gap.start_ns <= gap.end_ns for gap in gaps.all)


def test_endless_loss_is_cut_into_totals(gaps: Any, clock: Any) -> None:
    """An episode that goes on for hours has a closing record every ten minutes; their sum is the loss."""
    dropped = 0
    watch = LossWatch(gaps, inbox_dropped=lambda: dropped, now_ns=clock)
    for _ in range(1000):
        clock.turn(2)
        dropped += 1
        watch.tick()
    watch.close()
    closed = gaps.of(GapCause.INBOX_FULL, GapPhase.CLOSED)
    assert sum(gap.lost for gap in closed) == 1000
    assert len(closed) == 4


def test_arrivals_are_counted_by_policy(gaps: Any, clock: Any, event: Callable[..., Event]) -> None:
    """Events of each policy are counted before any filter, and backfilled ones are not arrivals."""
    watch = LossWatch(gaps, now_ns=clock)
    events = [event(str(number), clock.ns, policy="p") for number in range(3)]
    watch.batch(events, NOTHING)
    watch.batch(events, NOTHING._replace(backfilled=True))
    assert watch.arrived()["p"] == 3


def test_filtered_stream_is_not_missed_in_parts(gaps: Any, clock: Any) -> None:
    """With a server-side filter an exec may be left out on purpose: neither processes nor policies are judged."""
    watch = LossWatch(gaps, filtered=True, now_ns=clock)
    feed(watch, consumer("slow"))
    watch.close()
    assert gaps.all == []
    assert watch.arrived() == {}
