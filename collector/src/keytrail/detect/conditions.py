"""The text of a condition in, its type-checked tree out, or where and why it is refused.

The CEL engine parses and checks; here its messages become places in the condition with the name that was probably
meant. What the engine accepts and the rule language does not have is refused by `analysis`, next. Knows no manifest.
"""

import re
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from cel_expr_python import cel  # type: ignore[import-untyped] # stubs without py.typed

from keytrail.detect import checked_tree, environment
from keytrail.detect.declarations import PACKAGE, Constants, cel_env, cel_expression
from keytrail.domain.shape import suggestion

_ERROR: Final = re.compile(r"ERROR: <input>:([0-9]+):([0-9]+): (.*)")
_FIELD: Final = re.compile(r"undefined field '([^']*)' not found in struct '([^']*)'")
_NAME: Final = re.compile(r"undeclared reference to '([^']*)'.*")
_OVERLOAD: Final = re.compile(r"found no matching overload for '([^']*)' applied to '\((.*)\)'")
_QUOTED: Final = re.compile("'([^']*)'$")
_OF_OTHER_LANGUAGES: Final = {
    "=": "to compare write ==",
    "and": "write &&",
    "or": "write ||",
    ",": "a list stands in [ ]",
    "contains": "write text.contains(part)",
    "startswith": "write text.startsWith(part)",
    "endswith": "write text.endsWith(part)",
}
"""What the parser stumbles over in a condition that is written as Falco, SQL or Python have it."""
_BOOL: Final = "bool"
_MACROS: Final = ("all", "exists", "exists_one", "filter", "map", "has")
_STANDARD: Final = ("size", "contains", "startsWith", "endsWith", "matches", "lowerAscii")
_FUNCTIONS: Final = tuple(one.name for one in environment.FUNCTIONS)
_CALLABLE: Final = _FUNCTIONS + _STANDARD + _MACROS
_REFUSALS: Final = 8
MAX_LEVELS: Final = 32
"""Of the engine's parser."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a condition is none."""

    line: int
    """1-based, within the condition."""
    column: int
    """1-based, in characters."""
    message: str

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {self.message}"


class RefusedError(Exception):
    """A condition that cannot be used; `refusals` says why, at least once."""

    def __init__(self, refusals: Iterable[Refusal]) -> None:
        self.refusals = tuple(refusals)
        super().__init__("; ".join(map(str, self.refusals)))


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that the CEL engine accepts."""

    text: str
    tree: Any
    """`CheckedExpr` of `checked_tree`."""
    constants: Constants

    @property
    def expression(self) -> cel.Expression:
        """What the engine evaluates, for the oracle alone: kept of every condition, it would weigh 16 MiB."""
        return cel_expression(self.text, self.constants)

    def place(self, node: int) -> tuple[int, int]:
        """Line and column of a node, 1-based."""
        offset = self.tree.source.positions.get(node, 0)
        before = self.text[:offset]
        return before.count("\n") + 1, offset - before.rfind("\n")

    def refuse(self, node: int, message: str) -> RefusedError:
        """Make the error that refuses a node."""
        return RefusedError([Refusal(*self.place(node), message)])


def check_condition(text: str, constants: Constants, *, wants: str = _BOOL) -> Condition:
    """Parse and check. Raises RefusedError. `wants` is the type that it must have; empty: any."""
    try:
        with uninterrupted():
            expression = cel_env(constants).compile(text)
    except RuntimeError as error:
        raise RefusedError(_refusals(str(error), constants)) from None
    found = expression.return_type().name().lower()
    if wants and found != wants:
        raise RefusedError([Refusal(1, 1, f"expected a condition, true or false; this is of type {found}")])
    return Condition(text, checked_tree.parse(expression.serialize()), constants)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put an interrupt off until the end.

    The engine calls back into Python, and says of an exception there, also of Ctrl-C's, that the condition is wrong.
    """
    earlier = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or earlier is None:
        yield  # no signal is handled in this thread, or not by Python
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)
    if came:
        signal.raise_signal(signal.SIGINT)


def _refusals(report: str, constants: Constants) -> Iterable[Refusal]:
    found = _ERROR.findall(report)
    if "recursion limit" in report:
        yield Refusal(1, 1, f"unbounded work: expected at most {MAX_LEVELS} levels")
    elif not found:  # the engine's other limits have no place either
        yield Refusal(1, 1, report.splitlines()[0].removeprefix("INVALID_ARGUMENT: "))
    for line, column, message in found[:_REFUSALS]:
        yield Refusal(int(line), int(column), _explained(message.removesuffix(" [INVALID_ARGUMENT]"), constants))


def _explained(message: str, constants: Constants) -> str:
    """Put the engine's words into ours, with the name that was probably meant."""
    if match := _FIELD.fullmatch(message):
        name, struct = match.groups()
        short = struct.removeprefix(f"{PACKAGE}.")
        known = next(one for one in environment.messages() if one.name == short)
        return f"{short} has no field {name!r}, {suggestion(name, [field.name for field in known.fields])}"
    if match := _NAME.fullmatch(message):
        if match[1] in _FUNCTIONS:
            return f"{match[1]} is called as {match[1]}(text, ...), not as text.{match[1]}(...)"
        return f"unknown name {match[1]!r}, {_nearest(match[1], constants)}"
    if match := _OVERLOAD.fullmatch(message):
        types = match[2].replace(f"{PACKAGE}.", "")
        name = _plain(match[1])
        sides = not name.isalnum() and name != "!"
        wants = "both sides must be of one type" if sides else "docs/rule-language.md says what it takes"
        return f"{name} does not take ({types}): {wants}"
    said = message.removeprefix("Syntax error: ").partition(" expecting ")[0]
    wrong = _QUOTED.search(said)
    hint = _OF_OTHER_LANGUAGES.get(wrong[1].strip()) if wrong else None
    return f"{said}: {hint}" if hint else said


def _nearest(name: str, constants: Constants) -> str:
    if name.startswith("params."):
        known = [f"params.{one}" for one in constants]
        return suggestion(name, known) if known else "the rule has no parameters"
    head, dot, rest = name.partition(".")
    hint = suggestion(head, [one.name for one in environment.VARIABLES] + ["params"] + ([] if dot else list(_CALLABLE)))
    if hint.startswith("did you mean"):
        return f"did you mean {hint.removeprefix('did you mean ').rstrip('?')}{dot}{rest}?"
    return hint


def _plain(function: str) -> str:
    """`_==_` as `==`."""
    return function.strip("_@") or function
