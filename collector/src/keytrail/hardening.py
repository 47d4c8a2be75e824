"""Memory that holds secrets stays in the process: the events carry every variable of every process."""

import ctypes
import logging
import resource

log = logging.getLogger(__name__)

_PR_SET_DUMPABLE = 4
"""prctl(2): 0 forbids core dumps and ptrace by processes of the same user."""


def keep_memory_private() -> None:
    """No core dump, no ptrace by the same user. Where the system refuses, it is said and the collector goes on."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        log.warning(
            "cannot make this process undumpable (errno %d): a crash could write secrets to disk", ctypes.get_errno()
        )
