"""What an output is, and what the encoders of all outputs share.

Events come in from the one thread of the pipeline, in stream order, with their attribution set. This module knows no
format and no transport; `console` and `otlp_output` are the outputs.
"""

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

from keytrail.domain.event import Event
from keytrail.domain.identity import Attribution
from keytrail.domain.placement import Placement
from keytrail.domain.process import Pod, Process
from keytrail.export.bounded import Bounded

LAST_SECOND = 253402300799
"""9999-12-31T23:59:59Z: a damaged timestamp must not make a year of five digits, nor an exception."""
_MEMO_CAPACITY = 8192
_MEMO_LARGEST = 4096


Written = TypeVar("Written", contravariant=True)  # noqa: PLC0105 - an event or a finding, by what it is


class Output(Protocol[Written]):
    """Where events or findings go. Only the pipeline's thread calls it."""

    def write(self, record: Written, /) -> None:
        """Take one event or finding; may keep it until `flush`."""
        ...

    def flush(self) -> None:
        """Hand on everything taken so far. Called when the stream pauses, so that nobody waits for a full buffer."""
        ...

    def close(self, deadline: float) -> None:
        """Flush and end within `deadline` seconds; what could not be handed on is counted as dropped."""
        ...


@lru_cache(maxsize=256)
def _calendar(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(min(max(second, 0), LAST_SECOND)))


def rfc3339(time_ns: int) -> str:
    """UTC with nine digits, as in `2025-08-08T17:44:07.730801281Z`; out of range is clamped to 1970 and 9999."""
    second, nanosecond = divmod(time_ns, 1_000_000_000)
    return f"{_calendar(second)}.{nanosecond:09d}Z"


class Fragments:
    """What an encoder remembers of a process. The memory notes what it rests on; who makes it says how large it is."""

    __slots__ = ("attribution", "placement", "pod", "size")

    attribution: Attribution | None
    placement: Placement | None
    pod: Pod | None
    size: int
    """Characters that are this process's own."""


F = TypeVar("F", bound=Fragments)


class ProcessMemo(Generic[F]):
    """Encoded fragments that are the same for all events of a process, made once for each process.

    Keyed by the process object and checked against what may be set after it was made: its attribution (a reload of
    mappings or a file that it opens make another), its pod and its placement (metadata can be late). Its node is a part
    of its exec_id, and to ask each event for it costs 0.4 us. Bounded twice, as whoever starts processes chooses both
    their number and the length of their arguments (up to 128 KiB each).
    """

    def __init__(
        self, make: Callable[[Event], F], *, capacity: int = _MEMO_CAPACITY, largest: int = _MEMO_LARGEST
    ) -> None:
        self._make = make
        self._largest = largest
        """Fragments that are larger are made anew for each event."""
        self._known: Bounded[Process, F] = Bounded(capacity)

    def of(self, event: Event) -> F:
        """Fragments for the event's process."""
        process = event.process
        known = self._known.get(process)
        if (
            known is not None
            and known.attribution is process.attribution
            and known.pod is process.pod
            and known.placement is process.placement
        ):
            return known
        made = self._make(event)
        if made.size <= self._largest:
            made.attribution, made.pod, made.placement = process.attribution, process.pod, process.placement
            self._known.keep(process, made)
        return made
