"""What the spool, those who fill it and those who send from it share: lanes, entries, and the sender's side of it.

`durable` implements `Queue` on disk or in memory; `otlp_output` fills it, `otlp_sender` empties it. A record is queued
from the moment it is appended until it is settled: exported, rejected, or dropped with a reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, Protocol

from keytrail.domain.drop import DropReason


class ExportListener(Protocol):
    """Who wants to know where records went. Called with the queue's lock held: be quick, never block or raise."""

    def recovered(self, count: int) -> None:
        """Count records that come from an earlier run, or from the dead letters: they are queued again."""
        ...

    def on_exported(self, count: int) -> None:
        """Count records that the backend acknowledged."""
        ...

    def on_dropped(self, count: int, reason: DropReason) -> None:
        """Count records that are lost for good."""
        ...


class Lane(IntEnum):
    """Severity classes that are stored apart, lowest first: room is made from the lowest."""

    EVENT = 0
    INFO = 1
    LOW = 2
    MEDIUM = 3
    HIGH = 4
    CRITICAL = 5


class Entry(NamedTuple):
    """One serialized ResourceLogs, as it is stored and as it will be sent."""

    sequence: int
    """Rises over all lanes with every entry, across restarts; names the entry."""
    lane: Lane
    stream: int
    """0 to 255, the same for all records of one resource: entries of one stream are sent in their order."""
    records: int
    data: bytes


class Queue(Protocol):
    """The sender's side of the spool. Every method may be called from any thread.

    An entry of several records may be settled in pieces: `refused` and `exported` are then given entries of the same
    sequence with fewer records, and it is settled when the pieces add up. Given back or lost in a crash before that,
    it is whole again.
    """

    def take(self, slot: int, slots: int, most_records: int, most_bytes: int, linger: float) -> list[Entry]:
        """Wait for entries with `stream % slots == slot` and return the oldest of them, in order, within the limits.

        At least one, however large. They stay queued until settled, and are not handed out again before `give_back`.
        Waits up to `linger` seconds for more once there are some and limits are not reached; below zero it waits for
        nothing but what was appended already. Empty: nothing is left for the slot and there was nothing to wait for,
        the queue is closing, or `wake` was called.
        """
        ...

    def exported(self, entries: Sequence[Entry], rejected: int = 0) -> None:
        """The backend took them; of `rejected` records among them it said, without naming them, that it did not."""
        ...

    def refused(self, entries: Sequence[Entry], reason: str) -> None:
        """The backend refused them for good: set them aside in the dead letters with what it said, counted."""
        ...

    def give_back(self, entries: Sequence[Entry]) -> None:
        """They were not sent: the next `take` of their slot returns them first."""
        ...

    def wake(self) -> None:
        """Have each `take` that waits return, empty if it has nothing: the sender is about to end."""
        ...


@dataclass(frozen=True, slots=True)
class SpoolState:
    """One consistent picture: `appended + recovered == exported + queued + sum(dropped)`, in records."""

    appended: int = 0
    recovered: int = 0
    """Found at start, from an earlier run, or taken back from the dead letters."""
    exported: int = 0
    queued: int = 0
    """Includes what is not on disk yet and what is being sent."""
    unsynced: int = 0
    """Of `queued`: not on disk yet."""
    dropped: Mapping[DropReason, int] = field(default_factory=dict)
    set_aside: int = 0
    """Records in the dead letters now; they are in `dropped` too, as export_rejected."""
    bytes: int = 0
    """On disk, dead letters and bookkeeping included; in memory without a folder."""
    most_bytes: int = 0
    queued_by_lane: Mapping[Lane, int] = field(default_factory=dict)
    oldest_ns: int | None = None
    """When the oldest queued record was appended, wall clock."""
    durable: bool = False
    """Whether records are on disk before they are sent. False: no folder was given, or it cannot be written."""
    fault: str = ""
    """Why not, for a person; empty when all is well or no folder was given."""
