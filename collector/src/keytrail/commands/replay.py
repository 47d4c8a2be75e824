"""`keytrail replay`: a recording through the whole data path, records to standard output."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keytrail.commands.options import (
    add_command,
    add_config,
    add_filters,
    add_otlp_records,
    add_output,
    add_redaction,
    add_settings_file,
    at_least,
    check_summary,
    read_settings,
    write_summary,
)
from keytrail.commands.redaction import redacted
from keytrail.commands.terminal import printable

if TYPE_CHECKING:
    from keytrail.decode.table import ProcessTable
    from keytrail.settings import Settings

SHIPPED = Path(__file__).parent.parent / "testing" / "recordings"
"""Recordings of a real agent that travel with Keytrail, for the demo and for trying things out."""
_SHOWN = 5
"""Names of mappings that a note has room for."""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "replay", "read a recording instead of an agent and write its records to standard output",
        "keytrail replay recording.pb.zst --output json --config ./identities --summary summary.json",
    )  # fmt: skip
    parser.add_argument(
        "recording",
        metavar="PATH",
        help="a .pb or .pb.zst stream, its folder, a JSON export, or - ; seed-demo and policy-library are shipped",
    )
    add_output(parser, "form of the records (default: json)", "json", "line", "findings", "otlp")
    parser.add_argument("--color", choices=("auto", "always", "never"), help="colours of --output line")
    parser.add_argument(
        "--pace",
        type=at_least(0.001),
        metavar="FACTOR",
        help="1 replays at the recorded speed, 10 ten times faster; default: as fast as it goes",
    )
    parser.add_argument("--summary", metavar="FILE", help="write the accounting to FILE as JSON")
    add_config(parser)
    add_otlp_records(parser)
    add_filters(parser)
    add_redaction(parser)
    add_settings_file(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replay to the end, or until the reader of the output goes away."""
    from keytrail.app import Collector
    from keytrail.observe.accounting import Accounting
    from keytrail.observe.logs import set_up_logs
    from keytrail.outputs import check_written, open_outputs, reader_left

    args.output = args.output or ["json"]
    settings = read_settings(args)
    check_summary(args.summary)
    set_up_logs(settings.log_level, settings.log_format, redact=redacted)
    accounting = Accounting()
    outputs = open_outputs(settings, accounting, os.environ, by_time=True)
    collector = Collector(settings, _source(args.recording, settings.pace), outputs, accounting, live=False)
    try:
        collector.run_through(stopped=lambda: reader_left(outputs))
    finally:
        write_summary(args.summary, accounting)
    check_written(outputs)
    if not reader_left(outputs):  # else the rest of the recording was not looked at
        _tell_unreadable(args.recording, accounting.summary()["events"])
        _tell_unmatched(settings, collector.table)
    return 0


def _tell_unreadable(path: str, events: dict[str, Any]) -> None:
    """Say what was left out. Raises RecordingError when that was all of it: then it is something else."""
    from keytrail.domain.errors import RecordingError

    if not events["undecodable"]:
        return
    reasons = ", ".join(f"{reason} {count}" for reason, count in events["undecodable_by_reason"].items())
    told = f"{events['undecodable']} of {events['received']} events cannot be read ({reasons})"
    if not events["decoded"]:
        raise RecordingError(f"{path}: {told}: is it a recording, or Tetragon's JSON export?")
    sys.stderr.write(f"keytrail: {printable(path)}: {told}\n")


def _tell_unmatched(settings: "Settings", table: "ProcessTable") -> None:
    """Name the user's mappings that no process was tied to. Silent where some processes are forgotten already."""
    from keytrail.configuration import given_manifests

    if table.evicted_running or table.evicted_exited:
        return
    found = {item.mapping for process in table if process.attribution for item in process.attribution.evidence}
    idle = [one.name for one in given_manifests(settings).identity_mappings if one.name not in found]
    if idle:
        more = f" and {len(idle) - _SHOWN} more" if len(idle) > _SHOWN else ""
        names = printable(", ".join(idle[:_SHOWN]))
        sys.stderr.write(
            f"keytrail: no process was tied to {names}{more}: docs/identities.md says what may be missing\n"
        )


def _source(path: str, pace: float | None) -> Any:
    from keytrail.source.recording import RecordingSource
    from keytrail.source.stdin import StdinSource

    if path == "-":
        return StdinSource(sys.stdin.buffer)
    return RecordingSource(recording_at(path), pace=pace)


def recording_at(path: str) -> Path:
    """What a user means by a path: a file or folder, or the name of a shipped recording. Raises UsageError."""
    from keytrail.domain.errors import UsageError

    if Path(path).exists():
        return Path(path)
    if path in (shipped := sorted(one.name for one in SHIPPED.iterdir())):
        return SHIPPED / path
    raise UsageError(f"{path}: there is no such file or folder, and of shipped recordings {' and '.join(shipped)}")
