"""What a command writes for a person: text that came from outside is made harmless first."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from keytrail.domain.errors import ExportError


def printable(text: str, *, lines: bool = False) -> str:
    """Escape what could act on a terminal; `lines` lets line breaks through."""
    return "".join(
        char
        if char.isprintable() or (lines and char == "\n")
        else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )


def say(text: str = "") -> None:
    """One line of a command's answer, to standard output. Raises ExportError when that is full."""
    try:
        sys.stdout.write(text + "\n")
    except OSError as error:
        raise _output_error(error) from None


def flush() -> None:
    """Have everything that was said written, while a failure can still be told."""
    if sys.stdout.closed:
        return  # by `keytrail replay`, when its reader has left
    try:
        sys.stdout.flush()
    except OSError as error:
        raise _output_error(error) from None


def _output_error(error: OSError) -> Exception:
    """Return what to raise. A reader that has gone is no error of ours: `| head`."""
    # What is still to be written goes nowhere: Python writes it at the exit, and would complain once more.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return error if isinstance(error, BrokenPipeError) else ExportError(f"standard output: {error.strerror}")


def have_streams() -> None:
    """Put the null device in the place of closed standard streams: the next file opened would get their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - until the process ends


def table(rows: Sequence[tuple[str, ...]], *, indent: str = "") -> None:
    """Rows in aligned columns; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        say(indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
