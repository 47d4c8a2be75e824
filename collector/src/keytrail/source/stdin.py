"""Events from a pipe: what `read_recording` reads from a file, at the pace at which it comes.

In: a binary stream, usually standard input. Out: batches of what is there, without waiting for more.
"""

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from io import UnsupportedOperation
from typing import BinaryIO

from keytrail.domain.agent import AgentFacts
from keytrail.domain.errors import RecordingError
from keytrail.source.base import Batch
from keytrail.source.framing import decoded
from keytrail.source.inflate import CHUNK, inflated

_LOOK_UP_MS = 200
"""How often a reader of a silent pipe looks whether it was closed: a blocking read could not be ended from outside."""


class StdinSource:
    """A pipe, file or terminal as a source; ends with its input."""

    def __init__(self, stream: BinaryIO, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._stream = stream
        self._closing = threading.Event()
        self._now_ns = now_ns

    def batches(self) -> Iterator[Batch]:
        """Yield what each read completes. Raises RecordingError with a byte offset when the input is no events."""
        yield Batch((), self._now_ns(), AgentFacts())
        try:
            for messages, (too_large, malformed) in decoded(inflated(self._chunks())):
                if self._closing.is_set():
                    return
                yield Batch(messages, self._now_ns(), None, (), too_large, malformed)
        except RecordingError as error:
            if not self._closing.is_set():
                raise RecordingError(f"standard input: {error}") from None

    def close(self) -> None:
        """End `batches`."""
        self._closing.set()

    def _chunks(self) -> Iterator[bytes]:
        try:
            descriptor = self._stream.fileno()
        except UnsupportedOperation:  # in memory
            yield from iter(lambda: self._stream.read(CHUNK), b"")
            return
        readable = select.poll()
        readable.register(descriptor, select.POLLIN)
        while not self._closing.is_set():
            if readable.poll(_LOOK_UP_MS):
                chunk = os.read(descriptor, CHUNK)
                if not chunk:
                    return
                yield chunk
