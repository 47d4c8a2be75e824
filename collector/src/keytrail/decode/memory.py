"""What a collector remembers over its own restart: variables, files and hosts of the processes that run, by name.

A process that outlives both the agent and the collector comes back from /proc without its environment, and a server
reads its keys once, when it starts. The file holds
names and redacted text only, is readable by its owner alone, and counts for one boot: process ids mean nothing in the
next.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from keytrail.domain.process import Process

_VERSION = 2
_VERSIONS = {1, _VERSION}
"""What is understood: version 1 had environments alone."""
FILE_NAME = "processes.json"


def save(folder: Path, boot_id: str, processes: Iterable[Process]) -> int:
    """Write the running processes of which something is known; return how many. Replaces the file in one step.

    Raises OSError when the folder cannot be written.
    """
    environments: dict[tuple[str, ...], int] = {}
    rows = [
        (
            process.exec_id,
            process.pid,
            process.start_ns,
            process.binary,
            process.arguments,
            None if process.environment is None else environments.setdefault(process.environment, len(environments)),
            process.opened,
            process.reached,
        )
        for process in processes
        if not process.exited and (process.environment is not None or process.opened or process.reached)
    ]
    document = {"version": _VERSION, "boot_id": boot_id, "environments": list(environments), "processes": rows}
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = folder / f".{FILE_NAME}.new"
    # One that an interrupted run left may be readable by others; and nothing is written through a link.
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        json.dump(document, file, separators=(",", ":"))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / FILE_NAME)
    return len(rows)


def load(folder: Path, boot_id: str) -> list[Process]:
    """Read what `save` wrote in the same boot; nothing when there is none, or it is of another boot or damaged.

    A damaged file is as good as none: what it held is learned again of new processes, and said to be unknown of old.
    """
    try:
        document = json.loads((folder / FILE_NAME).read_text(encoding="ascii"))
        if not boot_id or document["boot_id"] != boot_id or document["version"] not in _VERSIONS:
            return []
        environments = dict(enumerate(tuple(map(str, names)) for names in document["environments"]))
        return [_process(row, environments) for row in document["processes"]]
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return []


def _process(row: list[Any], environments: dict[int, tuple[str, ...]]) -> Process:
    exec_id, pid, start_ns, binary, arguments, environment, *seen = row
    process = Process(
        str(exec_id),
        pid=int(pid),
        start_ns=int(start_ns),
        binary=str(binary),
        arguments=str(arguments),
        environment=None if environment is None else environments[environment],
    )
    if seen:
        opened, reached = seen
        process.opened = tuple((str(path), int(time_ns)) for path, time_ns in opened)
        process.reached = tuple(map(str, reached))
    return process
