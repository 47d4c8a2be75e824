"""Keytrail's own log: one line an entry, no secret, no raw control character.

Messages are written for the person who reads them at night: what happened, what it means, what to do. Text that came
from outside is quoted. What repeats is held back and counted (`log_gate`): a thing that fails a thousand times a second
must not drown the entry that says why.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import TextIO

from keytrail.observe.log_gate import LogGate
from keytrail.observe.text import printable

_OWN = "keytrail"


Redact = Callable[[str], str]
"""Text in; the same without credentials out. Given by who sets the log up: this package knows no stage."""


class _Formatter(logging.Formatter):
    def __init__(self, redact: Redact) -> None:
        super().__init__()
        self._redact = redact

    def _message(self, record: logging.LogRecord) -> str:
        message = self._redact(record.getMessage())
        if record.exc_info and record.exc_info[0] is not None:
            # The text of an exception may quote what it failed on, and a traceback shows source lines: the type is
            # enough.
            message += f" ({record.exc_info[0].__name__})"
        if repeats := getattr(record, "repeats", 0):
            message += f" ({repeats} more like this were held back)"
        return message


class TextFormatter(_Formatter):
    """`2026-11-22T10:00:00Z INFO source: message`, with everything unprintable escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one entry on one line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        return f"{moment} {record.levelname} {printable(_component(record))}: {printable(self._message(record))}"


class JsonFormatter(_Formatter):
    """One JSON object an entry: ts, level, component, message, logger, thread; `repeats` where some were held back."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one entry on one line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        entry: dict[str, object] = {
            "ts": moment,
            "level": record.levelname.lower(),
            "component": _component(record),
            "message": self._message(record),
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


def set_up_logs(level: str, format_: str, stream: TextIO = sys.stderr, *, redact: Redact = str) -> LogGate:
    """Send Keytrail's log to a stream, redacted: an entry may quote what a user or a backend wrote by mistake.

    Libraries' logs are kept out below warning.
    """
    gate = LogGate()
    handler = _Handler(stream)
    handler.setFormatter(JsonFormatter(redact) if format_ == "json" else TextFormatter(redact))
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
