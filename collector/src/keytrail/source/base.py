"""What a source is."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from keytrail.domain.agent import AgentFacts
from keytrail.domain.gap import Gap

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Larger messages are counted as too large and kept out. The largest exec event a kernel can make (arguments,
environment, parent and ancestors, each up to 327,360 bytes) is some 4 MiB."""


class Batch(NamedTuple):
    """Messages in stream order, and what the source learned about their agent just before them."""

    messages: Sequence[bytes]
    """Serialized `tetragon.GetEventsResponse`, one an event."""
    arrived_ns: int
    """Wall clock when the last of them was read, nanoseconds since the epoch."""
    agent: AgentFacts | None = None
    """Set on the first batch of every connection: whatever was known of an earlier agent is over."""
    processes: Sequence[bytes] = ()
    """Serialized `tetragon.Process`: the agent's process cache at connection, to be known before `messages`."""
    too_large: int = 0
    """Messages over MAX_MESSAGE_BYTES that were received and kept out."""
    malformed: int = 0
    """Pieces of input that were no message at all, such as a line of an export file that is not JSON."""
    backfilled: bool = False
    """`messages` are older than what came before: found in the agent's export file after a gap."""
    gaps: Sequence[Gap] = ()
    """Loss that somebody noticed, to be told in its place in the stream."""


class Source(Protocol):
    """Something that yields batches until it ends or is closed."""

    def batches(self) -> Iterator[Batch]:
        """Block until there is a batch; end after the last one, or soon after `close`.

        Raises SourceError when the source can never deliver (a missing file, a damaged recording). A live agent that
        is away is not an error: the source waits and tries again.
        """
        ...

    def close(self) -> None:
        """Make `batches` end within a second. Idempotent, callable from any thread, also before `batches`."""
        ...
