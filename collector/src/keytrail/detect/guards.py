"""A condition in, what must hold for it whatever else the event says out: for each subject that comes again and again.

A node runs the same programs on the same files all day. Of most conditions the program alone, or the file alone, says
that they cannot hold: `process.name == "curl" && ...` asks nothing else of an event of `sh`. What a subject says is
worked out once and remembered as one number, a bit for each condition that it leaves open. Next: `detector`.

A guard is weaker than its condition: a part about something else is taken to hold, or not, as it suits the condition.
It is never made of what can end in an error, nor of what stands behind that: such a condition fails, and is counted,
for exactly the events for which it did without a guard.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from keytrail.detect import environment
from keytrail.detect.analysis import operands
from keytrail.detect.rule_check import Expression
from keytrail.detect.translation import Translator, joined

Read = tuple[str, str]
"""Variable and field."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What conditions are about, and what tells one from another."""

    name: str
    fields: Mapping[Read, tuple[str, ...]]
    """What it tells of, and the Python from which that follows: text that may be kept, flags, tuples of these."""
    reads: str = ""
    """Python, run before. What it assigns to `v_...` is where conditions look for that variable."""
    worth: int = 1
    """Conditions of a kind that it must be able to rule out for the look-up to pay."""
    texts: tuple[Read, ...] = ()
    """What conditions search for patterns, the one that is always there first."""

    def key(self, asked: Collection[Read]) -> str:
        """Python that tells one from another where nothing but these fields is asked for."""
        parts = dict.fromkeys(part for field, code in self.fields.items() if field in asked for part in code)
        return "".join(parts) if len(parts) == 1 else f"({', '.join(parts)})"


PROGRAM: Final = Subject("program", {("process", name): ("process.binary",) for name in ("name", "binary")}, worth=2)
SUBJECTS: Final = (
    PROGRAM,
    Subject("function", {("event", "function"): ("e.function",)}),
    Subject(
        "file",
        {
            **{("file", name): (f"v_file.{name}",) for name in ("access", "path", "target")},
            ("file", "name"): ("v_file.path",),
        },
        reads="v_file = e.file or NO_FILE",
        texts=(("file", "path"), ("file", "target")),
    ),
    Subject(
        "operation",
        {("operation", "name"): ("v_operation.name",)},
        reads="v_operation = e.operation or NO_OPERATION",
        worth=3,
    ),
    Subject("action", {("event", "action"): ("e.action",)}),
    Subject(
        "place",
        {
            ("pod", "name"): ("pod.name",),
            **{
                ("process", name): (f"process.{name}",)
                for name in ("argument_credentials", "container_id", "in_init_tree", "truncated")
            },
            ("process", "partial"): ("process.placement and partial(process)",),
        },
        reads="pod = process.pod or NO_POD",
        worth=3,
    ),
    Subject(
        "identity",
        {
            ("identity", "id"): ("v_identity.identity_id",),
            ("identity", "mapped"): ("v_identity.identity_id", "v_identity.mapped"),
            ("identity", "evidence"): ("v_identity.identity_id", "v_identity.kind"),
        },
        reads="v_identity = primary(e)",
        worth=2,
    ),
    Subject("privileges", {("credentials", "raised"): ("e.gained",)}),
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
        self._known_reads = expression.analysis.reads
        self.asked: set[Read] = set()
        """What of the subject it was found to depend on."""

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
            sides = self._translator.ordered(node)
            return joined((self.bound(side, most=most) for side in sides), conjunction=overload == "logical_and")
        if overload == "logical_not":
            return negated(self.bound(operands(node)[0], most=not most)) if self._negations else str(most)
        if overload == "conditional":
            return self._conditional(node, most=most)
        known = self._known_reads
        reads = known[node.id] if node.id in known else known.setdefault(node.id, frozenset(_reads(node)))
        if self._folding.can_fail(node) or not reads <= self._subject.fields.keys():
            return str(most)
        self.asked |= reads
        return self._translator.part(node)

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


def _reads(node: Any) -> Iterator[Read]:
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
