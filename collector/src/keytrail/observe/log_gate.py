"""Which entries of the own log are written: all but repeats, and those are counted.

An entry is a repeat when it says what its part of the collector said last, less than a minute ago, or when the same
place in the code has already written its share of that minute. So a thing that goes up and down is told each time, as
the last line must not be a lie, but not without end. The next entry of the place says how many were held back.
"""

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import TypeVar

from keytrail.observe.snapshot import LogPart

WINDOW_SECONDS = 60.0
SHARE = 20
"""Entries that one place in the code may write in a window."""
_REMEMBERED = 512
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class _Place:
    """One text with its blanks, in one part, and what it wrote in this window."""

    __slots__ = ("began", "held_back", "written")

    def __init__(self, began: float) -> None:
        self.began = began
        self.written = 0
        self.held_back = 0


class LogGate(logging.Filter):
    """A filter for handlers, called by any thread. Debug entries pass: who asks for them wants all."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._places: OrderedDict[tuple[str, int, str], _Place] = OrderedDict()
        self._said: OrderedDict[str, tuple[str, float]] = OrderedDict()
        """What each logger wrote last, and when."""
        self._entries: Counter[str] = Counter()
        self._held_back = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Count the entry; whether it is to be written."""
        if record.levelno < logging.INFO:
            return True
        text, now = _text(record), self._clock()
        with self._lock:
            if record.levelno >= logging.WARNING:
                self._entries["error" if record.levelno >= logging.ERROR else "warning"] += 1
            place = self._place((record.name, record.levelno, str(record.msg)), now)
            said, when = self._said.get(record.name, ("", now))
            if (said == text and now - when < WINDOW_SECONDS) or place.written >= SHARE:
                place.held_back += 1
                self._held_back += 1
                return False
            _remember(self._said, record.name, (text, now))
            place.written += 1
            if place.held_back:
                record.repeats = place.held_back
                place.held_back = 0
        return True

    def part(self) -> LogPart:
        """Return the counts."""
        with self._lock:
            return LogPart(dict(self._entries), self._held_back)

    def _place(self, key: tuple[str, int, str], now: float) -> _Place:
        place = self._places.get(key) or _Place(now)
        if now - place.began >= WINDOW_SECONDS:
            place.began, place.written = now, 0
        _remember(self._places, key, place)
        return place


def _remember(memory: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > _REMEMBERED:
        memory.popitem(last=False)


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        # Arguments that do not fit: a filter must not raise into whoever logs, and the formatter leaves the entry out.
        return str(record.msg)
