"""From the table of the TracingPolicy resource's fields to `schema.json`, which the product reads.

In: a CSV with one row for each field (tests/corpus/tetragon-tracingpolicy-fields.csv). Out: the same facts as a tree
whose equal branches are stored once: a selector's fields stand in the resource eight times. Knows nothing of manifests.

`python -m keytrail.tracing.schema_source tests/corpus/tetragon-tracingpolicy-fields.csv` renews the file.
"""

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).with_name("schema.json")
RESOURCE = "TracingPolicy"
_COLUMNS = {"type": "type", "required": "required", "enum": "enum", "max_items": "maxItems", "minimum": "minimum",
            "pattern": "pattern", "since": "since"}  # fmt: skip
"""Columns that are kept, and their names in `schema.json`."""
OLDEST = "<=1.4"
"""`since` of what the oldest supported agent knows; left out of `schema.json`."""


def rows_of(table: Path) -> list[dict[str, str]]:
    """Return the rows of the resource."""
    with table.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["kind"] == RESOURCE]


def compacted(rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return `{"nodes": [...], "root": N}`; a node names its children by their numbers in `nodes`."""
    tree: dict[str, Any] = {}
    for row in rows:
        node = tree
        for step in _steps(row["path"]):
            node = node.setdefault("children", {}).setdefault(step, {})
        node.update(facts_of(row))
    nodes: list[dict[str, Any]] = []
    numbers: dict[str, int] = {}
    return {"root": _stored(tree, nodes, numbers), "nodes": nodes}


def facts_of(row: Mapping[str, str]) -> dict[str, Any]:
    """Return what is kept of a row. A required field with a default may be left out: the default is put in first."""
    facts = {new: _value(old, row[old]) for old, new in _COLUMNS.items() if row[old] not in ("", OLDEST)}
    if row["default"]:
        facts.pop("required", None)
    return facts


def _stored(node: Mapping[str, Any], nodes: list[dict[str, Any]], numbers: dict[str, int]) -> int:
    children = {name: _stored(child, nodes, numbers) for name, child in node.get("children", {}).items()}
    flat = {**node, "children": children} if children else dict(node)
    text = json.dumps(flat, sort_keys=True)
    if text not in numbers:
        numbers[text] = len(nodes)
        nodes.append(flat)
    return numbers[text]


def _steps(path: str) -> list[str]:
    """`spec.kprobes[].call` -> spec, kprobes, [], call; the resource itself is `.`."""
    return [step for step in path.replace("[]", ".[]").split(".") if step]


def _value(column: str, text: str) -> object:
    if column == "required":
        return text == "yes"
    if column == "enum":
        return text.split("|")
    return int(text) if column in ("max_items", "minimum") else text


def expanded(schema: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every field's path as the table writes it, and its facts: the way back, for comparing."""

    def walk(number: int, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        node = dict(schema["nodes"][number])
        children = node.pop("children", {})
        yield path or ".", node
        for name, child in children.items():
            yield from walk(child, path + name if name == "[]" else f"{path}.{name}".removeprefix("."))

    return walk(schema["root"], "")


def written(schema: Mapping[str, Any]) -> str:
    """Write one node a line, so that a change of the resource reads as one."""
    nodes = ",\n".join(json.dumps(node, separators=(",", ":")) for node in schema["nodes"])
    return f'{{"root":{schema["root"]},"nodes":[\n{nodes}\n]}}\n'


if __name__ == "__main__":
    OUTPUT.write_text(written(compacted(rows_of(Path(sys.argv[1])))), "utf-8")
