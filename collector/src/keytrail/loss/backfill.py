"""Events of a gap, from the agent's export file: the exporter is a reader of its own and misses other events than we.

In: gaps, on whatever thread; the file. Out: batches of messages marked `backfilled`, in the order of their times,
without what has arrived; and a closing record of the gap that says how many there were. What the kernel lost is not in
the file either. The file may have been told to leave fields out, environments above all: what a backfilled event says
of a process counts less than what the stream said.
"""

import logging
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, Full, Queue

from keytrail.domain.gap import Gap, GapCause, GapPhase
from keytrail.loss.episode import Report
from keytrail.loss.seen import RawEvent, Seen, raw_event
from keytrail.source.base import Batch
from keytrail.source.export_history import ExportHistory
from keytrail.source.protojson import event_from_json

log = logging.getLogger(__name__)

CAUSES = frozenset(
    {
        GapCause.AGENT_AWAY,
        GapCause.READER_SLOW,
        GapCause.INBOX_FULL,
        GapCause.EXIT_WITHOUT_EXEC,
        GapCause.COLLECTOR_STOPPED,
        GapCause.COLLECTOR_KILLED,
    }
)
"""Gaps between the agent and us. Late events will come; a throttled or overflown kernel's are nowhere."""
_OURS = frozenset({GapCause.COLLECTOR_STOPPED, GapCause.COLLECTOR_KILLED})
_NS = 1_000_000_000
_WAITING_GAPS = 64
_BATCH = 256
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the file a gap is worth, and how long we wait for it. Seconds, events, bytes."""

    settle: float = 5.0
    """After the gap, until the exporter has surely written what belongs to it."""
    patience: float = 60.0
    """For our own stream to come past the gap: what is still on its way is not lost."""
    before: float = 30.0
    """How much older than the gap an event in it may be: a busy agent is behind the kernel."""
    after: float = 2.0
    events: int = 100_000
    bytes: int = 64 * 1024 * 1024
    queued: int = 8_192
    """Events waiting to be decided on beyond which nothing is added: live ones come first."""


@dataclass(slots=True)
class _Found:
    events: list[RawEvent] = field(default_factory=list)
    bytes: int = 0
    left_out: int = 0
    cut: bool = False


class Backfill:
    """A thread that takes one gap after the other. `gap` and `close` may be called from any thread."""

    def __init__(
        self,
        file: Path,
        seen: Seen,
        put: Callable[[Batch], None],
        report: Report,
        *,
        queued: Callable[[], int],
        limits: Limits = Limits(),
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`queued` tells how many events wait to be decided on; `put` adds to them."""
        self._file = file
        self._seen = seen
        self._put = put
        self._report = report
        self._queued = queued
        self._limits = limits
        self._now_ns = now_ns
        self._gaps: Queue[Gap] = Queue(_WAITING_GAPS)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keytrail-backfill", daemon=True)

    def start(self) -> None:
        """Begin to take gaps."""
        self._thread.start()

    def gap(self, gap: Gap) -> None:
        """Look at a gap that was reported; never blocks."""
        if gap.phase is not GapPhase.CLOSED or gap.cause not in CAUSES:
            return
        try:
            self._gaps.put_nowait(gap)
        except Full:
            log.warning("a gap (%s) is not looked up in the agent's export file: too many wait already", gap.cause)

    def close(self) -> None:
        """Give up what is under way."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                gap = self._gaps.get(timeout=_POLL_SECONDS)
            except Empty:
                continue
            try:
                self._fill(gap)
            except Exception:
                # The boundary of this thread: a file that surprises us must not end all further backfills.
                log.exception("backfill of a gap (%s) failed", gap.cause)

    def _fill(self, gap: Gap) -> None:
        self._settle(gap)
        history = ExportHistory(self._file)
        found = self._search(history, gap)
        if self._closing.is_set():
            return
        for events in _batches(found.events):
            if not self._wait_for_room():
                return
            keys = array("q", [event.key for event in events])
            self._seen.add_keys(keys, events[-1].time_ns)  # a later gap may overlap this one
            self._put(Batch([event.message for event in events], self._now_ns(), backfilled=True))
        if found.left_out:
            detail = "the agent's exporter kept to its rate limit: its file cannot give these back"
            limited = replace(gap, cause=GapCause.RATE_LIMITED, lost=found.left_out, exact=True, detail=detail)
            self._report(limited)
        self._report(
            replace(gap, phase=GapPhase.BACKFILLED, backfilled=len(found.events), detail=_detail(history, found))
        )

    def _settle(self, gap: Gap) -> None:
        """Wait until the file has what belongs to the gap, and our stream has come past it or has nothing to bring."""
        settled = gap.end_ns + int(self._limits.settle * _NS)
        latest = settled + int(self._limits.patience * _NS)
        while (now := self._now_ns()) < latest and not self._closing.is_set():
            if now >= settled and self._seen.newest_ns > gap.end_ns and self._queued() <= self._limits.queued:
                return
            self._closing.wait(_POLL_SECONDS)

    def _search(self, history: ExportHistory, gap: Gap) -> _Found:
        """Return what of the interval the file has and we do not, in the order of time."""
        before = 0.0 if gap.cause in _OURS else self._limits.before
        start, end = gap.start_ns - int(before * _NS), gap.end_ns + int(self._limits.after * _NS)
        seen = self._seen.since(start)
        found = _Found()
        last_ns = start
        for line in history.between(start, end):
            if self._closing.is_set():
                break
            event = _event(line)
            if event is None:
                continue
            last_ns = event.time_ns or last_ns  # library loads have no time but that of the event before them
            if event.left_out:
                found.left_out += event.left_out
            elif event.key not in seen and start <= last_ns <= end:
                seen.add(event.key)
                found.events.append(event._replace(time_ns=last_ns))
                found.bytes += len(event.message)
                if len(found.events) >= self._limits.events or found.bytes >= self._limits.bytes:
                    found.cut = True
                    break
        found.events.sort(key=_time)
        return found

    def _wait_for_room(self) -> bool:
        while self._queued() > self._limits.queued:
            if self._closing.wait(_POLL_SECONDS):
                return False
        return not self._closing.is_set()


def _event(line: bytes) -> RawEvent | None:
    try:
        return raw_event(event_from_json(line))
    except ValueError:
        return None


def _time(event: RawEvent) -> int:
    return event.time_ns


def _batches(events: Sequence[RawEvent]) -> Iterator[Sequence[RawEvent]]:
    for start in range(0, len(events), _BATCH):
        yield events[start : start + _BATCH]


def _detail(history: ExportHistory, found: _Found) -> str:
    """Say what was found, and what keeps that from being all."""
    parts = [f"{len(found.events)} events of it were in the agent's export file"]
    if history.problem:
        parts.append(history.problem)
    elif not history.reaches_back:
        parts.append("whose history may begin later than the gap")
    if found.cut:
        parts.append("of which there are more than one gap is worth")
    if found.left_out:
        parts.append("which leaves out what its rate limit forbids")
    return "; ".join(parts)
