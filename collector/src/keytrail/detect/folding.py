"""What of a checked condition is decided before an event comes: by constants, and by the kind of event.

A condition, its analysis and the kind whose function it will stand in come in; out comes, for any part of it, its value
where that is certain, and whether it can end in an error. A rule for several kinds often says `event.kind == "exec" ?
... : ...`: in the function of a kind one side of it is left. Next: `translation`, `guards`.
"""

from typing import Any, Final

from keytrail.detect.analysis import FAILING, Analysis, operands
from keytrail.detect.conditions import Condition
from keytrail.domain.event import EventKind

_KIND: Final = ("event", "kind")


class Folding:
    """Answers for one condition in the function of one kind; `kind` None: of any."""

    def __init__(self, condition: Condition, analysis: Analysis, kind: EventKind | None) -> None:
        self._constants = condition.constants
        self._references = condition.tree.references
        self._failing = analysis.failing
        self._kind = kind
        self._known: dict[int, bool | None] = {}

    def constant(self, node: Any) -> bool | None:
        """The value that a node has for each event of the kind, errors absorbed; None when it has none for certain."""
        if node.id not in self._known:
            self._known[node.id] = self._constant(node)
        return self._known[node.id]

    def can_fail(self, node: Any) -> bool:
        """Whether a node can end in an error."""
        if node.id not in self._failing or self.constant(node) is not None:
            return False
        if node.WhichOneof("which") != "call":
            return True
        overload = self.overload(node)
        if overload == "conditional" and (side := self.chosen(node)) is not None:
            return self.can_fail(side)
        return overload in FAILING or any(map(self.can_fail, operands(node)))

    def chosen(self, node: Any) -> Any:
        """The side of a conditional that its constant test chooses; None when it depends on the event."""
        test, yes, no = operands(node)
        known = self.constant(test)
        return None if known is None else yes if known else no

    def overload(self, node: Any) -> str:
        """Which function a call is of."""
        return str(self._references[node.id].overload_id[0])

    def _constant(self, node: Any) -> bool | None:
        which = node.WhichOneof("which")
        if which == "const" and node.const.WhichOneof("which") == "bool":
            return bool(node.const.bool)
        if which == "ident" and node.ident.name.startswith("params."):
            value = self._constants[node.ident.name.removeprefix("params.")]
            return value if isinstance(value, bool) else None
        return self._of_call(node, operands(node)) if which == "call" else None

    def _of_call(self, node: Any, parts: list[Any]) -> bool | None:
        overload = self.overload(node)
        if overload == "logical_not":
            known = self.constant(parts[0])
            return None if known is None else not known
        if overload in {"logical_and", "logical_or"}:
            sides = [self.constant(side) for side in parts]
            decisive = overload == "logical_or"
            return decisive if decisive in sides else None if None in sides else not decisive
        if overload == "conditional":
            side = self.chosen(node)
            return None if side is None else self.constant(side)
        if overload == "in_list" and self._is_empty(parts[1]) and not self.can_fail(parts[0]):
            return False
        return self._of_kind(overload, parts) if self._kind is not None else None

    def _is_empty(self, node: Any) -> bool:
        """Whether a list is known to have no items, as parameters for a user's own additions mostly do."""
        if node.WhichOneof("which") == "ident" and node.ident.name.startswith("params."):
            return bool(self._constants[node.ident.name.removeprefix("params.")] == ())
        return bool(node.WhichOneof("which") == "list" and not node.list.elements)

    def _of_kind(self, overload: str, parts: list[Any]) -> bool | None:
        """The answer to `event.kind == "exec"` and the like."""
        asked = parts[0].select if parts else None
        if asked is None or (asked.operand.ident.name, asked.field) != _KIND or asked.test_only:
            return None
        if overload == "in_list" and all(one.WhichOneof("which") == "const" for one in parts[1].list.elements):
            listed = parts[1].WhichOneof("which") == "list"
            return any(one.const.string == self._kind for one in parts[1].list.elements) if listed else None
        if overload not in {"equals", "not_equals"} or parts[1].WhichOneof("which") != "const":
            return None
        return bool(parts[1].const.string == self._kind) == (overload == "equals")
