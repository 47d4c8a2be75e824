"""One batch delivered: sent, divided where the backend refuses it, and settled with the queue entry by entry.

In flow the entries that a slot took and the answers to its requests, out goes what became of each entry: exported,
set aside, or given back. Knows no connection and no clock of its own; `otlp_sender` brings both.

What a backend refuses for good is narrowed down by halves to the record that it dislikes, which alone is set aside: a
poisoned record costs some twenty requests, not its neighbours. But a backend may refuse everything, after a change of
its schema or its licence, and then setting aside would only move all records to where they are dropped. So only a
backend that accepts things is believed: each acceptance gives credit for a few refusals, and without credit the
records are kept and tried again. Credit counts from before the request: one refused by a backend that was about to take
records again is no poison, and is asked about once more.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from keytrail.export.otlp_answer import Accepted, Answer, Rejected, Retry, TooLarge
from keytrail.export.otlp_pace import SendLimits
from keytrail.export.otlp_parts import count, halves
from keytrail.export.spool.entries import Entry, Queue

Send = Callable[[Sequence[Entry]], Answer | None]
"""Sends the entries as one request; None when there is no time left for one."""
OVER: Final = Retry("closing")


class Judge:
    """Whether a refusal is believed, and how much may be spent on narrowing it down. Shared by all slots."""

    def __init__(self, limits: SendLimits, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._credit = 0
        self._bisections = float(limits.bisections_a_minute)
        self._filled_at = monotonic()

    def accepted(self) -> None:
        """Something was accepted."""
        with self._lock:
            self._credit = self._limits.credit

    def trusts(self) -> bool:
        """Whether the backend is one that accepts things: to be asked before a request is sent."""
        return self._credit > 0

    def believes(self) -> bool:
        """Whether one refused part may be set aside; costs a credit."""
        with self._lock:
            believed = self._credit > 0
            self._credit -= believed
            return believed

    def may_bisect(self) -> bool:
        """Whether two more requests may be spent on a refused part."""
        with self._lock:
            now, most = self._monotonic(), self._limits.bisections_a_minute
            self._bisections = min(most, self._bisections + (now - self._filled_at) * most / 60)
            self._filled_at = now
            if self._bisections < 1:
                return False
            self._bisections -= 1
            return True


@dataclass(slots=True)
class _Pieces:
    """What became of the parts of an entry that was divided."""

    exported: int = 0
    rejected: int = 0
    """Of the exported: by partial success."""
    refused: list[tuple[Entry, str]] = field(default_factory=list)


class Holding:
    """Entries that were taken from the queue, until each is settled or given back. Any thread."""

    def __init__(self, queue: Queue, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self._queue = queue
        self._lock = threading.Lock()
        self._open = {entry.sequence: entry for entry in entries}
        self._pieces: dict[int, _Pieces] = {}

    def exported(self, part: Sequence[Entry], rejected: int) -> None:
        """The backend has the part, and refused so many of its records without naming them."""
        with self._lock:
            if (pieces := self._pieces_of(part)) is not None:
                pieces.exported += part[0].records
                pieces.rejected += rejected
                self._settle_divided(part[0].sequence, pieces)
            elif known := self._close(part):
                self._queue.exported(known, rejected)

    def refused(self, part: Sequence[Entry], reason: str) -> None:
        """The backend will never take the part."""
        with self._lock:
            if (pieces := self._pieces_of(part)) is not None:
                pieces.refused.append((part[0], reason))
                self._settle_divided(part[0].sequence, pieces)
            elif known := self._close(part):
                self._queue.refused(known, reason)

    def give_back(self) -> None:
        """Return what is not settled; answers that come later change nothing. Idempotent."""
        with self._lock:
            left = [entry for entry in self.entries if entry.sequence in self._open]
            self._open.clear()
            if left:
                self._queue.give_back(left)

    def _pieces_of(self, part: Sequence[Entry]) -> _Pieces | None:
        first = part[0]
        whole = self._open.get(first.sequence)
        if whole is None or whole.records == first.records:
            return None
        return self._pieces.setdefault(first.sequence, _Pieces())

    def _close(self, part: Sequence[Entry]) -> list[Entry]:
        return [entry for entry in part if self._open.pop(entry.sequence, None) is not None]

    def _settle_divided(self, sequence: int, pieces: _Pieces) -> None:
        """Settle once all pieces have their answer: until then a crash or an outage leaves the entry whole."""
        entry = self._open[sequence]
        if pieces.exported + sum(piece.records for piece, _ in pieces.refused) < entry.records:
            return
        del self._open[sequence]
        for piece, reason in pieces.refused:
            self._queue.refused([piece], reason)
        if pieces.exported:
            self._queue.exported([entry._replace(records=pieces.exported)], pieces.rejected)


class Delivery:
    """One attempt at a holding. For one thread, once."""

    def __init__(self, held: Holding, send: Send, judge: Judge, limits: SendLimits, most_suspects: int) -> None:
        self._held = held
        self._send = send
        self._judge = judge
        self._limits = limits
        self._most_suspects = most_suspects
        self._suspects: list[tuple[Sequence[Entry], str]] = []
        """Refused parts while nobody knows whether the backend refuses everything."""

    def run(self) -> Answer:
        """Send and settle; returns Accepted when all is settled, else what stopped it.

        Rejected means that the backend refuses whatever it is given.
        """
        parts: list[Sequence[Entry]] = [self._held.entries]
        while parts and len(self._suspects) < self._most_suspects:
            part = parts.pop()
            trusted = self._judge.trusts()
            answer = self._send(part)
            if isinstance(answer, Accepted):
                parts += reversed(self._accepted(part, answer))
            elif isinstance(answer, Rejected | TooLarge):
                if self._is_small(part) and isinstance(answer, TooLarge):
                    return Retry(answer.text)
                # The earlier half is popped first: order is kept.
                smaller = self._divide(part, answer)
                parts += reversed(smaller)
                if not smaller:
                    self._refused(part, answer.text, trusted=trusted)
            else:
                return answer or OVER
        return Rejected(self._suspects[0][1]) if self._suspects else Accepted()

    def _is_small(self, part: Sequence[Entry]) -> bool:
        return sum(len(entry.data) for entry in part) < self._limits.smallest_request

    def _divide(self, part: Sequence[Entry], answer: Answer) -> list[Sequence[Entry]]:
        if count(part) == 1 or not (isinstance(answer, TooLarge) or self._judge.may_bisect()):
            return []
        return halves(part)

    def _accepted(self, part: Sequence[Entry], answer: Accepted) -> list[Sequence[Entry]]:
        """Settle the part; returns what was refused by a backend that may have refused everything, to be sent again."""
        rejected = min(answer.rejected, count(part))
        self._held.exported(part, rejected)
        if rejected == count(part):
            return []
        self._judge.accepted()
        suspects, self._suspects = self._suspects, []
        return [suspect for suspect, _ in suspects]

    def _refused(self, part: Sequence[Entry], text: str, *, trusted: bool) -> None:
        if trusted and self._judge.believes():
            self._held.refused(part, text)
        else:
            self._suspects.append((part, text))
