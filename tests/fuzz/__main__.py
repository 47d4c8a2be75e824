"""Coverage-guided fuzzing of all that takes bytes from outside: what `make fuzz` starts, and how a crash is repeated.

In: how long, and which targets. Out: a line for each target, its log and corpus in FOLDER/TARGET, and a crashing input
in FOLDER/TARGET/crashes; ends with 1 when there was a crash. A corpus is kept, so the next run goes on where this one
ended, and what once crashed is tried first. `--replay FILE TARGET` needs no fuzzer: it is plain Python, for a debugger.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz.targets import TARGETS, target

_TESTS = Path(__file__).parent.parent
_SOURCES = _TESTS.parent / "collector" / "src"
_MEMORY = Path("/dev/shm")
_LIMITS = ("-timeout=60", "-rss_limit_mb=1024", "-print_final_stats=1")
"""A second would do, but the machine may be busy with something else; an idle target takes 100 to 300 MiB."""
_PROGRESS = re.compile(r"^#(\d+)\s.* cov: (\d+) ft: (\d+) corp: (\d+)/", re.MULTILINE)
_SHOWN = 40


def main() -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"all of them, or some: {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=60, help="how long each target is run (60)")
    parser.add_argument("--runs", type=int, help="stop each after so many inputs, drawn from a fixed seed")
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"), help="where corpora, logs and crashes are kept")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="give this input to the target, and nothing else")
    given = parser.parse_args()
    chosen = given.targets or TARGETS
    if unknown := set(chosen) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}: there are {', '.join(TARGETS)}")
    if given.replay is not None:
        for name in chosen:
            target(name).check(given.replay.read_bytes())
        return 0
    bounds = [f"-max_total_time={given.seconds}", *(() if given.runs is None else (f"-runs={given.runs}", "-seed=1"))]
    crashed = [name for name in chosen if not _fuzz(name, given.folder.absolute() / name, *bounds)]
    for name in crashed:
        print(f"{name}: see {given.folder / name}/crashes; again: python -m fuzz --replay FILE {name}")
    return 1 if crashed else 0


def _fuzz(name: str, folder: Path, *bounds: str) -> bool:
    """Run one target; whether all went well."""
    for place in ("corpus", "seeds", "crashes"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    options = (*bounds, f"-artifact_prefix={folder}/crashes/", *_LIMITS)
    with log.open("wb") as out, TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as memory:
        environ = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": f"{_TESTS}:{_SOURCES}", "TMPDIR": memory}
        ran = subprocess.run(
            [sys.executable, "-m", "fuzz.child", name, folder, *options],
            env=environ, stdout=out, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    told = log.read_text(errors="replace")
    count, coverage, features, corpus = (_PROGRESS.findall(told) or [(0, 0, 0, 0)])[-1]
    print(
        f"{name:<10} {int(count):>9,} inputs, {coverage:>5} edges and {features:>5} features covered, "
        f"{corpus:>5} inputs kept, {'well' if ran.returncode == 0 else f'FAILED ({ran.returncode})'}",
        flush=True,
    )
    if ran.returncode != 0:
        print("\n".join(told.splitlines()[-_SHOWN:]), flush=True)
    return ran.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
