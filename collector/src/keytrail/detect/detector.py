"""The steps of rules that look at one kind of event in, the source of the function that tests them out.

The function first looks up what the event's program, file and command line leave open (`guards`), mostly nothing, and
then tests what is left: a condition that raises ends there, is reported, and leaves the others alone. Next: `program`.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import re2

from keytrail.detect.compiled import KNOWN
from keytrail.detect.guards import PROGRAM, SUBJECTS, Bounds, Read, Subject, guard
from keytrail.detect.patterns import Test, searcher
from keytrail.detect.prefilter import COMMAND_LINE, Wordless
from keytrail.detect.rule_check import Expression, Step
from keytrail.detect.translation import Locals, Symbols, Translator
from keytrail.domain.event import EventKind

_POD: Final = "pod = process.pod or NO_POD"
_WAITING: Final = 3
"""Conditions that must wait for words for a look for these to pay."""
_GROUP: Final = 8
"""Conditions at most whose bits are looked at together first."""


@dataclass(frozen=True, slots=True)
class _Test:
    """One step in a function."""

    bit: int
    slot: int
    step: Step
    follows: bool
    """Whether it is a later step of a sequence: it cannot count while none before it came."""


@dataclass(frozen=True, slots=True)
class _Look:
    """A look that rules conditions out."""

    function: str
    """What it calls for a subject that is not remembered."""
    lines: list[str]
    told: int
    """Bits that it may clear."""
    reads: str = ""
    """Local variable of conditions that it leaves filled, if it was taken."""


def detector(
    kind: EventKind, wanted: Sequence[tuple[int, Step]], symbols: Symbols, following: Collection[int] = ()
) -> str:
    """Functions of a kind; `wanted` are its steps with the numbers of their slots. The one to call is detect_KIND.

    Steps whose slot is among `following` are asked only when `begun[slot]` is not empty and `waits(slot)` says that a
    step before them came not too long ago.
    """
    tests = [_Test(1 << place, slot, step, slot in following) for place, (slot, step) in enumerate(wanted)]
    looks = [*_subjects(tests, kind, symbols), *_words(tests, kind, symbols)]
    return "\n\n".join([*(look.function for look in looks), _function(kind, tests, looks, symbols)])


def top(names: Locals) -> list[str]:
    """What stands before conditions: what every event has at hand, and names for the rest."""
    return [f"    {_POD}", *_none(names.lazy), *(f"    {name} = {source}" for name, source in names.first.items())]


def _none(names: Iterable[str]) -> list[str]:
    listed = sorted(names)
    return [f"    {' = '.join(listed)} = None"] if listed else []


def translator(
    expression: Expression, symbols: Symbols, names: Locals, kind: EventKind | None = None, *, remembers: bool = True
) -> Translator:
    """Make the translator of an expression in a function."""
    return Translator(expression.condition, expression.analysis, symbols, names, kind=kind, remembers=remembers)


def _function(kind: EventKind, tests: Sequence[_Test], looks: Sequence[_Look], symbols: Symbols) -> str:
    names, lines = Locals(), list[str]()
    for group in _groups(tests, looks):
        lines.append(f"    if left & {sum(test.bit for test in group)}:")
        for test in group:
            lines += [
                f"        if left & {test.bit}:",
                "            try:",
                f"                if {_whole(test, kind, symbols, names)}:",
                f"                    hits += ({test.slot},)",
                "            except Exception as error:",
                f"                failed({test.slot}, error)",
            ]
    early = {look.reads for look in looks if look.reads}
    first = [line for name, source in names.first.items() for line in _first(name, source, early)]
    late = Locals(names.lazy - early)
    head = [f"def detect_{kind}(e):", "    process = e.process", *_none(early)]
    asked = [f"    left = {sum(test.bit for test in tests)}", *(line for look in looks for line in look.lines)]
    before = [*top(late), *first, "    announced = not process.preexisting", "    hits = ()"]
    return "\n".join([*head, *asked, *before, *lines, "    return hits"])


def _first(name: str, source: str, early: Collection[str]) -> list[str]:
    return [
        "    try:",
        f"        {name} = {f'{name} or {source}' if name in early else source}",
        "    except Exception:  # then so will each condition that looks into it, which is reported",
        f"        {name} = None",
    ]


def _groups(tests: Sequence[_Test], looks: Sequence[_Look]) -> Iterator[Sequence[_Test]]:
    """Tests that the same looks rule out, together: mostly none of them is left, or all."""

    def told(test: _Test) -> list[bool]:
        return [test.bit & look.told != 0 for look in looks]

    for _, same in groupby(sorted(tests, key=told), told):
        group = list(same)
        yield from (group[start : start + _GROUP] for start in range(0, len(group), _GROUP))


def _whole(test: _Test, kind: EventKind, symbols: Symbols, names: Locals) -> str:
    step = test.step
    each = [translator(one, symbols, names, kind) for one in (step.condition, *step.exceptions)]
    first = [] if step.sees_preexisting else ["announced"]
    # A condition that can fail does so, and is counted, whatever came before.
    if test.follows and not any(made.can_fail for made in each):
        first.append(f"begun[{test.slot}] and waits({test.slot})")
    condition, *exceptions = each
    return " and ".join([*first, condition.translate(), *(_unless(one, test.slot) for one in exceptions)])


def _unless(exception: Translator, slot: int) -> str:
    """Code that is false where an exception holds: one that ends in an error excepts nothing, and is counted."""
    if exception.can_fail:
        return f"not holds({slot}, lambda: {exception.translate(nested=True)})"
    return f"not {exception.translate()}"


def _subjects(tests: Sequence[_Test], kind: EventKind, symbols: Symbols) -> Iterator[_Look]:
    """One look for each subject that rules something out."""
    for subject in SUBJECTS:
        names, asked = Locals(), set[Read]()
        codes = {}
        for test in tests:
            condition, *exceptions = (
                Bounds(one, translator(one, symbols, names, kind, remembers=False), subject)
                for one in (test.step.condition, *test.step.exceptions)
            )
            codes[test.bit] = guard(condition, exceptions)
            asked.update(condition.asked, *(one.asked for one in exceptions))
        told = sum(bit for bit, code in codes.items() if code != "True")
        if told.bit_count() >= subject.worth:
            name = f"{kind}_{subject.name}"
            function = _open(name, codes, names, _waiting(tests, subject, kind, symbols))
            lines = _look(name, subject, subject.key(asked), told, symbols, ["left &= known"])
            yield _Look(function, lines, told, _variable(subject))


def _variable(subject: Subject) -> str:
    name = subject.reads.partition(" ")[0]
    return name if name.startswith("v_") else ""


def _waiting(tests: Sequence[_Test], subject: Subject, kind: EventKind, symbols: Symbols) -> tuple[int, list[str]]:
    """Conditions that need one of their patterns in the subject's texts, as bits, and what tells if any is there."""
    waiting, patterns = 0, list[str]()
    for test in tests if subject.texts else ():
        one = test.step.condition
        without = Wordless(one, translator(one, symbols, Locals(), kind, remembers=False), subject, subject.texts)
        if without.at_most() == "False" and without.patterns:
            waiting |= test.bit
            patterns += without.patterns
    found = _searcher(patterns) if waiting.bit_count() >= _WAITING else None
    if found is None or found(""):  # then an absent text would have to be asked too
        return 0, []
    name = symbols.constant("words", _distinct(patterns))
    texts = [code for text in subject.texts for code in subject.fields[text]]
    return waiting, [f"    {subject.reads}", f"    if {' or '.join(f'{text} and {name}({text})' for text in texts)}:"]


def _searcher(patterns: Sequence[str]) -> Test | None:
    try:
        return searcher(_distinct(patterns))
    except re2.error:  # too many for one expression, or names of groups that two of them use
        return None


def _distinct(patterns: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(patterns))


def _words(tests: Sequence[_Test], kind: EventKind, symbols: Symbols) -> Iterator[_Look]:
    """One look for the words without which conditions that are open to any program cannot hold."""
    codes, patterns, names = dict[int, str](), list[str](), Locals()
    for test in tests:
        one = test.step.condition
        named = Bounds(one, translator(one, symbols, Locals(), kind), PROGRAM, negations=False)
        without = Wordless(one, translator(one, symbols, names, kind, remembers=False), PROGRAM, COMMAND_LINE)
        code = without.at_most()
        if without.patterns and code != "True" and named.at_most() == "True":
            codes[test.bit] = code
            patterns += without.patterns
    found = _searcher(patterns) if len(codes) >= _WAITING else None
    if found is None:
        return
    words = symbols.constant(f"{KNOWN}words", _distinct(patterns))
    name = f"{kind}_words"
    told = sum(codes)
    then = [f"known = left & {told} & ~known", f"if known and not {words}[process.arguments]:", "    left ^= known"]
    key = PROGRAM.key(PROGRAM.fields)
    yield _Look(_open(name, codes, names), _look(name, PROGRAM, key, told, symbols, then), told)


def _open(name: str, codes: dict[int, str], names: Locals, waiting: tuple[int, list[str]] = (0, [])) -> str:
    """The function that tells which conditions a subject leaves open; those that are `waiting` only if they need be."""
    always = sum(bit for bit, code in codes.items() if code == "True")
    asked = {bit: code for bit, code in codes.items() if code not in {"True", "False"}}
    bits, condition = waiting
    first = [line for bit, code in asked.items() if not bit & bits for line in _opening(bit, code)]
    second = [f"    {line}" for bit, code in asked.items() if bit & bits for line in _opening(bit, code)]
    lines = [f"def open_{name}(e):", "    process = e.process", *top(names), f"    found = {always}", *first]
    return "\n".join([*lines, *(condition if second else ()), *second, "    return found"])


def _opening(bit: int, code: str) -> list[str]:
    return [
        "    try:",
        f"        if {code}:",
        f"            found |= {bit}",
        "    except Exception:  # then so will the condition, which is reported",
        f"        found |= {bit}",
    ]


def _look(  # noqa: PLR0917 - one line each of what it returns
    name: str, subject: Subject, key: str, told: int, symbols: Symbols, then: Sequence[str]
) -> list[str]:
    """Look up what the event's own leaves open, if anything that it could rule out is left; then act on `known`."""
    known = symbols.constant("left", name)
    return [
        f"    if left & {told}:",
        "        try:",
        *([f"            {subject.reads}"] if subject.reads else []),
        f"            key = {key}",
        f"            known = {known}.get(key)",
        "            if known is None:",
        f"                known = learn({known}, key, open_{name}(e))",
        *(f"            {line}" for line in then),
        "        except Exception:  # then conditions that ask the same raise it, too, and are reported",
        "            pass",
        "        if not left:",
        "            return ()",
    ]
