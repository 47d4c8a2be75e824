"""The benchmark itself: it runs to its end, does every event, and says so when memory grows."""

import json
import socket
import struct
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

DATA = 0
"""Kind of an HTTP/2 frame."""
BENCH = Path(__file__).parent / "run.py"
SIZES = {
    "processes": [1_000, 32_000, 200_000],
    "rules": [0, 130],
    "mappings": [10, 100, 1_000],
    "pods": [10, 50, 250],
}
CONTENDERS = {"raw", "grpcio", "receive", "receive_grpcio", "decode", "whole", "findings", "whole_grpcio", "export"}
PACES = (1_000, 1_100, 5_000, 20_000)
IN_GO = {"go_parse", "go_print"}


def bench(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the benchmark to its end and return what it measured."""
    file = folder / "bench.json"
    subprocess.run([sys.executable, BENCH, "--json", file, *arguments], check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def frames_of_all_events(address: str) -> list[int]:
    """Call GetEvents with windows that never close; return the kind of each HTTP/2 frame of the answer."""
    window = struct.pack(">BHBBIHI", 0, 6, 4, 0, 0, 4, 2**31 - 1) + struct.pack(
        ">BHBBII", 0, 4, 8, 0, 0, 2**31 - 65_536
    )
    path = b"\x00\x05:path\x0a/GetEvents"
    call = struct.pack(">BHBBI", 0, len(path), 1, 4, 1) + path
    received = bytearray()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(address)
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + window + call)
        while not received.endswith(b"grpc-status\x010"):
            chunk = connection.recv(65_536)
            assert chunk, "the sender left before its stream ended"
            received += chunk
    kinds, place = [], 0
    while place < len(received):
        kinds.append(received[place + 3])
        place += 9 + int.from_bytes(received[place : place + 3], "big")
    return kinds


@pytest.mark.cluster("go-client")  # half a minute of CPU: not a part of every `make test`
@pytest.mark.timeout(180)
def test_small_run_measures_everything(tmp_path: Path) -> None:
    """Every contender does every event (the run would fail otherwise)."""
    sections = ("synthetic", "stages", "detect")
    found = bench(tmp_path, "--events", "1000", "--rounds", "1", "--only", *sections)
    assert set(found["synthetic"][0]) == CONTENDERS | IN_GO
    assert all(one["events_per_second"] > 0 for one in found["synthetic"][0].values())
    assert set(found["stages"]) == {"parse", "decode", "identify", "json_line", "otlp_encode"}
    assert set(found["detect"]) == {"policy-library", "kubernetes", "sensors", "synthetic"}
    assert all(one["ratio"] > 0 and one["kinds"] for one in found["detect"].values())


@pytest.mark.cluster("go-client")  # minutes: each pace has a collector of its own, and 200,000 processes take time
@pytest.mark.timeout(600)
def test_every_pace_and_size_has_its_row(tmp_path: Path) -> None:
    """Every event of a pace is decided on or counted as lost, and every size of a node is measured."""
    small = ("--paced-seconds", "0.2", "--halvings", "1", "--growth-events", "256", "--growth-passes", "1")
    found = bench(tmp_path, *small, "--growth-ids", "5000", "--only", "latency", "growth")
    rows = found["latency"]["rows"]
    assert {(row["rate"], row["gather_ms"]) for row in rows} == set(product(PACES, (5, 0)))
    assert all(row["longest"] >= row["p99"] >= row["p50"] > 0 for row in rows if not row["dropped"])
    assert found["latency"]["burst"] >= found["latency"]["steady"]
    assert {(row["rate"], row["name"]) for row in found["latency"]["in_go"]} == set(product(PACES, IN_GO))
    sizes = {what: [row["size"] for row in found["growth"][what]] for what in SIZES}
    assert sizes == SIZES
    assert found["growth"]["stream"]["seen"] == 10_000
    assert len(found["growth"]["stream"]["fifths"]) == 5


def test_agent_loses_what_its_queue_has_no_room_for() -> None:
    """Of 16,384 events at once the paced sender keeps as many as an agent does and counts the others as lost."""
    command = [sys.executable, str(BENCH.parent / "peers.py"), "pace", "--events", "100"]
    sender = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert sender.stdin is not None
    assert sender.stdout is not None
    try:
        address = json.loads(sender.stdout.readline())["socket"]
        sender.stdin.write(json.dumps({"rate": 2**40, "seconds": 2**-26}) + "\n")
        sender.stdin.flush()
        kinds = frames_of_all_events(address)
        said = json.loads(sender.stdout.readline())
    finally:
        sender.stdin.close()
        sender.wait(30)
        sender.stdout.close()
    # The clock starts with the first event, which is sent before the others are due.
    assert (len(said["came"]), said["dropped"], said["deepest"]) == (10_001, 6_383, 10_000)
    assert kinds.count(DATA) == len(said["came"])


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("processes", [100_000, 500_000])
def test_memory_stays_where_it_is(tmp_path: Path, processes: int) -> None:
    """A million events end within 5 % of the memory after 200,000, whether or not exec ids come again."""
    found = bench(tmp_path, "--only-memory", "--memory-encode", "--memory-processes", str(processes))
    assert found["memory"]["received"] == 1_000_000
    assert found["memory"]["holds"], found["memory"]
