"""The benchmark of the spool runs to its end."""

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parent.parent / "bench" / "spool.py"


def test_bench_measures(tmp_path: Path) -> None:
    """A small run prints a ratio for each way of committing."""
    ran = subprocess.run(
        [sys.executable, BENCH, "--records", "1000", "--rounds", "1"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(ran.stdout)
    assert all(found[name] > 0 for name in ("spool", "flowing", "sqlite", "ratio", "flowing_ratio", "cpu_ratio"))
