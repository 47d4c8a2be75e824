"""What a rule says about an event: a snapshot that outlives the event.

Made by `keytrail.detect`, written by `keytrail.export`. It holds names and redacted text only: neither the agent's
message, which carries every environment variable with its value, nor what a process wrote or sent.
"""

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

from keytrail.domain.event import Credentials, Details, Event
from keytrail.domain.peer import Peer
from keytrail.domain.process import Process
from keytrail.domain.rules import DetectionRule, Severity

_ANCESTORS = 16


class Snapshot(Event):
    """An event without its message: every part that a record shows, and nothing else."""

    __slots__ = ("_ancestors", "_credentials", "_details", "_peer")

    def __init__(self, event: Event) -> None:
        super().__init__(
            event.kind,
            event.type,
            copy(event.process),  # as it is now: its attribution and pod may change, and it may exit
            time_ns=event.time_ns,
            function=event.function,
            node=event.node,
            parent=event.parent,
            policy=event.policy,
            tid=event.tid,
            time_estimated=event.time_estimated,
        )
        self._details = event.details
        self._credentials = event.credentials
        self._peer = event.peer
        self._ancestors = tuple(ancestor for ancestor, _ in zip(event.ancestors(), range(_ANCESTORS), strict=False))

    @property
    def details(self) -> Details:
        """What the kind adds."""
        return self._details

    @property
    def credentials(self) -> Credentials | None:
        """Ids and capabilities of the process at its exec."""
        return self._credentials

    @property
    def peer(self) -> Peer | None:
        """Who was at the other end."""
        return self._peer

    def ancestors(self) -> Iterator[Process]:
        """Parent first, as far as was known."""
        return iter(self._ancestors)


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """One finding, or the summary of its repeats."""

    rule: DetectionRule
    """As tuned."""
    version: str
    """Digest of what the rule decides by: the same version finds the same."""
    message: str
    """One line of printable ASCII."""
    event: Snapshot
    """What triggered it; of a summary, what triggered the finding that was repeated."""
    steps: tuple[Snapshot, ...] = ()
    """The earlier steps of a sequence, in order."""
    count: int = 0
    """Events, or distinct values, that reached the threshold; 0 without one."""
    suppressed: int = 0
    """Repeats that this summary stands for; 0 for a finding of its own."""
    until_ns: int = 0
    """Of a summary: the end of the window."""

    @property
    def severity(self) -> Severity:
        """Severity, as tuned."""
        return self.rule.spec.severity

    @property
    def time_ns(self) -> int:
        """When it happened; of a summary, when its window ended."""
        return self.until_ns or self.event.time_ns
