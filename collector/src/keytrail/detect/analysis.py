"""What a checked condition does, before any code is made of it: only what the language has, only what ends in time.

A `Condition` comes in, an `Analysis` goes out: which nodes can fail, which patterns are searched for, what all of it
costs at most. Everything the CEL engine accepts beyond the language (bytes, timestamps, `dyn`, messages made or
compared, patterns from the event, unbounded work) is refused here with its place. Next: `translation`.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import re2

from keytrail.detect import environment
from keytrail.detect.checked_tree import PRIMITIVES
from keytrail.detect.conditions import MAX_LEVELS, Condition
from keytrail.detect.declarations import PACKAGE
from keytrail.detect.patterns import PREPARED

MAX_CHARACTERS: Final = 8_192
MAX_NODES: Final = 1_000
MAX_MACROS: Final = 2
MAX_COST: Final = 100_000
_LIST_IN_EVENT: Final = 64
"""Items that a list of an event is taken to have at most when work is estimated (environments apart)."""
_SEARCH_COST: Final = 10

FAILING: Final = frozenset(
    {"add_int64", "subtract_int64", "multiply_int64", "divide_int64", "modulo_int64", "negate_int64"}
    | {"index_list", "index_map"}
)
"""Overloads that can end in an error whatever their operands do."""
PLAIN: Final = frozenset(
    {"logical_and", "logical_or", "logical_not", "conditional", "equals", "not_equals", "in_list", "in_map"}
    | {
        f"{name}_{type_}"
        for name in ("less", "less_equals", "greater", "greater_equals")
        for type_ in ("int64", "double", "string", "bool")
    }
    | {"add_string", "add_list", "add_double", "subtract_double", "multiply_double", "divide_double", "negate_double"}
    | {"size_string", "string_size", "size_list", "list_size", "size_map", "map_size"}
    | {"contains_string", "starts_with_string", "ends_with_string", "string_lower_ascii"}
    | {f"keytrail_{name}" for name in ("basename", "dirname", "entropy")}
)
SEARCHING: Final = {
    "matches": "matches",
    "matches_string": "matches",
    "keytrail_glob": "glob",
    "keytrail_cidr": "cidr",
    "keytrail_in_cidrs": "in_cidrs",
}
"""Overloads whose second argument must be known when the rule is loaded."""


@dataclass(slots=True)
class Analysis:
    """What is known of the nodes of one condition, by their ids."""

    failing: set[int] = field(default_factory=set)
    macros: dict[int, "Macro"] = field(default_factory=dict)
    fields: set[tuple[str, str]] = field(default_factory=set)
    """Variable (empty: an item of a list) and field that the condition reads."""
    cost: int = 0
    nodes: int = 0
    reads: dict[int, frozenset[tuple[str, str]]] = field(default_factory=dict)
    """The same for a node, and the next for a chain of one operator: worked out when first asked for, by `guards` and
    `translation`, which look at a condition once for each kind of event and each subject."""
    ordered: dict[int, list[Any]] = field(default_factory=dict)
    """Its sides, cheap ones first."""


@dataclass(frozen=True, slots=True)
class Macro:
    """A comprehension, recognised as the macro that it was."""

    name: str
    """`all`, `exists`, `exists_one`, `map`."""
    variable: str
    values: Any
    """The range."""
    test: Any = None
    """The predicate; of `map` and `filter` what is kept, None for all."""
    result: Any = None
    """Of `map` and `filter`: what an item becomes."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a value when the rule is loaded: its possible values."""

    values: tuple[Any, ...]


Scope = dict[str, _Known | None]


def analyse(condition: Condition) -> Analysis:
    """Look at every node. Raises RefusedError."""
    if len(condition.text) > MAX_CHARACTERS:
        raise condition.refuse(0, f"unbounded work: expected at most {MAX_CHARACTERS} characters")
    walker = _Walker(condition)
    walker.found.cost = walker.visit(condition.tree.expr, {}, 0, 0)[0]
    if walker.found.cost > MAX_COST:
        raise condition.refuse(
            condition.tree.expr.id, f"unbounded work: up to {walker.found.cost} steps, expected at most {MAX_COST}"
        )
    return walker.found


class _Walker:
    def __init__(self, condition: Condition) -> None:
        self._condition = condition
        self._types = condition.tree.types
        self._references = condition.tree.references
        self.found = Analysis()

    def visit(  # noqa: PLR0911 - one return for each form of node
        self, node: Any, scope: Scope, level: int, macros: int
    ) -> tuple[int, _Known | None]:
        """Return the cost of a node and what is known of its value."""
        self.found.nodes += 1
        if level > MAX_LEVELS or self.found.nodes > MAX_NODES:
            what = f"{MAX_LEVELS} levels" if level > MAX_LEVELS else f"{MAX_NODES} parts"
            raise self._condition.refuse(node.id, f"unbounded work: expected at most {what}")
        which = node.WhichOneof("which")
        if node.id in self._types:
            self._check_type(node.id, self._types[node.id])
        if which == "const":
            return 1, _Known((getattr(node.const, node.const.WhichOneof("which") or "string"),))
        if which == "ident":
            return 1, self._ident(node, scope)
        if which == "select":
            return self._select(node, scope, level, macros)
        if which == "call":
            return self._call(node, scope, level, macros)
        if which == "list":
            found = [self.visit(item, scope, level + 1, macros) for item in node.list.elements]
            self._inherit(node, *node.list.elements)
            known = [item.values[0] for _, item in found if item is not None and len(item.values) == 1]
            return 1 + sum(cost for cost, _ in found), _Known((tuple(known),)) if len(known) == len(found) else None
        if which == "struct" and not node.struct.message_name:
            return self._map(node, scope, level, macros), None
        if which == "comprehension":
            return self._comprehension(node, scope, level, macros), None
        raise self._condition.refuse(node.id, "messages cannot be made in a rule")

    def _map(self, node: Any, scope: Scope, level: int, macros: int) -> int:
        keys = [entry.key for entry in node.struct.entries]
        # A key that is given twice ends the engine's whole evaluation, which no operator could absorb.
        known = [
            getattr(key.const, key.const.WhichOneof("which")) for key in keys if key.WhichOneof("which") == "const"
        ]
        if len(set(known)) != len(keys):
            raise self._condition.refuse(node.id, "keys of a map must be different literals")
        values = [entry.value for entry in node.struct.entries]
        self._inherit(node, *values)
        return 1 + sum(self.visit(part, scope, level + 1, macros)[0] for part in (*keys, *values))

    def _inherit(self, node: Any, *parts: Any) -> None:
        if any(part.id in self.found.failing for part in parts):
            self.found.failing.add(node.id)

    def _ident(self, node: Any, scope: Scope) -> _Known | None:
        name = node.ident.name
        if name in scope:
            return scope[name]
        if name.startswith("params."):
            return _Known((self._condition.constants[name.removeprefix("params.")],))
        if environment.variable(name) is None:
            raise self._condition.refuse(node.id, f"{name!r} is no value")
        return None

    def _select(self, node: Any, scope: Scope, level: int, macros: int) -> tuple[int, None]:
        operand = node.select.operand
        cost, _ = self.visit(operand, scope, level + 1, macros)
        self._inherit(node, operand)
        type_ = self._types[operand.id]
        if type_.WhichOneof("which") == "map":
            if not node.select.test_only:
                self.found.failing.add(node.id)
            return cost + 1, None
        is_variable = operand.WhichOneof("which") == "ident" and operand.ident.name not in scope
        self.found.fields.add((operand.ident.name if is_variable else "", node.select.field))
        return cost + 1, None

    def _call(self, node: Any, scope: Scope, level: int, macros: int) -> tuple[int, _Known | None]:
        parts = operands(node)
        found = [self.visit(part, scope, level + 1, macros) for part in parts]
        cost = 1 + sum(part for part, _ in found)
        overloads = set(self._references[node.id].overload_id)
        name = node.call.function.strip("_@")
        if not overloads <= FAILING | PLAIN | SEARCHING.keys():
            raise self._condition.refuse(node.id, f"the rule language has no {name} for these types")
        self._inherit(node, *parts)
        if overloads & FAILING:
            self.found.failing.add(node.id)
        if overloads & {"equals", "not_equals", "in_list"}:
            self._check_comparable(node, parts)
        searched = overloads & SEARCHING.keys()
        if searched:
            values = self._searched(node.id, SEARCHING[searched.pop()], found[1][1])
            cost += _SEARCH_COST * values
        return cost, None

    def _searched(self, node: int, function: str, known: _Known | None) -> int:
        if known is None:
            what = "networks" if "cidr" in function else "a pattern"
            message = (
                f"{what} of {function} must be known when the rule is loaded: a literal, a parameter, an item of one"
            )
            raise self._condition.refuse(node, message)
        for value in known.values:
            try:
                PREPARED[function](value)
            except (re2.error, ValueError) as error:
                reason = b"".join(error.args).decode("utf-8", "replace") if isinstance(error, re2.error) else error
                raise self._condition.refuse(node, f"{function} is given what it cannot use: {reason}") from None
        return max((len(value) for value in known.values if isinstance(value, tuple)), default=1)

    def _comprehension(self, node: Any, scope: Scope, level: int, macros: int) -> int:
        macro = recognised(node.comprehension)
        if macro is None:
            raise self._condition.refuse(node.id, "the rule language has no such macro")
        if macros >= MAX_MACROS:
            raise self._condition.refuse(node.id, f"unbounded work: expected at most {MAX_MACROS} macros in each other")
        if environment.variable(macro.variable) or macro.variable == "params" or not macro.variable.isidentifier():
            raise self._condition.refuse(node.id, f"{macro.variable!r} is taken: name the item differently")
        cost, known = self.visit(macro.values, scope, level + 1, macros)
        length, items = _LIST_IN_EVENT, None
        if known is not None and all(isinstance(value, tuple) for value in known.values):
            length = max(map(len, known.values), default=0)
            items = _Known(tuple(item for value in known.values for item in value))
        parts = [part for part in (macro.test, macro.result) if part is not None]
        inner = {**scope, macro.variable: items}
        each = sum(self.visit(part, inner, level + 1, macros + 1)[0] for part in parts)
        self.found.macros[node.id] = macro
        self._inherit(node, macro.values, *parts)
        return 1 + cost + length * each

    def _check_type(self, node: int, type_: Any) -> None:
        which = type_.WhichOneof("which")
        if which == "list":
            self._check_type(node, type_.list.elem)
        elif which == "map":
            self._check_type(node, type_.map.key)
            self._check_type(node, type_.map.value)
        elif which == "message":
            if not type_.message.startswith(f"{PACKAGE}."):
                raise self._condition.refuse(node, "the rule language has no timestamps, durations and wrappers")
        elif which != "primitive" or type_.primitive not in PRIMITIVES:
            wanted = "text, int, double, bool, or lists and maps of one of these"
            raise self._condition.refuse(node, f"expected {wanted}: types must be known")

    def _check_comparable(self, node: Any, parts: list[Any]) -> None:
        kinds = [leaf(self._types[part.id]) for part in parts]
        if "message" in kinds:
            raise self._condition.refuse(node.id, "objects cannot be compared: compare their fields")
        nested = any(self._types[part.id].WhichOneof("which") in {"list", "map"} for part in parts)
        if nested and "double" in kinds:
            raise self._condition.refuse(node.id, "doubles in lists and maps cannot be compared: take them one by one")


def leaf(type_: Any) -> str:
    """`string` of a list of lists of text; `message` for any object."""
    which = type_.WhichOneof("which")
    if which == "list":
        return leaf(type_.list.elem)
    if which == "map":
        return leaf(type_.map.value)
    return "message" if which == "message" else PRIMITIVES[type_.primitive]


def operands(node: Any) -> list[Any]:
    """Target and arguments of a call, in order."""
    return [node.call.target, *node.call.args] if node.call.HasField("target") else list(node.call.args)


def recognised(loop: Any) -> Macro | None:
    """Tell which macro a comprehension was, by the loop that CEL's parser makes of each."""
    step = loop.loop_step.call
    start = loop.accu_init.WhichOneof("which")
    if step.function in {"_&&_", "_||_"} and start == "const":
        return Macro("all" if step.function == "_&&_" else "exists", loop.iter_var, loop.iter_range, step.args[1])
    test = None
    if step.function == "_?_:_":
        test, step = step.args[0], step.args[1].call
        if start == "const":
            return Macro("exists_one", loop.iter_var, loop.iter_range, test)
    if step.function == "_+_" and start == "list":
        return Macro("map", loop.iter_var, loop.iter_range, test, step.args[1].list.elements[0])
    return None
