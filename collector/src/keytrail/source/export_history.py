"""What the agent's export file and the files it was rotated into hold of an interval.

In: the path that the agent writes, and two times. Out: the lines that may belong between them, in the order written. A
line is only looked at for its time, so that reading sixty megabytes for one second of them costs little; turning lines
into messages is `protojson`'s business.
"""

import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from keytrail.domain.errors import RecordingError
from keytrail.source.export_file import rotated_file, rotated_names
from keytrail.source.framing import MAX_LINE_BYTES
from keytrail.source.inflate import file_chunks

_TIME = re.compile(rb'"time":\s?"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)', re.ASCII)
"""The key is only ever the agent's: within a value its quotes would be escaped. Go may put a blank behind the colon."""
_NS = 1_000_000_000
_DISORDER_SECONDS = 60
"""How far behind an event a line may be: the agent holds back what waits for metadata, for up to 30 s."""


class ExportHistory:
    """One search. Reads what is there now; a line that the agent has not finished is left out."""

    def __init__(self, path: Path) -> None:
        self.reaches_back = False
        """After `between`: whether the files go back to the start of the interval."""
        self.problem = ""
        """After `between`: what could not be read, for a person."""
        self._path = path
        self._within = False

    def between(self, start_ns: int, end_ns: int) -> Iterator[bytes]:
        """Yield lines of that time, and those without a time behind them; to the second, so a few too many.

        Never raises for a file: see `problem`. Some lines come twice when the agent rotates meanwhile.
        """
        start, end, over = (_text(ns) for ns in (start_ns, end_ns, end_ns + _DISORDER_SECONDS * _NS))
        try:
            names = sorted(rotated_names(self._path))
        except OSError as error:
            self.problem = f"{self._path.parent}: {error.strerror}"
            return
        # A file's name says when it was renamed, in UTC: all that is in it is older.
        young = [name for name in names if _renamed(self._path, name) >= start]
        self.reaches_back = len(young) < len(names)
        for name in young:
            yield from self._lines(rotated_file(self._path, name), start, end, over)
        yield from self._lines(self._path, start, end, over)
        try:
            rotated = sorted(rotated_names(self._path).difference(names))
        except OSError:
            return
        for name in rotated:  # while we read: what was in the current file by then is in one of these
            yield from self._lines(rotated_file(self._path, name), start, end, over)

    def _lines(self, file: Path, start: bytes, end: bytes, over: bytes) -> Iterator[bytes]:
        try:
            for line in _split(file_chunks(file)):
                found = _TIME.findall(line)
                if found:
                    moment = found[-1]  # the event's own time is the last of an event's
                    if moment > over:
                        return
                    self.reaches_back = self.reaches_back or moment < start
                    self._within = start <= moment <= end
                if self._within:
                    yield line
        except RecordingError as error:
            self.problem = f"{file}: {error}"


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield whole lines; one that is too long to be an event is passed over."""
    partial = bytearray()
    skipping = False
    for chunk in chunks:
        head, *others = chunk.split(b"\n")
        partial += head
        if len(partial) > MAX_LINE_BYTES:
            partial.clear()
            skipping = True
        if others:
            if not skipping:
                yield bytes(partial)
            yield from others[:-1]
            partial, skipping = bytearray(others[-1]), False


def _text(ns: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(max(0, ns) // _NS)).encode()


def _renamed(path: Path, name: str) -> bytes:
    day, _, moment = name[len(path.stem) + 1 :].partition("T")
    return f"{day}T{moment[:8].replace('-', ':')}".encode()
