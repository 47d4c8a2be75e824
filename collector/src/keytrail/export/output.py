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


T = TypeVar("T", bound=tuple[bytes | str, ...])
_Known = tuple[Attribution | None, Pod | None, Placement | None, str, T]


class ProcessMemo(Generic[T]):
    """Encoded fragments that are the same for all events of a process, made once for each process.

    Keyed by the process object and checked against what may be set after it was made: its attribution (a reload of
    mappings or a file that it opens make another), its pod and its placement (metadata can be late). Bounded twice, as
    whoever starts processes chooses both their number and the length of their arguments (up to 128 KiB each).
    """

    def __init__(
        self, make: Callable[[Event], T], *, capacity: int = _MEMO_CAPACITY, largest: int = _MEMO_LARGEST
    ) -> None:
        self._make = make
        self._capacity = capacity
        self._largest = largest
        """Bytes and characters of fragments; larger ones are made anew for each event."""
        self._known: dict[Process, _Known[T]] = {}

    def of(self, event: Event) -> T:
        """Fragments for the event's process."""
        process = event.process
        known = self._known.get(process)
        if (
            known is not None
            and known[0] is process.attribution
            and known[1] is process.pod
            and known[2] is process.placement
            and known[3] == event.node
        ):
            return known[4]
        made = self._make(event)
        if sum(map(len, made)) <= self._largest:
            if len(self._known) >= self._capacity:
                self._known.clear()
            self._known[process] = (process.attribution, process.pod, process.placement, event.node, made)
        return made
