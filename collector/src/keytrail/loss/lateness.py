"""How far behind the stream is: the time of events against the clock.

In: the newest event of each batch. Out: one episode while everything that arrives is late. Single late events are
ordinary: the agent holds back what waits for a pod's metadata, for up to 30 s. So a batch is as late as its newest
event, and only a run of late batches is a sign: a queue on the way is filling, and will overflow.
"""

from keytrail.domain.gap import GapCause
from keytrail.loss.episode import Episode, Report

_LATE_NS = 10_000_000_000
_RUN_NS = 5_000_000_000
_ABSURD_NS = 3_600_000_000_000
"""No queue holds an hour: the events are a recording's, or a clock is wrong."""


class Lateness:
    """For one thread at a time."""

    def __init__(self, report: Report, *, late_ns: int = _LATE_NS, run_ns: int = _RUN_NS) -> None:
        self._late_ns = late_ns
        self._run_ns = run_ns
        self._since_ns = 0
        self._worst_ns = 0
        self._episode = Episode(GapCause.LATE, report, suspected=True)

    def look(self, newest_ns: int, now_ns: int) -> None:
        """Take a batch by its newest event."""
        lag = now_ns - newest_ns
        if not self._late_ns <= lag < _ABSURD_NS:
            self._since_ns = self._worst_ns = 0
            return
        self._since_ns = self._since_ns or now_ns
        self._worst_ns = max(self._worst_ns, lag)
        if now_ns - self._since_ns >= self._run_ns:
            seconds = self._worst_ns / 1e9
            detail = f"events arrived up to {seconds:.1f} s after they happened"
            self._episode.add(self._since_ns, now_ns, now_ns=now_ns, detail=detail, lag_ns=self._worst_ns)

    def tick(self, now_ns: int) -> None:
        """End an episode that is over."""
        self._episode.tick(now_ns)

    def close(self) -> None:
        """End what is open."""
        self._episode.close()
