"""Encoded records to the OTLP backend, batched, in order, tried until it answered.

In flow serialized ResourceLogs from the encoder, out go requests through `otlp_transport`. Every record is at any
moment queued, exported or dropped with a reason: `state()` says which, and a listener is told as it happens. An outage
drops nothing by itself; records wait in a bounded queue, and only what no longer fits is dropped. Knows nothing of what
is in a record.
"""

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple, Protocol

from keytrail.domain.drop import DropReason
from keytrail.export.otlp_settings import OtlpSettings
from keytrail.export.otlp_transport import Accepted, Answer, Rejected, Retry, TooLarge, open_transport
from keytrail.export.otlp_wire import varint

MIB = 1024 * 1024
LONGEST_HINT_SECONDS = 300.0
"""A server that asks for a longer pause is asked again after this one: a wrong hint must not cost a day of records."""

_REQUEST_ENTRY = b"\x0a"
"""Tag of ExportLogsServiceRequest.resource_logs: field 1, length-delimited."""


@dataclass(frozen=True, slots=True)
class SendLimits:
    """How much is held and how it is sent. Counts are records, sizes bytes, times seconds."""

    queue_records: int = 100_000
    queue_bytes: int = 64 * MIB
    batch_records: int = 512
    batch_bytes: int = 4 * MIB - 64 * 1024
    """Receivers refuse messages over 4 MiB by default; the rest is room for framing."""
    linger: float = 0.5
    """How long a batch that is not full waits for more."""
    first_pause: float = 1.0
    longest_pause: float = 30.0


class ExportListener(Protocol):
    """Who wants to know where records went. Called with the sender's lock held: be quick, never block or raise."""

    def on_exported(self, count: int) -> None:
        """Count records that the backend acknowledged."""
        ...

    def on_dropped(self, count: int, reason: DropReason) -> None:
        """Count records that are lost for good."""
        ...


@dataclass(frozen=True, slots=True)
class SenderState:
    """One consistent picture: `submitted == exported + queued + sum(dropped)`."""

    submitted: int = 0
    exported: int = 0
    queued: int = 0
    """Includes what is being sent: a record leaves the queue only when the backend answered."""
    queued_bytes: int = 0
    dropped: Mapping[DropReason, int] = field(default_factory=dict)
    reachable: bool | None = None
    """Whether the last attempt got a final answer; None before the first."""
    last_success_ns: int | None = None
    """Wall clock of the last acknowledged request, nanoseconds since the epoch."""
    last_error: str = ""
    """The last refusal or failure, without credentials. Stays after a success: see its time."""
    last_error_ns: int | None = None


class Entry(NamedTuple):
    """One serialized ResourceLogs."""

    data: bytes
    records: int


class ExportQueue:
    """Bounded first-in, first-out memory of entries. Not thread-safe: the sender's lock guards it."""

    def __init__(self, most_records: int, most_bytes: int) -> None:
        self._most_records = most_records
        self._most_bytes = most_bytes
        self._entries: deque[Entry] = deque()
        self.records = 0
        self.bytes = 0

    def offer(self, entry: Entry) -> bool:
        """Take the entry unless that would break a limit."""
        if self.records + entry.records > self._most_records or self.bytes + len(entry.data) > self._most_bytes:
            return False
        self._entries.append(entry)
        self.records += entry.records
        self.bytes += len(entry.data)
        return True

    def peek(self, most_records: int, most_bytes: int) -> list[Entry]:
        """Return the oldest entries within the limits, but at least one if there is any. They stay queued."""
        batch: list[Entry] = []
        records = size = 0
        for entry in self._entries:
            records += entry.records
            size += len(entry.data) + 6  # tag and length in front of it
            if batch and (records > most_records or size > most_bytes):
                break
            batch.append(entry)
        return batch

    def release(self, count: int) -> int:
        """Forget the `count` oldest entries; returns how many records they held."""
        records = 0
        for entry in list(islice(self._entries, count)):
            self._entries.popleft()
            self.bytes -= len(entry.data)
            records += entry.records
        self.records -= records
        return records

    def clear(self) -> int:
        """Forget everything; returns how many records that was."""
        return self.release(len(self._entries))


class OtlpSender:
    """Sends what is submitted from a thread of its own, one request at a time."""

    def __init__(
        self,
        settings: OtlpSettings,
        listener: ExportListener | None = None,
        *,
        limits: SendLimits = SendLimits(),
        now_ns: Callable[[], int] = time.time_ns,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._limits = limits
        self._transport = open_transport(settings)
        self._now_ns = now_ns
        self._uniform = uniform
        self._queue = ExportQueue(limits.queue_records, limits.queue_bytes)
        self._wake = threading.Condition()
        """Guards everything below and the queue."""
        self._submitted = 0
        self._exported = 0
        self._dropped: Counter[DropReason] = Counter()
        self._reachable: bool | None = None
        self._last_success_ns: int | None = None
        self._last_error = ""
        self._last_error_ns: int | None = None
        self._give_up_at: float | None = None
        """Set by `close`: no attempt begins after it."""
        self._abandoned = False
        """Set when `close` has counted the rest as lost: what the thread still learns changes nothing any more."""
        self._thread = threading.Thread(target=self._run, name="otlp-sender", daemon=True)

    def start(self) -> None:
        """Begin sending; what was submitted before is sent too."""
        self._thread.start()

    def submit(self, resource_logs: bytes, records: int) -> None:
        """Queue one serialized ResourceLogs that holds `records` (at least one) records. Never blocks; any thread."""
        with self._wake:
            self._submitted += records
            if self._give_up_at is not None:
                self._drop(records, DropReason.SHUTDOWN)
                return
            was_empty = not self._queue.records
            if not self._queue.offer(Entry(resource_logs, records)):
                self._drop(records, DropReason.EXPORT_QUEUE_FULL)
            elif was_empty or self._batch_is_full():
                self._wake.notify()

    def close(self, deadline_seconds: float) -> None:
        """Send what the deadline allows, count the rest as dropped. Idempotent; takes at most the deadline."""
        with self._wake:
            if self._abandoned:
                return
            if self._give_up_at is None:
                self._give_up_at = time.monotonic() + deadline_seconds
            self._wake.notify_all()
        if self._thread.ident is not None:
            self._thread.join(deadline_seconds)
        with self._wake:
            self._abandoned = True
            self._drop(self._queue.clear(), DropReason.SHUTDOWN)
            self._wake.notify_all()
        self._transport.close()

    def state(self) -> SenderState:
        """Return counts and health, as of one moment."""
        with self._wake:
            return SenderState(
                submitted=self._submitted,
                exported=self._exported,
                queued=self._queue.records,
                queued_bytes=self._queue.bytes,
                dropped=MappingProxyType(dict(self._dropped)),
                reachable=self._reachable,
                last_success_ns=self._last_success_ns,
                last_error=self._last_error,
                last_error_ns=self._last_error_ns,
            )

    def _run(self) -> None:
        try:
            while (batch := self._next_batch()) and self._deliver(batch):
                pass
        finally:
            self._transport.close()

    def _next_batch(self) -> list[Entry]:
        """Wait for a batch; empty when there will be none."""
        with self._wake:
            self._wake.wait_for(lambda: self._queue.records or self._closing())
            self._wake.wait_for(lambda: self._batch_is_full() or self._closing(), timeout=self._limits.linger)
            return self._queue.peek(self._limits.batch_records, self._limits.batch_bytes)

    def _deliver(self, batch: list[Entry]) -> bool:
        """Send a batch, in parts if it must be; False when sending is over."""
        parts = [batch]
        while parts:
            part = parts.pop()
            answer = self._send(part)
            if answer is None:
                return False
            if isinstance(answer, TooLarge) and len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]  # the earlier half is popped first: order is kept
            else:
                self._settle(part, answer)
        return True

    def _send(self, part: list[Entry]) -> Accepted | Rejected | TooLarge | None:
        """Try until there is a final answer; None when `close` ends it."""
        request = encode_request(part)
        attempt = 0
        while (timeout := self._time_left()) > 0:
            answer = self._attempt(request, timeout)
            self._note(answer)
            if not isinstance(answer, Retry):
                return answer
            pause = pause_seconds(self._limits, attempt, answer.after_seconds, self._uniform())
            if not self._pause(pause, hinted=answer.after_seconds is not None):
                return None
            attempt += 1
        return None

    def _attempt(self, request: bytes, timeout: float) -> Answer:
        try:
            return self._transport.send(request, timeout)
        except Exception as error:  # noqa: BLE001 a task boundary: the thread must outlive a client library's surprises
            return Retry(f"unexpected {type(error).__name__}")

    def _time_left(self) -> float:
        """Return the timeout of the next attempt; zero or less when there is to be none."""
        with self._wake:
            if self._abandoned:
                return 0.0
            if self._give_up_at is None:
                return self._settings.timeout_seconds
            return min(self._settings.timeout_seconds, self._give_up_at - time.monotonic())

    def _pause(self, seconds: float, *, hinted: bool) -> bool:
        """Wait before the next attempt; False when there is no time for it.

        When closing begins during one of our own pauses the next attempt comes at once. A pause that the server asked
        for is kept, or, when it is longer than the deadline, is the end.
        """
        with self._wake:
            until = time.monotonic() + seconds
            if not self._closing() and (not self._wake.wait_for(self._closing, timeout=seconds) or not hinted):
                return True
            if self._give_up_at is None or until > self._give_up_at:
                return False
            return not self._wake.wait_for(lambda: self._abandoned, timeout=max(0.0, until - time.monotonic()))

    def _settle(self, part: list[Entry], answer: Accepted | Rejected | TooLarge) -> None:
        with self._wake:
            if self._abandoned:
                return
            records = self._queue.release(len(part))
            rejected = min(answer.rejected, records) if isinstance(answer, Accepted) else records
            self._drop(rejected, DropReason.EXPORT_REJECTED)
            if exported := records - rejected:
                self._exported += exported
                if self._listener is not None:
                    self._listener.on_exported(exported)

    def _note(self, answer: Answer) -> None:
        with self._wake:
            if self._abandoned:
                return
            self._reachable = not isinstance(answer, Retry)
            if isinstance(answer, Accepted):
                self._last_success_ns = self._now_ns()
            if answer.text:
                self._last_error = answer.text
                self._last_error_ns = self._now_ns()

    def _drop(self, count: int, reason: DropReason) -> None:
        if count:
            self._dropped[reason] += count
            if self._listener is not None:
                self._listener.on_dropped(count, reason)

    def _closing(self) -> bool:
        return self._give_up_at is not None

    def _batch_is_full(self) -> bool:
        return self._queue.records >= self._limits.batch_records or self._queue.bytes >= self._limits.batch_bytes


def encode_request(entries: list[Entry]) -> bytes:
    """Serialize an ExportLogsServiceRequest by joining what is serialized already."""
    pieces: list[bytes] = []
    for data, _ in entries:
        pieces += (_REQUEST_ENTRY, varint(len(data)), data)
    return b"".join(pieces)


def pause_seconds(limits: SendLimits, attempt: int, hint: float | None, uniform: float) -> float:
    """Return the pause after failed attempt number `attempt` (from 0); `uniform` is random in [0, 1).

    Jitter keeps a cluster's collectors from coming back at the same instant. A server's hint is a lower bound:
    RetryInfo and Retry-After say when to try at the earliest, and a server that fails again is given more time all the
    same.
    """
    doubled: float = limits.first_pause * 2 ** min(attempt, 30)
    own = min(limits.longest_pause, doubled) * (0.5 + uniform / 2)
    return own if hint is None else max(own, min(hint, LONGEST_HINT_SECONDS) * (1 + uniform / 10))
