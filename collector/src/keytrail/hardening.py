"""What a process holds stays in it: events carry every variable of every process, and the operator reads Secrets."""

import ctypes
import logging
import resource
import sys
import threading
import traceback
from pathlib import Path
from types import TracebackType

log = logging.getLogger(__name__)

_PR_SET_DUMPABLE = 4
"""prctl(2): 0 forbids core dumps and ptrace by processes of the same user."""


def keep_memory_private() -> None:
    """No core dump, no ptrace by the same user. Where the system refuses, it is said and the process goes on."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        log.warning(
            "cannot make this process undumpable (errno %d): a crash could write secrets to disk", ctypes.get_errno()
        )


def keep_errors_private() -> None:
    """Of an error that nobody expected, only the type and place are told: its text may quote what it failed on.

    For threads and finalizers, whose errors Python writes to standard error by itself; a hook of somebody else's stays.
    """
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = lambda failed: _tell(
            failed.thread.name if failed.thread else "a thread", failed.exc_type, failed.exc_traceback
        )
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = lambda failed: _tell("a finalizer", failed.exc_type, failed.exc_traceback)


def _tell(who: str, error: type[BaseException], at: TracebackType | None) -> None:
    frames = traceback.extract_tb(at)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    log.error("internal error in %s: %s%s", who, error.__name__, where)
