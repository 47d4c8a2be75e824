"""`keytrail spool`: what waits for the backend, and what the backend refused.

Reads the spool's folder beside a running collector, which owns it. Dead letters may be moved at any time: a move is
atomic, and the collector notices. Only what is queued is the collector's alone.
"""

import argparse
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from keytrail.commands.options import add_command, add_settings_file, at_least, read_settings
from keytrail.commands.terminal import say, table
from keytrail.domain.errors import KeytrailError, UsageError

_NANOSECONDS = 1_000_000_000


def add(commands: Any) -> None:
    """Declare the command and its actions."""
    parser = add_command(
        commands, "spool", "look at records that wait for the backend or were refused by it", "keytrail spool list"
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = add_command(
        actions, "list", "list what waits by severity, and the dead letters",
        "keytrail spool list --state-dir /var/lib/keytrail",
    )  # fmt: skip
    showing = add_command(
        actions, "show", "show the records of a dead letter, or what waits", "keytrail spool show 1024-9f3a2c11"
    )
    showing.add_argument("id", nargs="?", metavar="ID", help="dead letter, as `keytrail spool list` names it")
    showing.add_argument("--queued", action="store_true", help="show what waits for the backend instead")
    showing.add_argument(
        "--limit", type=at_least(1), default=100, metavar="N", help="most records to show (default: 100)"
    )
    sending = add_command(
        actions, "resend", "queue dead letters again; a running collector takes them within seconds",
        "keytrail spool resend --all",
    )  # fmt: skip
    purging = add_command(actions, "purge", "delete dead letters, or what waits", "keytrail spool purge --all")
    purging.add_argument("--queued", action="store_true", help="delete what waits; the collector must not run")
    for action in (sending, purging):
        action.add_argument("id", nargs="?", metavar="ID", help="dead letter, as `keytrail spool list` names it")
        action.add_argument("--all", action="store_true", help="all dead letters")
    runs = ((listing, run_list), (showing, run_show), (sending, run_resend), (purging, run_purge))
    for action, run in runs:
        action.add_argument("--state-dir", metavar="DIR", help="the collector's state_dir")
        add_settings_file(action)
        action.set_defaults(run=run)


def run_list(args: argparse.Namespace) -> int:
    """Print both tables."""
    from keytrail.export.spool.dead import letters, to_resend
    from keytrail.export.spool.entries import Lane
    from keytrail.export.spool.scan import survey_lane
    from keytrail.export.terminal_line import quote

    folder = _folder(args)
    rows = [("LANE", "RECORDS", "SEGMENTS", "BYTES", "OLDEST")]
    for lane in reversed(Lane):
        segments = [survey.segment for survey in survey_lane(folder, lane)]
        oldest = min((one.oldest_ns for one in segments if one.records), default=0)
        records, size = sum(one.records for one in segments), sum(one.bytes for one in segments)
        rows.append((lane.name.lower(), str(records), str(len(segments)), str(size), _moment(oldest)))
    table(rows)
    found = list(letters(folder))
    if found:
        say()
        heading = ("DEAD LETTER", "RECORDS", "BYTES", "REFUSED", "REASON")
        rows = [(one.name, str(one.records), str(one.bytes), _moment(one.time_ns), quote(one.reason)) for one in found]
        table([heading, *rows])
    if waiting := len(to_resend(folder)):
        say(f"\n{waiting} dead letters will be queued again when a collector runs")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Print one line for each record."""
    from keytrail.export.spool.dead import frames_of
    from keytrail.export.spool.segment import Kind

    if bool(args.id) == args.queued:
        raise UsageError("name one dead letter, or give --queued")
    folder = _folder(args)
    if args.queued:
        data = _queued(folder)
    else:
        frames = frames_of(_letter(folder, args.id).path)
        data = iter([frame.data for frame in frames if frame.kind is Kind.ENTRY])
    lines = (line for one in data for line in _lines(one))
    for shown, line in enumerate(lines):
        if shown == args.limit:
            say(f"... more follow: --limit {args.limit}")
            break
        say(line)
    return 0


def run_resend(args: argparse.Namespace) -> int:
    """Move dead letters to where the spool picks them up."""
    from keytrail.export.spool.dead import move_to_resend

    folder = _folder(args)
    for letter in _chosen(folder, args):
        try:
            move_to_resend(folder, letter)
        except FileNotFoundError:
            say(f"{letter.name}: gone meanwhile")
        except OSError as error:
            raise KeytrailError(f"{letter.name}: {error.strerror}") from None
        else:
            say(f"{letter.name}: {letter.records} records will be sent again")
    return 0


def run_purge(args: argparse.Namespace) -> int:
    """Delete dead letters, or everything queued."""
    folder = _folder(args)
    if args.queued:
        if args.id or args.all:
            raise UsageError("--queued stands alone: dead letters are purged by their ID or --all")
        say(f"{_purge_queued(folder)} queued records deleted")
        return 0
    for letter in _chosen(folder, args):
        try:
            letter.path.unlink(missing_ok=True)
        except OSError as error:
            raise KeytrailError(f"{letter.name}: {error.strerror}") from None
        say(f"{letter.name}: {letter.records} records deleted")
    return 0


def _purge_queued(folder: Path) -> int:
    from keytrail.export.spool.opening import open_folder
    from keytrail.export.spool.scan import remove

    try:
        opened = open_folder(folder)
        try:
            for survey in opened.found:
                remove(survey.segment)
        finally:
            opened.owner.abandon()
    except OSError as error:
        raise KeytrailError(f"{folder}: {error.strerror}") from None
    return sum(survey.segment.records for survey in opened.found)


def _folder(args: argparse.Namespace) -> Path:
    settings = read_settings(args)
    if settings.state_dir is None:
        raise UsageError("no state_dir is set, so records are in the collector's memory only: give --state-dir DIR")
    folder = settings.state_dir / "spool"
    try:
        if not folder.is_dir():
            raise UsageError(f"{folder}: there is no spool")
        next(folder.iterdir(), None)
    except PermissionError as error:
        raise KeytrailError(f"{folder}: {error.strerror}") from None
    return folder


def _letter(folder: Path, name: str) -> Any:
    from keytrail.export.spool.dead import letters

    for letter in letters(folder):
        if name in {letter.name, letter.name.partition("-")[0]}:
            return letter
    raise UsageError(f"{name}: there is no such dead letter; `keytrail spool list` names them")


def _chosen(folder: Path, args: argparse.Namespace) -> list[Any]:
    from keytrail.export.spool.dead import letters

    if bool(args.id) == args.all:
        raise UsageError("name one dead letter, or give --all")
    return list(letters(folder)) if args.all else [_letter(folder, args.id)]


def _queued(folder: Path) -> Iterator[bytes]:
    """Entries that wait, oldest first within each lane, highest lane first."""
    from keytrail.export.spool.entries import Lane
    from keytrail.export.spool.scan import read_acks, read_piece, survey_lane
    from keytrail.export.spool.segment import HEADER

    for lane in reversed(Lane):
        for segment, _, _ in survey_lane(folder, lane):
            with suppress(FileNotFoundError):  # sent meanwhile
                acked, at = read_acks(segment), len(HEADER)
                while at < segment.end:
                    frames, at = read_piece(segment, at, segment.end)
                    yield from (frame.data for frame in frames if frame.sequence not in acked)


def _lines(data: bytes) -> Iterator[str]:
    """One line for each record of a serialized ResourceLogs. Its text is whoever's: quoted for a terminal."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs

    from keytrail.export.terminal_line import quote

    try:
        message = ResourceLogs.FromString(data)
    except DecodeError:
        yield f"(not readable: {len(data)} bytes)"
        return
    resource = {one.key: one.value.string_value for one in message.resource.attributes}
    namespace, pod = resource.get("k8s.namespace.name", ""), resource.get("k8s.pod.name", "")
    where = f"{quote(namespace)}/{quote(pod)}" if pod else quote(resource.get("host.name", "") or "-")
    for scope in message.scope_logs:
        for record in scope.log_records:
            attributes = {one.key: one.value.string_value for one in record.attributes}
            rule = attributes.get("security_rule.name") or record.event_name
            words = (_moment(record.time_unix_nano), record.severity_text, where, rule, record.body.string_value)
            yield " ".join((words[0], quote(words[1]), words[2], quote(words[3]), quote(words[4])))


def _moment(time_ns: int) -> str:
    if not time_ns:
        return "-"
    try:
        return datetime.fromtimestamp(time_ns // _NANOSECONDS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError):  # after the year 9999: a record may carry any time
        return f"{time_ns} ns"
