"""The fuzzer's bytes as decisions: numbers, texts and pieces are read off the front, zeros when they have run out."""

from collections.abc import Iterator
from random import Random


class Feed:
    """A cursor over the input of one run. The same bytes always decide the same."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that have decided nothing yet."""
        return max(0, len(self._data) - self._at)

    def take(self, size: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(self.left)

    def number(self, width: int = 1) -> int:
        """Return an unsigned number of so many bytes."""
        return int.from_bytes(self.take(width), "big")

    def below(self, count: int) -> int:
        """Return a number below `count`, of two bytes where one does not reach."""
        return self.number(1 if count <= 256 else 2) % count

    def text(self, size: int) -> str:
        """Return text of at most so many bytes; a byte that is no UTF-8 becomes a lone surrogate."""
        return self.take(size).decode("utf-8", "surrogateescape")


def cut(data: bytes, seed: int) -> Iterator[bytes]:
    """Cut bytes anywhere, by a number: 0 gives single bytes, others pieces that are mostly short, with long ones."""
    rng, at = Random(seed), 0  # noqa: S311 - reproducible
    while at < len(data):
        size = rng.choice((1, 2, 7, 40, 300, 5_000)) if seed else 1
        yield data[at : at + size]
        at += size
