"""A memory of bounded size: what came of a key the last time, forgotten when there is too much of it.

Knows nothing of what it holds.
"""

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Bounded(dict[K, V], Generic[K, V]):
    """It is emptied when it is full: what is in use is soon there again."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def keep(self, key: K, value: V) -> V:
        """Remember and return the value."""
        if len(self) >= self._most:
            self.clear()
        self[key] = value
        return value
