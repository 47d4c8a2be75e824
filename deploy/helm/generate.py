"""`python deploy/helm/generate.py`: what of the chart is made from something else. Tests compare.

In flow values.yaml with its comments, the collector's settings and deploy/crds; out flow values.schema.json, which is
closed, the tables of README.md, and the chart's copies of the definitions. Knows nothing of templates.
"""  # noqa: INP001 - a script beside the chart, no package

import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from keytrail.domain.shape import ShapeField, fields_of
from keytrail.settings import Settings

HERE = Path(__file__).parent
CHART = HERE / "keytrail"
CRDS = HERE.parent / "crds"
MARK = "<!-- Made by deploy/helm/generate.py from values.yaml; do not edit below. -->\n"
SET_BY_THE_CHART = frozenset(
    {
        "agent_address", "agent_metrics_address", "backfill_file", "cluster_ranges", "fingerprints_file",
        "http_address", "kubeconfig", "kubeconfig_context", "kubernetes", "log_format", "log_level", "node_name",
        "otlp_records", "output", "peers", "requests_in_flight", "rules", "spool_age_hours", "spool_bytes", "state_dir",
    }
)  # fmt: skip
"""Settings that have a value of the chart of their own, or that follow from being in a pod."""
_DRAFT = "http://json-schema.org/draft-07/schema#"
_TYPES = {str: "string", bool: "boolean", int: "integer", dict: "object", list: "array"}
_SETTING_TYPES = {bool: "boolean", int: "integer", float: "number"}


@dataclass(frozen=True)
class Value:
    """One value of the chart, or a group of them."""

    path: tuple[str, ...]
    default: Any
    text: str
    """What its comment says."""
    constraints: Mapping[str, Any]
    """What the line `schema:` in its comment says. `open: true`: a mapping of Kubernetes', with keys of any name."""
    inner: tuple["Value", ...] = ()


def values(path: Path = CHART / "values.yaml") -> tuple[Value, ...]:
    """Return all values of a chart, in the file's order."""
    text = path.read_text()
    node = yaml.compose(text)
    return tuple(_values(node, yaml.safe_load(text), text.splitlines(), ()))


def _values(node: Any, data: Any, lines: list[str], path: tuple[str, ...]) -> Iterator[Value]:
    for key, value in node.value:
        said = _comment(lines, key.start_mark.line)
        constraints: dict[str, Any] = {}
        for line in said:
            constraints |= yaml.safe_load(line)["schema"] if line.startswith("schema: ") else {}
        text = " ".join(line for line in said if not line.startswith("schema: "))
        name, default = (*path, key.value), data[key.value]
        grouped = isinstance(value, yaml.MappingNode) and default and not constraints.get("open")
        inner = tuple(_values(value, default, lines, name)) if grouped else ()
        yield Value(name, default, text, constraints, inner)


def _comment(lines: list[str], at: int) -> list[str]:
    """Return the comment that stands directly above a line."""
    first = at
    while first and lines[first - 1].lstrip().startswith("# "):
        first -= 1
    return [line.lstrip()[2:] for line in lines[first:at]]


def schema() -> dict[str, Any]:
    """Return the schema of values.yaml: no key beyond it is taken. Helm adds `global` by itself."""
    made = _object(values())
    made["properties"]["global"] = {"type": "object"}
    made["properties"]["collector"]["properties"]["settings"] |= _settings()
    return {"$schema": _DRAFT, **made}


def _object(inner: tuple[Value, ...]) -> dict[str, Any]:
    properties = {value.path[-1]: _schema(value) for value in inner}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _schema(value: Value) -> dict[str, Any]:
    found = _object(value.inner) if value.inner else {"type": _TYPES[type(value.default)]}
    given = {name: one for name, one in value.constraints.items() if name != "open"}
    return {**({"description": value.text} if value.text else {}), **found, **given}


def _settings() -> dict[str, Any]:
    """Return what `collector.settings` takes: the collector's settings but those that the chart sets."""
    properties = {one.name: _setting(one) for one in fields_of(Settings) if one.name not in SET_BY_THE_CHART}
    return {"additionalProperties": False, "properties": properties}


def _setting(field: ShapeField) -> dict[str, Any]:
    """Return name and type alone: the collector itself checks the rest, and says what is wrong in better words."""
    inner = typing.get_args(field.type)[0] if isinstance(field.type, types.UnionType) else field.type
    type_ = "array" if typing.get_origin(inner) is tuple else _SETTING_TYPES.get(inner, "string")
    return {"description": field.doc.description, "type": type_}


def readme() -> str:
    """Return README.md: what people wrote, and below the mark a table for each group of values."""
    head = (CHART / "README.md").read_text().partition(MARK)[0]
    found = values()
    tables = [_table("## Values", tuple(value for value in found if not value.inner))]
    tables += [_table(f"### {value.path[0]}\n\n{value.text}", tuple(_leaves(value))) for value in found if value.inner]
    return f"{head}{MARK}\n{chr(10).join(tables)}"


def _leaves(value: Value) -> Iterator[Value]:
    if not value.inner:
        yield value
    for one in value.inner:
        yield from _leaves(one)


def _table(title: str, rows: tuple[Value, ...]) -> str:
    lines = [f"{title}\n", "| value | default | meaning |", "| --- | --- | --- |"]
    for row in rows:
        allowed = row.constraints.get("enum")
        text = row.text + (f" One of {', '.join(f'`{one}`' for one in allowed if one)}." if allowed else "")
        lines.append(f"| `{'.'.join(row.path)}` | `{json.dumps(row.default)}` | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def made() -> dict[Path, str]:
    """Return every file that is made, with what is to be in it."""
    definitions = {CHART / "files" / "crds" / file.name: file.read_text() for file in sorted(CRDS.glob("*.yaml"))}
    return {
        **definitions,
        CHART / "values.schema.json": json.dumps(schema(), indent=2) + "\n",
        CHART / "README.md": readme(),
    }


if __name__ == "__main__":
    for path, content in made().items():
        path.write_text(content)
