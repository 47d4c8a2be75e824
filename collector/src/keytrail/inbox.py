"""The bounded queue between the thread that reads and the thread that decides.

The agent drops events for a reader that is slow, silently; so the reading thread must never wait for anything. What
does not fit here is dropped here, where it can be counted.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence

from keytrail.domain.drop import DropReason, Undecodable
from keytrail.observe.accounting import Accounting
from keytrail.source.base import MAX_MESSAGE_BYTES, Batch

DEFAULT_CAPACITY = 65_536
"""Events: three seconds at 20,000 a second, a hundred megabytes of ordinary ones."""

_BYTES_OF_AN_EVENT = 2 * 1024
"""Room for each: a recorded session's take 2,024 bytes on average, so that its events reach both bounds together."""
_TAKEN_AT_ONCE = 512
"""Events handed to the deciding thread together: enough to spread the cost of a wake-up, few enough to stay fresh."""


class Inbox:
    """Batches in, merged batches out. `put` never blocks; iterating blocks until a batch is there or the end came.

    Many may put, one iterates.
    """

    def __init__(self, accounting: Accounting, capacity: int = DEFAULT_CAPACITY) -> None:
        self._accounting = accounting
        self._capacity = capacity
        self._most_bytes = max(capacity * _BYTES_OF_AN_EVENT, MAX_MESSAGE_BYTES)  # any one message has room
        self._batches: deque[Batch] = deque()
        self._events = 0
        self._bytes = 0
        self._closed = False
        self._lock = threading.Lock()
        # A lock as a bell: who waits acquires it, who has something releases it. A Condition makes a lock and a dozen
        # Python calls of each wake-up.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._waiting = False

    def put(self, batch: Batch) -> None:
        """Append a batch, or drop and count its messages when there is no room for them or the end has come."""
        messages = batch.messages
        size = len(messages[0]) if len(messages) == 1 else sum(map(len, messages))
        with self._lock:
            if self._closed:  # the reader had it in hand when it was told to end
                self._lose(batch)
                return
            if messages and (self._events + len(messages) > self._capacity or self._bytes + size > self._most_bytes):
                # The earliest that fit stay. What the batch says of the agent is state, not an event: it must arrive.
                kept = self._fitting(messages)
                self._accounting.lost_before_decode(len(messages) - len(kept), DropReason.QUEUE_FULL)
                batch, size = batch._replace(messages=kept), sum(map(len, kept))
            self._batches.append(batch)
            self._events += len(batch.messages)
            self._bytes += size
            self._ring()

    def _fitting(self, messages: Sequence[bytes]) -> Sequence[bytes]:
        room, count = self._most_bytes - self._bytes, 0
        for message in messages[: max(0, self._capacity - self._events)]:
            room -= len(message)
            if room < 0:
                break
            count += 1
        return messages[:count]

    def close(self) -> None:
        """Take no more batches; the iterator ends after those that are there."""
        with self._lock:
            self._closed = True
            self._ring()

    def give_up(self) -> None:
        """Close, and count what waits as lost by the shutdown: nobody will take it."""
        self.close()
        with self._lock:
            for batch in self._batches:
                self._lose(batch)
            self._batches.clear()
            self._events = self._bytes = 0

    def _lose(self, batch: Batch) -> None:
        for count, reason in (
            (len(batch.messages), DropReason.SHUTDOWN),
            (batch.too_large, Undecodable.TOO_LARGE),
            (batch.malformed, Undecodable.MALFORMED),
        ):
            if count:
                self._accounting.lost_before_decode(count, reason)

    def __len__(self) -> int:
        """Events that wait."""
        return self._events

    def __iter__(self) -> Iterator[Batch]:
        """Take everything, in order; single messages come merged."""
        while True:
            with self._lock:
                batch = self._take() if self._batches else None
                if batch is None and self._closed:
                    return
                self._waiting = batch is None
            if batch is None:
                self._bell.acquire()
            else:
                yield batch

    def _ring(self) -> None:
        """Wake whoever waits; once, since the bell is no counter. With the lock held."""
        if self._waiting:
            self._waiting = False
            self._bell.release()

    def _take(self) -> Batch:
        first = self._batches.popleft()
        if first.backfilled or first.gaps:  # each has its own place in the stream
            self._events -= len(first.messages)
            self._bytes -= sum(map(len, first.messages))
            return first
        messages = list(first.messages)
        arrived, too_large, malformed = first.arrived_ns, first.too_large, first.malformed
        while self._batches and len(messages) < _TAKEN_AT_ONCE:
            following = self._batches[0]
            if following.agent is not None or following.backfilled or following.gaps:
                break
            self._batches.popleft()
            messages += following.messages
            arrived = following.arrived_ns
            too_large += following.too_large
            malformed += following.malformed
        self._events -= len(messages)
        self._bytes -= sum(map(len, messages))
        return Batch(messages, arrived, first.agent, first.processes, too_large, malformed)
