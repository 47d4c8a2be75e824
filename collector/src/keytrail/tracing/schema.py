"""The TracingPolicy resource's schema: plain data in, what is wrong with its shape out.

`schema.json` holds the types, enumerations, limits and required fields of the agent's own resource definition (1.7 and
the main branch behind it), as `schema_source` compacts them. This knows nothing of what a hook or selector means: that
is `hooks` and `matching`, which judge only what has the right shape.
"""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import re2

from keytrail.domain.shape import Fault, FieldPath, described, dotted, quoted, suggestion

_FILE = Path(__file__).with_name("schema.json")
_ITEM, _ANY = "[]", "*"
"""Names by which a list's items, and the values of a mapping with free keys, stand among the children."""

_METADATA = frozenset({
    "name", "generateName", "namespace", "labels", "annotations", "uid", "resourceVersion", "generation", "selfLink",
    "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences", "finalizers",
    "managedFields",
})  # fmt: skip
"""Kubernetes' ObjectMeta: resource definitions leave it open, the agent does not."""

_EXPECTED = {
    "object": (dict, "a mapping"),
    "array": (list, "a list"),
    "string": (str, "text"),
    "integer": (int, "a whole number"),
    "boolean": (bool, "true or false"),
}


@dataclass(frozen=True, slots=True)
class Node:
    """One field of the resource."""

    type: str
    required: bool = False
    enum: tuple[str, ...] = ()
    max_items: int | None = None
    minimum: int | None = None
    pattern: str = ""
    since: str = ""
    """`>1.4` for what agents of that release do not know; empty for what all supported ones do."""
    children: dict[str, "Node"] = field(default_factory=dict)


@functools.cache
def resource() -> Node:
    """Return the schema of a whole manifest."""
    stored = json.loads(_FILE.read_text("utf-8"))
    made: list[Node] = []
    for entry in stored["nodes"]:  # children stand before their parents
        made.append(
            Node(
                entry["type"],
                entry.get("required", False),
                tuple(entry.get("enum", ())),
                entry.get("maxItems"),
                entry.get("minimum"),
                entry.get("pattern", ""),
                entry.get("since", ""),
                {name: made[number] for name, number in entry.get("children", {}).items()},
            )
        )
    root: int = stored["root"]
    return made[root]


def shape_faults(data: object) -> list[Fault]:
    """Return everything in a manifest that the resource definition does not allow."""
    faults = list(_faults(resource(), data, ()))
    metadata = data.get("metadata") if isinstance(data, dict) else None
    if isinstance(metadata, dict):
        faults += _unknown(metadata, sorted(_METADATA), ("metadata",))
    return faults


def newer_fields(data: object) -> list[str]:
    """Return the fields in use that an agent 1.4 refuses as unknown; of nested ones the outermost."""
    return [dotted(path) for path in _newer(resource(), data, ())]


def _newer(node: Node, data: object, path: FieldPath) -> Iterator[FieldPath]:
    for name, child, value, inner in _inner(node, data, path):
        if child.since and name is not None:
            yield inner
        else:
            yield from _newer(child, value, inner)


def _inner(node: Node, data: object, path: FieldPath) -> Iterator[tuple[str | None, Node, object, FieldPath]]:
    """Yield each known field or item inside a value: its name (None for items), schema, value and path."""
    if isinstance(data, dict):
        free = node.children.get(_ANY)
        for name, value in data.items():
            child = node.children.get(name, free)
            if child is not None and value is not None:
                yield (name if name in node.children else None), child, value, (*path, name)
    elif isinstance(data, list) and _ITEM in node.children:
        for index, value in enumerate(data):
            yield None, node.children[_ITEM], value, (*path, index)


def _faults(node: Node, data: object, path: FieldPath) -> Iterator[Fault]:
    expected, words = _EXPECTED[node.type]
    # A boolean is a kind of int to Python, not to the API server.
    if not isinstance(data, expected) or (node.type == "integer" and isinstance(data, bool)):
        yield Fault(path, f"expected {words}, found {described(data)}", wants_text=node.type == "string")
        return
    message = _value_fault(node, data)
    if message:
        yield Fault(path, message)
    if isinstance(data, dict) and node.children:
        if _ANY not in node.children:
            yield from _unknown(data, list(node.children), path)
        for name, child in node.children.items():
            if child.required and data.get(name) is None:
                yield Fault((*path, name), "is required")
    for _, child, value, where in _inner(node, data, path):
        yield from _faults(child, value, where)


def _value_fault(node: Node, data: Any) -> str:
    if node.enum and data not in node.enum:
        return f"unknown value {quoted(data)}, {suggestion(data, node.enum)}"
    if node.max_items is not None and len(data) > node.max_items:
        return f"expected at most {node.max_items} {'item' if node.max_items == 1 else 'items'}, found {len(data)}"
    if node.minimum is not None and data < node.minimum:
        return f"expected {node.minimum} or more, found {data}"
    if node.pattern and not re2.fullmatch(node.pattern, data):
        return f"expected a label's value, found {quoted(data)}"
    return ""


def _unknown(data: dict[str, Any], known: list[str], path: FieldPath) -> Iterator[Fault]:
    for name in data:
        if name not in known:
            yield Fault((*path, name), f"unknown field, {suggestion(name, known)}")
