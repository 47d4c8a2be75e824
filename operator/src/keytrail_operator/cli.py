"""The command line of the operator: `keytrail-operator run`.

Only `main` turns errors into exit codes: 0 ended as asked, 1 failed, 2 what was asked for is wrong.
"""

import os
import signal
import sys
from collections.abc import Sequence

TYPE_CHECKING = False  # that of `typing`, whose import is 10 ms in which Ctrl-C is a traceback
if TYPE_CHECKING:
    import argparse


def build_parser() -> "argparse.ArgumentParser":
    """The whole command line, without importing what running needs."""
    from keytrail import __version__
    from keytrail.commands.parser import CommandParser
    from keytrail_operator.settings import add_arguments

    parser = CommandParser(
        prog="keytrail-operator",
        description="Keeps Tetragon's TracingPolicies and Keytrail's own objects in order in a Kubernetes cluster.",
    )
    parser.add_argument("--version", action="version", version=f"keytrail-operator {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="command")
    run = commands.add_parser("run", help="run until ended by SIGTERM")
    add_arguments(run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    # SIGTERM waits until the loop runs, which ends in order on it. Before, it would kill; or, sent to process 1 of a
    # container, be lost, since the kernel lets nothing through to that for which it has no handler.
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        return _run(argv)
    except KeyboardInterrupt:
        return 130
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


def _run(argv: Sequence[str] | None) -> int:
    # All imports are in here, so that signals find `main` ready for them nearly from the start of the process.
    import traceback

    from keytrail.commands.terminal import printable
    from keytrail.domain.errors import KeytrailError
    from keytrail_operator.settings import load

    args = build_parser().parse_args(argv)
    try:
        settings = load(vars(args), os.environ)
        from keytrail_operator.app import run

        return run(settings, os.environ)
    except KeytrailError as error:
        from keytrail.commands.redaction import redacted

        print(f"keytrail-operator: {printable(redacted(str(error)), lines=True)}", file=sys.stderr)  # noqa: T201 - a command's answer
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the boundary of the process
        # The text of an unexpected error may quote what it failed on: only its place is shown.
        frames = "".join(traceback.format_tb(error.__traceback__))
        print(f"keytrail-operator: internal error, {type(error).__name__} at\n{frames}", file=sys.stderr)  # noqa: T201 - as above
        return 1
