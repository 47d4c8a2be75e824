"""docs/tour.md: its commands, run in a cluster, and whether they still print what the page shows.

In: the page. Out: its steps, and both texts without what differs from run to run (ages, counts, hashes). Knows nothing
of what a command does.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from support.processes import wait_until

PAGE = Path(__file__).parents[3] / "docs" / "tour.md"
SECONDS = 240.0
"""A node's status is written about once a minute."""
_CHANGES = re.compile(r"kubectl (apply|create|delete|patch)")
_VARYING = (
    (r"-[0-9a-f]{10}\b", "-HASH"),  # of a policy's spec
    (r"\b[0-9a-z]{8,10}-[0-9a-z]{5}\b", "POD"),
    (r"\b\d{4}-\d\d-\d\dT[0-9:.]+Z", "TIME"),
    (r"\b(\d+[smhd])+\b|\b\d+(\.\d+)?\b", "N"),
)


@dataclass(frozen=True)
class Step:
    """A command of the page."""

    command: str
    given: str
    """What it reads from standard input."""
    shown: str
    """What it prints, as the page has it."""


def steps() -> Iterator[Step]:
    """The page's steps, in its order."""
    for block in re.findall(r"(?ms)^```console\n(.+?)^```", PAGE.read_text()):
        for part in re.split(r"(?m)^\$ ", block)[1:]:
            command, _, rest = part.partition("\n")
            given = ""
            if command.endswith(" <<'EOF'"):
                command = command.removesuffix(" <<'EOF'")
                given, _, rest = rest.partition("\nEOF\n")
            yield Step(command, given, rest)


def follow(run: Callable[[Step], str]) -> None:
    """Take every step; what only shows something is asked until it shows what the page has."""
    for step in steps():
        printed = [run(step)]

        def as_shown(step: Step = step, printed: list[str] = printed) -> bool:
            if not _CHANGES.match(step.command) and _alike(printed[0]) != _alike(step.shown):
                printed[0] = run(step)
            return _alike(printed[0]) == _alike(step.shown)

        assert wait_until(as_shown, SECONDS), f"docs/tour.md is stale: `{step.command}` prints\n{printed[0]}"


def _alike(text: str) -> list[str]:
    for pattern, word in _VARYING:
        text = re.sub(pattern, word, text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]
