"""The one-line message of a finding: a template with fields in, parts and their values in inert text out.

Values are chosen by whoever starts a process: each is quoted unless it is one plain word, and holds printable ASCII
only, so that no value can pass for the words around it or act on a terminal, page or log. Knows no CEL: the fields of a
template are checked like a condition, by `rule_check`.
"""

import re
from dataclasses import dataclass
from typing import Final

from keytrail.domain.shape import Fault

_PART: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_BARE: Final = re.compile(r"[A-Za-z0-9_./:@%+=,~\[\]-]+")
_WIDTH: Final = 200
_ITEMS: Final = 16
_ESCAPES: Final = {code: f"\\x{code:02x}" for code in (*range(32), 127)} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    ord("\\"): "\\\\",
    ord('"'): '\\"',
}


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a template."""

    text: str
    """What to write, or the field to write."""
    is_field: bool
    column: int = 1


def parts(template: str) -> tuple[list[Part], list[Fault]]:
    """Split a template; `{{` and `}}` stand for braces."""
    found, faults = [], []
    for match in _PART.finditer(template):
        piece = match[0]
        if piece in {"{", "}"}:
            faults.append(Fault((), f"column {match.start() + 1}: a brace without its other half; write {piece * 2}"))
        elif match[1] is not None:
            found.append(Part(match[1].strip(), is_field=True, column=match.start() + 2))
        else:
            found.append(Part(piece[0] if piece in {"{{", "}}"} else piece, is_field=False))
    return found, faults


def shown(value: object) -> str:
    """A field's value as inert text."""
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(map(shown, value[:_ITEMS])) + (", ..." if len(value) > _ITEMS else "")
    return str(value)


def _quoted(text: str) -> str:
    if not text:
        return "-"
    if len(text) <= _WIDTH and _BARE.fullmatch(text):
        return text
    inert = text[:_WIDTH].translate(_ESCAPES).encode("ascii", "backslashreplace").decode("ascii")
    return f'"{inert}"...' if len(text) > _WIDTH else f'"{inert}"'
