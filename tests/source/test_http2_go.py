"""Our own reader against the library that an agent is made with: grpc-go, in a small server beside this file."""

import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from keytrail.source.grpc_stream import State
from keytrail.source.status import Reason
from support.recordings import messages

pytestmark = pytest.mark.cluster("go-server")
Reading = Callable[..., AbstractContextManager[Any]]
Serving = Callable[..., AbstractContextManager["subprocess.Popen[bytes]"]]
SENT = [*messages("policy-library"), b"", bytes(range(256)) * 4_000, b"\x0a\x00", *messages("odd-input")]


@pytest.fixture
def serving(
    programs: Callable[[str], Path], tmp_path: Path
) -> Callable[..., AbstractContextManager["subprocess.Popen[bytes]"]]:
    """Run the server at `go.sock` with the messages of this file; it ends when its input does."""

    @contextmanager
    def run(*options: str) -> Iterator["subprocess.Popen[bytes]"]:
        file = tmp_path / "messages"
        file.write_bytes(b"".join(struct.pack(">I", len(one)) + one for one in SENT))
        command = [programs("go-server") / "go_server", "-socket", tmp_path / "go.sock", "-file", file, *options]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            try:
                assert _pipe(server.stdout).readline() == b"ready\n"
                yield server
            finally:
                _pipe(server.stdin).close()

    return run


def _pipe(pipe: Any) -> Any:
    assert pipe is not None
    return pipe


@pytest.mark.parametrize("buffer", ["32768", "0", "100"])
def test_grpc_go_is_read_byte_for_byte(serving: Serving, tmp_path: Path, buffer: str, reading: Reading) -> None:
    """Recorded events, an empty message and one of a megabyte arrive unchanged, whatever grpc-go's write buffer."""
    with serving("-write-buffer", buffer), reading(f"{tmp_path}/go.sock") as reader:
        reader.until(lambda: len(reader.messages) >= len(SENT))
        reader.until_connected()
    assert reader.messages == SENT
    assert reader.seen == [(State.CONNECTED, Reason.NO_PROCESS_CACHE)]


@pytest.mark.parametrize(
    ("then", "reason", "detail"),
    [("end", Reason.ENDED, ""), ("fail", Reason.DENIED, "not for you: 100 % of them\n")],
)
def test_grpc_gos_ends_are_understood(
    serving: Serving, tmp_path: Path, reading: Reading, *, then: str, reason: Reason, detail: str
) -> None:
    """A clean end and a status with a text that needs encoding are the same to both readers, behind all events."""
    with serving("-then", then), reading(f"{tmp_path}/go.sock") as reader:
        reader.until(lambda: (State.AWAY, reason) in reader.seen)
    assert reader.messages[: len(SENT)] == SENT
    assert next(one.detail for one in reader.transitions if one.state is State.AWAY) == detail


def test_a_stopped_grpc_go_is_a_broken_stream(serving: Serving, tmp_path: Path, reading: Reading) -> None:
    """When the server stops, what it had sent has arrived, and the stream is reported as removed."""
    with serving() as server, reading(f"{tmp_path}/go.sock") as reader:
        reader.until(lambda: len(reader.messages) >= len(SENT))
        reader.until_connected()
        _pipe(server.stdin).close()
        reader.until(lambda: len(reader.seen) >= 2)
    assert reader.messages == SENT
    assert reader.seen[1] == (State.AWAY, Reason.REMOVED)
