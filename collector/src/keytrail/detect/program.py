"""Checked rules in, Python functions out: one for each kind of event, and for each rule its message and keys.

The function of a kind (`detector`) tests the conditions of all rules and returns the numbers of those that hold, an
empty tuple for nearly every event.
Knows nothing of state: `engine` decides what a hit means.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from keytrail.detect.detector import detector, learn, top, translator
from keytrail.detect.message import shown
from keytrail.detect.reading import NAMES
from keytrail.detect.rule_check import CheckedRule, Expression
from keytrail.detect.translation import GLOBALS, Locals, Symbols
from keytrail.domain.event import Event, EventKind

Detect = Callable[[Event], tuple[int, ...]]
"""Numbers of the slots whose condition holds, in no order; hits are taken in theirs."""
Failed = Callable[[int, Exception], None]
"""Called with a slot whose condition has no value."""
Waits = Callable[[int], bool]
"""Whether the rule of a slot has seen a step before it, without which this one is not worth asking."""
Begun = Mapping[int, Sized]
"""What `Waits` looks through, by slot: mostly empty, which is quicker to see than to be told."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One step of one rule."""

    rule: int
    step: int


@dataclass(frozen=True, slots=True)
class RuleCode:
    """What a rule needs once its condition holds."""

    message: Callable[[Event], str]
    suppress_key: Callable[[Event], tuple[Any, ...]]
    count_key: Callable[[Event], tuple[Any, ...]]
    distinct: Callable[[Event], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Program:
    """Rules as code."""

    detect: dict[EventKind, Detect]
    slots: tuple[Slot, ...]
    rules: tuple[RuleCode, ...]
    source: str
    """For reading it, not for running."""


def build(
    rules: Sequence[CheckedRule], failed: Failed, waits: Waits | None = None, begun: Begun = MappingProxyType({})
) -> Program:
    """Generate and load the code of all rules. Without `waits` all steps of a sequence are asked of each event.

    `begun` may be filled after this.
    """
    symbols = Symbols()
    # The last step of a sequence first: one event cannot be two steps of it.
    slots = [Slot(number, step) for number, rule in enumerate(rules) for step in reversed(range(len(rule.steps)))]
    following = frozenset() if waits is None else frozenset(at for at, slot in enumerate(slots) if slot.step)
    texts, kinds = [], []
    for kind in EventKind:
        steps = [(at, rules[slot.rule].steps[slot.step]) for at, slot in enumerate(slots)]
        wanted = [(at, step) for at, step in steps if kind in step.kinds]
        if wanted:
            texts.append(detector(kind, wanted, symbols, following))
            kinds.append(kind)
    for number, rule in enumerate(rules):
        texts.append(_function(f"message_{number}", f'"".join({_joined(rule.message, symbols)})'))
        texts += [
            _function(f"{name}_{number}", _tuple(parts, symbols))
            for name, parts in (
                ("suppress", rule.suppress_by),
                ("count", rule.count_by),
                ("distinct", (rule.distinct,) if rule.distinct else ()),
            )
        ]
    source = "\n\n".join(texts)
    called = {"shown": shown, "learn": learn, "failed": failed, "waits": waits, "begun": begun}
    scope: dict[str, Any] = {**NAMES, **GLOBALS, **symbols.constants, **called}
    exec(compile(source, "<rules>", "exec"), scope)  # noqa: S102 - generated from checked trees; a rule's text is only in literals
    return Program(
        {kind: scope[f"detect_{kind}"] for kind in kinds},
        tuple(slots),
        tuple(
            RuleCode(*(scope[f"{name}_{number}"] for name in ("message", "suppress", "count", "distinct")))
            for number in range(len(rules))
        ),
        source,
    )


def condition_function(expression: Expression) -> Callable[[Event], bool]:
    """Generate the code of one condition alone, as it stands in a detector."""
    symbols, names = Symbols(), Locals()
    code = translator(expression, symbols, names).translate()
    scope: dict[str, Any] = {**NAMES, **GLOBALS, **symbols.constants}
    source = "\n".join(["def holds(e):", "    process = e.process", *top(names), f"    return {code}"])
    exec(compile(source, "<condition>", "exec"), scope)  # noqa: S102 - as in `build`
    holds: Callable[[Event], bool] = scope["holds"]
    return holds


def _function(name: str, value: str) -> str:
    return "\n".join([f"def {name}(e):", "    process = e.process", *top(Locals()), f"    return {value}"])


def _joined(parts: Iterable[str | Expression], symbols: Symbols) -> str:
    codes = (repr(part) if isinstance(part, str) else f"shown({_single(part, symbols)})" for part in parts)
    return f"({''.join(f'{code}, ' for code in codes)})"


def _tuple(parts: Iterable[Expression], symbols: Symbols) -> str:
    return f"({''.join(f'{_single(part, symbols)}, ' for part in parts)})"


def _single(expression: Expression, symbols: Symbols) -> str:
    """Code of a field that stands alone."""
    return translator(expression, symbols, Locals()).translate(nested=True)
