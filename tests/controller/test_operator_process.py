"""`keytrail-operator` as a process: an end that was asked for is one, also while no API server is there."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.processes import wait_until

SECONDS = 60.0
KOPF_SECONDS = 5.0
"""That kopf leaves to requests under way, and without an API server some always are."""
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: a, user: {token: not-a-token}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
current-context: a
"""


def _is_in(field: str, pid: int) -> bool:
    """Whether SIGTERM is in the set of signals that the kernel shows under this name."""
    signals = re.search(f"(?m)^{field}:\t([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text())
    return signals is not None and bool(int(signals[1], 16) >> (signal.SIGTERM - 1) & 1)


def _command(tmp_path: Path) -> list[str]:
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    run = ["run", f"--kubeconfig={tmp_path}/kubeconfig", "--http-address=127.0.0.1:0"]
    return [sys.executable, "-m", "keytrail_operator", *run]


@pytest.mark.long
def test_it_can_be_ended_before_it_runs(tmp_path: Path) -> None:
    """SIGTERM while it is still starting is neither its death nor lost: it ends with 0 as soon as it runs."""
    with subprocess.Popen(_command(tmp_path), stderr=subprocess.PIPE, text=True) as process:
        try:
            assert wait_until(lambda: _is_in("SigBlk", process.pid), SECONDS)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert "Traceback" not in err


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_without_an_api_server(tmp_path: Path, number: signal.Signals) -> None:
    """It says once that the server is away and, asked to end, does so by itself with 0, without kopf's wait of 5 s."""
    log = tmp_path / "log"
    with log.open("w") as err, subprocess.Popen(_command(tmp_path), stderr=err) as process:
        try:
            assert wait_until(lambda: "cannot be reached" in log.read_text() and _is_in("SigCgt", process.pid), SECONDS)
            asked = time.monotonic()
            process.send_signal(number)
            assert process.wait(SECONDS) == 0, log.read_text()
            assert time.monotonic() - asked < KOPF_SECONDS
        finally:
            process.kill()
    assert "Request attempt" not in log.read_text()
    assert "not-a-token" not in log.read_text()
