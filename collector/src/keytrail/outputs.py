"""From settings to outputs: which records go where, and who counts them."""

import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from keytrail import __version__
from keytrail.choices import OtlpRecords, Output
from keytrail.domain.errors import ExportError
from keytrail.export.console import LineOutput, SortedOutput
from keytrail.export.finding_line import finding_line
from keytrail.export.json_line import event_line
from keytrail.export.otlp_encode import RecordEncoder
from keytrail.export.otlp_finding import FindingEncoder
from keytrail.export.otlp_output import OtlpOutput
from keytrail.export.otlp_sender import OtlpSender
from keytrail.export.otlp_settings import otlp_settings
from keytrail.export.terminal_line import resolve_color, terminal_line
from keytrail.observe.accounting import Accounting
from keytrail.pipeline import Outputs
from keytrail.settings import Settings


def open_outputs(
    settings: Settings, accounting: Accounting, environ: Mapping[str, str], *, by_time: bool = False
) -> Outputs:
    """Open every output that the settings name. Raises SettingsError before anything is started.

    `environ` holds the OTEL_ variables, which say where records go and how. `by_time`: findings are written at the
    end, earliest first, as suits a recording.
    """
    made = _Made()
    for name in settings.output:
        if name is Output.OTLP:
            opened = open_otlp(accounting, environ, settings.otlp_records)
            made.events += opened.events
            made.findings += opened.findings
        elif name is Output.FINDINGS:
            lines = LineOutput(
                sys.stdout, finding_line, on_exported=accounting.on_exported, on_dropped=accounting.on_dropped
            )
            made.findings.append(SortedOutput(lines) if by_time else lines)
        elif name is Output.LINE:
            color = resolve_color(settings.color, sys.stdout, environ)
            made.events.append(
                LineOutput(
                    sys.stdout,
                    partial(terminal_line, color=color),
                    on_exported=accounting.on_exported,
                    on_dropped=accounting.on_dropped,
                )
            )
        else:
            made.events.append(
                LineOutput(sys.stdout, event_line, on_exported=accounting.on_exported, on_dropped=accounting.on_dropped)
            )
    return Outputs(tuple(made.events), tuple(made.findings))


def open_otlp(accounting: Accounting, environ: Mapping[str, str], records: tuple[OtlpRecords, ...]) -> Outputs:
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
    encoder = RecordEncoder(resource, time.time_ns)
    made = _Made()
    if OtlpRecords.EVENTS in records:
        made.events.append(OtlpOutput(encoder.encode, encoder.resource_logs, sender))
    if OtlpRecords.FINDINGS in records:
        made.findings.append(OtlpOutput(FindingEncoder(encoder).encode, encoder.resource_logs, sender))
    return Outputs(tuple(made.events), tuple(made.findings))


def reader_left(outputs: Outputs) -> bool:
    """Whether nobody reads what is written any more, as after `| head`."""
    opened = [*outputs.events, *outputs.findings]
    return bool(opened) and all(getattr(output, "closed", False) for output in opened)


def check_written(outputs: Outputs) -> None:
    """Raise ExportError when writing to standard output failed, as on a full disk; a reader that left is no failure."""
    for output in (*outputs.events, *outputs.findings):
        failure = getattr(output, "failure", "")
        if failure:
            raise ExportError(f"standard output: {failure}")


@dataclass(slots=True)
class _Made:
    events: list[Any] = field(default_factory=list)
    findings: list[Any] = field(default_factory=list)
