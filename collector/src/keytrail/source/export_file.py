"""The agent's JSON export file, followed through its rotations.

In: the path that the agent writes (`--export-filename`). Out: batches of the messages that its lines stand for. The
agent rotates by renaming the file to `tetragon-<UTC time>.log`, perhaps compressing that, and starting a new one; so a
file is what was opened, not what the name leads to.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from keytrail.domain.agent import AgentFacts
from keytrail.domain.errors import RecordingError, SourceError
from keytrail.source.base import Batch
from keytrail.source.framing import JsonLines
from keytrail.source.inflate import file_chunks

_CHUNK = 256 * 1024
_POLL_SECONDS = 0.2
_ROTATED = r"-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}"


class _Opened(NamedTuple):
    file: BinaryIO
    backups: frozenset[str]
    """Names, without `.gz`, of the rotated files that are older than `file`."""


def rotated_names(path: Path) -> frozenset[str]:
    """Return the names, without `.gz`, of the files that `path` was renamed to; sorted they are oldest first.

    Raises OSError.
    """
    pattern = re.compile(re.escape(path.stem) + _ROTATED + re.escape(path.suffix), re.ASCII)
    names = (entry.name.removesuffix(".gz") for entry in path.parent.iterdir())
    return frozenset(name for name in names if pattern.fullmatch(name))


def rotated_file(path: Path, name: str) -> Path:
    """Return where a rotated file is. While the agent compresses there are two, of which one is not complete."""
    plain = path.parent / name
    return plain if plain.exists() else plain.with_name(f"{name}.gz")


class ExportFileSource:
    """An export file as a source.

    With `follow` it never ends by itself and begins at the end of the file, else it ends there and begins at the start;
    `from_start` begins with the rotated files, oldest first.
    """

    def __init__(
        self,
        path: Path,
        *,
        follow: bool = True,
        from_start: bool = False,
        sleep: Callable[[float], object] | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._path = path
        self._follow = follow
        self._from_start = from_start
        self._closing = threading.Event()
        self._sleep = sleep or self._closing.wait
        self._now_ns = now_ns
        self._unreadable = 0

    def batches(self) -> Iterator[Batch]:
        """Yield what was read. Raises SourceError when the file (with `follow`: its folder) is not there."""
        yield Batch((), self._now_ns(), AgentFacts())
        lines = JsonLines()
        for chunk in self._chunks():
            messages = lines.finish() if chunk is None else lines.feed(chunk)
            too_large, malformed = lines.rejected()
            malformed, self._unreadable = malformed + self._unreadable, 0
            if messages or too_large or malformed:
                yield Batch(messages, self._now_ns(), None, (), too_large, malformed)

    def close(self) -> None:
        """End `batches`."""
        self._closing.set()

    def _chunks(self) -> Iterator[bytes | None]:
        """Yield contents; None where a file ends, so that a line never continues in the next one."""
        opened = self._open()
        first = True
        while opened is not None:
            with opened.file as file:
                if first and self._from_start:
                    yield from self._read_backups(opened.backups)
                elif first and self._follow:
                    _seek_last_line(file)
                yield from self._read(file)
                successor = self._open() if self._follow else None
                if successor is not None:
                    yield from self._read_backups(self._missed(opened, successor))
            opened, first = successor, False

    def _read(self, file: BinaryIO) -> Iterator[bytes | None]:
        """Read to the end; with `follow` until another file has taken the name, and then to the end once more."""
        replaced = not self._follow
        while not self._closing.is_set():
            if chunk := file.read(_CHUNK):
                yield chunk
            elif replaced:
                break
            elif self._is_current(file):
                if os.fstat(file.fileno()).st_size < file.tell():  # emptied by somebody: the agent never does that
                    file.seek(0)
                    yield None
                else:
                    self._sleep(_POLL_SECONDS)
            else:
                replaced = True
        yield None

    def _is_current(self, file: BinaryIO) -> bool:
        """Whether the name still leads to this file. Between rename and creation it leads nowhere: not yet replaced."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(file.fileno()))
        except FileNotFoundError:
            return True

    def _open(self) -> _Opened | None:
        """Open the file with the list of its predecessors; wait for it with `follow`; None when closed meanwhile."""
        while not self._closing.is_set():
            try:
                file = self._path.open("rb")
            except FileNotFoundError:
                if not self._follow or not self._path.parent.is_dir():
                    raise SourceError(
                        f"{self._path}: no such file: does the agent run with --export-filename?"
                    ) from None
                self._sleep(_POLL_SECONDS)
                continue
            except OSError as error:
                raise SourceError(f"{self._path}: {error.strerror}") from None
            backups = rotated_names(self._path)
            if self._is_current(file):  # else it was rotated in between, and is itself among the backups
                return _Opened(file, backups)
            file.close()
        return None

    def _missed(self, read: _Opened, current: _Opened) -> list[str]:
        """Return the files between two, when the agent rotated more than once since we looked; `read` is not one."""
        newer = sorted(current.backups - read.backups)
        for index, name in enumerate(newer):
            try:
                if os.path.samestat((self._path.parent / name).stat(), os.fstat(read.file.fileno())):
                    return newer[index + 1 :]
            except FileNotFoundError:
                continue
        return newer[1:]  # compressed meanwhile: another inode, but still the first that we did not know

    def _read_backups(self, names: Iterable[str]) -> Iterator[bytes | None]:
        for name in sorted(names):
            try:
                for chunk in file_chunks(rotated_file(self._path, name)):
                    if self._closing.is_set():
                        return
                    yield chunk
            except RecordingError:
                self._unreadable += 1
            yield None


def _seek_last_line(file: BinaryIO) -> None:
    """Go to the start of the last line, or to the end when that is complete: an event is taken whole or not at all."""
    position = file.seek(0, os.SEEK_END)
    while position:
        start = max(0, position - _CHUNK)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            file.seek(start + newline + 1)
            return
        position = start
    file.seek(0)
