"""How long to wait before the API server is asked again: doubling, and random so that nodes do not act in step."""

import random
from collections.abc import Callable


class Backoff:
    """Pauses of one thread, in seconds."""

    def __init__(
        self, first: float = 0.5, longest: float = 30.0, *, uniform: Callable[[], float] = random.random
    ) -> None:
        self._first = first
        self._longest = longest
        self._uniform = uniform
        self._next = first

    def pause(self, at_least: float = 0.0) -> float:
        """Return the next pause; `at_least` is what the server asked for, spread, as it asks everybody for the same."""
        step, self._next = self._next, min(self._longest, self._next * 2)
        share = (1 + self._uniform()) / 2
        return max(step * share, at_least * 2 * share)

    def reset(self) -> None:
        """Begin anew: something went well."""
        self._next = self._first
