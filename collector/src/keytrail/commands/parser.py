"""The parser of the command line: what it says of a slip is one line with the name that was probably meant.

Words of a command line come in, a namespace goes out, or the process ends with exit code 2. Knows no command.
"""

import argparse
import re
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from keytrail.commands.terminal import printable
from keytrail.domain.shape import suggestion

_CHOICE: Final = re.compile(
    r"(?:argument (?:COMMAND|ACTION): )?(.*)invalid choice: '(.*)' \(choose from (.*)\)", re.DOTALL
)


class CommandParser(argparse.ArgumentParser):
    """An ArgumentParser that knows the nearest name. argparse prints all options first, and the mistake below them."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where the right words stand."""
        if match := _CHOICE.fullmatch(message):
            before, found, choices = match.groups()
            known = choices.replace("'", "").split(", ")  # newer versions of Python write them without quotes
            message = f"{before}unknown value {found!r}, {suggestion(found, known)}"
        self.exit(2, f"{self.prog}: {printable(message)} (`{self.prog} --help` tells more)\n")

    def parse_known_args(  # type: ignore[override] # one signature for typeshed's three overloads
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Refuse what is left over here, where the command's own options are known, and not in the parser above."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(self._unknown(rest[0]))
        return found, rest

    def _unknown(self, word: str) -> str:
        if not word.startswith("-"):
            return f"{word!r} is one word too many"
        name = word.partition("=")[0]
        hint = suggestion(name, [one for action in self._actions for one in action.option_strings])
        return f"unknown option {name}" + (f", {hint}" if hint.startswith("did you mean") else "")
