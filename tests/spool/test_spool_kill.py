"""kill -9 at any moment: what was acknowledged is there, and no more is repeated than was under way."""

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from spool.spool_world import World, balanced, records_of

CHILD = Path(__file__).parent / "spool_child.py"


def run_and_kill(folder: Path, first: int, lines: int) -> list[str]:
    """Start the child and kill it when it has said so many lines; all complete lines that it said."""
    path = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
    child = subprocess.Popen(
        [sys.executable, CHILD, folder, str(first)], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": path}
    )
    assert child.stdout is not None
    try:
        said = [child.stdout.readline() for _ in range(lines)]
    finally:
        child.kill()
    said += child.stdout.readlines()
    child.stdout.close()
    child.wait()
    return [line for line in said if line.endswith("\n")]


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(600)])])
def test_kill_at_random_moments(tmp_path: Path, kills: int) -> None:
    """Acknowledged is never lost; settled comes again only if the kill came before its note: one batch at most."""
    random = Random(kills)  # noqa: S311 - the moments are chosen by the clock anyway
    first, settled, acknowledged = 0, set[int](), set[int]()
    for _ in range(kills):
        settling: set[int] = set()
        highest = first - 1
        for line in run_and_kill(tmp_path, first, random.randrange(5, 90)):
            kind, *numbers = line.split()
            if kind == "a":
                highest = int(numbers[0])
            elif kind == "s":
                settling = set(map(int, numbers))
            else:
                settled |= settling
                settling = set()
        acknowledged |= set(range(first, highest + 1))
        spool = World(tmp_path)
        assert not spool.previous.clean
        assert balanced(spool.state())
        waiting = [int(one.split()[0]) for one in records_of(spool.take_all())]
        spool.close(60)
        mark_unclean(tmp_path)
        assert len(waiting) == len(set(waiting))
        assert acknowledged <= set(waiting) | settled | settling
        assert not set(waiting) & settled
        settled |= settling - set(waiting)
        first = max(waiting, default=highest) + 1
        acknowledged |= set(waiting)
    assert acknowledged


def mark_unclean(folder: Path) -> None:
    """The look at the spool was clean; what the next look judges is the child."""
    owner = folder / "owner"
    owner.write_text(owner.read_text().replace("clean ", "open  "))
