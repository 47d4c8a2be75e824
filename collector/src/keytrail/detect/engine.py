"""The detect stage: one event in, its findings out; an empty tuple for nearly all.

Start here. The engine makes functions of compiled rules (`compiled`) and remembers what they need between events
(`rule_state`); `compiler` makes them of manifests. `detect` must be called from one thread, in stream order. Reloading
makes a new engine that takes over the memory of the rules that did not change. What comes next is `keytrail.export`.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Sized
from typing import Final, NamedTuple

from keytrail.detect.compiled import CompiledRules, Program, load
from keytrail.detect.functions import CelError
from keytrail.detect.rule_state import RuleState
from keytrail.domain.event import Event, EventKind
from keytrail.domain.finding import Finding
from keytrail.domain.policy_library import PolicyLibrary
from keytrail.domain.rules import DetectionRule, Maturity

log = logging.getLogger(__name__)

DEFAULT_BUDGET: Final = 60
"""Findings of one rule a minute."""
_NEVER: Final = 1 << 63
_AT_ONCE: Final = -_NEVER
_SET_BACK_NS: Final = 300_000_000_000
"""Events come up to 62 ms out of order under load; one five minutes back means that a clock was set."""


class _Memory(NamedTuple):
    """What rules remember of one sequence of events."""

    states: list[RuleState]
    now_ns: int
    left: list[Finding]


class Engine:
    """Rules in force, and what they remember. `Engine.load` makes one."""

    def __init__(
        self, compiled: CompiledRules, *, budget: int = DEFAULT_BUDGET, previous: "Engine | None" = None
    ) -> None:
        self.rules = compiled.rules
        self.failures: Counter[str] = Counter()
        """Conditions that ended in an error, by rule."""
        self.suppressed: Counter[str] = Counter()
        """Repeats that only a summary tells of, by rule."""
        self.over_budget: Counter[str] = Counter()
        """Findings above the budget, which only a summary tells of, by rule."""
        self.refused = compiled.refused
        """Rules that were wrong when this engine was loaded; an earlier version of them may be in force."""
        self._begun: dict[int, Sized] = {}
        self._program: Program = load(compiled, self._failed, self._waits, self._begun)
        self._detect = self._program.detect
        self._budget = budget
        self._now_ns = 0
        self._due_ns = _NEVER
        self._left: list[Finding] = []
        self._states: list[RuleState] = []
        self._aside: _Memory | None = None
        """Of the past while there is one, and of now while events of the past are taken."""
        self._past = False
        self._take_states({})
        if previous is not None:
            self.continue_from(previous)

    @classmethod
    def load(
        cls,
        rules: Iterable[DetectionRule],
        library: PolicyLibrary | None = None,
        *,
        sensors: Collection[str] | None = None,
        maturities: Collection[Maturity] | None = None,
        budget: int = DEFAULT_BUDGET,
        previous: "Engine | None" = None,
    ) -> "Engine":
        """Compile rules (`compiler.compile_rules`) in this process, and put them in force."""
        from keytrail.detect.compiler import compile_rules  # and with it the CEL engine

        earlier = () if previous is None else previous.rules
        compiled = compile_rules(rules, library, sensors=sensors, maturities=maturities, earlier=earlier)
        return cls(compiled, budget=budget, previous=previous)

    @property
    def kinds(self) -> frozenset[EventKind]:
        """Kinds of event that some rule looks at; others need not leave the agent."""
        return frozenset(self._detect)

    @property
    def evicted(self) -> Counter[str]:
        """What was forgotten because a memory was full, by rule."""
        found = Counter[str]()
        for state in self._every_state:
            found[state.rule.name] += state.evicted
        return +found

    def failing(self, since_ns: int) -> tuple[str, ...]:
        """Rules that had no answer for some event since then, as they are now: another version begins anew."""
        failed = (one for one in self._every_state if one.failed_ns is not None and one.failed_ns >= since_ns)
        return tuple(dict.fromkeys(one.rule.name for one in failed))

    @property
    def _every_state(self) -> list[RuleState]:
        aside = self._aside
        return self._states if aside is None else [*self._states, *aside.states]

    def detect(self, event: Event) -> Sequence[Finding]:
        """Findings of one event, and summaries whose time has come."""
        now_ns = event.time_ns
        if now_ns > self._now_ns:
            self._now_ns = now_ns
            over = self._due_ns <= now_ns
        else:
            over = self._due_ns <= now_ns or now_ns < self._now_ns - _SET_BACK_NS
        ended = self._ended(now_ns) if over else ()
        function = self._detect.get(event.kind)
        if function is None:
            return ended
        hits = function(event)
        if not hits:
            return ended
        return (*ended, *self._hit(hits, event))

    def flush(self, now_ns: int | None = None) -> Sequence[Finding]:
        """Summaries of all repeats so far, as at the end of the stream. Default: the time of the newest event."""
        past = self.end_past()
        now_ns = self._now_ns if now_ns is None else now_ns
        found = [*self._take_left(), *(summary for state in self._states for summary in state.close(now_ns))]
        self._plan()
        return [*past, *found]

    # -- the past

    def turn(self, *, past: bool) -> None:
        """Take events that were missed and found later, or again those of the stream: each have a clock of their own.

        By one clock the windows of both would be wrong: minutes of the past would count as one moment of now, or end
        what rules remember of now.
        """
        if past is self._past:
            return
        self._past = past
        other = self._aside or _Memory([self._state(number, {}) for number in range(len(self.rules))], 0, [])
        self._aside = _Memory(self._states, self._now_ns, self._left)
        self._states, self._now_ns, self._left = other
        self._bind()

    def end_past(self) -> Sequence[Finding]:
        """Summaries of all repeats in the past, of which nothing more comes."""
        self.turn(past=False)
        aside, self._aside = self._aside, None
        if aside is None:
            return ()
        return [*aside.left, *(summary for state in aside.states for summary in state.close(aside.now_ns))]

    # -- hits

    def _hit(self, hits: tuple[int, ...], event: Event) -> list[Finding]:
        found: list[Finding] = []
        for hit in hits if len(hits) == 1 else sorted(hits):
            state, step = self._stepped[hit]
            try:
                made = state.hit(step, event, self._now_ns)
            except Exception as error:  # noqa: BLE001 - a rule's own boundary: a fault in one never affects others
                self._failed(hit, error)
                continue
            if made is None:  # no window has begun, nothing was held back
                continue
            if state.newly_suppressed:  # nor has one here
                self.suppressed[state.rule.name] += 1
                continue
            if state.newly_over_budget:
                self.over_budget[state.rule.name] += 1
            found += made
            due = state.due_ns
            if due is not None and due < self._due_ns:
                self._due_ns = due
        return found

    def _waits(self, slot: int) -> bool:
        return self._stepped[slot][0].waits(self._now_ns)

    def _failed(self, slot: int, error: Exception) -> None:
        state = self._stepped[slot][0]
        state.failed_ns, name = self._now_ns, state.rule.name
        self.failures[name] += 1
        if self.failures[name] == 1:
            # The text of any other error could hold a value of the event.
            why = str(error) if isinstance(error, CelError) else type(error).__name__
            log.warning("rule %s has no answer for an event (%s); from now on this is only counted", name, why)

    # -- time

    def _ended(self, now_ns: int) -> Sequence[Finding]:
        if now_ns < self._now_ns - _SET_BACK_NS:
            found = [
                *self._take_left(),
                *(summary for state in self._states for summary in state.restart(self._now_ns)),
            ]
            self._now_ns = now_ns
        else:
            found = [*self._take_left(), *(summary for state in self._states for summary in state.ended(now_ns))]
        self._plan()
        return found

    def _plan(self) -> None:
        due = min((due for state in self._states if (due := state.due_ns) is not None), default=_NEVER)
        self._due_ns = _AT_ONCE if self._left else due

    # -- reloading

    def continue_from(self, previous: "Engine") -> None:
        """Take over what an engine remembers, which detects nothing from then on; for its thread.

        Rules that are as they were keep their windows and counts; of the others' windows summaries are given next.
        """
        self.failures, self.suppressed = previous.failures, previous.suppressed
        self.over_budget = previous.over_budget
        past = previous.end_past()
        self._now_ns = previous._now_ns  # noqa: SLF001 - of the same class
        self._take_states({state.rule.name: state for state in previous._states})  # noqa: SLF001 - of the same class
        orphans = previous._orphans({id(state) for state in self._states})  # noqa: SLF001 - of the same class
        self._left = [*past, *orphans]
        self._plan()

    def _take_states(self, known: Mapping[str, RuleState]) -> None:
        self._states = [self._state(number, known) for number in range(len(self.rules))]
        self._bind()

    def _bind(self) -> None:
        """Have the functions of rules ask what is remembered now."""
        self._stepped = [(self._states[slot.rule], slot.step) for slot in self._program.slots]
        self._begun.update((at, state.begun) for at, (state, _) in enumerate(self._stepped))
        self._plan()

    def _state(self, number: int, known: Mapping[str, RuleState]) -> RuleState:
        rule, code = self.rules[number], self._program.rules[number]
        state = known.get(rule.name)
        if (
            state is not None
            and state.rule.version == rule.version
            and state.rule.rule.spec.suppress == rule.rule.spec.suppress
        ):
            state.take_over(rule, code)
            return state
        return RuleState(rule, code, self._budget)

    def _orphans(self, kept: set[int]) -> list[Finding]:
        """Summaries of rules that are no longer in force."""
        gone = [state for state in self._states if id(state) not in kept]
        return [*self._left, *(summary for state in gone for summary in state.close(self._now_ns))]

    def _take_left(self) -> list[Finding]:
        left, self._left = self._left, []
        return left
