"""Pointing at what a window of a recording shows: statements in, the records and fields that show them out.

Records are what users get: the lines of `--output json` and of `--output findings`, with every rule on. A statement is
tied to them by what is sought (a kind of line with certain fields, so many times or never) or by how lines relate.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from keytrail.domain.event import Event
from keytrail.domain.rules import Severity
from keytrail.export.finding_line import finding_line
from keytrail.export.json_line import event_line
from keytrail.export.otlp_encode import RecordEncoder
from rules.report import attributed, library_findings, windows_of

Form = Literal["event", "finding"]
_SEVERITIES = [severity.value for severity in sorted(Severity, key=lambda one: one.rank)]


@dataclass(frozen=True)
class Record:
    """One line of output."""

    form: Form
    name: str
    """The rule, or what happened: `process_exec`, `kprobe:tcp_connect`, `exit`."""
    fields: Mapping[str, Any]
    """The line's, nested ones by their dotted names."""
    source: Event = field(repr=False, compare=False)

    @property
    def thread(self) -> int:
        """Thread that acted, which only OTLP records carry."""
        _, encoded = RecordEncoder({}, lambda: 0).encode(self.source)
        attributes = {one.key: one.value.int_value for one in LogRecord.FromString(encoded).attributes}
        return attributes["keytrail.event.thread_id"]


@dataclass(frozen=True)
class Pointer:
    """One record, and the fields in it that show what was stated."""

    record: Record
    names: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(f"{name}={self.record.fields.get(name)}" for name in self.names)
        return f"{self.record.fields['ts']} {self.record.form} {self.record.name} {shown}"[:160]


Find = Callable[[list[Record]], list[Pointer]]


@dataclass(frozen=True)
class Sought:
    """Records of one name whose fields have these values; patterns are searched for."""

    form: Form
    name: str
    fields: Mapping[str, Any]
    least: int = 1
    most: int = 1_000_000

    def __call__(self, records: list[Record]) -> list[Pointer]:
        """Point at them. Raises AssertionError when there are too few or too many."""
        found = [Pointer(one, tuple(self.fields)) for one in records if self._is(one)]
        assert self.least <= len(found) <= self.most, (len(found), self)
        return found

    def _is(self, record: Record) -> bool:
        named = record.form == self.form and self.name in {record.name, "*"}
        return named and all(_agrees(record.fields.get(name), wanted) for name, wanted in self.fields.items())


def _agrees(value: Any, wanted: Any) -> bool:
    return bool(wanted.search(str(value))) if isinstance(wanted, re.Pattern) else value == wanted


def event(name: str, fields: Mapping[str, Any], *, least: int = 1) -> Sought:
    """An event line."""
    return Sought("event", name, fields, least)


def finding(rule: str, fields: Mapping[str, Any] | None = None, *, least: int = 1) -> Sought:
    """A finding line."""
    return Sought("finding", rule, {"message": re.compile("")} if fields is None else fields, least)


def never(sought: Sought) -> Sought:
    """No such line."""
    return Sought(sought.form, sought.name, sought.fields, 0, 0)


def quiet(most: str) -> Sought:
    """No finding above a severity."""
    louder = "|".join(_SEVERITIES[_SEVERITIES.index(most) + 1 :])
    return never(Sought("finding", "*", {"severity": re.compile(f"^({louder})$")}))


def flat(line: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """`{"file": {"path": ...}}` as `{"file.path": ...}`."""
    found: dict[str, Any] = {}
    for name, value in line.items():
        found |= flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {before + name: value}
    return found


@cache
def records_by_window(recording: str) -> dict[str, list[Record]]:
    """Every line of each window, findings behind events; without those of the markers that open and close it."""
    found: dict[str, list[Record]] = {}
    spans = list(windows_of(recording))
    findings = library_findings(recording)
    for name, first, last in spans:
        events = (event for place, event in attributed(recording) if first < place < last)
        found[name] = [*map(_event_record, events)]
        found[name] += [_finding_record(finding_line(one), one.event) for one in findings[name]]
    return found


def _event_record(source: Event) -> Record:
    fields = flat(json.loads(event_line(source)))
    return Record("event", fields["kind"] if fields["event"] == "other" else fields["event"], fields, source)


def _finding_record(line: str, source: Event) -> Record:
    fields = flat(json.loads(line))
    return Record("finding", fields["rule"], fields, source)


def events_of(records: Iterable[Record], name: str) -> list[Record]:
    """Event lines of a name, in order."""
    return [one for one in records if one.form == "event" and one.name == name]
