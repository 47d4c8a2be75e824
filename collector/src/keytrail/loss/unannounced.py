"""Processes whose exec event never arrived, told by what they did later.

In: every event, in order. Out: an episode that counts them. A fork without exec has an exec_id that is never announced
and is no loss; its flags lack `clone`, which a process has that was cloned and then executed. Of recorded streams
without loss this finds none, of the recorded slow reader's all 78 whose exec was lost and whose exit arrived.
"""

from collections.abc import Sequence

from keytrail.domain.event import Event, EventType
from keytrail.domain.gap import GapCause
from keytrail.loss.episode import Episode, Report

_GENERATION = 32_768
"""Processes, as many as the decoder's table keeps: their ids are its own texts. Two generations are kept, which with
twice as many were 20 MB."""
_DISORDER_NS = 1_000_000_000
"""Far more than the 62 ms by which an agent under flood was seen to be out of order."""
_HOLD_NS = 32_000_000_000
"""How long the agent may hold an exec back for metadata (15 tries, 2 s apart) while a later event passes it."""


class Unannounced:
    """For one thread at a time."""

    def __init__(self, report: Report, *, hold_ns: int = _HOLD_NS, generation: int = _GENERATION) -> None:
        self._hold_ns = hold_ns
        self._generation = generation
        # Keys of dicts: of so many texts a set is a table of 2.1 MB, a dict one of 1.0.
        self._young: dict[str, None] = {}
        self._old: dict[str, None] = {}
        self._young_since_ns = 0
        self._since_ns = 0
        """Every exec since then is remembered; 0 while not a single one has arrived on this connection."""
        self._waiting: dict[str, tuple[int, int]] = {}
        """exec_id to when it was noticed and when the process started."""
        self._episode = Episode(GapCause.EXIT_WITHOUT_EXEC, report, suspected=True)

    def connected(self) -> None:
        """Begin a connection: what started before its first exec event is nobody's loss but that of the gap before."""
        self._since_ns = 0

    def look(self, events: Sequence[Event], now_ns: int) -> list[Event]:
        """Take events; return those that name no process."""
        young, nameless = self._young, []
        for event in [event for event in events if event.process.exec_id not in young]:
            if event.process.exec_id:
                self._first(event, now_ns)
            else:
                nameless.append(event)
        if self._waiting:
            for event in events:
                if event.type is EventType.EXEC:
                    self._waiting.pop(event.process.exec_id, None)
        if len(young) >= self._generation:
            self._old, self._young = young, {}
            self._since_ns, self._young_since_ns = self._young_since_ns, events[-1].time_ns + _DISORDER_NS
        return nameless

    def tick(self, now_ns: int) -> None:
        """Count what has waited long enough for its exec; end an episode that is over."""
        # Also where the clock was set back meanwhile, or they would wait for as long.
        due = [(id_, entry) for id_, entry in self._waiting.items() if abs(now_ns - entry[0]) >= self._hold_ns]
        self._count(due, now_ns)
        self._episode.tick(now_ns)

    def close(self, now_ns: int) -> None:
        """Count what waits, and end what is open."""
        self._count(list(self._waiting.items()), now_ns)
        self._episode.close()

    def _first(self, event: Event, now_ns: int) -> None:
        """Take what may be the first event of a process."""
        process = event.process
        exec_id = process.exec_id
        if exec_id in self._young:
            return
        self._young[exec_id] = None
        if event.type is EventType.EXEC:
            if not self._since_ns and not process.preexisting:
                self._since_ns = self._young_since_ns = event.time_ns
        elif exec_id not in self._old and "clone" in process.flags and not process.preexisting:
            began = bool(self._since_ns) and process.start_ns >= self._since_ns
            if began and len(self._waiting) < self._generation:
                self._waiting[exec_id] = now_ns, process.start_ns

    def _count(self, due: list[tuple[str, tuple[int, int]]], now_ns: int) -> None:
        if not due:
            return
        for exec_id, _ in due:
            del self._waiting[exec_id]
        starts = [started for _, (_, started) in due]
        detail = "processes whose exec event never arrived did something later; more may have been lost whole"
        self._episode.add(min(starts), max(starts), now_ns=now_ns, lost=len(due), detail=detail)
