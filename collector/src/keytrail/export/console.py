"""Events as lines on a text stream: standard output, a file, a pipe.

Events come in, lines go out in pieces: a system call for each event would cost more than the event. A reader that
went away (`| head`) is no error, but every event that it did not get is counted.
"""

import contextlib
from collections.abc import Callable
from typing import TextIO

from keytrail.domain.drop import DropReason
from keytrail.domain.event import Event

_LINES = 256


class LineOutput:
    """An `Output` that writes one line an event."""

    def __init__(
        self,
        stream: TextIO,
        format_event: Callable[[Event], str],
        *,
        on_exported: Callable[[int], None],
        on_dropped: Callable[[int, DropReason], None],
    ) -> None:
        self._stream = stream
        self._format = format_event
        self._on_exported = on_exported
        self._on_dropped = on_dropped
        self._lines: list[str] = []
        self.closed = False
        """Nobody reads any more, or writing failed: the pipeline may end. Later events are counted as dropped."""
        self.failure = ""
        """Why writing failed, such as a full disk; empty for a reader that went away."""

    def write(self, event: Event) -> None:
        """Keep the event's line; write when enough are together."""
        if self.closed:
            self._on_dropped(1, DropReason.OUTPUT_CLOSED)
            return
        self._lines.append(self._format(event))
        if len(self._lines) >= _LINES:
            self.flush()

    def flush(self) -> None:
        """Write what is kept. Blocks while the reader does not read."""
        if not self._lines:
            return
        lines, self._lines = self._lines, []
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
