"""An analysed condition in, a Python expression with the same answers out.

Errors of CEL are `CelError`s of Python; only where a side of `&&`, `||`, `all` or `exists` can fail does the code pay
for absorbing it. Cold parts of an event are kept in local variables when first reached (`(x or (x := ...))`); inside a
lambda, where an assignment would be lost, they are read again. All text of a rule enters the code through `repr` or as
a named constant: no part of a rule becomes code by itself. Which function the expression stands in is `program`'s.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from keytrail.detect import environment
from keytrail.detect.analysis import SEARCHING, Analysis, Macro, operands
from keytrail.detect.compiled import KNOWN, Constant
from keytrail.detect.conditions import Condition
from keytrail.detect.environment import Field, Variable
from keytrail.detect.folding import Folding
from keytrail.detect.price import price
from keytrail.domain.event import EventKind

HOT: Final = {"process": "process", "event": "e", "pod": "pod"}
"""Variables that a function reads at its top: every event has them at hand."""
_SOCKET: Final = frozenset({"network"})
AT_HAND: Final[Mapping[EventKind, frozenset[str]]] = {
    **dict.fromkeys((EventKind.CONNECT, EventKind.ACCEPT, EventKind.CLOSE, EventKind.LISTEN), _SOCKET),
    EventKind.SEND: _SOCKET | {"payload"},
    **dict.fromkeys((EventKind.FILE, EventKind.LIBRARY), frozenset({"file"})),
}
"""Variables that nearly all conditions on a kind ask for: read once before them, or each would ask if they are."""

_ENDS: Final = {"starts_with_string": "startswith", "ends_with_string": "endswith"}
"""Methods of Python that take several texts at once."""
_KEPT: Final = frozenset({"Process", "Pod", "File"})
"""Messages whose text is redacted and comes again and again."""

_BINARY: Final = {
    "equals": "==", "not_equals": "!=", "in_list": "in", "in_map": "in",
    "add_string": "+", "add_list": "+", "add_double": "+", "subtract_double": "-", "multiply_double": "*",
    "less": "<", "less_equals": "<=", "greater": ">", "greater_equals": ">=",
}  # fmt: skip
_SHAPES: Final = {
    "logical_not": "(not {0})",
    "conditional": "({1} if {0} else {2})",
    "add_int64": "checked({0} + {1})",
    "subtract_int64": "checked({0} - {1})",
    "multiply_int64": "checked({0} * {1})",
    "negate_int64": "checked(-{0})",
    "negate_double": "(-{0})",
    "divide_int64": "divide({0}, {1})",
    "modulo_int64": "modulus({0}, {1})",
    "divide_double": "divide_doubles({0}, {1})",
    "index_list": "item({0}, {1})",
    "index_map": "entry({0}, {1})",
    "contains_string": "({1} in {0})",
    "starts_with_string": "{0}.startswith({1})",
    "ends_with_string": "{0}.endswith({1})",
    "string_lower_ascii": "lower_ascii({0})",
}


@dataclass(slots=True)
class Symbols:
    """What the expressions of one generated module share."""

    constants: dict[str, Constant] = field(default_factory=dict)
    _names: dict[tuple[str, str], str] = field(default_factory=dict)

    def constant(self, sort: str, value: Any) -> str:
        """Name of a constant; `value` is what it is made of, once, when the code is loaded."""
        key = (sort, repr(value))
        if key not in self._names:
            self._names[key] = f"{sort}_{len(self._names)}"
            self.constants[self._names[key]] = sort, value
        return self._names[key]


@dataclass(slots=True)
class Locals:
    """Local variables that the expressions of one function need."""

    lazy: set[str] = field(default_factory=set)
    """None until first reached."""
    first: dict[str, str] = field(default_factory=dict)
    """With what they hold: read before the first expression."""


class Translator:
    """Translates one condition, for one function."""

    def __init__(
        self,
        condition: Condition,
        analysis: Analysis,
        symbols: Symbols,
        names: Locals,
        *,
        kind: EventKind | None = None,
        remembers: bool = True,
    ) -> None:
        """Begin. `kind`: the only one whose events come; what a condition says of others is left out.

        `remembers`: answers about texts that come again are kept; not where the answer to the whole is.
        """
        self._condition = condition
        self._types = condition.tree.types
        self._references = condition.tree.references
        self._analysis = analysis
        self._symbols = symbols
        self._locals = names
        self._remembers = remembers
        self._at_hand = AT_HAND.get(kind, frozenset()) if kind is not None else frozenset()
        self.folding = Folding(condition, analysis, kind)

    def translate(self, *, nested: bool = False) -> str:
        """The expression. `nested`: it stands where assignments are lost."""
        return self._code(self._condition.tree.expr, {}, nested=nested)

    @property
    def can_fail(self) -> bool:
        """Whether the expression can end in an error."""
        return self.folding.can_fail(self._condition.tree.expr)

    def part(self, node: Any) -> str:
        """A part of the expression that names no macro's item of what stands around it."""
        return self._code(node, {}, nested=False)

    def known_text(self, node: Any) -> str | None:
        """Text of a constant or parameter; None for anything else outside macros."""
        return self._known_text(node, {})

    def known_list(self, node: Any) -> tuple[Any, ...] | None:
        """Values of a list of constants or of a parameter; None for anything else outside macros."""
        return self._known_list(node, {})

    def macro(self, node: Any) -> Macro:
        """The macro that a comprehension is."""
        return self._analysis.macros[node.id]

    def sides(self, node: Any) -> Iterator[Any]:
        """All sides of a chain of one operator."""
        for side in operands(node):
            same = side.WhichOneof("which") == "call" and side.call.function == node.call.function
            yield from self.sides(side) if same else (side,)

    def ordered(self, node: Any, items: frozenset[str] = frozenset()) -> list[Any]:
        """The same, cheap ones first; `items` are names of macros' items around it."""
        known = self._analysis.ordered.get(node.id)
        if known is None:
            known = sorted(self.sides(node), key=lambda side: price(side, items))
            self._analysis.ordered[node.id] = known
        return known

    def _code(  # noqa: PLR0911 - one return for each form of node
        self, node: Any, scope: dict[str, str], *, nested: bool
    ) -> str:
        which = node.WhichOneof("which")
        if which == "const":
            return _literal(getattr(node.const, node.const.WhichOneof("which")))
        if which == "ident":
            return self._ident(node.ident.name, scope, nested=nested)
        if which == "select":
            return self._select(node.select, scope, nested=nested)
        if which == "call":
            known = self.folding.constant(node)
            return self._call(node, scope, nested=nested) if known is None else str(known)
        if which == "list":
            items = "".join(f"{self._code(item, scope, nested=nested)}, " for item in node.list.elements)
            return f"({items})"
        if which == "struct":
            entries = [(one.key, one.value) for one in node.struct.entries]
            pairs = (": ".join(self._code(part, scope, nested=nested) for part in entry) for entry in entries)
            return f"{{{', '.join(pairs)}}}"
        return self._macro(node, scope, nested=nested)

    # -- names and fields

    def _ident(self, name: str, scope: dict[str, str], *, nested: bool) -> str:
        if name in scope:
            return scope[name]
        if name.startswith("params."):
            value = self._condition.constants[name.removeprefix("params.")]
            return self._symbols.constant("list", value) if isinstance(value, tuple) else _literal(value)
        found = environment.variable(name)
        assert found is not None  # noqa: S101 - analysis refused every other name
        return self._object(found, nested=nested)

    def _object(self, variable: Variable, *, nested: bool) -> str:
        if variable.name in HOT:
            return HOT[variable.name]
        local = f"v_{variable.name}"
        source = variable.source.format(e="e")
        if nested:
            return source
        if variable.name in self._at_hand:
            self._locals.first[local] = source
            return local
        self._locals.lazy.add(local)
        if variable.many:  # may be an empty tuple, which is false
            return f"({local} if {local} is not None else ({local} := {source}))"
        return f"({local} or ({local} := {source}))"

    def _select(self, select: Any, scope: dict[str, str], *, nested: bool) -> str:
        operand = select.operand
        type_ = self._types[operand.id]
        base = self._code(operand, scope, nested=nested)
        if type_.WhichOneof("which") == "map":
            key = _literal(select.field)
            return f"({key} in {base})" if select.test_only else f"entry({base}, {key})"
        message = next(one for one in environment.messages() if type_.message.endswith(f".{one.name}"))
        found = message.field(select.field)
        if select.test_only and found.present:
            return found.present.format(o=base, e="e")
        value = self._field(found, base, nested=nested)
        if not select.test_only:
            return value
        default = environment.DEFAULTS[found.type]
        return value if default is False else f"({value} != {default!r})"

    def _field(self, found: Field, base: str, *, nested: bool) -> str:
        source = found.source.format(o=base, e="e")
        name = base.lstrip("(").partition(" ")[0]
        if found.plain or nested or not name.startswith(("process", "v_")):
            return source
        local = f"f_{name.removeprefix('v_')}_{found.name}"
        self._locals.lazy.add(local)
        return f"({local} if {local} is not None else ({local} := {source}))"

    # -- calls

    def _call(  # noqa: PLR0911 - one return for each form of call
        self, node: Any, scope: dict[str, str], *, nested: bool
    ) -> str:
        parts = operands(node)
        overload = self._references[node.id].overload_id[0]
        if overload in {"logical_and", "logical_or"}:
            return self._logical(node, overload == "logical_and", scope, nested=nested)
        if overload in SEARCHING:
            return self._search(SEARCHING[overload], parts, scope, nested=nested)
        if overload == "in_list" and (members := self._members(parts[1], scope)):
            return f"({self._code(parts[0], scope, nested=nested)} in {members})"
        if overload == "conditional" and (chosen := self.folding.chosen(node)) is not None:
            return self._code(chosen, scope, nested=nested)
        codes = [self._code(part, scope, nested=nested) for part in parts]
        if overload in _SHAPES:
            return _SHAPES[overload].format(*codes)
        operator = _BINARY.get(overload) or _BINARY.get(overload.rpartition("_")[0])
        if operator:
            return f"({codes[0]} {operator} {codes[1]})"
        name = "len" if "size" in overload else overload.removeprefix("keytrail_")
        return f"{name}({', '.join(codes)})"

    def _logical(self, node: Any, conjunction: bool, scope: dict[str, str], *, nested: bool) -> str:
        if not self.folding.can_fail(node):  # then the order of the sides does not matter: cheap ones first
            ordered = self.ordered(node, frozenset(scope))
            return joined((self._code(side, scope, nested=nested) for side in ordered), conjunction=conjunction)
        left, right = operands(node)
        constant = any(self.folding.constant(side) is not None for side in (left, right))  # a neutral one
        if constant or not self.folding.can_fail(left):  # Python's own order then gives CEL's answer, error or not
            return joined((self._code(one, scope, nested=nested) for one in (left, right)), conjunction=conjunction)
        sides = ", ".join(f"lambda: {self._code(side, scope, nested=True)}" for side in (left, right))
        return f"{'both' if conjunction else 'either'}({sides})"

    def _members(self, node: Any, scope: dict[str, str]) -> str:
        """Name of a set of the values, when a list is known and its items can be told apart by hash alone."""
        values = self._known_list(node, scope)
        if values is None or any(type(value) not in {str, int, bool} for value in values):
            return ""
        return self._symbols.constant("set", values)

    def _known_list(self, node: Any, scope: dict[str, str]) -> tuple[Any, ...] | None:
        which = node.WhichOneof("which")
        if which == "ident" and node.ident.name not in scope and node.ident.name.startswith("params."):
            value = self._condition.constants[node.ident.name.removeprefix("params.")]
            return value if isinstance(value, tuple) else None
        if which == "list" and all(item.WhichOneof("which") == "const" for item in node.list.elements):
            return tuple(getattr(item.const, item.const.WhichOneof("which")) for item in node.list.elements)
        return None

    def _search(self, function: str, parts: list[Any], scope: dict[str, str], *, nested: bool) -> str:
        text = self._code(parts[0], scope, nested=nested)
        known = self._known_list(parts[1], scope) if function == "in_cidrs" else self._known_text(parts[1], scope)
        if known is not None:
            return self._asked(function, known, parts[0], text)
        # The item of a macro over a known list: every value was tried when the rule was loaded, and is remembered.
        prepare = self._symbols.constant("prepare", function)
        return f"{prepare}({self._code(parts[1], scope, nested=nested)})({text})"

    def _asked(self, function: str, known: Any, node: Any, text: str) -> str:
        """A prepared test of a text; one that remembers, where texts come again and may be kept."""
        if function in {"in_cidrs", "cidr"} or not (self._remembers and self._keeps(node)):
            return f"{self._symbols.constant(function, known)}({text})"
        return f"{self._symbols.constant(f'{KNOWN}{function}', known)}[{text}]"

    def _keeps(self, node: Any) -> bool:
        if node.WhichOneof("which") != "select":
            return False
        return self._types[node.select.operand.id].message.rpartition(".")[2] in _KEPT

    def _known_text(self, node: Any, scope: dict[str, str]) -> str | None:
        if node.WhichOneof("which") == "const":
            return str(node.const.string)
        if node.WhichOneof("which") == "ident" and node.ident.name not in scope:
            return str(self._condition.constants[node.ident.name.removeprefix("params.")])
        return None

    # -- macros

    def _macro(self, node: Any, scope: dict[str, str], *, nested: bool) -> str:
        macro: Macro = self._analysis.macros[node.id]
        item = f"x{len(scope)}"
        inner = {**scope, macro.variable: item}
        values = self._code(macro.values, scope, nested=nested)

        def function(part: Any) -> str:
            return f"lambda {item}: {self._code(part, inner, nested=True)}"

        if macro.name == "exists" and (code := self._any_pattern(macro, scope, nested=nested)):
            return code
        if macro.name in {"all", "exists"}:
            if macro.test.id in self._analysis.failing:
                return f"{'every' if macro.name == 'all' else 'some'}({values}, {function(macro.test)})"
            return f"{'all' if macro.name == 'all' else 'any'}(map({function(macro.test)}, {values}))"
        if macro.name == "exists_one":
            return f"(sum(map({function(macro.test)}, {values})) == 1)"
        kept = values if macro.test is None else f"filter({function(macro.test)}, {values})"
        return f"tuple(map({function(macro.result)}, {kept}))"

    def _any_pattern(self, macro: Macro, scope: dict[str, str], *, nested: bool) -> str:
        """`patterns.exists(p, text.matches(p))` as one test of all patterns; empty when it is not of that form."""
        test, values = macro.test, self._known_list(macro.values, scope)
        if values is None or test.WhichOneof("which") != "call":
            return ""
        overload = self._references[test.id].overload_id[0]
        function = SEARCHING.get(overload, "in_cidrs")
        text, *patterns = operands(test)
        if overload in _ENDS and patterns[0].ident.name == macro.variable and self._plain(text):
            listed = self._symbols.constant("list", values)
            return f"{self._code(text, scope, nested=nested)}.{_ENDS[overload]}({listed})"
        if function == "in_cidrs" or patterns[0].ident.name != macro.variable or not self._plain(text):
            return ""
        return self._asked(function, values, text, self._code(text, scope, nested=nested))

    def _plain(self, node: Any) -> bool:
        """Whether a node is a field of a variable: it does not depend on a macro's item, and cannot fail."""
        return (
            node.WhichOneof("which") == "select"
            and node.select.operand.WhichOneof("which") == "ident"
            and environment.variable(node.select.operand.ident.name) is not None
        )


def joined(codes: Iterable[str], *, conjunction: bool) -> str:
    """Join the sides of a chain; constants, which parameters often are, decide it or are left out."""
    neutral, decisive = str(conjunction), str(not conjunction)
    left = [code for code in codes if code != neutral]
    if decisive in left:
        return decisive
    return f"({(' and ' if conjunction else ' or ').join(left)})" if left else neutral


def _literal(value: Any) -> str:
    """A constant as Python; negative numbers and infinities in brackets and by name."""
    if isinstance(value, float) and value in {float("inf"), float("-inf")}:
        return f"float({str(value)!r})"
    return f"({value!r})" if isinstance(value, int | float) and value < 0 else repr(value)
