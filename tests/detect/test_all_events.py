"""Every condition and exception of every shipped rule, on recorded events: generated code and CEL engine say the same.

By default on the first event of each shape of all recordings; with `--long` on every event of every recording, nothing
left out and nothing remembered. The function that runs on the stream, made of all rules of a kind, is held to the
engine's answers as well, so that whatever its compiler does across rules cannot change what is found.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
from cel_expr_python import cel  # type: ignore[import-untyped] # stubs without py.typed

from detect.oracle import Answer, compiled
from keytrail.detect.compiled import load
from keytrail.detect.declarations import activation
from keytrail.detect.program import generate
from keytrail.detect.rule_check import Expression, Step, check_rule
from keytrail.domain.event import Event, EventKind
from rules.expected_use import EXPECTED, mappings
from rules.report import attribute_each, shipped_rules
from support.recordings import STREAMS


@dataclass(frozen=True)
class Asked:
    """One condition, for both to answer."""

    rule: str
    expression: Expression
    code: Callable[[Event], Answer]
    parameters: dict[str, Any]

    def engine(self, seen: dict[str, Any]) -> Answer:
        """What the CEL engine says of an event's activation."""
        value = self.expression.condition.expression.eval(data=seen | self.parameters)
        return None if value.type() == cel.Type.ERROR else bool(value.plain_value())


@dataclass
class Tally:
    """What was asked, and where the answers differ."""

    events: int = 0
    answers: int = 0
    held: int = 0
    conditions: set[tuple[int, int]] = field(default_factory=set)
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = f"{self.events} events, {len(self.conditions)} conditions, {self.answers} answers ({self.held} true)"
        return f"{counts}, {len(self.differences)} differences"


class Both:
    """Generated code and CEL engine of all shipped rules."""

    def __init__(self) -> None:
        checked = [check_rule(one) for one in shipped_rules()]
        self.failed: set[int] = set()
        self.program = load(generate(checked, waiting=False), lambda slot, _: self.failed.add(slot))
        self.steps: list[tuple[Step, list[Asked]]] = []
        for slot in self.program.slots:
            step, name = checked[slot.rule].steps[slot.step], checked[slot.rule].name
            self.steps.append((step, [_asked(name, one) for one in (step.condition, *step.exceptions)]))

    def compare(self, event: Event, tally: Tally) -> None:
        """Ask both for every condition of the event's kind, and the stream's function for all at once."""
        if event.kind not in self.program.detect:
            return
        tally.events += 1
        seen = activation(event, {})
        expected_hits: set[int] = set()
        expected_failures: set[int] = set()
        for number, (step, asked) in enumerate(self.steps):
            if event.kind not in step.kinds:
                continue
            answers = []
            for place, one in enumerate(asked):
                answers.append(one.engine(seen))
                tally.conditions.add((number, place))
                if one.code(event) != answers[-1]:
                    tally.differences.append(
                        f"{one.rule} {place}: engine {answers[-1]}, code {one.code(event)}: {event}"
                    )
            tally.answers += len(answers)
            tally.held += answers.count(True)
            if step.sees_preexisting or not event.process.preexisting:
                outcome = _outcome(answers)
                expected_hits |= {number} if outcome else set()
                expected_failures |= {number} if outcome is None else set()
        self.failed.clear()
        hits = set(self.program.detect[event.kind](event))
        if (hits, self.failed) != (expected_hits, expected_failures):
            wrong = (hits ^ expected_hits) | (self.failed ^ expected_failures)
            tally.differences.append(f"all rules at once: {[self.steps[one][1][0].rule for one in wrong]}: {event}")


def _asked(rule: str, expression: Expression) -> Asked:
    constants = expression.condition.constants.items()
    parameters = {f"params.{name}": list(one) if isinstance(one, tuple) else one for name, one in constants}
    return Asked(rule, expression, compiled(expression), parameters)


def _outcome(answers: list[Answer]) -> Answer:
    """What condition and exceptions decide, one after the other: an error in one that is reached has no answer."""
    condition, *exceptions = answers
    if not condition:
        return condition
    return next((None if answer is None else False for answer in exceptions if answer is not False), True)


@cache
def both() -> Both:
    """Rules are checked and compiled once."""
    return Both()


def first_of_each_shape(events: Iterable[Event]) -> Iterator[Event]:
    """One event of each kind, function and access; one of each program that was executed and top folder of files."""
    seen: set[tuple[str, ...]] = set()
    for event in events:
        file = event.details.file
        of_file = (file.access, *file.path.split("/")[1:2]) if file and event.kind is EventKind.FILE else ()
        program = event.process.binary.rpartition("/")[2] if event.kind is EventKind.EXEC else ""
        shape = (event.kind, event.function, program, *of_file)
        if shape not in seen:
            seen.add(shape)
            yield event


def recorded(name: str) -> Iterator[Event]:
    """Events as the pipeline hands them to rules; three keys have mappings, so that expected use can be violated."""
    return (event for _, event in attribute_each(name, mappings(EXPECTED)))


@pytest.mark.timeout(300)
def test_first_event_of_each_shape() -> None:
    """The same answer for every condition, alone and among all, on one event of each recorded shape."""
    tally = Tally()
    for event in first_of_each_shape(event for name in STREAMS for event in recorded(name)):
        both().compare(event, tally)
    assert tally.differences == []
    assert tally.answers > 10_000


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", STREAMS)
def test_every_event(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same answer for every condition, alone and among all, on every event of a recording."""
    tally = Tally()
    for event in recorded(name):
        both().compare(event, tally)
    with capsys.disabled():
        print(f"{name:<24} {tally}")  # noqa: T201 - the figures are what the long run is for
    assert tally.differences == []
