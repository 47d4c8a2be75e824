"""Where decided events, findings and gaps go, and the counting that goes with it.

In flow what the pipeline's thread decided, each output gets it in turn. A record is counted as made before any output
sees it: it is queued from that moment on.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from keytrail.detect import Engine
from keytrail.domain.event import Event
from keytrail.domain.finding import Finding
from keytrail.domain.gap import Gap
from keytrail.export.output import Output
from keytrail.observe.accounting import Accounting

if TYPE_CHECKING:
    from keytrail.delivery import Delivery


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where records of events go, those of findings, and those of loss."""

    events: Sequence[Output[Event]] = ()
    findings: Sequence[Output[Finding]] = ()
    gaps: Sequence[Output[Gap]] = ()
    delivery: "Delivery | None" = None
    """What OTLP outputs share; closed after them."""

    @property
    def every(self) -> Iterator[Output[Any]]:
        """All of them, whatever they take."""
        return chain(self.events, self.findings, self.gaps)

    def start(self) -> None:
        """Begin to deliver."""
        if self.delivery is not None:
            self.delivery.start()

    def close(self, deadline: float) -> None:
        """Deliver what the time up to the deadline allows, on the clock `time.monotonic`. Idempotent."""
        for output in self.every:
            output.close(max(0.0, deadline - time.monotonic()))
        if self.delivery is not None:
            self.delivery.close(max(0.0, deadline - time.monotonic()))


class Records:
    """The end of one pipeline. For its thread."""

    def __init__(self, outputs: Outputs, accounting: Accounting) -> None:
        self._outputs = outputs
        self._every = tuple(outputs.every)
        self._accounting = accounting
        self._held_back = (0, 0)

    @property
    def takes_all(self) -> bool:
        """Whether every event is wanted here; else only those of processes that carry evidence of an identity."""
        return bool(self._outputs.events)

    def expect(self, events: int) -> None:
        """So many events follow."""
        if outputs := self._outputs.events:
            self._accounting.made(events * len(outputs))

    def event(self, event: Event) -> None:
        """Hand over an event as soon as it is decided on: a later one may teach more about its process."""
        self._accounting.recent.event(event)
        for output in self._outputs.events:
            output.write(event)

    def findings(self, findings: Sequence[Finding]) -> None:
        """Hand over the findings about one event."""
        outputs = self._outputs.findings
        self._accounting.made(len(findings) * len(outputs))
        self._accounting.recent.findings(findings)
        self._accounting.found(Counter((one.rule.name, str(one.severity)) for one in findings if not one.suppressed))
        for output in outputs:
            for finding in findings:
                output.write(finding)

    def gaps(self, gaps: Sequence[Gap]) -> None:
        """Hand over gaps."""
        self._accounting.made(len(gaps) * len(self._outputs.gaps))
        for output in self._outputs.gaps:
            for gap in gaps:
                output.write(gap)

    def flush(self) -> None:
        """Tell all outputs that the stream pauses."""
        for output in self._every:
            output.flush()

    def count_held_back(self, rules: Engine) -> None:
        """Repeats that only a summary tells of were made and are not sent: each belongs to one side of the equation."""
        now = rules.suppressed.total(), rules.over_budget.total()
        if now != self._held_back:
            for reason, count, before in zip(("repeated", "over_budget"), now, self._held_back, strict=True):
                self._accounting.made((count - before) * len(self._outputs.findings))
                self._accounting.suppressed((count - before) * len(self._outputs.findings), reason)
            self._held_back = now
