"""What fills a snapshot: pulses of threads, the memory of gaps, the rate of events, the process's own usage."""

import threading

from keytrail.domain.gap import Gap, GapCause
from keytrail.observe.gap_log import GapLog
from keytrail.observe.rate import Rate
from keytrail.observe.usage import usage
from keytrail.observe.watchdog import Watchdog


class Clock:
    """A time that stands until the test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return it."""
        return self.now


def test_a_pulse_tells_waiting_from_stuck() -> None:
    """Busy time grows only while a piece of work lasts, and begins anew with the next one."""
    clock = Clock()
    watchdog = Watchdog(clock)
    pulse = watchdog.watch("decide", 30.0)
    assert watchdog.parts() == ()  # not started
    pulse.started()
    clock.now = 1000.0
    assert watchdog.parts()[0].busy_seconds == 0
    pulse.busy()
    clock.now += 31
    assert watchdog.parts()[0].busy_seconds == 31
    pulse.busy()
    clock.now += 1
    assert watchdog.parts()[0].busy_seconds == 1
    pulse.idle()
    clock.now += 1000
    assert watchdog.parts()[0].busy_seconds == 0


def test_a_thread_that_ends_is_dead_unless_it_said_so() -> None:
    """An exception that ends a thread shows; an end as intended does not."""
    watchdog = Watchdog()
    intended, not_intended = watchdog.watch("a", 1.0), watchdog.watch("b", 1.0)

    def run() -> None:
        intended.started()
        not_intended.started()
        intended.finished()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert [(part.name, part.alive) for part in watchdog.parts()] == [("b", False)]


def test_an_episode_counts_once_with_its_last_numbers() -> None:
    """News of a gap replaces the earlier report and adds only the difference; a lower estimate takes nothing back."""
    gaps = GapLog()
    for lost, backfilled in ((10, 0), (25, 0), (20, 0), (25, 5)):
        gaps.add(Gap(GapCause.READER_SLOW, 1, 2, lost=lost, backfilled=backfilled))
    gaps.add(Gap(GapCause.AGENT_AWAY, 1, 2))
    gaps.add(Gap(GapCause.READER_SLOW, 9, 10, lost=1))
    part = gaps.part()
    assert part.episodes == {"reader_slow": 2, "agent_away": 1}
    assert part.lost == {"reader_slow": 31, "agent_away": 0}
    assert part.backfilled == {"reader_slow": 5, "agent_away": 0}
    assert [(gap.cause, gap.lost) for gap in part.recent] == [
        ("reader_slow", 25),
        ("agent_away", None),
        ("reader_slow", 1),
    ]


def test_gaps_without_end_are_bounded_and_still_counted() -> None:
    """Ten thousand gaps are all in the totals, and only the newest are kept."""
    gaps = GapLog()
    for number in range(10_000):
        gaps.add(Gap(GapCause.THROTTLED, number, number + 1, lost=1))
    part = gaps.part()
    assert (part.episodes, part.lost) == ({"throttled": 10_000}, {"throttled": 10_000})
    assert len(part.recent) == 64
    assert part.recent[-1].start_ns == 9_999


def test_a_rate_is_of_the_last_minute() -> None:
    """Unknown at first, then the increase over at most a minute; what was before is forgotten."""
    clock = Clock()
    rate = Rate(clock)
    rate.sample(0)
    assert rate.per_second is None
    for count in range(1000, 61_000, 1000):
        clock.now += 1
        rate.sample(count)
    assert rate.per_second == 1000
    for _ in range(120):
        clock.now += 1
        rate.sample(60_000)
    assert rate.per_second == 0


def test_usage_is_of_this_process() -> None:
    """CPU time, memory, threads and descriptors are there and plausible."""
    found = usage()
    assert found.cpu_user_seconds > 0
    assert 1_000_000 < found.memory_bytes < 1 << 40
    assert found.threads >= 1
    assert found.file_descriptors >= 3
