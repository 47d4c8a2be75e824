"""Why an event or a record went no further. Every loss has a reason, a count and a mark whether it was meant."""

from dataclasses import dataclass
from enum import StrEnum


class DropReason(StrEnum):
    """Reasons, as metrics and summaries name them."""

    QUEUE_FULL = "queue_full"
    FILTERED = "filtered"
    DUPLICATE_HOOK = "duplicate_hook"
    EXPORT_REJECTED = "export_rejected"
    SPOOL_EVICTED = "spool_evicted"
    SPOOL_EXPIRED = "spool_expired"
    SPOOL_DAMAGED = "spool_damaged"
    OUTPUT_CLOSED = "output_closed"
    SHUTDOWN = "shutdown"

    @property
    def intended(self) -> bool:
        """Whether the drop is what the user asked for, rather than a loss."""
        return self in {DropReason.FILTERED, DropReason.DUPLICATE_HOOK}


class Undecodable(StrEnum):
    """Why a message is no event."""

    MALFORMED = "malformed"
    UNKNOWN_EVENT = "unknown_event"
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True)
class Drop:
    """A stage's answer instead of a value."""

    reason: DropReason | Undecodable
