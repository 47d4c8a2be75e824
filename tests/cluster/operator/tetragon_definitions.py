"""Tetragon's resource definitions, made from the table of their fields: what a cluster with Tetragon has."""

import csv
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[2] / "corpus" / "tetragon-tracingpolicy-fields.csv"
_NUMBERS = {"minimum": "minimum", "maximum": "maximum", "max_items": "maxItems"}
_NAMES = {
    "TracingPolicy": ("tracingpolicies", "Cluster"),
    "TracingPolicyNamespaced": ("tracingpoliciesnamespaced", "Namespaced"),
}


def definitions() -> list[dict[str, Any]]:
    """Return the definitions of both kinds of policy."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "TracingPolicy"]
    schema: dict[str, Any] = {"type": "object"}
    for row in rows:
        node, parent = schema, {}
        name = ""
        for name in _steps(row["path"]):
            parent, node = node, _inner(node, name)
        node.update(_facts(row))
        if row["required"] == "yes" and name not in {"[]", "*", ""}:
            parent.setdefault("required", []).append(name)
    for name in ("apiVersion", "kind", "metadata"):  # the API server's own
        schema["properties"].pop(name, None)
    schema["required"] = ["spec"]
    return [_definition(kind, plural, scope, schema) for kind, (plural, scope) in _NAMES.items()]


def _steps(path: str) -> list[str]:
    return [step for step in path.replace("[]", ".[]").split(".") if step]


def _inner(node: dict[str, Any], name: str) -> dict[str, Any]:
    if name == "[]":
        return node.setdefault("items", {})
    if name == "*":
        return node.setdefault("additionalProperties", {})
    return node.setdefault("properties", {}).setdefault(name, {})


def _facts(row: dict[str, str]) -> dict[str, Any]:
    facts: dict[str, Any] = {"type": row["type"]}
    if row["enum"]:
        facts["enum"] = row["enum"].split("|")
    if row["default"]:
        facts["default"] = {"True": True, "False": False}.get(row["default"], row["default"])
    for name in ("format", "pattern"):
        if row[name]:
            facts[name] = row[name]
    return facts | {new: int(row[old]) for old, new in _NUMBERS.items() if row[old]}


def _definition(kind: str, plural: str, scope: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.cilium.io"},
        "spec": {
            "group": "cilium.io",
            "scope": scope,
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "versions": [{"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }
