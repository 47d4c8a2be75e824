"""From settings to outputs: which records go where, and who counts them."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from keytrail.choices import Output
from keytrail.domain.errors import ExportError
from keytrail.domain.gap import Gap
from keytrail.export.console import LineOutput, SortedOutput
from keytrail.export.finding_line import finding_line
from keytrail.export.gap_line import gap_line
from keytrail.export.json_line import event_line
from keytrail.export.terminal_line import resolve_color, terminal_line
from keytrail.observe.accounting import Accounting
from keytrail.records import Outputs
from keytrail.settings import Settings

if TYPE_CHECKING:
    from keytrail.delivery import Delivery


def open_outputs(
    settings: Settings,
    accounting: Accounting,
    environ: Mapping[str, str],
    *,
    by_time: bool = False,
    on_loss: Callable[[Gap], None] = lambda _: None,
) -> Outputs:
    """Open every output that the settings name; the collector starts them. Raises UsageError.

    `environ` holds the OTEL_ variables, which say where records go and how. `by_time`: the source is a recording, whose
    findings are written at the end, earliest first. `on_loss` hears, from another thread, of stored records that were
    lost.
    """
    made = _Made()
    if Output.OTLP in settings.output:
        from keytrail.delivery import Delivery  # encoder, spool and sender weigh 3 MB

        made.delivery = Delivery(settings, accounting, environ, patient=by_time, on_loss=on_loss)
        made.events += made.delivery.events()
        made.findings += made.delivery.findings()
        made.gaps += made.delivery.gaps()
    for name in settings.output:
        if name is Output.FINDINGS:
            lines = _lines(accounting, finding_line)
            made.findings.append(SortedOutput(lines) if by_time else lines)
            made.gaps.append(_lines(accounting, gap_line))
        elif name is Output.LINE:
            color = resolve_color(settings.color, sys.stdout, environ)
            made.events.append(_lines(accounting, partial(terminal_line, color=color)))
        elif name is Output.JSON:
            made.events.append(_lines(accounting, event_line))
    return Outputs(tuple(made.events), tuple(made.findings), tuple(made.gaps), made.delivery)


def _lines(accounting: Accounting, format_record: Callable[[Any], str]) -> LineOutput[Any]:
    return LineOutput(sys.stdout, format_record, on_exported=accounting.on_exported, on_dropped=accounting.on_dropped)


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
    gaps: list[Any] = field(default_factory=list)
    delivery: "Delivery | None" = None
