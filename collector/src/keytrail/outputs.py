"""From settings to outputs: which records go where, and who counts them."""

import socket
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial

from keytrail import __version__
from keytrail.domain.errors import ExportError
from keytrail.export.console import LineOutput
from keytrail.export.json_line import event_line
from keytrail.export.otlp_encode import RecordEncoder
from keytrail.export.otlp_output import OtlpOutput
from keytrail.export.otlp_sender import OtlpSender
from keytrail.export.otlp_settings import otlp_settings
from keytrail.export.output import Output
from keytrail.export.terminal_line import resolve_color, terminal_line
from keytrail.observe.accounting import Accounting
from keytrail.settings import Settings


def open_outputs(settings: Settings, accounting: Accounting, environ: Mapping[str, str]) -> list[Output]:
    """Open every output that the settings name. Raises SettingsError before anything is started.

    `environ` holds the OTEL_ variables, which say where records go and how.
    """
    return [_open(name, settings, accounting, environ) for name in settings.output]


def reader_left(outputs: Sequence[Output]) -> bool:
    """Whether nobody reads what is written any more, as after `| head`."""
    return bool(outputs) and all(isinstance(output, LineOutput) and output.closed for output in outputs)


def check_written(outputs: Sequence[Output]) -> None:
    """Raise ExportError when writing to standard output failed, as on a full disk; a reader that left is no failure."""
    for output in outputs:
        if isinstance(output, LineOutput) and output.failure:
            raise ExportError(f"standard output: {output.failure}")


def _open(name: str, settings: Settings, accounting: Accounting, environ: Mapping[str, str]) -> Output:
    if name == "otlp":
        return open_otlp(accounting, environ)
    format_event = event_line
    if name == "line":
        color = resolve_color(settings.color, sys.stdout, environ)
        format_event = partial(terminal_line, color=color)
    return LineOutput(sys.stdout, format_event, on_exported=accounting.on_exported, on_dropped=accounting.on_dropped)


def open_otlp(accounting: Accounting, environ: Mapping[str, str]) -> Output:
    """Start the sender to the backend that the OTEL_ variables name. Raises SettingsError when they name none."""
    settings = otlp_settings(environ)
    resource = {
        "service.name": settings.service_name,
        "service.version": __version__,
        "service.instance.id": environ.get("HOSTNAME") or socket.gethostname(),
        **dict(settings.resource_attributes),
    }
    sender = OtlpSender(settings, accounting)
    sender.start()
    return OtlpOutput(RecordEncoder(resource, time.time_ns), sender)
