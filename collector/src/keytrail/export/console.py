"""Events as lines on a text stream: standard output, a file, a pipe.

Events come in, lines go out in pieces: a system call for each event would cost more than the event. A reader that
went away (`| head`) is no error, but every event that it did not get is counted.
"""

import contextlib
from collections.abc import Callable
from typing import Generic, TextIO, TypeVar

from keytrail.domain.drop import DropReason
from keytrail.domain.finding import Finding

_LINES = 256
Record = TypeVar("Record")


class LineOutput(Generic[Record]):
    """An `Output` that writes one line an event or finding."""

    def __init__(
        self,
        stream: TextIO,
        format_record: Callable[[Record], str],
        *,
        on_exported: Callable[[int], None],
        on_dropped: Callable[[int, DropReason], None],
    ) -> None:
        self._stream = stream
        self._format = format_record
        self._on_exported = on_exported
        self._on_dropped = on_dropped
        self._lines: list[str] = []
        self.closed = False
        """Nobody reads any more, or writing failed: the pipeline may end. Later events are counted as dropped."""
        self.failure = ""
        """Why writing failed, such as a full disk; empty for a reader that went away."""

    def write(self, record: Record, /) -> None:
        """Keep the record's line; write when enough are together."""
        if self.closed:
            self._on_dropped(1, DropReason.OUTPUT_CLOSED)
            return
        self._lines.append(self._format(record))
        if len(self._lines) >= _LINES:
            self.flush()

    def flush(self) -> None:
        """Write what is kept. Blocks while the reader does not read."""
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        if self._stream.closed:  # by another output to the same stream, when writing failed
            self.closed = True
            self._on_dropped(len(lines), DropReason.OUTPUT_CLOSED)
            return
        lines.append("")
        try:
            self._stream.write("\n".join(lines))
            self._stream.flush()
        except OSError as error:
            self._give_up(error)
            # How much of this piece was read nobody can know: none of it is claimed.
            self._on_dropped(len(lines) - 1, DropReason.OUTPUT_CLOSED)
        else:
            self._on_exported(len(lines) - 1)

    def close(self, deadline: float) -> None:  # noqa: ARG002 - the interface's; a write to a stream cannot be timed
        """Write what is kept; the stream stays open, it is its owner's."""
        self.flush()

    def _give_up(self, error: OSError) -> None:
        self.closed = True
        self.failure = "" if isinstance(error, BrokenPipeError) else error.strerror or str(error)
        # The stream still holds the unwritten text and would fail again when the interpreter flushes it at exit,
        # with a traceback and exit code 120. A stream closed with an error counts as closed.
        with contextlib.suppress(OSError):
            self._stream.close()


class SortedOutput:
    """An `Output` that hands findings on at the end, by time: events of a recording are not quite in order."""

    def __init__(self, lines: LineOutput[Finding]) -> None:
        self._lines = lines
        self._kept: list[Finding] = []

    @property
    def closed(self) -> bool:
        """Nobody reads any more."""
        return self._lines.closed

    @property
    def failure(self) -> str:
        """Why writing failed; empty when it did not."""
        return self._lines.failure

    def write(self, finding: Finding, /) -> None:
        """Keep it."""
        self._kept.append(finding)

    def flush(self) -> None:
        """Nothing is written before the end."""

    def close(self, deadline: float) -> None:
        """Write all, earliest first."""
        kept, self._kept = self._kept, []
        for finding in sorted(kept, key=lambda finding: (finding.time_ns, finding.rule.name)):
            self._lines.write(finding)
        self._lines.close(deadline)
