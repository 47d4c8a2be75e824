"""`keytrail-operator` as a process: an end that was asked for is one, also while no API server is there."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import wait_until

SECONDS = 60.0
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: a, user: {token: not-a-token}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
current-context: a
"""


def _answers_to_sigterm(pid: int) -> bool:
    """Whether the process has a handler for it: from then on kopf runs."""
    caught = re.search("(?m)^SigCgt:\t([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_without_an_api_server(tmp_path: Path, number: signal.Signals) -> None:
    """It says once that the server is away and, asked to end, does so by itself with 0 and is not killed."""
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    command = [sys.executable, "-m", "keytrail_operator", "run", f"--kubeconfig={tmp_path}/kubeconfig"]
    log = tmp_path / "log"
    with log.open("w") as err, subprocess.Popen([*command, "--http-address=127.0.0.1:0"], stderr=err) as process:
        try:
            assert wait_until(
                lambda: "cannot be reached" in log.read_text() and _answers_to_sigterm(process.pid), SECONDS
            )
            process.send_signal(number)
            assert process.wait(SECONDS) == 0, log.read_text()
        finally:
            process.kill()
    assert "Request attempt" not in log.read_text()
    assert "not-a-token" not in log.read_text()
