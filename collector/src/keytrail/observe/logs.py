"""Keytrail's own log: one line an entry, no secret, no raw control character.

Messages are written for the person who reads them at night: what happened, what it means, what to do. Text that came
from outside is quoted. What repeats is held back and counted (`log_gate`): a thing that fails a thousand times a second
must not drown the entry that says why.
"""

import json
import logging
import sys
import time
from typing import TextIO

from keytrail.observe.log_gate import LogGate
from keytrail.observe.text import printable

_OWN = "keytrail"


class TextFormatter(logging.Formatter):
    """`2026-11-22T10:00:00Z INFO source: message`, with everything unprintable escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one entry on one line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        return f"{moment} {record.levelname} {printable(_component(record))}: {printable(_message(record))}"


class JsonFormatter(logging.Formatter):
    """One JSON object an entry: ts, level, component, message, logger, thread; `repeats` where some were held back."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one entry on one line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        entry: dict[str, object] = {
            "ts": moment,
            "level": record.levelname.lower(),
            "component": _component(record),
            "message": _message(record),
            "logger": record.name,
            "thread": record.threadName or "",
        }
        if repeats := getattr(record, "repeats", 0):
            entry["repeats"] = repeats
        return json.dumps(entry)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes entries; one that cannot be written is left out."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """The standard handler prints the entry's raw arguments and source lines: they may hold anything."""


def set_up_logs(level: str, format_: str, stream: TextIO = sys.stderr) -> LogGate:
    """Send Keytrail's log to a stream. Libraries' logs are kept out below warning: they know no redaction."""
    gate = LogGate()
    handler = _Handler(stream)
    handler.setFormatter(JsonFormatter() if format_ == "json" else TextFormatter())
    handler.addFilter(gate)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    set_level(level)
    return gate


def set_level(level: str) -> None:
    """Change what is written from now on: debug, info, warning or error."""
    logging.getLogger(_OWN).setLevel(level.upper())


def _component(record: logging.LogRecord) -> str:
    return record.name.removeprefix(f"{_OWN}.")


def _message(record: logging.LogRecord) -> str:
    message = record.getMessage()
    if record.exc_info and record.exc_info[0] is not None:
        # The text of an exception may quote what it failed on, and a traceback shows source lines: the type is enough.
        message += f" ({record.exc_info[0].__name__})"
    if repeats := getattr(record, "repeats", 0):
        message += f" ({repeats} more like this were held back)"
    return message
