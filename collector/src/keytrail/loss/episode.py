"""One cause's current episode of loss: told at once when it begins, once more when it is over.

Signs of loss come in, a few records go out however many signs there are. The first record comes at the first sign, as a
reader has to learn of loss within seconds; the second carries the totals. An episode that goes on and on is cut, so
that totals of the past can be summed up.
"""

from collections.abc import Callable
from dataclasses import replace

from keytrail.domain.gap import Gap, GapCause, GapPhase

Report = Callable[[Gap], None]
"""Takes a gap. Called on whatever thread noticed it; must not block."""

_QUIET_NS = 10_000_000_000
"""Between two signs of one episode: five looks at the agent's counters without a rise."""
_LONGEST_NS = 600_000_000_000


class Episode:
    """Not for several threads at once: its owner has the lock."""

    def __init__(
        self,
        cause: GapCause,
        report: Report,
        *,
        exact: bool = False,
        suspected: bool = False,
        policy: str = "",
        facts: tuple[tuple[str, str], ...] = (),
        quiet_ns: int | None = _QUIET_NS,
        longest_ns: int | None = _LONGEST_NS,
    ) -> None:
        """`quiet_ns` after the last sign it is over, `longest_ns` after the first it is cut; None: `close` ends it."""
        self._empty = Gap(
            cause, 0, 0, exact=exact, policy=policy, facts=facts, phase=GapPhase.OPEN, suspected=suspected
        )
        self._report = report
        self._quiet_ns = quiet_ns
        self._longest_ns = longest_ns
        self._gap: Gap | None = None
        self._opened_ns = self._last_sign_ns = 0

    @property
    def is_open(self) -> bool:
        """Whether an episode has begun and is not over."""
        return self._gap is not None

    def add(
        self, start_ns: int, end_ns: int, *, now_ns: int, lost: int | None = None, detail: str = "", lag_ns: int = 0
    ) -> None:
        """Take one sign: loss between `start_ns` and `end_ns`. `detail` replaces what an earlier sign said."""
        self._last_sign_ns = now_ns
        gap = self._gap
        if gap is None:
            self._opened_ns = now_ns
            start_ns = min(start_ns, end_ns)  # the clock was set back in between
            self._gap = replace(self._empty, start_ns=start_ns, end_ns=end_ns, lost=lost, detail=detail, lag_ns=lag_ns)
            self._report(self._gap)
            return
        # The start stays: it is what ties the records of an episode together.
        self._gap = replace(
            gap,
            end_ns=max(gap.end_ns, end_ns),
            lost=gap.lost if lost is None else (gap.lost or 0) + lost,
            detail=detail or gap.detail,
            lag_ns=max(gap.lag_ns, lag_ns),
        )

    def tick(self, now_ns: int) -> None:
        """End the episode when its time has come, or a clock that was set back would keep it for as long."""
        if self._gap is None:
            return
        over = self._quiet_ns is not None and abs(now_ns - self._last_sign_ns) >= self._quiet_ns
        if over or (self._longest_ns is not None and abs(now_ns - self._opened_ns) >= self._longest_ns):
            self.close()

    def close(self, end_ns: int = 0, detail: str = "") -> None:
        """End the episode, if there is one, with its totals; `end_ns` 0 leaves the end where the last sign put it."""
        if (gap := self._gap) is None:
            return
        self._gap = None
        self._report(replace(gap, phase=GapPhase.CLOSED, end_ns=max(gap.end_ns, end_ns), detail=detail or gap.detail))
