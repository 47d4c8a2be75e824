"""Events from a pipe."""

import io
import os
import threading
from collections.abc import Iterator
from typing import BinaryIO

import pytest

from keytrail.domain.errors import RecordingError
from keytrail.source.stdin import StdinSource
from support.recordings import folder, messages

LINE = b'{"process_exec":{}}\n'


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open a pipe: the end to read and the end to write."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb", buffering=0) as writer:
        yield reader, writer


def test_lines_come_as_they_are_written(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    """A line is delivered when it is there, not when the pipe is full or closed."""
    reader, writer = pipe
    batches = StdinSource(reader).batches()
    assert next(batches).agent is not None
    for _ in range(3):
        writer.write(LINE)
        assert len(next(batches).messages) == 1
    writer.write(b"nonsense\n")
    assert next(batches).malformed == 1
    writer.write(LINE.rstrip())
    writer.close()
    assert sum(len(batch.messages) for batch in batches) == 1


def test_a_recording_may_be_piped_in_as_it_is() -> None:
    """Compressed or not, what is in a recording's file may come from standard input."""
    data = (folder("seed-demo") / "grpc.pb.zst").read_bytes()
    assert [m for batch in StdinSource(io.BytesIO(data)).batches() for m in batch.messages] == list(
        messages("seed-demo")
    )


def test_a_cut_pipe_is_said_to_be_cut() -> None:
    """Input that ends inside a message is an error that names standard input and the byte."""
    with pytest.raises(RecordingError, match="standard input: byte 0: the input ends inside a message"):
        list(StdinSource(io.BytesIO(b"\x09abc")).batches())


def test_close_ends_a_silent_pipe(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    """A source that waits for a writer ends soon after close, and a message cut by that is no error."""
    reader, writer = pipe
    writer.write(b"\x09abc")
    source = StdinSource(reader)
    thread = threading.Thread(target=lambda: list(source.batches()))
    thread.start()
    source.close()
    thread.join(timeout=60)
    assert not thread.is_alive()
