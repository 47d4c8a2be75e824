"""Which events have arrived: a key for each, for as long as a gap can be noticed after them.

In: decoded events from the stream, raw ones from an export file. Out: the same key for the same event. Time and exec_id
are enough where there is a time: no two of 15,000 recorded events of a real agent share both. Library loads have none;
there it is the library. A key is Python's hash: 8 bytes, and salted, so that nobody can make an event pass for another.
"""

import threading
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.message import DecodeError

from keytrail.domain.event import Event
from keytrail.proto.tetragon.events_pb2 import GetEventsResponse

_CAPACITY = 1_000_000
"""Events, at 8 bytes: a minute of a node that is busier than a collector should be."""
_CHUNK = 4_096
_DISORDER_NS = 60_000_000_000
"""How much older than the newest event of its batch one may be: the agent holds some back for 30 s."""


class RawEvent(NamedTuple):
    """What an export file has of an event."""

    time_ns: int
    """0 when it carries none."""
    key: int
    message: bytes
    left_out: int = 0
    """Not 0: no event but the exporter's note that it left out so many."""


def key_of(event: Event) -> int:
    """Return the key of a decoded event."""
    if not event.time_estimated:
        return hash((event.process.exec_id, event.time_ns))
    details = event.details
    return hash((event.process.exec_id, details.build_id or (details.file.path if details.file else "")))


def raw_event(message: bytes) -> RawEvent | None:
    """Read a serialized `tetragon.GetEventsResponse`; None when it is none, or of a type that is no event."""
    try:
        response = GetEventsResponse.FromString(message)
    except DecodeError:
        return None
    kind = response.WhichOneof("event")
    time_ns = response.time.seconds * 1_000_000_000 + response.time.nanos
    if kind is None or kind == "test":
        return None
    if kind == "rate_limit_info":
        return RawEvent(time_ns, 0, b"", response.rate_limit_info.number_of_dropped_process_events)
    event = getattr(response, kind)
    exec_id = "" if kind == "process_throttle" else event.process.exec_id
    if time_ns:
        return RawEvent(time_ns, hash((exec_id, time_ns)), message)
    library = (event.buildid.hex() or event.path) if kind == "process_loader" else ""
    return RawEvent(0, hash((exec_id, library)), message)


@dataclass(slots=True)
class _Chunk:
    keys: "array[int]"
    newest_ns: int


class Seen:
    """Keys of the latest events. Any thread."""

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._chunks: deque[_Chunk] = deque()
        self._held = 0
        self.newest_ns = 0
        """Time of the newest event that arrived."""

    def add(self, events: Sequence[Event]) -> None:
        """Remember events that arrived, in their order."""
        keys = [  # as `key_of`, without a call for each: 0.1 microseconds
            key_of(event) if event.time_estimated else hash((event.process.exec_id, event.time_ns)) for event in events
        ]
        self.add_keys(keys, events[-1].time_ns)

    def add_keys(self, keys: Sequence[int], newest_ns: int) -> None:
        """Remember events by their keys."""
        with self._lock:
            self.newest_ns = max(self.newest_ns, newest_ns)
            if not self._chunks or len(self._chunks[-1].keys) >= _CHUNK:
                self._chunks.append(_Chunk(array("q"), newest_ns))
            chunk = self._chunks[-1]
            chunk.keys.extend(keys)
            chunk.newest_ns = max(chunk.newest_ns, newest_ns)
            self._held += len(keys)
            while self._held - len(self._chunks[0].keys) >= self._capacity:
                self._held -= len(self._chunks.popleft().keys)

    def since(self, start_ns: int) -> set[int]:
        """Return the keys of all that may be as young as this; those older than what is remembered are missing."""
        with self._lock:
            chunks = [chunk.keys for chunk in self._chunks if chunk.newest_ns >= start_ns - _DISORDER_NS]
            if chunks:
                chunks[-1] = chunks[-1][:]  # the one that still grows
        return set().union(*chunks)
