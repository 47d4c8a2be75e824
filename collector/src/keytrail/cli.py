"""The command line: one module of `keytrail.commands` for each command, composed here.

Only `main` turns errors into exit codes: 0 done, 1 failed, 2 what was asked for is wrong, 130 interrupted.
"""

import os
import sys
from collections.abc import Sequence

TYPE_CHECKING = False  # that of `typing`, whose import is 10 ms in which Ctrl-C is a traceback
if TYPE_CHECKING:
    import argparse

_DESCRIPTION = "Which machine identity did which process use, where to, and was that expected?"
_EXAMPLES = """\
examples:
  keytrail demo                                   see it work, with everything embedded
  keytrail doctor                                 what is missing on this machine, and the line that mends it
  keytrail watch                                  follow a running Tetragon agent in the terminal
  OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 keytrail collect
"""


def build_parser() -> "argparse.ArgumentParser":
    """The whole command line, without importing what the commands need to run."""
    import argparse

    from keytrail import __version__
    from keytrail.commands import (
        collect,
        config,
        demo,
        doctor,
        fakes,
        identities,
        nodes,
        policies,
        record,
        replay,
        rules,
        spool,
        status,
        watch,
    )
    from keytrail.commands.parser import CommandParser

    parser = CommandParser(
        prog="keytrail",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"keytrail {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (
        collect,
        status,
        spool,
        replay,
        record,
        watch,
        rules,
        policies,
        identities,
        nodes,
        config,
        demo,
        doctor,
        fakes,
    ):
        module.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    try:
        return _run(argv)
    except KeyboardInterrupt:
        return 130


def _run(argv: Sequence[str] | None) -> int:
    # All imports are in here, so that Ctrl-C finds `main` ready for it nearly from the start of the process.
    import traceback

    from keytrail.commands.terminal import flush, have_streams, printable
    from keytrail.domain.errors import KeytrailError

    # gRPC's C core writes lines of its own to standard error, in no form that a log reader knows.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    have_streams()
    try:
        args = build_parser().parse_args(argv)
        code = int(args.run(args))
        flush()
    except KeytrailError as error:
        from keytrail.commands.redaction import redacted

        print(f"keytrail: {printable(redacted(str(error)), lines=True)}", file=sys.stderr)  # noqa: T201 - a command's answer
        return error.exit_code
    except BrokenPipeError:
        return 0
    except PermissionError as error:
        # Of a path that was only looked at: whoever opens a file says so in words of its own.
        print(f"keytrail: {printable(str(error.filename))}: {error.strerror} (is it for root alone?)", file=sys.stderr)  # noqa: T201 - as above
        return 2
    except Exception as error:  # noqa: BLE001 - the boundary of the process
        # The text of an unexpected error may quote what it failed on, a secret among it: only its place is shown.
        frames = "".join(traceback.format_tb(error.__traceback__))
        print(f"keytrail: internal error, {type(error).__name__} at\n{frames}", file=sys.stderr)  # noqa: T201 - as above
        return 1
    return code
