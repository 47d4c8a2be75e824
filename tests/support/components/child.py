"""A real program that a test runs: started on ports of its own, ready when it says so, stopped by its own pid.

In: a command and a question that it answers when it is ready. Out: the running program, whose output is in a file. It
never outlives the test, not even one that is killed. Knows nothing of any one program.
"""

import contextlib
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

READY_SECONDS = 90.0
"""Far more than any of them takes: a machine that builds something else at the same time is slow."""
_PORTS = range(20_000, 32_000)
"""Below Linux's range for outgoing connections (32768 and up): a program that restarts finds its port still free."""


class Child:
    """One program. A context manager; between its ends it may be stopped, killed and started again."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path,
        *,
        ready: Callable[[], bool],
        environ: Mapping[str, str] | None = None,
        stop_seconds: float = 20.0,
    ) -> None:
        self.name = name
        self.log_file = folder / f"{name}.log"
        # The kernel ends it with its parent: a test process that is killed stops nothing itself.
        self._command = ["setpriv", "--pdeathsig", "KILL", *map(str, command)]
        self._folder = folder
        self._ready = ready
        self._environ = environ
        self._stop_seconds = stop_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """What it wrote, of all its runs."""
        return self.log_file.read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Whether it was started and did not end."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Run it, and return when it is ready."""
        self.launch()
        try:
            self.wait_until_ready()
        except BaseException:  # also an interrupted test: __exit__ is not called when __enter__ did not return
            self.kill()
            raise

    def launch(self) -> None:
        """Run it without waiting."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder, env=self._environ
            )

    def wait_until_ready(self) -> None:
        """Wait for it; fails at once when it ended instead."""
        assert self._process is not None
        end = time.monotonic() + READY_SECONDS
        while not self._ready():
            if (code := self._process.poll()) is not None:
                raise AssertionError(f"{self.name} ended with {code}:\n{self._last_lines()}")
            if time.monotonic() > end:
                raise AssertionError(f"{self.name} is not ready after {READY_SECONDS} s:\n{self._last_lines()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it as an init system does: SIGTERM, and SIGKILL when that does not help."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self._stop_seconds)
        self.kill()

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _last_lines(self) -> str:
        return "\n".join(self.log.splitlines()[-20:])


def free_ports(count: int) -> list[int]:
    """Pick ports of loopback that nobody listens on."""
    picked: list[int] = []
    while len(picked) < count:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            picked += [port] if port not in picked else []
    return picked


def answers(url: str, *, ca: Path | None = None) -> bool:
    """Whether a URL answers 200, its certificate being one of `ca`."""
    try:
        return requests.get(url, timeout=5, verify=True if ca is None else str(ca)).ok
    except (requests.RequestException, OSError):  # OSError: the certificate's file is not there yet
        return False
