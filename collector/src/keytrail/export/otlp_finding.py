"""Findings as OTLP log records, in bytes.

A finding comes in; out come the bytes of a `LogRecord` with everything that the record of its event has, and the rule's
own attributes. How records are grouped and sent is the same as for events: `otlp_encode`, `otlp_output`.
"""

# ruff: noqa: E501 - tables, read row by row

from collections.abc import Mapping
from typing import Final

from keytrail.domain.event import Event
from keytrail.domain.finding import Finding
from keytrail.domain.rules import Severity
from keytrail.export.attributes import Group
from keytrail.export.otlp_encode import RecordEncoder, head
from keytrail.export.otlp_known import ResourceKey
from keytrail.export.otlp_table import Table
from keytrail.export.record_uid import event_digest, finding_digest
from keytrail.export.spool.entries import Lane
from keytrail.export.terminal_line import process_text, target_text

_NUMBERS: Final[Mapping[Severity, int]] = {
    Severity.INFO: 9,
    Severity.LOW: 10,
    Severity.MEDIUM: 13,
    Severity.HIGH: 17,
    Severity.CRITICAL: 21,
}
"""SeverityNumber: INFO, INFO2, WARN, ERROR, FATAL."""
_HEAD: Final = {severity: head(number, severity.value.upper(), "finding") for severity, number in _NUMBERS.items()}


def _step_text(event: Event) -> str:
    target = target_text(event)
    return f"{event.kind} {process_text(event.process)}{' ' if target else ''}{target}"


FINDING: Final = Group[Finding](
    "Finding",
    "record",
    (
        ("security_rule.name", "string", "The rule.", lambda f: f.rule.name),
        ("security_rule.description", "string", "The rule's title.", lambda f: f.rule.spec.title),
        ("security_rule.category", "string", "How much the rule has been proven: `stable`, `incubating`, `sandbox`.", lambda f: f.rule.spec.maturity.value),
        ("security_rule.reference", "string", "Page to read on.", lambda f: next(iter(f.rule.spec.references), None)),
        ("security_rule.ruleset.name", "string", "Always `keytrail`.", lambda _: "keytrail"),
        ("security_rule.version", "string", "Digest of what the rule decides by.", lambda f: f.version),
        ("keytrail.threat.tactic.id", "string[]", "MITRE ATT&CK tactics.", lambda f: tuple(dict.fromkeys(m.tactic for m in f.rule.spec.mitre))),
        ("keytrail.threat.technique.id", "string[]", "MITRE ATT&CK techniques.", lambda f: tuple(dict.fromkeys(m.technique for m in f.rule.spec.mitre))),
        ("keytrail.process.ancestors", "string[]", "Binaries of the process's ancestors, parent first.", lambda f: tuple(a.binary for a in f.event.ancestors())),
        ("keytrail.finding.steps", "string[]", "Earlier steps of a sequence, in order.", lambda f: tuple(map(_step_text, f.steps))),
        ("keytrail.finding.count", "int", "Events, or distinct values, that reached the rule's threshold.", lambda f: f.count or None),
        ("keytrail.suppressed_count", "int", "Repeats that this summary stands for.", lambda f: f.suppressed or None),
    ),
)  # fmt: skip
_FINDING: Final = Table(FINDING)


_LANES: Final = {severity: Lane[severity.name] for severity in Severity}


def finding_lane(finding: Finding) -> Lane:
    """Return the lane of a finding, by its severity: when room must be made, the least severe go first."""
    return _LANES[finding.severity]


class FindingEncoder:
    """Makes records of findings, with the memories of an encoder of events. For that encoder's thread."""

    def __init__(self, events: RecordEncoder) -> None:
        self._events = events

    def encode(self, finding: Finding) -> tuple[ResourceKey, bytes]:
        """One LogRecord message, and the key of the resource that it belongs to."""
        events, event = self._events, finding.event
        known, hook, tid = events.known(event), events.hook(event), event.tid
        uid = finding_digest(finding, event_digest(event, known.uid, tid, hook.call))
        start = _HEAD[finding.severity] + _FINDING.text(finding)
        return known.resource, events.record(event, known, hook, tid, start, finding.time_ns, finding.message, uid)
