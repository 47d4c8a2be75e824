"""`keytrail status`: what a running collector says of itself, and whether somebody should look at it."""

import argparse
import json
import shutil
from typing import Any

from keytrail.commands.options import add_command, add_settings_file, read_settings
from keytrail.commands.terminal import printable, say
from keytrail.domain.errors import UsageError

_ANSWER_SECONDS = 5.0
_MOST_BYTES = 4 * 1024 * 1024
_EXIT_CODES = """\
Exit code 0: all is well. 1: something needs attention, which is shown first; of
gaps and of rules without an answer only what is of the last hour, older ones are
counted. 2: no collector answers."""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "status",
        "show what a running collector does, what it lost and what needs attention",
        "keytrail status --address localhost:9464",
    )
    parser.description = f"{parser.description}\n{_EXIT_CODES}"
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="where it serves its pages (default: the setting http_address)"
    )
    parser.add_argument(
        "-o", "--output", dest="form", choices=("text", "json"), default="text", help="form of the answer"
    )
    add_settings_file(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the page: 0 all is well, 1 something needs attention. Raises UsageError when no collector answers."""
    from keytrail.observe.status_text import attention, status_lines

    given = args.address or read_settings(args).http_address
    where = _where(given)
    document = fetch(where)
    if args.form == "json":
        say(json.dumps(document, indent=1))
    else:
        for line in status_lines(document, given, shutil.get_terminal_size().columns):
            say(line)
    return 1 if attention(document) or not document.get("ready") else 0


def _where(address: str) -> tuple[str, int]:
    from keytrail.observe.address import parse_address, where_to_ask

    try:
        found = parse_address(address)
    except ValueError as error:
        raise UsageError(f"--address {address}: {error}") from None
    if found is None:
        raise UsageError("the collector serves no pages (http_address is off): give --address HOST:PORT")
    return where_to_ask(found)


def fetch(where: tuple[str, int]) -> dict[str, Any]:
    """Return the document of a running collector. Raises UsageError when there is none."""
    from http.client import HTTPConnection, HTTPException

    shown = f"{where[0]}:{where[1]}"
    connection = HTTPConnection(*where, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/status")
        document = json.loads(connection.getresponse().read(_MOST_BYTES))
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise UsageError(
            f"no collector answers at {shown} ({printable(why)}): does it run, with this http_address?"
        ) from None
    except (HTTPException, ValueError, RecursionError):
        document = None
    finally:
        connection.close()
    if not isinstance(document, dict) or "ready" not in document:
        raise UsageError(f"what answers at {shown} is no keytrail collector")
    return document
