"""Checked rules in, the source of Python functions out: one for each kind of event, and for each rule what a hit needs.

The function of a kind (`detector`) tests the conditions of all rules and returns the numbers of those that hold, an
empty tuple for nearly every event. Knows nothing of state. Next is `compiled`, which loads it.
"""

import marshal
from collections.abc import Callable, Iterable, Sequence

from keytrail.detect.compiled import CompiledRules, RunningRule, Slot, loaded
from keytrail.detect.detector import detector, top, translator
from keytrail.detect.keys import counted_by, suppressed_by
from keytrail.detect.rule_check import CheckedRule, Expression
from keytrail.detect.translation import Locals, Symbols
from keytrail.domain.event import Event, EventKind


def generate(rules: Sequence[CheckedRule], *, waiting: bool = True) -> CompiledRules:
    """Generate the code of all rules. Without `waiting` all steps of a sequence are asked of each event."""
    symbols = Symbols()
    # The last step of a sequence first: one event cannot be two steps of it.
    slots = [Slot(number, step) for number, rule in enumerate(rules) for step in reversed(range(len(rule.steps)))]
    following = frozenset(at for at, slot in enumerate(slots) if slot.step and waiting)
    texts, kinds = [], []
    for kind in EventKind:
        steps = [(at, rules[slot.rule].steps[slot.step]) for at, slot in enumerate(slots)]
        wanted = [(at, step) for at, step in steps if kind in step.kinds]
        if wanted:
            texts.append(detector(kind, wanted, symbols, following))
            kinds.append(kind)
    for number, rule in enumerate(rules):
        texts.append(_function(f"message_{number}", f'"".join({_joined(rule.message, symbols)})'))
        texts.append(suppressed_by(f"suppressed_{number}", rule, symbols))
        texts.append(counted_by(f"counted_{number}", rule, symbols))
    running = (RunningRule(one.rule, len(one.steps), one.distinct is not None, one.version) for one in rules)
    source = "\n\n".join(texts)
    code = marshal.dumps(compile(source, "<rules>", "exec"))
    return CompiledRules(tuple(running), tuple(slots), tuple(kinds), source, code, symbols.constants)


def condition_function(expression: Expression) -> Callable[[Event], bool]:
    """Generate the code of one condition alone, as it stands in a detector."""
    symbols, names = Symbols(), Locals()
    code = translator(expression, symbols, names).translate()
    source = "\n".join(["def holds(e):", "    process = e.process", *top(names), f"    return {code}"])
    holds: Callable[[Event], bool] = loaded(compile(source, "<condition>", "exec"), symbols.constants, {})["holds"]
    return holds


def _function(name: str, value: str) -> str:
    return "\n".join([f"def {name}(e):", "    process = e.process", *top(Locals()), f"    return {value}"])


def _joined(parts: Iterable[str | Expression], symbols: Symbols) -> str:
    codes = (repr(part) if isinstance(part, str) else f"shown({_single(part, symbols)})" for part in parts)
    return f"({''.join(f'{code}, ' for code in codes)})"


def _single(expression: Expression, symbols: Symbols) -> str:
    """Code of a field that stands alone."""
    return translator(expression, symbols, Locals()).translate(nested=True)
