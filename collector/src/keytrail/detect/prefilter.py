"""Conditions that wait for words on the command line or in a path in, one look for all of these words out.

Command lines hardly ever come again, unlike programs and files (`guards`), and many rules look at each of them: asking
every pattern costs more than all the rest of an exec event. So it is with the paths that do come for the first time. Of
the conditions that cannot hold unless one of their patterns is found, the patterns are collected here; one expression
of all of them is asked first, and mostly finds none.
"""

from collections.abc import Sequence
from typing import Any, Final

from keytrail.detect.analysis import SEARCHING, operands
from keytrail.detect.guards import Bounds, Subject
from keytrail.detect.rule_check import Expression
from keytrail.detect.translation import Translator, joined

COMMAND_LINE: Final = (("process", "arguments"),)


class Wordless(Bounds):
    """What a subject says of an expression if none of its patterns is found in texts, given as variables and fields."""

    def __init__(
        self, expression: Expression, translator: Translator, subject: Subject, texts: Sequence[tuple[str, str]]
    ) -> None:
        super().__init__(expression, translator, subject)
        self._plain = Bounds(expression, translator, subject)
        self._texts = texts
        self.patterns: list[str] = []
        """What was taken to be missing."""

    def _bound(self, node: Any, *, most: bool) -> str:
        if not most:
            return self._plain.bound(node, most=False)
        found = self._searched(node)
        if found is not None:
            self.patterns += found
            return "False"
        if self._overload(node) != "logical_and":
            return super()._bound(node, most=True)
        sides = list(self._translator.sides(node))
        codes = [self._plain.bound(side, most=True) for side in sides]
        # Authors put what is quick to ask first and what is rare behind it: here it is the rare that counts.
        for place in reversed(range(len(sides))):
            before = len(self.patterns)
            code = self.bound(sides[place], most=True)
            if code != codes[place]:
                codes[place] = code
                break
            del self.patterns[before:]
        return joined(codes, conjunction=True)

    def _searched(self, node: Any) -> tuple[str, ...] | None:
        """Patterns of `text.matches(p)` or `patterns.exists(p, text.matches(p))`."""
        if node.WhichOneof("which") != "comprehension":
            return self._pattern(node, None)
        macro = self._translator.macro(node)
        return self._pattern(macro.test, macro) if macro.name == "exists" else None

    def _pattern(self, node: Any, macro: Any) -> tuple[str, ...] | None:
        if SEARCHING.get(self._overload(node)) != "matches":
            return None
        text, pattern = operands(node)
        if (text.select.operand.ident.name, text.select.field) not in self._texts:
            return None
        if macro is None:
            known = self._translator.known_text(pattern)
            return None if known is None else (known,)
        values = self._translator.known_list(macro.values)
        return values if pattern.ident.name == macro.variable else None
