"""`keytrail otlp-sink`: an OtlpSink from the command line, until it is interrupted.

In flow parsed arguments, out come the endpoints on standard output, records in the database, and a count at the end.
"""

import argparse
import signal
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from keytrail.commands.terminal import printable
from keytrail.domain.errors import UsageError

if TYPE_CHECKING:
    from keytrail.testing.otlp_sink import OtlpSink

EXAMPLE = """example:
  keytrail otlp-sink --database records.db &
  OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 keytrail collect
  keytrail otlp-sink --database records.db --query "SELECT event_name, body FROM records ORDER BY id DESC LIMIT 10"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.epilog = EXAMPLE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--grpc", metavar="HOST:PORT", default="127.0.0.1:4317", help="where to take OTLP/gRPC (default: %(default)s)"
    )
    parser.add_argument(
        "--http", metavar="HOST:PORT", default="127.0.0.1:4318", help="where to take OTLP/HTTP (default: %(default)s)"
    )
    parser.add_argument(
        "--database", metavar="FILE", type=Path, help="SQLite file to add records to (default: keep them in memory)"
    )
    parser.add_argument(
        "--query", metavar="SQL", help="receive nothing: print what the database answers, columns between tabs, and end"
    )


def run_otlp_sink(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; raises UsageError for an address or a file that cannot be used."""
    if args.query is not None:
        return _answer(args)
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with open_sink(args.database, grpc=args.grpc, http=args.http) as sink:
            already = sink.count()  # before anybody knows where to send
            sys.stdout.write(f"OTLP/gRPC {sink.grpc_endpoint}\nOTLP/HTTP {sink.http_endpoint}/v1/logs\n")
            sys.stdout.flush()
            stop.wait()
            sys.stdout.write(f"records received: {sink.count() - already}\n")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _answer(args: argparse.Namespace) -> int:
    import sqlite3  # 0.8 MB, which every command would have: all declare their options

    if args.database is None:
        raise UsageError("--query: expected --database beside it")
    try:
        with closing(sqlite3.connect(f"{args.database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            for row in connection.execute(args.query):
                # Records hold what processes chose to be called: nothing of it may act on a terminal.
                sys.stdout.write("\t".join("" if value is None else printable(str(value)) for value in row) + "\n")
    except sqlite3.Error as error:
        raise UsageError(f"--query on {args.database}: {error}") from error
    return 0


def open_sink(database: Path | None, *, grpc: str = "127.0.0.1:0", http: str | None = None) -> "OtlpSink":
    """Open a sink. Raises UsageError for an address or a file that cannot be used."""
    import sqlite3

    from keytrail.testing.otlp_sink import OtlpSink

    try:
        return OtlpSink(database, grpc=grpc, http=http)
    except sqlite3.Error as error:
        raise UsageError(f"--database {database}: cannot be used as an SQLite database: {error}") from None
