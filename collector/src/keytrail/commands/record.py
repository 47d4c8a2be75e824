"""`keytrail record`: a running agent's stream into a file that `keytrail replay` reads."""

import argparse
import time
from pathlib import Path
from typing import Any

from keytrail.commands.options import (
    add_agent,
    add_command,
    add_filters,
    add_redaction,
    add_settings_file,
    at_least,
    read_settings,
)
from keytrail.commands.redaction import redacted
from keytrail.commands.terminal import printable, say


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "record", "write a running agent's events to a file, without secrets, for `keytrail replay`",
        "keytrail record incident.pb.zst --seconds 60",
    )  # fmt: skip
    parser.add_argument("file", metavar="FILE", help="where to: .pb, or .pb.zst for a compressed one")
    parser.add_argument("--seconds", type=at_least(0.0), metavar="N", help="stop after N seconds (default: on Ctrl-C)")
    parser.add_argument("--events", type=at_least(1), metavar="N", help="stop after N events")
    parser.add_argument("--with-secrets", action="store_true",
                        help="write the stream as it is: every variable of every process, values included")  # fmt: skip
    add_agent(parser)
    add_filters(parser)
    add_redaction(parser)
    add_settings_file(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Record until the time is over, enough events are there, or a signal comes; exit code 1 without an agent."""
    from threading import Thread

    from keytrail.commands.live import open_stream, stop_on_signals
    from keytrail.decode.redact import Redactor
    from keytrail.decode.scrub import scrub
    from keytrail.hardening import keep_errors_private, keep_memory_private
    from keytrail.observe.logs import set_up_logs
    from keytrail.source.recording import RecordingWriter

    settings = read_settings(args)
    set_up_logs(settings.log_level, settings.log_format, redact=redacted)
    keep_memory_private()
    keep_errors_private()
    states: set[str] = set()
    source = open_stream(settings, settings.event_filter(), lambda transition: states.add(transition.state.value))
    redact = Redactor(settings.redact_patterns).redact
    written = unreadable = 0
    ends = time.monotonic() + args.seconds if args.seconds is not None else None
    with stop_on_signals() as stop, RecordingWriter(Path(args.file)) as writer:
        # The stream blocks while nothing happens, so the clock and the signals are somebody else's.
        Thread(target=_close_in_time, args=(stop, ends, source), daemon=True).start()
        for batch in source.batches():
            for raw in batch.messages:
                message = raw if args.with_secrets else scrub(raw, redact)
                if message is None:
                    unreadable += 1
                    continue
                writer.write(message)
                written += 1
                if written == args.events:
                    break
            if written == args.events:
                break
        stop.set()
    left_out = f", {unreadable} left out because they could not be read and so not be redacted" if unreadable else ""
    absent = "" if "connected" in states else ", for no agent answered (`keytrail doctor` says why)"
    say(f"{printable(args.file)}: {written} events{left_out}{absent}")
    return 1 if absent else 0


def _close_in_time(stop: Any, ends: float | None, source: Any) -> None:
    while not stop.wait(0.1):
        if ends is not None and time.monotonic() >= ends:
            break
    source.close()
