"""The same bytes as a shell, a URL parser or a JSON parser would see them, with the way back to where they stood.

In: bytes of a command line or path. Out: views of them without quotes or with escapes decoded, in which a credential is
one piece again (`"sk-ab""cdef"`, `%73k-...`), and the positions in the original that a hit covers. Knows no credential.
Next: `redact`.
"""

from bisect import bisect_right
from typing import TYPE_CHECKING

from keytrail.decode.credential_patterns import compiled

if TYPE_CHECKING:
    import re2

# A percent sign may itself be escaped any number of times (%2541 is %41 is A). Backslash escapes are those of JSON,
# Python and $'...'.
_ESCAPE = rb"%(?:25)*([0-9A-Fa-f]{2})|\\+(?:x|u00)([0-9A-Fa-f]{2})"
_REWRITTEN = compiled(rb"""["'`\\%]""")
_ESCAPES = compiled(_ESCAPE)
_ESCAPES_AND_QUOTES = compiled(_ESCAPE + rb"""|["'`]+|\\+""")


class View:
    """A rewritten copy of `source`; `origin` maps a span of it back. One that changed nothing needs no search."""

    __slots__ = ("_ends", "_origins", "_starts", "changed", "data")

    def __init__(self, source: bytes, units: list[tuple[int, int, bytes]]) -> None:
        """`units` are the parts of `source` that read otherwise, in order: start, end, and what stands for them."""
        pieces: list[bytes] = []
        self._starts: list[int] = []  # of each piece, here
        self._origins: list[int] = []  # of each piece, in the source
        self._ends: list[int] = []  # of a rewritten piece, in the source; 0 for one that is copied
        self.changed = bool(units)
        length = last = 0
        for start, end, text in [*units, (len(source), len(source), b"")]:
            for piece, origin, stop in ((source[last:start], last, 0), (text, start, end)):
                if piece:
                    pieces.append(piece)
                    self._starts.append(length)
                    self._origins.append(origin)
                    self._ends.append(stop)
                    length += len(piece)
            last = end
        self.data = b"".join(pieces)

    def origin(self, start: int, end: int) -> tuple[int, int]:
        """Give the part of the source that `data[start:end]`, not empty, was made of."""
        first = bisect_right(self._starts, start) - 1
        last = bisect_right(self._starts, end - 1) - 1
        begin = self._origins[first] if self._ends[first] else self._origins[first] + start - self._starts[first]
        return begin, self._ends[last] or self._origins[last] + end - self._starts[last]


def views(source: bytes) -> list[View]:
    """Give the text with its escapes decoded, and without its quotes too, as far as that changes it.

    The last one is what a shell makes of the words.
    """
    if _REWRITTEN.search(source) is None:
        return []
    return [view for view in (_view(_ESCAPES, source), _view(_ESCAPES_AND_QUOTES, source)) if view.changed]


def _view(pattern: "re2._Regexp[bytes]", source: bytes) -> View:
    return View(
        source, [(m.start(), m.end(), bytes.fromhex((m[1] or m[2] or b"").decode())) for m in pattern.finditer(source)]
    )
