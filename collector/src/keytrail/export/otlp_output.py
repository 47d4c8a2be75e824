"""Events and findings to the spool, from where they are sent to the OTLP backend.

Events or findings come in from the pipeline's thread; their bytes go on, each with its lane and its resource. Nothing
waits here: grouping by resource is done where the spool writes (next: `spool`, then `otlp_sender`).
"""

from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from keytrail.domain.event import Event
from keytrail.export.otlp_known import ResourceKey
from keytrail.export.spool.entries import Lane

Record = TypeVar("Record")

# Asked of every event: before Python 3.12 a member of an enum costs four times as much as a global.
_EVENT: Final = Lane.EVENT


class Appender(Protocol):
    """The spool, as an output sees it."""

    def append(self, lane: Lane, resource: bytes, record: bytes) -> None:
        """Take one LogRecord and the Resource that it belongs to. Does not wait for a disk; counts what it drops."""
        ...

    def flush(self) -> None:
        """What was appended should be on disk soon: nothing may follow for a while."""
        ...


class OtlpOutput(Generic[Record]):
    """An `Output` that fills a spool, which belongs to whoever made it. `encode` makes records."""

    def __init__(
        self,
        encode: Callable[[Record], tuple[ResourceKey, bytes]],
        lane_of: Callable[[Record], Lane],
        spool: Appender,
    ) -> None:
        self._encode = encode
        self._lane_of = lane_of
        self._spool = spool

    def write(self, record: Record, /) -> None:
        """Encode the record and append it."""
        resource, encoded = self._encode(record)
        self._spool.append(self._lane_of(record), resource, encoded)

    def flush(self) -> None:
        """Tell the spool that the stream pauses."""
        self._spool.flush()

    def close(self, deadline: float) -> None:  # noqa: ARG002 - of the protocol; nothing here takes time
        """Hand on everything; the spool is synced and closed by its owner."""
        self._spool.flush()


def event_lane(_event: Event) -> Lane:
    """Return the lane of events: whatever their kind, room is made from them first."""
    return _EVENT
