"""What rules remember between events: repeats, counts, steps of sequences. Bounded; what is forgotten is counted.

In: that a condition held, for which key, at which time. Out: whether that makes a finding, and later how many repeats
it stood for. Time is what the engine says, a clock made of the events' own times; nothing here looks at a real one.
Knows no condition.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Final

from keytrail.domain.event import Event
from keytrail.domain.finding import Finding, Snapshot

MINUTE_NS: Final = 60_000_000_000
_KEYS: Final = 4_096
_ITEMS: Final = 65_536
_PARTIALS: Final = 8_192
Key = Hashable
"""Text, a number, a tuple of these, or a digest: whoever starts a process chooses the texts in it."""


def digest(key: tuple[Any, ...]) -> bytes:
    """Return what is kept of a long key; injective but for collisions of the hash, since made of a tuple's repr."""
    return blake2b(repr(key).encode("utf-8", "backslashreplace"), digest_size=16).digest()


@dataclass(slots=True)
class _Repeats:
    finding: Finding
    until_ns: int
    count: int = 0

    def summary(self) -> Finding | None:
        return replace(self.finding, suppressed=self.count, until_ns=self.until_ns) if self.count else None


class Suppressor:
    """Findings of one rule by key: the first of a window passes, the others are counted for a summary."""

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._repeats: OrderedDict[Key, _Repeats] = OrderedDict()  # in the order in which their windows end
        self.evicted = 0

    def is_repeat(self, key: Key, now_ns: int) -> bool:
        """Whether a window of this key is open; counts the repeat."""
        repeats = self._repeats.get(key)
        if repeats is None or repeats.until_ns <= now_ns:
            return False
        repeats.count += 1
        return True

    def begin(self, key: Key, finding: Finding, now_ns: int) -> Iterator[Finding]:
        """Open a window; a full memory ends the oldest early, with its summary."""
        if len(self._repeats) >= _KEYS:
            self.evicted += 1
            _, oldest = self._repeats.popitem(last=False)
            oldest.until_ns = now_ns
            yield from filter(None, [oldest.summary()])
        self._repeats[key] = _Repeats(finding, now_ns + self._window_ns)

    @property
    def due_ns(self) -> int | None:
        """When the next window ends."""
        return next(iter(self._repeats.values())).until_ns if self._repeats else None

    def ended(self, now_ns: int) -> Iterator[Finding]:
        """End the windows that are over; give the summaries of those that had repeats."""
        while self._repeats and (oldest := next(iter(self._repeats.values()))).until_ns <= now_ns:
            self._repeats.popitem(last=False)
            yield from filter(None, [oldest.summary()])

    def close(self, now_ns: int) -> Iterator[Finding]:
        """End all windows now."""
        for repeats in self._repeats.values():
            repeats.until_ns = min(repeats.until_ns, now_ns)
            yield from filter(None, [repeats.summary()])
        self._repeats.clear()


class Budget:
    """At most so many findings of one rule a minute; what is over becomes one summary at the minute's end."""

    def __init__(self, a_minute: int) -> None:
        self._a_minute = a_minute
        self._used = 0
        self._over: _Repeats | None = None
        self._until_ns = 0

    def admits(self, made: Callable[[], Finding], now_ns: int) -> Finding | None:
        """Make the finding if it is within the budget, else count it: a flood must not cost what its findings would."""
        if now_ns >= self._until_ns:
            self._used, self._until_ns = 0, now_ns + MINUTE_NS
        self._used += 1
        if self._used <= self._a_minute:
            return made()
        if self._over is None:
            self._over = _Repeats(made(), self._until_ns)
        self._over.count += 1
        return None

    @property
    def due_ns(self) -> int | None:
        """When the summary is to be made."""
        return self._over.until_ns if self._over is not None else None

    def ended(self, now_ns: int) -> Iterator[Finding]:
        """Give the summary once the minute is over."""
        if self._over is not None and self._over.until_ns <= now_ns:
            over, self._over = self._over, None
            yield from filter(None, [over.summary()])

    def close(self, now_ns: int) -> Iterator[Finding]:
        """Give the summary now."""
        self._until_ns = 0
        if self._over is not None:
            self._over.until_ns = min(self._over.until_ns, now_ns)
            yield from self.ended(now_ns)


_Seen = tuple[Key, int] | dict[Key, int]
"""Values, and when they were seen last; a pair for the one that mostly is all that ever comes: a fifth of the space."""


class Counter:
    """Events, or distinct values, of one rule by key within a window."""

    def __init__(self, count: int, window_ns: int, *, keys: int = _KEYS, items: int = _ITEMS) -> None:
        self._count = count
        self._window_ns = window_ns
        self._most_keys, self._most_items = keys, items
        self._seen: OrderedDict[Key, _Seen] = OrderedDict()
        self._events: OrderedDict[Key, deque[int]] = OrderedDict()
        self._items = 0
        self.evicted = 0

    def reaches(self, key: Key, now_ns: int) -> bool:
        """Count an event; whether it makes the threshold, after which counting starts from nothing."""
        times = self._events.get(key)
        if times is None:
            times = self._events[key] = deque()
        else:
            self._events.move_to_end(key)
        times.append(now_ns)
        self._items += 1
        while times[0] <= now_ns - self._window_ns:
            times.popleft()
            self._items -= 1
        self._bound(self._events)
        if len(times) < self._count:
            return False
        self._items -= len(self._events.pop(key, ()))
        return True

    def reaches_distinct(self, key: Key, value: Key, now_ns: int) -> bool:
        """Count a value that was not seen within the window."""
        seen = self._seen.get(key)
        if seen is None:
            self._seen[key] = value, now_ns
            self._items += 1
            self._bound(self._seen)
            return False
        self._seen.move_to_end(key)
        if isinstance(seen, tuple):
            before, at_ns = seen
            if before == value:
                self._seen[key] = value, now_ns
                return False
            seen = self._seen[key] = {before: at_ns}
        if seen.pop(value, None) is None:
            self._items += 1
        seen[value] = now_ns  # seen last
        while seen[oldest := next(iter(seen))] <= now_ns - self._window_ns:
            del seen[oldest]
            self._items -= 1
        self._bound(self._seen)
        if len(seen) < self._count:
            return False
        self._items -= len(self._seen.pop(key, ()))
        return True

    def _bound(self, kept: OrderedDict[Key, Any]) -> None:
        """Forget the key of which nothing came for longest, when there is too much."""
        if len(kept) > self._most_keys or self._items > self._most_items:
            _, oldest = kept.popitem(last=False)
            self._items -= 1 if oldest.__class__ is tuple else len(oldest)
            self.evicted += 1

    def forget(self) -> None:
        """Start from nothing: the clock was set back."""
        self._seen.clear()
        self._events.clear()
        self._items = 0


@dataclass(slots=True, eq=False)
class _Partial:
    """A sequence that has begun."""

    began_ns: int
    steps: tuple[Snapshot, ...]
    places: list[tuple[int, str]] = field(default_factory=list)


class Sequencer:
    """Sequences of one rule that have begun, by what their steps have in common."""

    def __init__(self, within_ns: int, steps: int) -> None:
        self._within_ns = within_ns
        self._last = steps - 1
        self.waiting: OrderedDict[tuple[int, str], _Partial] = OrderedDict()
        """In the order in which they began; only read by others."""
        self.evicted = 0

    def advance(
        self, step: int, sought: Iterable[str], kept: Iterable[str], event: Event, now_ns: int
    ) -> tuple[Snapshot, ...] | None:
        """Take an event that is a step; the steps before when it was the last, None while it is not.

        It follows a step that was kept under something it seeks, and is then kept itself for the next one.
        """
        before: tuple[Snapshot, ...] = ()
        began_ns = now_ns
        if step:
            partial = self._take(step, sought, now_ns)
            if partial is None:
                return None
            before, began_ns = partial.steps, partial.began_ns
        if step == self._last:
            return before
        following = _Partial(began_ns, (*before, Snapshot(event)), [(step + 1, one) for one in dict.fromkeys(kept)])
        for place in following.places:
            self.waiting[place] = following
            self.waiting.move_to_end(place)
        while len(self.waiting) > _PARTIALS:
            self.waiting.popitem(last=False)
            self.evicted += 1
        return None

    def waits(self, now_ns: int) -> bool:
        """Forget what began too long ago; whether anything is left, without which no step follows another."""
        waiting = self.waiting
        while waiting:
            place, oldest = next(iter(waiting.items()))
            if now_ns - oldest.began_ns <= self._within_ns:
                return True
            del waiting[place]
        return False

    def _take(self, step: int, sought: Iterable[str], now_ns: int) -> _Partial | None:
        """Take out the sequence that waits for this step; one that is too old is forgotten."""
        for one in sought:
            partial = self.waiting.get((step, one))
            if partial is None:
                continue
            for place in partial.places:
                if self.waiting.get(place) is partial:
                    del self.waiting[place]
            if now_ns - partial.began_ns <= self._within_ns:
                return partial
        return None

    def forget(self) -> None:
        """Start from nothing: the clock was set back."""
        self.waiting.clear()
