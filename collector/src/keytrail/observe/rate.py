"""How many a second, over the last minute: from a counter that someone reads now and then."""

import time
from collections import deque
from collections.abc import Callable

_WINDOW_SECONDS = 60.0
_APART_SECONDS = 1.0


class Rate:
    """`sample` it from one thread about once a second or more often; `per_second` is for any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()
        self._per_second: float | None = None

    def sample(self, count: int) -> None:
        """Note the counter's value of now."""
        now = self._clock()
        samples = self._samples
        if samples and now - samples[-1][0] < _APART_SECONDS:
            return
        samples.append((now, count))
        while len(samples) > 2 and now - samples[1][0] >= _WINDOW_SECONDS:  # noqa: PLR2004 - an interval has two ends
            samples.popleft()
        first, earlier = samples[0]
        if now > first:
            self._per_second = (count - earlier) / (now - first)

    @property
    def per_second(self) -> float | None:
        """Events a second; None before two samples."""
        return self._per_second
