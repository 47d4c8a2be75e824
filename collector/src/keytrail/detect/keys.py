"""Fields that a rule counts or suppresses by in, the code of keys that may be kept out.

A key is the field's value, or a tuple of several, when it holds numbers and few characters, else a digest of them all:
whoever starts a process chooses the texts in it. What type a field has is known when the rule is loaded, so that an
event costs a look at the length of its texts and no more. Next: `program`; `state` keeps the keys.
"""

from collections.abc import Sequence
from typing import Final

from keytrail.detect.checked_tree import PRIMITIVES
from keytrail.detect.detector import top, translator
from keytrail.detect.rule_check import CheckedRule, Expression
from keytrail.detect.translation import Locals, Symbols

_CHARACTERS: Final = 128
"""Of a key: two exec ids and an address."""
_ITEM_CHARACTERS: Final = 32
"""Of a value that is counted: there are many more of them."""
_PLAIN: Final = frozenset({"string", "int", "bool"})


def suppressed_by(name: str, rule: CheckedRule, symbols: Symbols) -> str:
    """Make the function that returns an event's key among those that a rule has found already."""
    keys = _Keys(symbols)
    return keys.function(name, keys.add(rule.suppress_by, _CHARACTERS))


def counted_by(name: str, rule: CheckedRule, symbols: Symbols) -> str:
    """Make the function that returns by what a threshold counts an event, and the value that it counts, if it does."""
    keys = _Keys(symbols)
    value = (rule.distinct,) if rule.distinct else ()
    return keys.function(name, f"{keys.add(rule.count_by, _CHARACTERS)}, {keys.add(value, _ITEM_CHARACTERS)}")


class _Keys:
    """Keys of one function, which read a part of the event once."""

    def __init__(self, symbols: Symbols) -> None:
        self._symbols = symbols
        self._names = Locals()
        self._reads: list[str] = []

    def add(self, fields: Sequence[Expression], limit: int) -> str:
        """Read fields; the code of their key, with at most so many characters of text."""
        types = [_type(field) for field in fields]
        values = [self._read(field) for field in fields]
        whole = f"({''.join(f'{value}, ' for value in values)})"
        if not _PLAIN.issuperset(types):
            return f"digest({whole})"
        kept = values[0] if len(values) == 1 else whole
        texts = [f"len({value})" for value, type_ in zip(values, types, strict=True) if type_ == "string"]
        return f"{kept} if {' + '.join(texts)} <= {limit} else digest({whole})" if texts else kept

    def _read(self, field: Expression) -> str:
        value = f"k{len(self._reads)}"
        self._reads.append(f"    {value} = {translator(field, self._symbols, self._names).translate()}")
        return value

    def function(self, name: str, keys: str) -> str:
        """All of it."""
        return "\n".join(
            [f"def {name}(e):", "    process = e.process", *top(self._names), *self._reads, f"    return {keys}"]
        )


def _type(field: Expression) -> str:
    tree = field.condition.tree
    return PRIMITIVES.get(tree.types[tree.expr.id].primitive, "")
