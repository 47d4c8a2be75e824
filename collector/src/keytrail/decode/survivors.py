"""Two images of one pid in, whether they are the same process met again out.

An agent that restarts gives every process that it finds in /proc a new exec_id. Used by `table`; must not know it.
"""

from keytrail.domain.process import Process

_CLOCK_TICK_NS = 10_000_000
"""Start times from /proc come in ticks of 10 ms (USER_HZ is 100 on every architecture that the agent runs on)."""

_SAME_PROGRAM = {
    "sh": ("dash", "bash", "busybox"),
    "awk": ("mawk", "gawk"),
    "vi": ("vim.basic", "vim.tiny"),
    "nc": ("nc.openbsd", "nc.traditional", "ncat"),
}
"""Names that distributions link elsewhere: an exec event has the link, a process found in /proc the target."""


def is_survivor(earlier: Process, found: Process) -> bool:
    """Whether `found`, met under another exec_id, is the process known as `earlier` before its agent restarted.

    A restarted agent reads /proc: the id is made from the fork time (not later than the exec time that it knew
    before), the binary is the resolved path, for a script the interpreter, and there is no environment. A process
    that merely got the same pid started after `earlier` did, so its start time is later.
    """
    if not found.preexisting or not found.start_ns or earlier.exited:
        return False
    if earlier.exec_id == found.exec_id or earlier.pid != found.pid:
        return False
    if found.start_ns > earlier.start_ns + _CLOCK_TICK_NS:
        return False
    return found.arguments == earlier.arguments and (_is_same_program(earlier, found) or _is_script(earlier))


def _is_script(earlier: Process) -> bool:
    """A script is announced by its own name, with the interpreter's arguments; /proc has the interpreter's name."""
    return any(word.rpartition("/")[2] == earlier.name for word in earlier.arguments.split(" "))


def _is_same_program(earlier: Process, found: Process) -> bool:
    before, now = earlier.name, found.name
    if now == before or now in _SAME_PROGRAM.get(before, ()):
        return True
    return now.startswith(before) and _is_version(now[len(before) :])


def _is_version(suffix: str) -> bool:
    return suffix.lstrip("-").replace(".", "").isdecimal()
