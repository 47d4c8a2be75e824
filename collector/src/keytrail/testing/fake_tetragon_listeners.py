"""The agent's queues: serialized events go in from the publisher, each stream's handler takes them out.

Every GetEvents stream has a bounded queue of its own. The agent never waits for a reader: when a queue is full, the
newest event is dropped for that stream, silently, and one counter shared by all streams rises. Nothing here looks
into an event; filters come behind the queue, so that a filtered event takes a slot all the same.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

DEFAULT_QUEUE_SIZE: Final = 10_000
"""Events per stream, the agent's `--event-queue-size`."""


class Listener:
    """One open stream's queue. Its handler iterates over it; the iteration ends when it is closed.

    Putting in and taking out need no lock while both sides are busy: a lock for each event would make the two threads
    take turns and halve the rate. The side that finds nothing to do announces so before it looks a last time.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._events: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._open = True
        self._held = False
        self._idle = False
        self._awaited = False

    def offer(self, event: bytes) -> bool:
        """Queue an event, or drop it when the queue is full: False then. One thread at a time."""
        if len(self._events) >= self._size:
            return False
        self._events.append(event)
        if self._idle:
            with self._changed:
                self._changed.notify_all()
        return True

    def __iter__(self) -> Iterator[bytes]:
        """Yield events in order. What was queued before `close` is lost, as with the agent."""
        events, half = self._events, self._size // 2
        while self._open:
            if self._held or not events:
                self._wait_for_events()
                continue
            event = events.popleft()
            if self._awaited and len(events) <= half:
                with self._changed:
                    self._changed.notify_all()
            yield event

    def hold(self, held: bool) -> None:
        """Stop sending, or go on: what a reader that takes nothing does to the agent, without its socket buffers."""
        with self._changed:
            self._held = held
            self._changed.notify_all()

    def close(self) -> None:
        """End the stream. Idempotent, callable from any thread."""
        with self._changed:
            self._open = False
            self._changed.notify_all()

    def wait_for_room(self, timeout: float) -> bool:
        """Wait until a full queue is half empty, so that a publisher that may lose nothing runs in long strides."""
        if len(self._events) < self._size:
            return True
        with self._changed:
            self._awaited = True
            room = self._changed.wait_for(lambda: not self._open or len(self._events) <= self._size // 2, timeout)
            self._awaited = False
            return room

    def wait_until_drained(self, timeout: float) -> bool:
        """Wait until everything queued was handed to the transport."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open or (self._idle and not self._events), timeout)

    def _wait_for_events(self) -> None:
        with self._changed:
            self._idle = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._open or (self._events and not self._held))
            self._idle = False


class Listeners:
    """All open streams and the counter that they share."""

    def __init__(self, queue_size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._queue_size = queue_size
        self._clock = clock
        self._publishing = threading.Lock()
        self._changed = threading.Condition()
        self._listeners: tuple[Listener, ...] = ()
        self._held = False
        self.overflowed = 0
        """Events dropped for any stream: `tetragon_notify_overflowed_events_total`."""

    def __len__(self) -> int:
        return len(self._listeners)

    @property
    def streams(self) -> tuple[Listener, ...]:
        """Those open at this moment."""
        return self._listeners

    def open(self) -> Listener:
        """Add a stream; it gets what is published from now on, nothing older."""
        listener = Listener(self._queue_size)
        with self._changed:
            listener.hold(self._held)
            self._listeners = (*self._listeners, listener)
            self._changed.notify_all()
        return listener

    def remove(self, listener: Listener) -> None:
        """Forget a stream that ended."""
        listener.close()
        with self._changed:
            self._listeners = tuple(other for other in self._listeners if other is not listener)
            self._changed.notify_all()

    def publish(self, event: bytes) -> None:
        """Offer an event to every stream; count those that have no room for it."""
        with self._publishing:
            for listener in self._listeners:
                if not listener.offer(event):
                    self.overflowed += 1

    def wait_for_room(self, stopped: threading.Event) -> None:
        """Block until no queue is full, or `stopped`."""
        for listener in self._listeners:
            while not listener.wait_for_room(0.1) and not stopped.is_set():
                pass

    def hold(self, held: bool) -> None:
        """Stall every stream, also those opened later, or let all go on."""
        with self._changed:
            self._held = held
            for listener in self._listeners:
                listener.hold(held)

    def close(self) -> None:
        """End every stream."""
        for listener in self._listeners:
            listener.close()

    def wait_for(self, count: int, timeout: float) -> bool:
        """Wait until at least `count` streams are open; False when `timeout` seconds did not suffice."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._listeners) >= count, timeout)

    def wait_until_drained(self, timeout: float) -> bool:
        """Wait until every queue is empty and its last event handed to the transport."""
        deadline = self._clock() + timeout
        return all(listener.wait_until_drained(max(0.0, deadline - self._clock())) for listener in self._listeners)
