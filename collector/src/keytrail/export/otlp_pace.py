"""When the next request may go out: limits, pauses between attempts, and the end.

In flow what the slots learn from answers, out comes the time each has to wait. A pause that the backend asked for
holds all slots; a pause of our own holds the one whose request failed. Knows neither requests nor answers.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition
from typing import Final

MIB: Final = 1024 * 1024
LONGEST_HINT_SECONDS: Final = 300.0
"""A server that asks for a longer pause is asked again after this one: a wrong hint must not cost a day of records."""


@dataclass(frozen=True, slots=True)
class SendLimits:
    """How records are gathered and how attempts are repeated. Counts are records, sizes bytes, times seconds."""

    batch_records: int = 512
    batch_bytes: int = 4 * MIB - 64 * 1024
    """Receivers refuse messages over 4 MiB by default; the rest is room for framing."""
    linger: float = 0.5
    """How long a batch that is not full waits for more."""
    first_pause: float = 1.0
    longest_pause: float = 30.0
    denied_pause: float = 10.0
    """First pause after the backend said that it takes nothing from us; doubles up to `longest_denied_pause`."""
    longest_denied_pause: float = 60.0
    """A kubelet brings a rotated Secret within a minute or two; waiting much longer only fills the spool."""
    smallest_request: int = 64 * 1024
    """No receiver's size limit is below this: one that refuses a smaller request as too large means something else,
    and some throttle with RESOURCE_EXHAUSTED without saying for how long."""
    bisections_a_minute: int = 600
    """Requests spent on finding what the backend refuses; when they are used up, what is refused is set aside whole."""
    credit: int = 4
    """Refused parts that may be set aside before the backend must have accepted something again."""
    most_suspects: int = 64
    """Refused parts that are looked for in one attempt while the backend accepts nothing."""


DEFAULT_LIMITS: Final = SendLimits()


def pause_seconds(first: float, longest: float, attempt: int, hint: float | None, uniform: float) -> float:
    """Return the pause after failed attempt number `attempt` (from 0); `uniform` is random in [0, 1).

    Jitter keeps a cluster's collectors from coming back at the same instant. A server's hint is a lower bound:
    RetryInfo and Retry-After say when to try at the earliest, and a server that fails again is given more time all the
    same.
    """
    doubled: float = first * 2 ** min(attempt, 30)
    own = min(longest, doubled) * (0.5 + uniform / 2)
    return own if hint is None else max(own, min(hint, LONGEST_HINT_SECONDS) * (1 + uniform / 10))


class Pace:
    """Shared by all slots; any thread."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._changed = Condition()
        self._not_before = 0.0
        self._give_up_at: float | None = None
        """Set by `close`: no attempt begins after it."""
        self._over = False

    def hold(self, seconds: float) -> None:
        """Keep all slots from sending for so long."""
        with self._changed:
            self._not_before = max(self._not_before, self._monotonic() + seconds)

    def may_send(self) -> bool:
        """Wait for the end of a hold; False when there is no time for another attempt."""
        with self._changed:
            while not self._over:
                now = self._monotonic()
                if self._give_up_at is not None and self._give_up_at <= max(now, self._not_before):
                    return False
                if self._not_before <= now:
                    return True
                self._changed.wait(self._not_before - now)
            return False

    def timeout(self, longest: float) -> float:
        """Return what one request may take, positive."""
        with self._changed:
            left = longest if self._give_up_at is None else self._give_up_at - self._monotonic()
            return max(0.001, min(longest, left))

    def pause(self, seconds: float) -> None:
        """Wait before the next attempt of one slot. When closing begins meanwhile, that attempt comes at once."""
        with self._changed:
            if self._give_up_at is None:
                self._changed.wait_for(lambda: self._give_up_at is not None or self._over, seconds)
            else:
                left = self._give_up_at - self._monotonic()
                self._changed.wait_for(lambda: self._over, max(0.0, min(seconds, left)))

    @property
    def closing(self) -> bool:
        """Whether `close` was called."""
        return self._give_up_at is not None

    def close(self, seconds: float) -> None:
        """Let no attempt begin later than in so many seconds. The first call counts."""
        with self._changed:
            if self._give_up_at is None:
                self._give_up_at = self._monotonic() + seconds
            self._changed.notify_all()

    def end(self) -> None:
        """End every wait; no further attempt."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
