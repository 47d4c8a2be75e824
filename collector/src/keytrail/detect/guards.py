"""A condition in, what must hold for it whatever else the event says out: for each subject that comes again and again.

A node runs the same programs on the same files all day. Of most conditions the program alone, or the file alone, says
that they cannot hold: `process.name == "curl" && ...` asks nothing else of an event of `sh`. What a subject says is
worked out once and remembered as one number, a bit for each condition that it leaves open. Next: `detector`.

A guard is weaker than its condition: a part about something else is taken to hold, or not, as it suits the condition.
It is never made of what can end in an error, nor of what stands behind that: such a condition fails, and is counted,
for exactly the events for which it did without a guard.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from keytrail.detect import environment
from keytrail.detect.analysis import operands
from keytrail.detect.price import price
from keytrail.detect.rule_check import Expression
from keytrail.detect.translation import Translator, joined


@dataclass(frozen=True, slots=True)
class Subject:
    """What conditions are about, and what tells one from another."""

    name: str
    fields: frozenset[tuple[str, str]]
    """Variable and field; all follow from the key."""
    key: str
    """Python: text, or a tuple of texts, that may be kept."""
    length: str
    """Python: characters of the key."""
    reads: str = ""
    """Python, run before `key`."""
    worth: int = 1
    """Conditions of a kind that it must be able to rule out for the look-up to pay."""
    texts: tuple[tuple[str, str], ...] = ()
    """Variable and field of what conditions search for patterns, the one that is always there first."""


PROGRAM: Final = Subject(
    "program",
    frozenset({("process", "name"), ("process", "binary")}),
    key="process.binary",
    length="len(process.binary)",
    worth=2,
)
SUBJECTS: Final = (
    PROGRAM,
    Subject("function", frozenset({("event", "function")}), key="e.function", length="len(e.function)"),
    Subject(
        "file",
        frozenset({("file", name) for name in ("access", "path", "name", "target")}),
        key="(file.access, file.path, file.target)",
        length="len(file.path) + len(file.target)",
        reads="file = e.file or NO_FILE",
        texts=(("file", "path"), ("file", "target")),
    ),
    Subject(
        "operation",
        frozenset({("operation", "name")}),
        key="operation.name",
        length="len(operation.name)",
        reads="operation = e.operation or NO_OPERATION",
        worth=3,
    ),
    Subject("action", frozenset({("event", "action")}), key="action", length="len(action)", reads="action = e.action"),
    Subject(
        "place",
        frozenset(
            {
                ("pod", "name"),
                *(("process", name) for name in ("argument_credentials", "container_id", "in_init_tree", "partial")),
                ("process", "truncated"),
            }
        ),
        key="(pod.name, process.container_id, process.in_init_tree, process.truncated, process.argument_credentials, "
        "process.placement and partial(process))",
        length="len(pod.name) + len(process.container_id)",
        reads="pod = process.pod or NO_POD",
        worth=3,
    ),
    Subject(
        "identity",
        frozenset({("identity", name) for name in ("id", "mapped", "evidence")}),
        key="(identity.identity_id, identity.mapped, identity.kind)",
        length="len(identity.identity_id)",
        reads="identity = primary(e)",
        worth=2,
    ),
    Subject(
        "privileges",
        frozenset({("credentials", "raised")}),
        key="gained",
        length="sum(map(len, gained))",
        reads="gained = e.gained",
    ),
)
"""In the order in which they are asked: what costs least to read, or rules out most, first."""


class Bounds:
    """What a subject says of one expression."""

    def __init__(
        self, expression: Expression, translator: Translator, subject: Subject, *, negations: bool = True
    ) -> None:
        """Begin. Without `negations` parts that say what the subject is not are left out, as if it said nothing."""
        self._whole = expression.condition.tree.expr
        self._translator = translator
        self._folding = translator.folding
        self._subject = subject
        self._negations = negations

    @property
    def can_fail(self) -> bool:
        """Whether the expression can end in an error."""
        return self._folding.can_fail(self._whole)

    def at_most(self) -> str:
        """Code that is false only where the expression is, without an error; `True` when the subject says nothing."""
        return self.bound(self._whole, most=True)

    def at_least(self) -> str:
        """Code that is true only where the expression is, without an error; `False` when the subject says nothing."""
        return self.bound(self._whole, most=False)

    def bound(self, node: Any, *, most: bool) -> str:
        """One of the two above for a part of the expression."""
        known = self._folding.constant(node)
        return self._bound(node, most=most) if known is None else str(known)

    def _bound(self, node: Any, *, most: bool) -> str:
        overload = self._overload(node)
        if overload in {"logical_and", "logical_or"}:
            sides = sorted(self._translator.sides(node), key=price)
            return joined((self.bound(side, most=most) for side in sides), conjunction=overload == "logical_and")
        if overload == "logical_not":
            return negated(self.bound(operands(node)[0], most=not most)) if self._negations else str(most)
        if overload == "conditional":
            return self._conditional(node, most=most)
        about = not self._folding.can_fail(node) and all(one in self._subject.fields for one in _reads(node))
        return self._translator.part(node) if about else str(most)

    def _overload(self, node: Any) -> str:
        return self._folding.overload(node) if node.WhichOneof("which") == "call" else ""

    def _conditional(self, node: Any, *, most: bool) -> str:
        """`c ? a : b` as `c && a || !c && b`."""
        test, yes, no = operands(node)
        if self._folding.can_fail(test):  # then so can the whole, whatever the sides say
            return str(most)
        first = (self.bound(test, most=most), self.bound(yes, most=most))
        second = (negated(self.bound(test, most=not most)), self.bound(no, most=most))
        return joined((joined(pair, conjunction=True) for pair in (first, second)), conjunction=False)


def _reads(node: Any) -> Iterator[tuple[str, str]]:
    """Variable and field of all that a node reads of an event."""
    which = node.WhichOneof("which")
    if which == "ident":
        if environment.variable(node.ident.name) is not None:
            yield node.ident.name, ""
    elif which == "select":
        operand = node.select.operand
        if operand.WhichOneof("which") == "ident" and environment.variable(operand.ident.name) is not None:
            yield operand.ident.name, node.select.field
        else:
            yield from _reads(operand)
    else:
        for part in _parts(node):
            yield from _reads(part)


def _parts(node: Any) -> list[Any]:
    which = node.WhichOneof("which")
    if which == "call":
        return operands(node)
    if which == "list":
        return list(node.list.elements)
    if which == "struct":
        return [part for entry in node.struct.entries for part in (entry.key, entry.value)]
    if which == "comprehension":
        loop = node.comprehension
        return [loop.iter_range, loop.accu_init, loop.loop_step, loop.result]
    return []


def guard(condition: Bounds, exceptions: Iterable[Bounds]) -> str:
    """Code that is false only for events that a step does not hold for, without an error; `True` when there is none."""
    codes, last = [condition.at_most()], condition
    for exception in exceptions:
        if last.can_fail:  # what stands behind it is not asked when it does
            break
        codes.append(negated(exception.at_least()))
        last = exception
    return joined(codes, conjunction=True)


def negated(code: str) -> str:
    """The opposite of a code."""
    return {"True": "False", "False": "True"}.get(code, f"(not {code})")
