"""Options that several commands share, and how they become settings."""

import argparse
import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, TypeVar

from keytrail.commands.redaction import redact_too
from keytrail.domain.errors import SettingsError
from keytrail.domain.event import EventKind
from keytrail.domain.shape import suggestion

if TYPE_CHECKING:
    from keytrail.observe.accounting import Accounting
    from keytrail.settings import Settings

Number = TypeVar("Number", int, float)

_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})

_FLAGS = {
    "agent_address", "agent_tls_ca", "agent_tls_cert", "agent_tls_key", "agent_tls_server_name", "config", "output",
    "color", "event_kinds", "namespaces", "pods", "binaries", "policy_names", "pace", "log_level", "log_format",
    "state_dir", "proc_fallback", "otlp_records", "rules", "redact_patterns",
}  # fmt: skip
"""Options that are settings: their destination is the setting's name, and their default is to say nothing."""


def add_command(commands: Any, name: str, help_: str, example: str) -> argparse.ArgumentParser:
    """A sub-command whose help ends with an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_,
        description=help_[0].upper() + help_[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def at_least(least: Number) -> Callable[[str], Number]:
    """Read an option that is a number from `least` on, whole if that is."""

    def read(text: str) -> Number:
        with suppress(ValueError):
            number = type(least)(text)
            if least <= number < float("inf"):
                return number
        kind = "a whole number" if type(least) is int else "a number"
        raise argparse.ArgumentTypeError(f"expected {kind} from {least} on, found {text!r}")

    return read


def some_of(*words: str) -> Callable[[str], list[str]]:
    """Read an option that is one of these words, or several with commas, as in settings and variables."""

    def read(text: str) -> list[str]:
        found = text.split(",")
        for word in found:
            if word not in words:
                raise argparse.ArgumentTypeError(f"unknown value {word!r}, {suggestion(word, words)}")
        return found

    return read


def add_output(parser: argparse.ArgumentParser, help_: str, *words: str) -> None:
    """Where records go, or in which form."""
    parser.add_argument(
        "--output", action="extend", type=some_of(*words), metavar=f"{{{','.join(words)}}}",
        help=f"{help_}; may be repeated",
    )  # fmt: skip


def add_settings_file(parser: argparse.ArgumentParser) -> None:
    """`--settings`, and the log's options."""
    group = parser.add_argument_group("settings")
    group.add_argument("--settings", metavar="FILE", help="settings file (YAML); every setting is also KEYTRAIL_<NAME>")
    group.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="how much to log")
    group.add_argument("--log-format", choices=("text", "json"), help="form of the log")


def add_agent(parser: argparse.ArgumentParser) -> None:
    """Where the agent is and how to talk to it."""
    group = parser.add_argument_group("agent")
    group.add_argument(
        "--agent", dest="agent_address", metavar="ADDRESS",
        help="unix:///PATH, a folder that holds the socket, or HOST:PORT; found by itself when left out",
    )  # fmt: skip
    group.add_argument("--agent-tls-ca", metavar="FILE", help="CA certificate that the agent's certificate must have")
    group.add_argument("--agent-tls-cert", metavar="FILE", help="client certificate, for mutual TLS")
    group.add_argument("--agent-tls-key", metavar="FILE", help="key of the client certificate")
    group.add_argument("--agent-tls-server-name", metavar="NAME", help="name that the agent's certificate must have")


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Which events. Every option may be repeated."""
    group = parser.add_argument_group("filters (each may be repeated; values of one are alternatives)")
    group.add_argument("--kind", dest="event_kinds", action="append", metavar="KIND",
                       help="kind of event: " + ", ".join(EventKind))  # fmt: skip
    group.add_argument("--namespace", dest="namespaces", action="append", metavar="NAME",
                       help="exact namespace; an empty one selects processes without a pod")  # fmt: skip
    group.add_argument("--pod", dest="pods", action="append", metavar="REGEX", help="RE2 expression for the pod's name")
    group.add_argument(
        "--binary", dest="binaries", action="append", metavar="REGEX", help="RE2 expression for the path"
    )
    group.add_argument(
        "--policy-names", nargs="+", action="extend", metavar="NAME", help="TracingPolicies that made the event"
    )


def add_redaction(parser: argparse.ArgumentParser) -> None:
    """What of the text goes that nobody else knows for a credential."""
    parser.add_argument(
        "--redact-pattern",
        dest="redact_patterns",
        action="append",
        metavar="REGEX",
        help="RE2 expression for credentials of your own, redacted like all others; may be repeated",
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """The folder of manifests, and which rules run."""
    parser.add_argument(
        "--config",
        metavar="DIR",
        help="folder of manifests (identity mappings, rules, PolicyLibrary), read recursively",
    )
    parser.add_argument(
        "--rules",
        metavar="stable|all|none|DIR",
        help="detection rules that run; DIR takes the place of the shipped ones",
    )


def add_otlp_records(parser: argparse.ArgumentParser) -> None:
    """What an OTLP backend gets."""
    parser.add_argument(
        "--otlp-records",
        action="extend",
        type=some_of("findings", "events"),
        metavar="{findings,events}",
        help="what --output otlp sends; may be repeated (default: findings)",
    )


def read_settings(args: argparse.Namespace) -> "Settings":
    """The settings of this run; what their own expressions find goes from now on from all that the process says."""
    settings = settings_now(args)
    redact_too(settings.redact_patterns)
    return settings


def settings_now(args: argparse.Namespace) -> "Settings":
    """Settings from the file, the environment and this command line, as they are now."""
    from keytrail.settings_sources import load_settings

    given = {name: value for name, value in vars(args).items() if name in _FLAGS and value is not None}
    path = getattr(args, "settings", None) or os.environ.get("KEYTRAIL_SETTINGS")
    return load_settings(given, os.environ, Path(path) if path else None)


def check_summary(path: str | None) -> None:
    """Make the summary's file. Raises SettingsError now, and not at the end of all, when it cannot be written."""
    if path is not None:
        try:
            Path(path).touch()
        except OSError as error:
            raise SettingsError(f"--summary {path}: {error.strerror}") from None


def check_state_dir(settings: "Settings") -> None:
    """Make the state folder, and see whether it takes files. Raises SettingsError now: later nobody looks at the log.

    What is wrong with the disk itself may pass, and is no reason not to collect.
    """
    folder = settings.state_dir
    if folder is None:
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The spool in it may be left by a run of somebody else, such as root.
        for one in filter(Path.is_dir, (folder, folder / "spool")):
            with TemporaryFile(dir=one):
                pass
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            reason = "it is no folder" if isinstance(error, FileExistsError) else error.strerror
            kind, _, place = settings.origins["state_dir"].partition(" ")
            name = f"{place}: state_dir" if kind == "file" else place
            raise SettingsError(f"{name} {folder}: cannot be written: {reason}") from None


def write_summary(path: str | None, accounting: "Accounting") -> None:
    """Write the accounting as JSON. Raises SettingsError when the file cannot be written."""
    if path is None:
        return
    try:
        Path(path).write_text(json.dumps(accounting.summary(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"--summary {path}: {error.strerror}") from None
