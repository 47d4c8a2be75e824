"""From the queue to the OTLP backend: batched, in order within a workload, tried until it answered.

In flow entries of the spool, out go requests through `otlp_transport`, one at a time in each slot; a slot is a thread
with a connection of its own and sends the streams whose number falls to it, so that two requests are under way and
none overtakes another of its workload. A record leaves the queue only by the backend's word: an outage loses nothing
here, however long, and room is the spool's business. Knows nothing of what is in a record.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keytrail.export.otlp_answer import Accepted, Answer, Denied, Rejected, Retry
from keytrail.export.otlp_delivery import OVER, Delivery, Holding, Judge
from keytrail.export.otlp_health import Health, SenderState
from keytrail.export.otlp_pace import DEFAULT_LIMITS, Pace, SendLimits, pause_seconds
from keytrail.export.otlp_parts import encode_request
from keytrail.export.otlp_settings import OtlpSettings
from keytrail.export.otlp_transport import Transport, open_transport
from keytrail.export.spool.entries import Entry, Queue

log = logging.getLogger(__name__)
_WAKE_EVERY = 0.05
"""Seconds: a slot that was not waiting at the queue when `close` woke it may be so now."""


class OtlpSender:
    """Sends what is queued until it is closed. `start` and `close` once each; `state` from any thread."""

    def __init__(
        self,
        settings: OtlpSettings,
        queue: Queue,
        *,
        slots: int = 2,
        limits: SendLimits = DEFAULT_LIMITS,
        now_ns: Callable[[], int] = time.time_ns,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._shared = _Shared(settings, queue, slots, limits, Pace(), Health(now_ns), Judge(limits), uniform)
        self._slots = [_Slot(number, self._shared) for number in range(slots)]

    def start(self) -> None:
        """Begin sending; what was queued before is sent too."""
        for slot in self._slots:
            slot.thread.start()

    def close(self, deadline_seconds: float) -> None:
        """Send what the deadline allows and give the rest back to the queue. Takes at most the deadline; idempotent."""
        until = time.monotonic() + deadline_seconds
        self._shared.pace.close(deadline_seconds)
        running = [slot.thread for slot in self._slots if slot.thread.ident is not None]
        for thread in running:
            while thread.is_alive() and (left := until - time.monotonic()) > 0:
                self._shared.queue.wake()
                thread.join(min(left, _WAKE_EVERY))
        self._shared.pace.end()
        self._shared.queue.wake()
        for slot in self._slots:
            slot.abandon()

    def state(self) -> SenderState:
        """Return health and counts of requests, as of one moment."""
        return self._shared.health.state()


@dataclass(frozen=True, slots=True)
class _Shared:
    """What the slots have in common."""

    settings: OtlpSettings
    queue: Queue
    slots: int
    limits: SendLimits
    pace: Pace
    health: Health
    judge: Judge
    uniform: Callable[[], float]


class _Slot:
    """One thread with one connection."""

    def __init__(self, number: int, shared: _Shared) -> None:
        self._number = number
        self._shared = shared
        self._transport: Transport = open_transport(shared.settings)
        self._attempt = 0
        """Failed attempts in a row."""
        self._again = False
        self._held = Holding(shared.queue, ())
        self._lock = threading.Lock()
        """Between taking and abandoning."""
        self._abandoned = False
        self.thread = threading.Thread(target=self._run, name=f"otlp-sender-{number}", daemon=True)

    def abandon(self) -> None:
        """Give back what has no answer, and end the request under way."""
        with self._lock:
            self._abandoned = True
            self._held.give_back()
        self._transport.close()

    def _run(self) -> None:
        try:
            while self._shared.pace.may_send() and self._attempt_one():
                pass
        finally:
            self._transport.close()

    def _attempt_one(self) -> bool:
        """Take a batch and make one attempt at it; False when there is nothing to send any more."""
        try:
            if not self._take():
                return False
            if self._held.entries:
                self._deliver()
        except Exception:  # a task boundary: without this thread nobody would send its streams any more
            log.exception("a batch could not be sent; it is tried again")
            self._held.give_back()
            self._shared.pace.pause(self._shared.limits.longest_pause)
        return True

    def _take(self) -> bool:
        """Hold the next batch, empty when the queue was woken; False when there will be none."""
        limits, closing = self._shared.limits, self._shared.pace.closing
        linger = -1.0 if closing else limits.linger  # at the end only for what is on its way
        entries = self._shared.queue.take(
            self._number, self._shared.slots, limits.batch_records, limits.batch_bytes, linger
        )
        with self._lock:
            self._held = Holding(self._shared.queue, entries)
            if self._abandoned:
                self._held.give_back()
        if not entries and not self._shared.pace.closing:
            self._shared.pace.pause(_WAKE_EVERY)  # the queue was closed before us: it does not wait any more
        # Closing may have begun while this waited: then the queue is asked once more, without waiting.
        return bool(entries) or not closing

    def _deliver(self) -> None:
        """Make one attempt at what is held; what is left goes back, and the next attempt takes it with what is new."""
        suspects = min(2 ** (self._attempt + 1), self._shared.limits.most_suspects)
        self._again = self._attempt > 0
        stopped = Delivery(self._held, self._send, self._shared.judge, self._shared.limits, suspects).run()
        self._held.give_back()
        if isinstance(stopped, Accepted):
            self._attempt = 0
        elif stopped is not OVER:
            if isinstance(stopped, Rejected):
                self._shared.health.rejects_all(stopped.text)
            self._wait(stopped)
            self._attempt += 1

    def _wait(self, stopped: Answer) -> None:
        limits, attempt = self._shared.limits, self._attempt
        hint = stopped.after_seconds if isinstance(stopped, Retry) else None
        denied = isinstance(stopped, Denied)
        first, longest = (
            (limits.denied_pause, limits.longest_denied_pause) if denied else (limits.first_pause, limits.longest_pause)
        )
        seconds = pause_seconds(first, longest, attempt, hint, self._shared.uniform())
        if denied or hint is not None:
            self._shared.pace.hold(seconds)  # the backend's word is meant for all of us
        else:
            self._shared.pace.pause(seconds)

    def _send(self, part: Sequence[Entry]) -> Answer | None:
        if not self._shared.pace.may_send():
            return None
        self._shared.health.sending(again=self._again)
        self._again = False
        try:
            answer = self._transport.send(
                encode_request(part), self._shared.pace.timeout(self._shared.settings.timeout_seconds)
            )
        except Exception as error:  # noqa: BLE001 a task boundary: the thread must outlive a client library's surprises
            answer = Retry(f"unexpected {type(error).__name__}")
        self._shared.health.answered(answer)
        return answer
