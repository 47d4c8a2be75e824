"""`keytrail collect`: the collector itself, until it is told to stop."""

import argparse
import os
from typing import Any

from keytrail.commands.options import (
    add_agent,
    add_command,
    add_config,
    add_filters,
    add_otlp_records,
    add_settings_file,
    read_settings,
    write_summary,
)


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "collect", "follow a running Tetragon agent and send attributed events to an OTLP backend",
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 keytrail collect --config /etc/keytrail",
    )  # fmt: skip
    parser.add_argument("--output", action="append", choices=("otlp", "findings", "json", "line"),
                        help="where records go; may be repeated (default: otlp, by OTEL_EXPORTER_OTLP_*)")  # fmt: skip
    parser.add_argument("--color", choices=("auto", "always", "never"), help="colours of --output line")
    parser.add_argument("--summary", metavar="FILE", help="write the accounting to FILE as JSON at the end")
    parser.add_argument(
        "--state-dir", metavar="DIR", help="folder that survives restarts: what running processes carry (names only)"
    )
    parser.add_argument("--proc-fallback", action="store_const", const=True,
                        help="read /proc/PID/environ where the agent sends no environment (needs root)")  # fmt: skip
    add_config(parser)
    add_otlp_records(parser)
    add_agent(parser)
    add_filters(parser)
    add_settings_file(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Collect until SIGINT or SIGTERM."""
    from keytrail.app import Collector
    from keytrail.commands.live import open_stream, stop_on_signals
    from keytrail.hardening import keep_memory_private
    from keytrail.observe.accounting import Accounting
    from keytrail.observe.logs import set_up_logs
    from keytrail.outputs import open_outputs

    settings = read_settings(args)
    set_up_logs(settings.log_level, settings.log_format)
    keep_memory_private()
    accounting = Accounting()
    source = open_stream(settings, settings.event_filter())
    collector = Collector(settings, source, open_outputs(settings, accounting, os.environ), accounting, live=True)
    with stop_on_signals() as stop:
        try:
            collector.run_live(stop)
        finally:
            write_summary(args.summary, accounting)
    return 0
