"""Work that needs much memory for a moment, done by a process of its own, which takes it along when it ends.

In: one of the tasks below with its arguments; out: what it returned, or the UsageError that it raised. To read rules,
check them with the CEL engine and write their code takes 25 MB that would never come back, since the heap that it
leaves is full of holes, and a second in which events wait for the interpreter. Besides, the engine's C++ then meets a
user's text in a process that holds no credential. An upgrade in place is told, since two versions do not understand
each other's data. Knows no task: each imports what it needs when it runs.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import traceback
from enum import StrEnum
from importlib import import_module
from typing import Any, Final

from keytrail import __version__
from keytrail.domain.errors import KeytrailError, UsageError

_ENVIRONMENT: Final = ("LANG", "LC_", "LD_", "PATH", "PYTHON")
"""Beginnings of the variables that an interpreter needs: ours may hold credentials, and the agent reports every one."""
_PATIENCE_SECONDS: Final = 120.0
"""A machine under load takes a few seconds."""
_OTHER_VERSION: Final = 3
"""Exit code of a process that is not of the version that it was asked by; its own is its answer."""


class Task(StrEnum):
    """What can be done aside: a function by its module and name, its arguments and answer plain data."""

    COMPILE_RULES = "keytrail.ruleset:compiled_rules"
    JUDGE = "keytrail.judging:judge"


class AsideError(KeytrailError):
    """The other process came to nothing."""


def run_here(task: Task, *arguments: Any) -> Any:
    """Do it in this process."""
    module, _, name = task.partition(":")
    return getattr(import_module(module), name)(*arguments)


def run_aside(task: Task, *arguments: Any) -> Any:
    """Do it in another process. Raises what the task raises of UsageErrors, AsideError when there was no answer."""
    # -P: the folder that it happens to run in is no place for modules. A session of its own: Ctrl-C is ours to handle.
    command = [sys.executable, "-P", "-m", "keytrail.aside", __version__]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and this module
            command,
            input=pickle.dumps((task, arguments)),
            env=_environment(),
            stdout=subprocess.PIPE,
            timeout=_PATIENCE_SECONDS,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise AsideError(f"{task.name.lower()}: no answer within {_PATIENCE_SECONDS:.0f} s") from None
    except OSError:  # no process to be had, as where a cgroup has a limit of them
        return run_here(task, *arguments)
    if done.returncode == _OTHER_VERSION:
        installed = done.stdout.decode("ascii", "replace").strip()
        raise AsideError(f"the installed Keytrail is {installed}, this process runs {__version__}: restart it")
    if done.returncode:
        raise AsideError(f"{task.name.lower()}: the process for it ended with {done.returncode}")
    raised, answer = pickle.loads(done.stdout)  # noqa: S301 - of our own child
    if raised:
        raise answer
    return answer


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.startswith(_ENVIRONMENT)}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # the very modules that this process has


def main() -> None:
    """Be the other process: a task on standard input, its answer on standard output."""
    if sys.argv[1:] != [__version__]:
        sys.stdout.write(__version__)
        sys.exit(_OTHER_VERSION)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    task, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 - of our own parent
    try:
        answer: Any = False, run_here(task, *arguments)
    except UsageError as error:
        answer = True, error
    except Exception as error:  # noqa: BLE001 - the boundary of this process: an error's text may quote a manifest
        frames = "".join(traceback.format_tb(error.__traceback__))
        sys.exit(f"keytrail: {task.name.lower()}: internal error, {type(error).__name__} at\n{frames}")
    with contextlib.suppress(BrokenPipeError), answers:  # nobody waits any more
        pickle.dump(answer, answers)


if __name__ == "__main__":
    main()
