"""Keytrail's own log: one line an entry, no secret, no raw control character.

Messages are written for the person who reads them at night: what happened, what it means, what to do. Text that came
from outside is quoted.
"""

import json
import logging
import sys
import time
from typing import TextIO


class TextFormatter(logging.Formatter):
    """`2026-11-22T10:00:00Z INFO source: message`, with everything unprintable escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one entry on one line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        return f"{moment} {record.levelname} {_component(record)}: {_printable(_message(record))}"


class JsonFormatter(logging.Formatter):
    """One JSON object an entry: ts, level, component, message."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one entry on one line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        entry = {
            "ts": moment,
            "level": record.levelname.lower(),
            "component": _component(record),
            "message": _message(record),
        }
        return json.dumps(entry)


def set_up_logs(level: str, format_: str, stream: TextIO = sys.stderr) -> None:
    """Send Keytrail's log to a stream. Libraries' logs are kept out below warning: they know no redaction."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if format_ == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("keytrail").setLevel(level.upper())


def _component(record: logging.LogRecord) -> str:
    return record.name.removeprefix("keytrail.")


def _message(record: logging.LogRecord) -> str:
    message = record.getMessage()
    if record.exc_info and record.exc_info[0] is not None:
        # The text of an exception may quote what it failed on, and a traceback shows source lines: the type is enough.
        message += f" ({record.exc_info[0].__name__})"
    return message


def _printable(text: str) -> str:
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in text
    )
