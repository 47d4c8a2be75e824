"""All attributes of all records: their names and types, and the tables of them in docs/telemetry.md.

In flow the declarations of events, findings and gaps, out goes text. It writes no record.
`python -m keytrail.export.attributes_page docs/telemetry.md` renews the documentation.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from keytrail.export.attributes import COLLECTOR, EVENT_GROUPS, RECORD, RESOURCE_GROUPS, Group
from keytrail.export.otlp_finding import FINDING
from keytrail.export.otlp_gap import GAP
from keytrail.export.otlp_wire import ValueType

_GROUPS: Final[tuple[Group[Any], ...]] = (*RESOURCE_GROUPS, *EVENT_GROUPS, FINDING, GAP)
_BEGIN, _END = "<!-- attributes: begin -->", "<!-- attributes: end -->"


def declared() -> dict[str, ValueType]:
    """Names and types of all attributes."""
    named: dict[str, ValueType] = {name: "string" for name, _ in (*COLLECTOR, *RECORD)}
    return named | {name: type_ for group in _GROUPS for name, type_, _, _ in group.rows}


def markdown() -> str:
    """All attributes as the tables of docs/telemetry.md."""
    return "\n".join(
        (
            _table("Collector", "resource", [(name, "string", meaning) for name, meaning in COLLECTOR]),
            _table("Record", "record", [(name, "string", meaning) for name, meaning in RECORD]),
            *(_table(one.title, one.where, [row[:3] for row in one.rows]) for one in _GROUPS),
        )
    )


def renewed(document: str) -> str:
    """Make the tables between the document's two marks anew."""
    before, _, rest = document.partition(_BEGIN)
    return f"{before}{_BEGIN}\n{markdown()}{_END}{rest.partition(_END)[2]}"


def _table(title: str, where: str, rows: Iterable[tuple[str, str, str]]) -> str:
    head = f"### {title} ({where})\n\n| attribute | type | meaning |\n| --- | --- | --- |\n"
    return head + "".join(f"| `{name}` | {type_} | {meaning} |\n" for name, type_, meaning in rows)


if __name__ == "__main__":
    (path := Path(sys.argv[1])).write_text(renewed(path.read_text("utf-8")), "utf-8")
