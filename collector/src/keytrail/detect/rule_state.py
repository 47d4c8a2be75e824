"""One rule and what it remembers: from "the condition holds" to findings.

In: a step of the rule whose condition held, with its event. Out: findings and summaries. Puts together the memories of
`state` as the rule asks for them: sequence or threshold first, then suppression, then the budget. Knows no other rule.
"""

from collections.abc import Iterator
from itertools import islice

from keytrail.detect.program import RuleCode
from keytrail.detect.rule_check import CheckedRule
from keytrail.detect.state import Budget, Counter, Sequencer, Suppressor, digest
from keytrail.domain.event import Event
from keytrail.domain.finding import Finding, Snapshot
from keytrail.domain.process import Process
from keytrail.domain.rules import SequenceScope, duration_ns

_FOREBEARS = 2
"""Parent and grandparent: `sh -c 'cat key | curl ...'` has both programs below one shell."""


class RuleState:
    """The state of one rule."""

    def __init__(self, rule: CheckedRule, code: RuleCode, budget: int) -> None:
        spec = rule.rule.spec
        self.rule = rule
        self._code = code
        self._budget = Budget(budget)
        self._suppressor = Suppressor(duration_ns(spec.suppress.window)) if spec.suppress else None
        self._counter = Counter(spec.threshold.count, duration_ns(spec.threshold.window)) if spec.threshold else None
        self._sequencer = Sequencer(duration_ns(spec.sequence.within), len(rule.steps)) if spec.sequence else None
        self.newly_suppressed = False
        self.newly_over_budget = False

    def take_over(self, rule: CheckedRule, code: RuleCode) -> None:
        """Go on under a new version of the manifest that decides the same."""
        self.rule, self._code = rule, code

    def hit(self, step: int, event: Event, now_ns: int) -> list[Finding]:
        """Take an event for which the condition of a step held."""
        self.newly_suppressed = self.newly_over_budget = False
        steps: tuple[Snapshot, ...] = ()
        if self._sequencer is not None:
            before = self._sequencer.advance(step, self._scopes(event), event, now_ns)
            if before is None:
                return []
            steps = before
        count = self._counted(event, now_ns)
        return [] if count is None else self._found(event, steps, count, now_ns)

    def _counted(self, event: Event, now_ns: int) -> int | None:
        """0 without a threshold, its count when it is reached now, None while it is not."""
        threshold = self.rule.rule.spec.threshold
        if self._counter is None or threshold is None:
            return 0
        key = digest(self._code.count_key(event))
        if self.rule.distinct is None:
            reached = self._counter.reaches(key, now_ns)
        else:
            reached = self._counter.reaches_distinct(key, digest(self._code.distinct(event)), now_ns)
        return threshold.count if reached else None

    def _found(self, event: Event, steps: tuple[Snapshot, ...], count: int, now_ns: int) -> list[Finding]:
        key = b""
        found: list[Finding] = []
        if self._suppressor is not None:
            found += self._suppressor.ended(now_ns)
            key = digest(self._code.suppress_key(event))
            if self._suppressor.is_repeat(key):
                self.newly_suppressed = True
                return found
        found += self._budget.ended(now_ns)
        finding = self._budget.admits(lambda: self._made(event, steps, count), now_ns)
        if finding is None:
            self.newly_over_budget = True
            return found
        if self._suppressor is not None:
            found += self._suppressor.begin(key, finding, now_ns)
        return [*found, finding]

    def _made(self, event: Event, steps: tuple[Snapshot, ...], count: int) -> Finding:
        return Finding(self.rule.rule, self.rule.version, self._code.message(event), Snapshot(event), steps, count)

    def _scopes(self, event: Event) -> Iterator[str]:
        """What steps of a sequence may have in common."""
        sequence = self.rule.rule.spec.sequence
        process = event.process
        if sequence is not None and sequence.by is SequenceScope.POD:
            if process.pod is not None or process.container_id:
                yield process.pod.uid or process.pod.name if process.pod is not None else process.container_id
            return
        if process.exec_id:
            yield process.exec_id
        if sequence is not None and sequence.by is SequenceScope.TREE:
            yield from (one.exec_id for one in islice(event.ancestors(), _FOREBEARS) if _tells(one))

    # -- time

    @property
    def due_ns(self) -> int | None:
        """When the next summary may have to be made."""
        budget = self._budget.due_ns
        window = None if self._suppressor is None else self._suppressor.due_ns
        return window if budget is None or (window is not None and window < budget) else budget

    def ended(self, now_ns: int) -> Iterator[Finding]:
        """Summaries of windows that are over."""
        yield from self._budget.ended(now_ns)
        if self._suppressor is not None:
            yield from self._suppressor.ended(now_ns)

    def close(self, now_ns: int) -> Iterator[Finding]:
        """Summaries of all windows, which end now."""
        yield from self._budget.close(now_ns)
        if self._suppressor is not None:
            yield from self._suppressor.close(now_ns)

    def restart(self, now_ns: int) -> Iterator[Finding]:
        """End everything: the clock was set back."""
        yield from self.close(now_ns)
        for memory in (self._counter, self._sequencer):
            if memory is not None:
                memory.forget()

    @property
    def evicted(self) -> int:
        """What was forgotten because a memory was full."""
        return sum(one.evicted for one in (self._suppressor, self._counter, self._sequencer) if one is not None)


def _tells(process: Process) -> bool:
    """Whether having the process as a forebear means anything: everything descends from PID 1 and the kernel."""
    return process.pid > 1 and process.exec_id != ""
