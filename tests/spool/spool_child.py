"""A process that appends and sends as fast as it can, and says what is acknowledged, until it is killed.

`a N`: all records up to N are on disk. `s N ...`: these are about to be settled. `e`: they are.
"""

import sys
import threading
from dataclasses import replace
from pathlib import Path

from keytrail.export.spool.entries import Lane
from spool.spool_world import QUICK, World, records_of


def main(folder: Path) -> None:
    """Run until killed."""
    spool = World(folder, tuning=replace(QUICK, segment_bytes=16 * 1024, hot_bytes=8 * 1024))
    spool.start()
    threading.Thread(target=send, args=(spool,), daemon=True).start()
    number = int(sys.argv[2])
    while True:
        for _ in range(20):
            spool.append(Lane(number % 6), b"resource %d" % (number % 11), b"%d" % number + b" finding" * 10)
            number += 1
        if spool.sync(60):
            print("a", number - 1, flush=True)  # noqa: T201 - the child's answer


def send(spool: World) -> None:
    """Settle what can be taken, more slowly than it comes."""
    while True:
        entries = spool.take(0, 1, 15, 1 << 20, 0.0)
        numbers = b" ".join(one.split()[0] for one in records_of(entries)).decode()
        print("s", numbers, flush=True)  # noqa: T201 - as above
        spool.exported(entries)
        print("e", flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    main(Path(sys.argv[1]))
