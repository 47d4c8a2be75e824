"""What the spool asks of a file system: whole writes, names that survive a power cut, faults in a person's words.

Knows nothing of what is in the files. Everything here blocks as long as the disk does, and raises OSError.
"""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Not EFBIG, a limit on file sizes (RLIMIT_FSIZE): against that a new file helps, and room does not."""

_IOV_MAX = 1024
"""Parts that the kernel takes at once."""


def is_full(error: OSError) -> bool:
    """Whether the write would have gone well with more room."""
    return error.errno in _NO_ROOM


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it: a nearly full disk takes a part, and says only the next time that it is full."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])


def write_parts(descriptor: int, parts: Sequence[bytes]) -> None:
    """Write all parts, one after the other, without copying them together first."""
    for at in range(0, len(parts), _IOV_MAX):
        some = parts[at : at + _IOV_MAX]
        written = os.writev(descriptor, some)
        if written < sum(map(len, some)):
            write_all(descriptor, b"".join(some)[written:])


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable: syncing a new file says nothing about its name (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder for us alone, durable, if there is none."""
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(folder.parent)


def write_whole(path: Path, write: Callable[[int], None]) -> None:
    """Make a file that is there with all that `write` writes into it, or not at all, whatever happens meanwhile."""
    unfinished = path.with_name(path.name + ".tmp")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        try:
            write(descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        unfinished.rename(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def probe(folder: Path) -> None:
    """Find out whether the folder takes files. Raises OSError."""
    path = folder / "probe"
    write_whole(path, lambda file: write_all(file, b"probe"))
    path.unlink()


def words(error: OSError) -> str:
    """What is wrong, as the system says it, without the path: the caller knows that better."""
    return error.strerror or type(error).__name__
