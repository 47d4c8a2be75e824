"""`keytrail watch`: a running agent's events in the terminal."""

import argparse
from typing import Any

from keytrail.commands import collect
from keytrail.commands.options import (
    add_agent,
    add_command,
    add_config,
    add_filters,
    add_output,
    add_redaction,
    add_settings_file,
)


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "watch", "show a running agent's events, with their identities, in the terminal",
        "keytrail watch --kind connect --namespace payments",
    )  # fmt: skip
    add_output(parser, "form of the lines (default: line)", "line", "json", "findings")
    parser.add_argument("--color", choices=("auto", "always", "never"), help="colours (default: when it is a terminal)")
    parser.add_argument("--summary", metavar="FILE", help="write the accounting to FILE as JSON at the end")
    add_config(parser)
    add_agent(parser)
    add_filters(parser)
    add_redaction(parser)
    add_settings_file(parser)
    parser.set_defaults(run=run, watching=True)


def run(args: argparse.Namespace) -> int:
    """The collector with its output on the terminal."""
    args.output = args.output or ["line"]
    return collect.run(args)
