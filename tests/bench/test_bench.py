"""The benchmark itself: it runs to its end, does every event, and says so when memory grows."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parent / "run.py"
CONTENDERS = {"raw", "grpcio", "receive", "receive_grpcio", "decode", "whole", "whole_grpcio", "export"}


def bench(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the benchmark to its end and return what it measured."""
    file = folder / "bench.json"
    subprocess.run([sys.executable, BENCH, "--json", file, *arguments], check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


@pytest.mark.cluster  # half a minute of CPU: not a part of every `make test`
@pytest.mark.timeout(180)
def test_small_run_measures_everything(tmp_path: Path) -> None:
    """Every contender does every event (the run would fail otherwise)."""
    found = bench(tmp_path, "--events", "1000", "--rounds", "1", "--memory-events", "0", "--only-synthetic")
    assert set(found["synthetic"][0]) == CONTENDERS
    assert all(one["events_per_second"] > 0 for one in found["synthetic"][0].values())
    assert set(found["stages"]) == {"parse", "decode", "identify", "json_line", "otlp_encode"}
    assert set(found["detect"]) == {"policy-library", "kubernetes", "sensors", "synthetic"}
    assert all(one["ratio"] > 0 and one["kinds"] for one in found["detect"].values())


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("processes", [100_000, 500_000])
def test_memory_stays_where_it_is(tmp_path: Path, processes: int) -> None:
    """A million events end within 5 % of the memory after 200,000, whether or not exec ids come again."""
    found = bench(tmp_path, "--only-memory", "--memory-encode", "--memory-processes", str(processes))
    assert found["memory"]["received"] == 1_000_000
    assert found["memory"]["holds"], found["memory"]
