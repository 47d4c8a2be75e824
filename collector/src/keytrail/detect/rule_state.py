"""One rule and what it remembers: from "the condition holds" to findings.

In: a step of the rule whose condition held, with its event. Out: findings and summaries. Puts together the memories of
`state` as the rule asks for them: sequence or threshold first, then suppression, then the budget. Knows no other rule.
"""

import re
from collections.abc import Iterator, Sized
from itertools import islice
from typing import Final

from keytrail.detect.compiled import RuleCode, RunningRule
from keytrail.detect.state import Budget, Counter, Key, Sequencer, Suppressor
from keytrail.domain.event import Event
from keytrail.domain.finding import Finding, Snapshot
from keytrail.domain.process import Process
from keytrail.domain.rules import SequenceScope, duration_ns

_FOREBEARS = 2
"""Parent and grandparent: `sh -c 'cat key | curl ...'` has both programs below one shell."""
_SHELLS: Final = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh"})
_COMMAND_LINE: Final = re.compile(r"(?:-[A-Za-z-]+ )*-[a-z]*c ")
"""Options of a shell that was started to run one command line, such as `-c` and `--norc -ec`."""


class RuleState:
    """The state of one rule."""

    def __init__(self, rule: RunningRule, code: RuleCode, budget: int) -> None:
        spec = rule.rule.spec
        self.rule = rule
        self._code = code
        self._budget = Budget(budget)
        self._suppressor = Suppressor(duration_ns(spec.suppress.window)) if spec.suppress else None
        self._threshold = spec.threshold.count if spec.threshold else 0
        self._counter = Counter(self._threshold, duration_ns(spec.threshold.window)) if spec.threshold else None
        self._sequencer = Sequencer(duration_ns(spec.sequence.within), rule.steps) if spec.sequence else None
        self.newly_suppressed = False
        self.newly_over_budget = False
        self.failed_ns: int | None = None
        """When an event last got no answer."""

    def take_over(self, rule: RunningRule, code: RuleCode) -> None:
        """Go on under a new version of the manifest that decides the same."""
        self.rule, self._code = rule, code

    def hit(self, step: int, event: Event, now_ns: int) -> list[Finding] | None:
        """Take an event for which the condition of a step held; None where nothing comes of it yet."""
        steps: tuple[Snapshot, ...] = ()
        if self._sequencer is not None:
            before = self._sequencer.advance(step, self._ties(event), self._ties(event, kept=True), event, now_ns)
            if before is None:
                return None
            steps = before
        if self._counter is not None and not self._reaches(self._counter, event, now_ns):
            return None
        return self._found(event, steps, now_ns)

    @property
    def begun(self) -> Sized:
        """Sequences that have begun, some of them too long ago; the same object for as long as the state lives."""
        return () if self._sequencer is None else self._sequencer.waiting

    def waits(self, now_ns: int) -> bool:
        """Whether a sequence has begun: mostly none has, and then its later steps need not be asked for."""
        return self._sequencer is not None and self._sequencer.waits(now_ns)

    def _reaches(self, counter: Counter, event: Event, now_ns: int) -> bool:
        key, value = self._code.counted_by(event)
        if not self.rule.distinct:
            return counter.reaches(key, now_ns)
        return counter.reaches_distinct(key, value, now_ns)

    def _found(self, event: Event, steps: tuple[Snapshot, ...], now_ns: int) -> list[Finding]:
        self.newly_suppressed = self.newly_over_budget = False
        key: Key = b""
        found: list[Finding] = []
        if self._suppressor is not None:
            key = self._code.suppressed_by(event)
            if self._suppressor.is_repeat(key, now_ns):
                self.newly_suppressed = True
                return found
            found += self._suppressor.ended(now_ns)
        found += self._budget.ended(now_ns)
        finding = self._budget.admits(lambda: self._made(event, steps), now_ns)
        if finding is None:
            self.newly_over_budget = True
            return found
        if self._suppressor is not None:
            found += self._suppressor.begin(key, finding, now_ns)
        return [*found, finding]

    def _made(self, event: Event, steps: tuple[Snapshot, ...]) -> Finding:
        message = self._code.message(event)
        return Finding(self.rule.rule, self.rule.version, message, Snapshot(event), steps, self._threshold)

    def _ties(self, event: Event, *, kept: bool = False) -> Iterator[str]:
        """What a step looks for among the steps before it; `kept`: under what it waits for the next."""
        sequence = self.rule.rule.spec.sequence
        process = event.process
        if sequence is not None and sequence.by is SequenceScope.POD:
            if (pod := process.pod) is not None:
                yield pod.uid or f"{pod.namespace}/{pod.name}"
            elif process.container_id:
                yield process.container_id
            return
        if process.exec_id:
            yield process.exec_id
        if sequence is not None and sequence.by in {SequenceScope.TREE, SequenceScope.COMMAND}:
            # Whoever starts programs for a living (a login shell, cron, sshd, an agent) makes no family of them.
            narrow = kept and sequence.by is SequenceScope.COMMAND
            above = (one for one in islice(event.ancestors(), _FOREBEARS) if _tells(one))
            yield from (one.exec_id for one in above if not narrow or _runs_one_command(one))

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


def _runs_one_command(process: Process) -> bool:
    """Whether it is a shell that runs one command line and ends: then all below it is one piece of work."""
    return process.name in _SHELLS and _COMMAND_LINE.match(process.arguments) is not None
