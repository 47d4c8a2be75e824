"""Checked rules in, Python functions out: one for each kind of event, and for each rule its message and keys.

The function of a kind tests the conditions of all rules one after the other and returns the numbers of those that hold,
an empty tuple for nearly every event. A condition that raises ends there, is reported, and leaves the others alone.
Knows nothing of state: `engine` decides what a hit means.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from keytrail.detect.message import shown
from keytrail.detect.reading import NAMES
from keytrail.detect.rule_check import CheckedRule, Expression, Step
from keytrail.detect.translation import GLOBALS, Locals, Symbols, Translator
from keytrail.domain.event import Event, EventKind

Detect = Callable[[Event], tuple[int, ...]]
"""Numbers of the slots whose condition holds."""
Failed = Callable[[int, Exception], None]
"""Called with a slot whose condition has no value."""
_TOP: Final = ("    process = e.process", "    pod = process.pod or NO_POD")


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


def build(rules: Sequence[CheckedRule], failed: Failed) -> Program:
    """Generate and load the code of all rules."""
    symbols = Symbols()
    slots = [Slot(number, step) for number, rule in enumerate(rules) for step in range(len(rule.steps))]
    texts, kinds = [], []
    for kind in EventKind:
        steps = [(at, rules[slot.rule].steps[slot.step]) for at, slot in enumerate(slots)]
        wanted = [(at, step) for at, step in steps if kind in step.kinds]
        if wanted:
            texts.append(_detector(kind, wanted, symbols))
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
    scope: dict[str, Any] = {**NAMES, **GLOBALS, **symbols.constants, "shown": shown, "failed": failed}
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
    code = _code(expression, symbols, names)
    scope: dict[str, Any] = {**NAMES, **GLOBALS, **symbols.constants}
    source = "\n".join(["def holds(e):", *_top(names), f"    return {code}"])
    exec(compile(source, "<condition>", "exec"), scope)  # noqa: S102 - as in `build`
    holds: Callable[[Event], bool] = scope["holds"]
    return holds


def _top(names: Locals) -> list[str]:
    """What stands before the conditions: what every event has at hand, and names for the rest."""
    lines = [*_TOP, *(f"    {name} = {source}" for name, source in names.hot_fields.items())]
    return [*lines, f"    {' = '.join(sorted(names.lazy))} = None"] if names.lazy else lines


def _detector(kind: EventKind, wanted: Iterable[tuple[int, Step]], symbols: Symbols) -> str:
    names = Locals()
    lines = []
    for at, step in wanted:
        tests = [f"not {_code(one, symbols, names)}" for one in step.exceptions]
        guard = [] if step.sees_preexisting else ["announced"]
        whole = " and ".join([*guard, _code(step.condition, symbols, names), *tests])
        lines += [
            "    try:",
            f"        if {whole}:",
            f"            hits += ({at},)",
            "    except Exception as error:",
            f"        failed({at}, error)",
        ]
    top = [*_top(names), "    announced = not process.preexisting", "    hits = ()"]
    return "\n".join([f"def detect_{kind}(e):", *top, *lines, "    return hits"])


def _code(expression: Expression, symbols: Symbols, names: Locals, *, nested: bool = False) -> str:
    return Translator(expression.condition, expression.analysis, symbols, names).translate(nested=nested)


def _function(name: str, value: str) -> str:
    return "\n".join([f"def {name}(e):", *_TOP, f"    return {value}"])


def _joined(parts: Iterable[str | Expression], symbols: Symbols) -> str:
    codes = (repr(part) if isinstance(part, str) else f"shown({_single(part, symbols)})" for part in parts)
    return f"({''.join(f'{code}, ' for code in codes)})"


def _tuple(parts: Iterable[Expression], symbols: Symbols) -> str:
    return f"({''.join(f'{_single(part, symbols)}, ' for part in parts)})"


def _single(expression: Expression, symbols: Symbols) -> str:
    """Code of a field that stands alone, with what a detector would have read at its top put in its place."""
    names = Locals()
    code = _code(expression, symbols, names, nested=True)
    return names.hot_fields.get(code, code)
