"""Environments from /proc: of real processes, and the ways in which that can be the wrong process or none."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keytrail.domain.identity import Unknown
from keytrail.domain.process import Process
from keytrail.identify.proc_environ import ProcEnvironment


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until the test is over, with a known environment."""
    environment = {"OPENAI_API_KEY": "sk-secret-value", "EMPTY": "", "LANG": "C"}
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"  # it is past exec, and its environment is that of the program
        yield process
        process.kill()


def of_event(pid: int, start_ns: int | None = None) -> Process:
    """The process as an event would describe it."""
    return Process("id", pid=pid, binary="/usr/bin/python3", start_ns=time.time_ns() if start_ns is None else start_ns)


def reader(root: Path = Path("/proc")) -> ProcEnvironment:
    """A reader that marks the names it was asked to redact."""
    return ProcEnvironment(root, lambda name: name)


def test_names_of_a_running_process(child: "subprocess.Popen[bytes]") -> None:
    """Names of set, non-empty variables come back; values and empty variables do not."""
    found = reader()(of_event(child.pid))
    assert isinstance(found, tuple)
    assert {"OPENAI_API_KEY", "LANG"} <= set(found)
    assert "EMPTY" not in found
    assert "sk-secret-value" not in "".join(found)


def test_younger_process_of_the_same_id_is_not_believed(child: "subprocess.Popen[bytes]") -> None:
    """The event is of a process that started long before: the id was reused."""
    assert reader()(of_event(child.pid, start_ns=time.time_ns() - 3600 * 10**9)) is Unknown.PROCESS_GONE


def test_image_that_was_replaced_is_gone(child: "subprocess.Popen[bytes]") -> None:
    """What /proc has belongs to the program that runs now, not to the shell that executed it in its own place."""
    shell = of_event(child.pid)
    shell.exited = True
    assert reader()(shell) is Unknown.PROCESS_GONE


def test_gone_process_is_gone() -> None:
    """A process that ended and was waited for cannot be looked at any more."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert reader()(of_event(ended.pid)) is Unknown.PROCESS_GONE


def test_zombie_is_gone() -> None:
    """A zombie's environment reads as empty, which must not pass for an empty environment."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    found = reader()(of_event(process.pid))
    process.wait()
    assert found is Unknown.PROCESS_GONE


def test_forbidden_file_says_so() -> None:
    """Without the right to read, the reason is that, not that there is nothing."""
    found = _as_nobody() if os.geteuid() == 0 else str(reader()(of_event(1)))
    assert found == "not_permitted"


def _as_nobody() -> str:
    source = str(Path(sys.modules["keytrail"].__file__ or "").parent.parent)
    # Imported before the user changes: the checkout may be readable by root alone.
    code = f"""
import os, sys, time
from pathlib import Path
sys.path.insert(0, {source!r})
from keytrail.domain.process import Process
from keytrail.identify.proc_environ import ProcEnvironment
os.setgid(65534)
os.setuid(65534)
print(ProcEnvironment(Path("/proc"), str)(Process("id", pid=1, start_ns=time.time_ns())))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ran.stdout.strip()
