"""Rules as the compiler leaves them in, functions out: all that a running engine needs of its rules.

`CompiledRules` is plain data, so that another process can make it: the CEL engine and what reading and checking rules
leaves behind are 25 MB that nobody needs any more once the code is there. Knows no condition; `program` writes the code
that is loaded here, and `engine` decides what a hit means.
"""

import marshal
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field
from types import CodeType, MappingProxyType
from typing import Any, Final

from keytrail.detect import functions
from keytrail.detect.message import shown
from keytrail.detect.patterns import PREPARED, Remembered, searcher
from keytrail.detect.reading import NAMES
from keytrail.detect.state import Key, digest
from keytrail.domain.event import Event, EventKind
from keytrail.domain.rules import DetectionRule
from keytrail.domain.shape import Fault

_REMEMBERED: Final = 1_024
_REMEMBERED_CHARACTERS: Final = 512

Detect = Callable[[Event], tuple[int, ...]]
"""Numbers of the slots whose condition holds, in no order; hits are taken in theirs."""
Failed = Callable[[int, Exception], None]
"""Called with a slot whose condition has no value."""
Waits = Callable[[int], bool]
"""Whether the rule of a slot has seen a step before it, without which this one is not worth asking."""
Begun = Mapping[int, Sized]
"""What `Waits` looks through, by slot: mostly empty, which is quicker to see than to be told."""
Constant = tuple[str, Any]
"""What the code calls by a name, as it is made when the code is loaded: its sort, and what it is made of."""

GLOBALS: Final[dict[str, Any]] = {
    name: getattr(functions, name)
    for name in (
        *("checked", "divide", "modulus", "divide_doubles", "item", "entry", "lower_ascii"),
        *("both", "either", "every", "some", "basename", "dirname", "entropy", "CelError"),
    )
}
"""What translated expressions call."""
_SORTS: Final[dict[str, Callable[[Any], Any]]] = {
    "list": tuple,
    "set": frozenset,
    "left": lambda _: {},
    "prepare": PREPARED.__getitem__,
    "words": searcher,
    **PREPARED,
}
"""From what a constant is made of to what it is."""
KNOWN: Final = "known_"
"""Before the sort of a test that remembers its answers."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One step of one rule."""

    rule: int
    step: int


@dataclass(frozen=True, slots=True)
class RunningRule:
    """What stays of a rule that was checked."""

    rule: DetectionRule
    """With its tuning applied."""
    steps: int
    """Those of the sequence, and last the rule's own condition."""
    distinct: bool
    """Whether its threshold counts different values."""
    version: str
    """Short digest of what decides a finding: the same for the same behaviour."""

    @property
    def name(self) -> str:
        """What records call the rule."""
        return self.rule.name


@dataclass(frozen=True, slots=True)
class CompiledRules:
    """Rules as code that is not loaded yet."""

    rules: tuple[RunningRule, ...]
    slots: tuple[Slot, ...]
    kinds: tuple[EventKind, ...]
    source: str
    """For reading it, not for running."""
    code: bytes
    """The same for this very interpreter (`marshal`): Python's compiler would need 11 MB where it is loaded."""
    constants: dict[str, Constant]
    refused: dict[str, list[Fault]] = field(default_factory=dict)
    """Rules that were wrong, with all that is."""


@dataclass(frozen=True, slots=True)
class RuleCode:
    """What a rule needs once its condition holds."""

    message: Callable[[Event], str]
    suppressed_by: Callable[[Event], Key]
    counted_by: Callable[[Event], tuple[Key, Key]]
    """By what a threshold counts, and the value that it counts, if it counts values."""


@dataclass(frozen=True, slots=True)
class Program:
    """Rules as functions."""

    detect: dict[EventKind, Detect]
    slots: tuple[Slot, ...]
    rules: tuple[RuleCode, ...]


def load(
    compiled: CompiledRules, failed: Failed, waits: Waits | None = None, begun: Begun = MappingProxyType({})
) -> Program:
    """Load the code of rules; `waits` is needed where it was written to ask. `begun` may be filled after this."""

    def holds(slot: int, exception: Callable[[], bool]) -> bool:
        try:
            return exception()
        except Exception as error:  # noqa: BLE001 - as around a condition: what it was to except is told
            failed(slot, error)
            return False

    called: dict[str, Any] = {"shown": shown, "learn": learn, "digest": digest, "holds": holds}
    called |= {"failed": failed, "waits": waits, "begun": begun}
    scope = loaded(marshal.loads(compiled.code), compiled.constants, called)  # noqa: S302 - `program` wrote it
    parts = ("message", "suppressed", "counted")
    return Program(
        {kind: scope[f"detect_{kind}"] for kind in compiled.kinds},
        compiled.slots,
        tuple(RuleCode(*(scope[f"{part}_{at}"] for part in parts)) for at in range(len(compiled.rules))),
    )


def loaded(code: CodeType, constants: Mapping[str, Constant], called: Mapping[str, Any]) -> dict[str, Any]:
    """Names that generated code defines, beside those that it uses."""
    made = {name: _made(*constant) for name, constant in constants.items()}
    scope: dict[str, Any] = {**NAMES, **GLOBALS, **made, **called}
    exec(code, scope)  # noqa: S102 - generated from checked trees; a rule's text is only in literals
    return scope


def _made(sort: str, value: Any) -> Any:
    made = _SORTS[sort.removeprefix(KNOWN)](value)
    return Remembered(made) if sort.startswith(KNOWN) else made


def learn(known: dict[Any, int], key: Any, left: int) -> int:
    """Remember what a subject leaves open, and return it. Bounded: whoever starts a process chooses its texts."""
    if _characters(key) <= _REMEMBERED_CHARACTERS:
        if len(known) >= _REMEMBERED:
            known.clear()
        known[key] = left
    return left


def _characters(key: Any) -> int:
    return sum(map(_characters, key)) if isinstance(key, tuple) else len(key) if isinstance(key, str) else 0
