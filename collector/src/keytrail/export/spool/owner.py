"""Who owns a spool's folder, and how the owner before it ended.

One line in the file `owner`, always of the same length and overwritten in place: that needs no room, so that even on a
full disk it can be said that the end was a clean one. The lock is the kernel's (flock) and goes with the process,
however that ends. Knows nothing of records.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from keytrail.domain.errors import UsageError
from keytrail.export.spool.files import sync_folder

_NAME: Final = "owner"
_FIELDS: Final = 5


class SpoolBusyError(UsageError):
    """Another process works with the folder."""


class PreviousRun(NamedTuple):
    """How the last owner of the folder ended."""

    clean: bool
    """It closed the spool. False: killed, or the machine went down."""
    last_alive_ns: int | None
    """The last that is known of it, wall clock; None for the very first run."""


class Mark(NamedTuple):
    """What the owner says of itself from time to time."""

    sequence: int = 1
    """No entry has this number or a higher one yet."""
    age_ns: int = 0
    """The spool's own clock: time that the spool was in use, all runs together."""
    alive_ns: int = 0
    """Wall clock."""


class Owner:
    """Holds the folder until its end. Raises SpoolBusyError, or OSError when the folder cannot be written."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SpoolBusyError(f"{folder} is in use by process {_read(self._file)[1]}") from None
            state, _, self.last = _read(self._file)
            self.previous = PreviousRun(state in {"new", "clean"}, self.last.alive_ns or None)
            # Whoever is refused reads who has it; how the run before ended stays true until this one begins.
            self._write("clean" if self.previous.clean else "open", self.last)
            sync_folder(folder)
        except BaseException:
            os.close(self._file)
            raise

    def mark(self, mark: Mark) -> None:
        """Say what is so now. Reaches the disk some time: a kill loses nothing, a power cut a few seconds."""
        self._write("open", mark)

    def begin(self, mark: Mark) -> None:
        """Say, for a power cut too, that from now on only `close` is a clean end."""
        self.mark(mark)
        os.fsync(self._file)

    def abandon(self) -> None:
        """Let others in; nothing was done."""
        os.close(self._file)

    def close(self, mark: Mark) -> None:
        """Say that all is in order, and let others in."""
        # A disk that fails now has been reported before; the next run then takes this one for killed.
        with suppress(OSError):
            self._write("clean", mark)
            os.fsync(self._file)
        os.close(self._file)

    def _write(self, state: str, mark: Mark) -> None:
        line = f"{state:<6}{os.getpid():>11}{mark.sequence:>21}{mark.age_ns:>21}{mark.alive_ns:>21}\n"
        os.pwrite(self._file, line.encode(), 0)


def _read(file: int) -> tuple[str, int, Mark]:
    """State, process id and mark; a line that is none was torn by a power cut, so its writer did not end well."""
    words = os.pread(file, 256, 0).decode("ascii", "replace").split()
    if not words:
        return "new", 0, Mark()
    if len(words) != _FIELDS or not all(word.isdecimal() for word in words[1:]):
        return "torn", 0, Mark()
    pid, *mark = map(int, words[1:])
    return words[0], pid, Mark(*mark)
