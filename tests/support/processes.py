"""The collector as a process of its own, as an init system would run it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class CollectorProcess:
    """`keytrail collect`, or watch, with its output in files. A context manager: it never outlives the test."""

    def __init__(
        self, folder: Path, *options: str, environ: Mapping[str, str] | None = None, command: str = "collect"
    ) -> None:
        self.summary_file = folder / "summary.json"
        self._out = folder / "out.jsonl"
        self._err = folder / "err.log"
        argv = [sys.executable, "-m", "keytrail", command, "--summary", str(self.summary_file), *options]
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OTEL_", "KEYTRAIL_", "KUBERNETES_"))
        }
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(argv, stdout=out, stderr=err, env=clean | dict(environ or {}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def out(self) -> str:
        """Standard output so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """The log so far."""
        return self._err.read_text()

    def lines(self) -> int:
        """Complete lines of standard output so far."""
        return self._out.read_bytes().count(b"\n")

    def stop(self) -> dict[str, Any]:
        """End it as an init system does; return its accounting. The exit code must be 0."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(120)
        assert code == 0, self.err
        summary: dict[str, Any] = json.loads(self.summary_file.read_text())
        return summary


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> bool:
    """Look again and again until it is so; False when the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()
