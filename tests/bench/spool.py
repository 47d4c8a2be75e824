"""How quickly records become durable, beside SQLite with a write-ahead log and full syncs, in the same run.

In: records, their size, records in a commit. Out: records a second of each, and ratios, interleaved. The spool does its
whole work (append, gather, write, sync), and is measured twice: waiting for each batch as SQLite does (`spool`), and at
its own pace, as the collector uses it (`flowing`). SQLite gets a transaction with one row for each record.
"""

import argparse
import json
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from keytrail.export.spool.durable import Spool
from keytrail.export.spool.entries import Lane
from keytrail.observe.accounting import Accounting

HOUR_NS = 3600 * 1_000_000_000


def spool(folder: Path, records: list[bytes], batch: int) -> None:
    """Commit each batch to a spool."""
    made = Spool(folder, lambda _, parts: b"".join(parts), Accounting(), most_bytes=1 << 32, longest_ns=HOUR_NS)
    made.start()
    for at in range(0, len(records), batch):
        for number, record in enumerate(records[at : at + batch]):
            made.append(Lane.LOW, b"resource %d" % (number % 8), record)
        if not made.sync(60):
            raise SystemExit("the disk is too slow, or full")
    made.close(60)


def flowing(folder: Path, records: list[bytes], batch: int) -> None:
    """Let the spool choose its commits; wait for them only so that memory does not overflow."""
    spool(folder, records, batch * 20)


def sqlite(folder: Path, records: list[bytes], batch: int) -> None:
    """Commit each batch to a table."""
    folder.mkdir()
    connection = sqlite3.connect(folder / "db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, lane INTEGER, data BLOB)")
    for at in range(0, len(records), batch):
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO records (lane, data) VALUES (2, ?)", [(record,) for record in records[at : at + batch]]
        )
        connection.execute("COMMIT")
    connection.close()


def measure(run: Callable[[Path, list[bytes], int], None], records: list[bytes], batch: int) -> tuple[float, float]:
    """Records a second, and microseconds of CPU for each."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        began, cpu = time.perf_counter(), time.process_time()
        run(Path(folder) / "it", records, batch)
        return len(records) / (time.perf_counter() - began), (time.process_time() - cpu) / len(records) * 1e6


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=1600, help="bytes of one record")
    parser.add_argument("--batch", type=int, default=500, help="records of one commit")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    random = Random(1)  # noqa: S311 - the same records on every run
    records = [random.randbytes(args.size) for _ in range(args.records)]
    rounds: list[dict[str, Any]] = []
    for _ in range(args.rounds):
        (each, cpu), (flow, _), (theirs, their_cpu) = (
            measure(run, records, args.batch) for run in (spool, flowing, sqlite)
        )
        ratios = {"ratio": each / theirs, "flowing_ratio": flow / theirs, "cpu_ratio": their_cpu / cpu}
        rounds.append({"spool": each, "flowing": flow, "sqlite": theirs, **ratios})
    answer = {key: round(median(one[key] for one in rounds), 2) for key in rounds[0]}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
