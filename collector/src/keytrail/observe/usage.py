"""What the process takes of the machine, read from the kernel when somebody asks."""

import resource
import threading
from contextlib import suppress
from pathlib import Path

from keytrail.observe.snapshot import UsagePart

_OWN = Path("/proc/self")


def usage() -> UsagePart:
    """Return CPU time, resident memory, threads and file descriptors of this process."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return UsagePart(
        cpu_user_seconds=spent.ru_utime,
        cpu_system_seconds=spent.ru_stime,
        memory_bytes=_resident(),
        threads=threading.active_count(),
        file_descriptors=_descriptors(),
    )


def _resident() -> int:
    # getrusage has only the peak. Second field of statm: resident pages.
    with suppress(OSError):
        return int((_OWN / "statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    return 0


def _descriptors() -> int:
    with suppress(OSError):
        return sum(1 for _ in (_OWN / "fd").iterdir())
    return 0
