"""A process that holds credentials: neither its memory nor its errors tell them."""

import subprocess
import sys

_HARDENED = """
import ctypes, resource, threading
from keytrail.hardening import keep_errors_private, keep_memory_private

keep_memory_private()
keep_errors_private()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))

class Unlucky:
    def __del__(self):
        raise ValueError("hunter2 of a finalizer")

def fail():
    raise ValueError("hunter2 of a thread")

thread = threading.Thread(target=fail, name="unlucky")
thread.start()
thread.join()
Unlucky()
"""


def test_neither_memory_nor_errors_leave_the_process() -> None:
    """No core dump, no ptrace (PR_GET_DUMPABLE is 0), and of errors in threads and finalizers only type and place."""
    ran = subprocess.run([sys.executable, "-c", _HARDENED], capture_output=True, text=True, check=True, timeout=120)
    assert ran.stdout == "(0, 0) 0\n"
    assert "hunter2" not in ran.stderr
    assert [line.partition(" at ")[0] for line in ran.stderr.splitlines()] == [
        "internal error in unlucky: ValueError",
        "internal error in a finalizer: ValueError",
    ]


def test_a_hook_of_somebody_else_stays() -> None:
    """Whoever embeds Keytrail and has a hook for errors of threads keeps it, as pytest does here."""
    import threading

    from keytrail.hardening import keep_errors_private

    before = threading.excepthook, sys.unraisablehook
    keep_errors_private()
    assert (threading.excepthook, sys.unraisablehook) == before
