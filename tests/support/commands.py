"""The product's command line in this process: what it printed, what it answered."""

import contextlib
import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keytrail.cli import main
from support.recordings import folder


@dataclass(frozen=True)
class Ran:
    """One command that ran to its end."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


def keytrail(*argv: str | Path) -> Ran:
    """Run a command; its exit code also when argparse ended it. Logging is then as before."""
    out, err = io.StringIO(), io.StringIO()
    root, own = logging.getLogger(), logging.getLogger("keytrail")
    handlers, levels = list(root.handlers), (root.level, own.level)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(word) for word in argv])
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            root.handlers[:] = handlers
            root.setLevel(levels[0])
            own.setLevel(levels[1])
    return Ran(code, out.getvalue(), err.getvalue())


def replay(name: str, *options: str | Path) -> Ran:
    """`keytrail replay` of one of the recordings."""
    return keytrail("replay", folder(name), *options)
