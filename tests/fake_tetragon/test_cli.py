"""`keytrail fake-tetragon` as a process of its own: it prints its address, serves, and ends on a signal."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from keytrail.testing.fake_tetragon import FakeTetragon

_COMMAND: Final = """
import argparse, sys
from keytrail.testing.fake_tetragon_cli import add_arguments, run_fake_tetragon
parser = argparse.ArgumentParser()
add_arguments(parser)
sys.exit(run_fake_tetragon(parser.parse_args()))
"""

Connect = Callable[..., Any]
Recorded = Callable[[str], list[bytes]]


@contextmanager
def _running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_once_serves_the_recording_and_ends(
    connect: Connect, recorded: Recorded, packaged: Path, tmp_path: Path
) -> None:
    """It waits for its client, sends the whole recording as often as asked, and ends the stream cleanly."""
    address = f"unix://{tmp_path}/t.sock"
    options = ("--listen", address, "--pace", "0", "--wait-for-listener", "--once", "--loop", "2", "--lossless")
    with _running(packaged / "seed-demo", *options) as process:
        assert _line(process) == f"fake-tetragon: listening on {address}"
        stream = connect(FakeTetragon(address)).collect()
        stream.wait()
        output, errors = process.communicate(timeout=60)

    assert stream.messages == recorded("seed-demo") * 2
    assert not stream.failed
    assert (process.returncode, errors) == (0, "")
    assert "published 49 events, 0 dropped" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_the_middle_of_a_pause(
    connect: Connect, packaged: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Paced far below the recorded speed, it still ends at once on a signal and removes its socket."""
    address = f"unix://{tmp_path}/t.sock"
    options = ("--listen", address, "--pace", "0.0001", "--metrics", "127.0.0.1:0")
    with _running(packaged / "seed-demo", *options) as process:
        assert _line(process) == f"fake-tetragon: listening on {address}"
        assert _line(process).startswith("fake-tetragon: metrics on http://127.0.0.1:")
        version = connect(FakeTetragon(address)).call("GetVersion").version
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)

    assert version == "v1.7.0"
    assert (process.returncode, errors) == (0, "")
    assert not (tmp_path / "t.sock").exists()
