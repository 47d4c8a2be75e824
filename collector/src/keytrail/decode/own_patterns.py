"""Credentials by the user's own expressions: the shapes of a company's tokens, which no provider documents.

In: the setting `redact_patterns`, judged already, and bytes of a text. Out: the spans that are to go. Knows neither
settings nor what else makes a credential. Next: `redact`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final

import re2

from keytrail.decode.credential_patterns import occurs
from keytrail.decode.named_secrets import Span

NAME: Final = "own-pattern"
_MARKS: Final = re2.compile(rb"\[redacted\]")


class OwnPatterns:
    """Expressions in RE2's syntax, found anywhere in a text: the match goes, or of one with groups only the groups."""

    __slots__ = ("_expressions", "_tests")

    def __init__(self, patterns: Iterable[str]) -> None:
        options = re2.Options()
        options.log_errors = False
        # Unlike our own, in UTF-8: to whom writes them a dot is a character, and half of one would be no text.
        self._expressions = tuple(re2.compile(pattern.encode(), options=options) for pattern in patterns)
        self._tests = tuple(map(occurs, self._expressions))

    def occur(self, data: bytes) -> bool:
        """Whether any is found, if only on a mark."""
        return any(found(data) for found in self._tests)

    def find(self, data: bytes, first: int = 0) -> Iterator[Span]:
        r"""Yield the spans from `first` on, which is where the text begins to an expression.

        What fits a mark stays a mark, whole: `\w+` must not make another one inside of it each time.
        """
        text = data[first:]
        marks = [match.span() for match in _MARKS.finditer(text)]
        for start, end in self._matches(text):
            covered = slice(bisect_right(marks, start, key=lambda mark: mark[1]), bisect_left(marks, (end, 0)))
            around = [(start, end), *marks[covered]]
            start, end = min(around)[0], max(last for _, last in around)  # noqa: PLW2901 - the same span, grown
            if [(start, end)] != marks[covered]:
                yield first + start, first + end, NAME

    def _matches(self, text: bytes) -> Iterator[tuple[int, int]]:
        for expression in self._expressions:
            groups = range(1, expression.groups + 1) if expression.groups else (0,)
            for match in expression.finditer(text):
                for group in groups:
                    start, end = match.span(group)
                    if start < end:  # neither an empty match nor a group that took no part
                        yield start, end
