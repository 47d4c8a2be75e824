"""Records on their way to the disk: held as they come, then made into entries.

Records of the pipeline in, entries out, each a serialized ResourceLogs of one lane and one resource. Knows no file.
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from keytrail.export.spool.entries import Entry, Lane
from keytrail.export.spool.lane import Item

_ENTRY_RECORDS: Final = 512
_ENTRY_BYTES: Final = 1 << 20
"""Command lines reach 128 KiB, and a receiver's default limit for a whole request is 4 MiB."""
_BIG: Final = 1 << 20
"""Bytes that are worth a commit of their own."""
_INLET_BYTES: Final = 1 << 17
_STREAMS: Final = 256

ResourceLogs = Callable[[bytes, list[bytes]], bytes]
"""Makes one ResourceLogs of a resource and its records."""


Waiting = tuple[int, Lane, bytes, bytes]
"""One record: its number in order of arrival over all lanes, its lane, its resource and itself."""


class Pending:
    """Records that nobody has begun to write. Called with the spool's lock held, but for `put`."""

    def __init__(self) -> None:
        self._inlet: deque[tuple[Lane, bytes, bytes]] = deque()
        self._put_bytes = 0
        self._lanes: list[deque[Waiting]] = [deque() for _ in Lane]
        self.number = 0
        """Of the last record."""
        self.records = 0
        self.bytes = 0

    def put(self, lane: Lane, resource: bytes, record: bytes) -> bool:
        """Take a record, without the lock: it is dear for one record. True when there is enough for `admit`."""
        self._inlet.append((lane, resource, record))
        self._put_bytes += len(record)
        if self._put_bytes < _INLET_BYTES:
            return False
        self._put_bytes = 0
        return True

    def admit(self) -> list[tuple[Lane, int]]:
        """Number what was put; returns how many records of which lane. More may be put meanwhile."""
        inlet, lanes, number = self._inlet, self._lanes, self.number
        counts = [0] * len(Lane)
        for _ in range(len(inlet)):
            lane, resource, record = inlet.popleft()
            number += 1
            lanes[lane].append((number, lane, resource, record))
            counts[lane] += 1
            self.bytes += len(record)
        self.records += number - self.number
        self.number = number
        return [(lane, count) for lane, count in zip(Lane, counts, strict=True) if count]

    @property
    def is_big(self) -> bool:
        """Whether waiting for more is not worth while."""
        return self.bytes >= _BIG

    def drop_oldest(self, lane: Lane) -> bool:
        """Forget the oldest record of a lane, if it has one."""
        if not self._lanes[lane]:
            return False
        self.records -= 1
        self.bytes -= len(self._lanes[lane].popleft()[3])
        return True

    def take(self) -> list[Waiting]:
        """All records, in order of arrival."""
        filled = [lane for lane in self._lanes if lane]
        taken = list(filled[0]) if len(filled) == 1 else sorted(chain.from_iterable(filled))
        for lane in filled:
            lane.clear()
        self.records = self.bytes = 0
        return taken


@dataclass(eq=False, slots=True)
class _Group:
    """Records that become one entry."""

    lane: Lane
    resource: bytes
    records: list[bytes]
    bytes: int


def entries_of(
    waiting: Sequence[Waiting], first: int, resource_logs: ResourceLogs, time_ns: int, age_ns: int
) -> list[Item]:
    """Gather records by lane and resource into entries with sequences from `first` on."""
    return [
        Item(
            Entry(
                sequence,
                group.lane,
                zlib.crc32(group.resource) % _STREAMS,
                len(group.records),
                resource_logs(group.resource, group.records),
            ),
            time_ns,
            age_ns,
        )
        for sequence, group in enumerate(_groups(waiting), first)
    ]


def _groups(waiting: Sequence[Waiting]) -> Iterator[_Group]:
    """Records that become one entry. A resource's entry ends where its severity changes: entries keep their order."""
    open_: dict[bytes, _Group] = {}
    for _, lane, resource, record in waiting:
        group = open_.get(resource)
        size = len(record)
        if group is not None:
            if group.lane is lane and len(group.records) < _ENTRY_RECORDS and group.bytes + size <= _ENTRY_BYTES:
                group.records.append(record)
                group.bytes += size
                continue
            yield group
        open_[resource] = _Group(lane, resource, [record], size)
    yield from open_.values()
