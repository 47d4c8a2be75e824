"""Names of a process's variables from /proc, for agents that do not send environments. Off by default.

Needs uid 0, SYS_PTRACE, the host's /proc and no confining AppArmor profile. On a real agent the file was still there
for every process that lived 0.1 s and gone for nearly all once the reader fell behind; so it is a fallback, and a
process that is gone is said to be gone.
"""

from collections.abc import Callable
from pathlib import Path

from keytrail.domain.identity import Unknown
from keytrail.domain.process import Process

_LIMIT = 1 << 20
"""Bytes of one environment that are read; the kernel's own limit for arguments and environment together is 2 MiB."""
_NAME_LIMIT = 256
_TICK_NS = 10_000_000
_START_FIELD = 19
"""Index of `starttime` (field 22 of proc_pid_stat(5)) behind the parenthesised command name, which may hold blanks."""


class ProcEnvironment:
    """Reads `/proc/PID/environ`, and makes sure that PID is still the process that the event was about."""

    def __init__(self, root: Path, redact_name: Callable[[str], str]) -> None:
        self._root = root
        self._redact_name = redact_name
        self._boot_ns = _boot_time_ns(root)

    def __call__(self, process: Process) -> tuple[str, ...] | Unknown:
        """Names of the non-empty variables, or why they could not be read."""
        if process.exited:  # or another image of the same process has taken its place, with variables of its own
            return Unknown.PROCESS_GONE
        folder = self._root / str(process.pid)
        try:
            if not self._is(folder, process):
                return Unknown.PROCESS_GONE
            with (folder / "environ").open("rb", buffering=0) as file:
                data = file.read(_LIMIT)
            if not self._is(folder, process):  # the id was reused between the two looks
                return Unknown.PROCESS_GONE
        except PermissionError:
            return Unknown.NOT_PERMITTED
        except OSError:
            return Unknown.PROCESS_GONE
        entries = (entry.partition(b"=") for entry in data.split(b"\0"))
        names = (name[:_NAME_LIMIT].decode("utf-8", "replace") for name, _, value in entries if value)
        return tuple(dict.fromkeys(map(self._redact_name, names)))

    def _is(self, folder: Path, process: Process) -> bool:
        """Whether the process in /proc is alive and not younger than the event's: a reused id is a younger process."""
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        if fields[0] in "ZX":  # the environment of a dead process reads as empty, without an error
            return False
        started_ns = self._boot_ns + int(fields[_START_FIELD]) * _TICK_NS
        # The event's start is that of the exec, /proc's that of the fork before it; the boot time is known to a second.
        return started_ns <= process.start_ns + 1_000_000_000 + _TICK_NS


def _boot_time_ns(root: Path) -> int:
    for line in (root / "stat").read_text().splitlines():
        if line.startswith("btime "):
            return int(line.split()[1]) * 1_000_000_000
    return 0
