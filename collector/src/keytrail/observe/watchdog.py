"""Whether the collector's threads live and get on.

A thread that waits for work is healthy however long it waits; one that has been at one piece of work for too long is
stuck, and one that ended without saying so is dead. Each thread tells with two assignments a batch; /healthz looks.
"""

import threading
import time
from collections.abc import Callable

from keytrail.observe.snapshot import ThreadPart

Clock = Callable[[], float]


class Pulse:
    """One thread's sign of life. `busy`, `idle` and `finished` are for the thread itself."""

    def __init__(self, name: str, longest_seconds: float, clock: Clock) -> None:
        self.name = name
        self._longest = longest_seconds
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._since: float | None = None
        self._finished = False

    def started(self) -> None:
        """Belong to the calling thread from now on."""
        self._thread = threading.current_thread()

    def busy(self) -> None:
        """Begin a piece of work; said again, it begins the next one."""
        self._since = self._clock()

    def idle(self) -> None:
        """Wait for work."""
        self._since = None

    def finished(self) -> None:
        """End as intended: not being alive is no fault from now on."""
        self._finished = True

    def part(self) -> ThreadPart | None:
        """Return the state of now; None before `started` and after `finished`."""
        thread, since = self._thread, self._since
        if thread is None or self._finished:
            return None
        busy = 0.0 if since is None else max(0.0, self._clock() - since)
        return ThreadPart(self.name, thread.is_alive(), busy, self._longest)


class Watchdog:
    """All pulses of one collector."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._pulses: list[Pulse] = []

    def watch(self, name: str, longest_seconds: float) -> Pulse:
        """Return the pulse of a thread that should never be at one piece of work for longer."""
        pulse = Pulse(name, longest_seconds, self._clock)
        self._pulses.append(pulse)
        return pulse

    def parts(self) -> tuple[ThreadPart, ...]:
        """Return the state of every running thread."""
        return tuple(part for pulse in list(self._pulses) if (part := pulse.part()) is not None)
