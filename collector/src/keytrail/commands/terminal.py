"""What a command writes for a person: text that came from outside is made harmless first."""

import sys
from collections.abc import Sequence


def printable(text: str, *, lines: bool = False) -> str:
    """Escape what could act on a terminal; `lines` lets line breaks through."""
    return "".join(
        char
        if char.isprintable() or (lines and char == "\n")
        else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )


def say(text: str = "") -> None:
    """One line of a command's answer, to standard output."""
    sys.stdout.write(text + "\n")


def table(rows: Sequence[tuple[str, ...]], *, indent: str = "") -> None:
    """Rows in aligned columns; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        say(indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
