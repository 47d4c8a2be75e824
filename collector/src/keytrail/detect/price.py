"""A part of a checked condition in, a class of cost out: what to test first where the order does not matter.

Classes, not microseconds: within one the author's order stays, who knows best what is rare. Knows no event.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from keytrail.detect.analysis import operands

HOT: Final = 0
"""Of the process, the pod or the event: at hand."""
NEAR: Final = 1
"""One call away: the parent, the identity, what the hook returned."""
COLD: Final = 2
"""Read from the message by the first that asks: in most kinds of event some rule always does."""
SEARCH: Final = 3
"""Patterns on what is at hand."""
COLD_SEARCH: Final = 4
FAR: Final = 5
"""Lists of objects: ancestors, arguments, identities."""

_VARIABLES: Final = {"process": HOT, "pod": HOT, "event": HOT, "parent": NEAR, "identity": NEAR, "attribution": NEAR}
_LISTS: Final = frozenset({"ancestors", "identities", "args"})
_FIELDS: Final = {
    ("event", "returned"): NEAR,
    ("event", "action"): NEAR,
    ("event", "tags"): COLD,
    ("event", "build_id"): COLD,
    ("pod", "exec_commands"): NEAR,
    ("identity", "violations"): FAR,
}
_LOGICAL: Final[dict[str, Callable[[Iterator[int]], int]]] = {"_&&_": min, "_||_": max}
_SEARCHES: Final = frozenset({"matches", "glob", "cidr", "in_cidrs", "entropy"})


def price(  # noqa: PLR0911 - one return for each form of node
    node: Any, items: frozenset[str] = frozenset()
) -> int:
    """Class of a node: that of its dearest part. `items` are names of macros' items around it."""
    which = node.WhichOneof("which")
    if which == "ident":
        return _of_name(node.ident.name, items)
    if which == "select":
        operand = node.select.operand
        name = operand.ident.name if operand.WhichOneof("which") == "ident" else ""
        return max(price(operand, items), _FIELDS.get((name, node.select.field), HOT))
    if which == "call" and node.call.function in _LOGICAL:
        # Of a conjunction the cheapest side comes first and mostly decides; of a disjunction mostly all are tried.
        return _LOGICAL[node.call.function](price(side, items) for side in operands(node))
    if which == "call":
        dearest = max((price(part, items) for part in operands(node)), default=HOT)
        if node.call.function not in _SEARCHES:
            return dearest
        return max(dearest, COLD_SEARCH if dearest >= COLD else SEARCH)
    if which == "list":
        return max((price(item, items) for item in node.list.elements), default=HOT)
    if which == "comprehension":
        loop = node.comprehension
        inner = items | {loop.iter_var, loop.accu_var}
        return max(SEARCH, price(loop.iter_range, items), price(loop.loop_step, inner))
    return HOT if which == "const" else FAR


def _of_name(name: str, items: frozenset[str]) -> int:
    if name in items or name.startswith("params."):
        return HOT
    return FAR if name in _LISTS else _VARIABLES.get(name, COLD)
