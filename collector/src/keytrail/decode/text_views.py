"""The same bytes as a shell, a URL parser or a JSON parser would see them, with the way back to where they stood.

In: bytes of a command line or path. Out: views of them without quotes or with escapes decoded, in which a credential is
one piece again (`"sk-ab""cdef"`, `%73k-...`), and the positions in the original that a hit covers. In all of them
dashes and blanks are those of ASCII, and nothing is invisible: what is copied from a document has others. Knows no
credential. Next: `redact`.
"""

import unicodedata
from bisect import bisect_right
from typing import TYPE_CHECKING

from keytrail.decode.credential_patterns import compiled

if TYPE_CHECKING:
    import re2

# A percent sign may itself be escaped any number of times (%2541 is %41 is A). Backslash escapes are those of JSON,
# Python, JavaScript and $'...'; behind them those of HTML, then a terminal's colours, and what is not plain ASCII.
# No groups: to say where each lies costs RE2 eight times as much.
_ESCAPE = (
    rb"%(?:25)*(?:u00)?[0-9A-Fa-f]{2}|\\+(?:x|u00|u\{|U0{6})[0-9A-Fa-f]{2}\}?|\\+0?[0-3][0-7]{2}"
    rb"|&#(?:x[0-9A-Fa-f]{2}|\d{2,3});|\x1b\[[\d;]*m|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|[\xc2-\xf4][\x80-\xbf]+"
)
TRIGGER = rb"%(?:25)*(?:u00)?[0-9a-f]{2}|\\(?:x|u|0?[0-3][0-7]{2})|&#x?[0-9a-f]{2}|[^\x20-\x7e\t\r\n]"
"""Without regard to case: where this is not found, views differ in quotes only."""
_HEXADECIMAL = (b"x", b"u", b"U")
_UNSEEN = (b'"', b"'", b"`", b"\\", b"\x1b")
_REWRITTEN = compiled(rb"""["'`\\%&]|[^\x20-\x7e\t\r\n]""")
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
    return View(source, [(match.start(), match.end(), _meant(match[0])) for match in pattern.finditer(source)])


def _meant(found: bytes) -> bytes:
    """Give what is meant by an escape or a character that is not plain; nothing for quotes and colours."""
    digits = found.lstrip(b"\\").rstrip(b"};")
    if found[:1] == b"%" or (found[:1] == b"\\" and digits[:1] in _HEXADECIMAL):
        code = int(digits[-2:], 16)
    elif found[:1] == b"\\" and digits:
        code = int(digits[-3:], 8)
    elif found[:1] == b"&":
        code = int(digits[3:], 16) if digits[2:3] == b"x" else int(digits[2:])
    else:
        return b"" if found[:1] in _UNSEEN else _plain(found.decode(errors="replace"))
    return bytes([code & 0xFF])


def _plain(text: str) -> bytes:
    """Write a character as people type it, such as a full-width letter or a dash; one without width not at all."""
    category = unicodedata.category(text) if len(text) == 1 else ""
    if category in {"Cc", "Zs", "Zl", "Zp"}:
        return b" "
    if category in {"Cf", "Mn", "So"}:
        return b""
    return b"-" if category == "Pd" else unicodedata.normalize("NFKC", text).encode()
