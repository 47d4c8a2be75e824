"""The CustomResourceDefinitions: all that the shapes say is in them, and the files are what the shapes give today."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import pytest
import yaml

from keytrail.domain import crds, resources
from keytrail.domain.crds import Kind, crd_of
from keytrail.domain.schema import ANY, VALIDATIONS, Schema, plain
from keytrail.domain.shape import ShapeField, camel_case, fields_of, read

FILES = Path(__file__).parents[2] / "deploy" / "crds"
MESSAGE = 2048
"""What the API server takes as the message of a rule."""


def root(kind: Kind) -> Schema:
    """Return the schema of whole objects of a kind."""
    schema: Schema = crd_of(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def parts(schema: Schema) -> Iterator[Schema]:
    """Yield a schema and all below it."""
    yield schema
    inner = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    for one in filter(None, inner):
        yield from parts(one)


def documented(cls: type, schema: Schema, where: str) -> Iterator[tuple[str, ShapeField, Schema]]:
    """Yield each field of a shape and of those below it, with its schema."""
    for field in fields_of(cls):
        found = schema["properties"][field.name]
        yield f"{where}.{field.name}", field, found
        inner = get_args(field.type)[0] if get_args(field.type) else field.type
        if isinstance(inner, type) and hasattr(inner, "__dataclass_fields__"):
            yield from documented(inner, found.get("items", found), f"{where}.{field.name}")


def every_field() -> Iterator[tuple[str, ShapeField, Schema]]:
    """Yield the fields of all kinds, of what is wanted and of what is."""
    for kind in crds.KINDS:
        schema = root(kind)
        for field in fields_of(kind.shape):
            if field.name == "spec":
                yield f"{kind.name}.spec", field, schema["properties"]["spec"]
                yield from documented(field.type, schema["properties"]["spec"], f"{kind.name}.spec")
        yield from documented(kind.status, schema["properties"]["status"], f"{kind.name}.status")


EVERY_FIELD = list(every_field())


def test_every_kind_has_a_definition() -> None:
    """What a folder may hold a cluster may hold, too; CollectorStatus is what only a cluster has."""
    assert {kind.name for kind in crds.KINDS} == {*resources.KINDS, "CollectorStatus"}
    assert [kind.name for kind in crds.KINDS if kind.namespaced] == ["IdentityMapping"]


@pytest.mark.parametrize(("where", "field", "schema"), EVERY_FIELD, ids=[where for where, _, _ in EVERY_FIELD])
def test_field(where: str, field: ShapeField, schema: Schema) -> None:
    """A field's description, default, example and each of its bounds are in the schema."""
    doc, description = field.doc, schema["description"]
    assert description.startswith(doc.description)
    assert "Example: " in description
    assert doc.expected in description
    plural = get_args(field.type) and NoneType not in get_args(field.type)
    values: Schema = schema.get("items") or schema.get("additionalProperties") or schema if plural else schema
    said = {
        "minLength": doc.min_length if values.get("type") == "string" and "enum" not in values else None,
        "maxLength": doc.max_length,
        "minimum": doc.minimum,
        "maximum": doc.maximum,
    }
    assert {name: values.get(name) for name, bound in said.items() if bound} == {
        name: bound for name, bound in said.items() if bound
    }
    limit = "maxProperties" if get_origin(field.type) is Mapping else "maxItems"
    assert schema.get(limit) == doc.max_items
    assert schema.get("minItems", 0) == doc.min_items
    assert schema.get("x-kubernetes-list-map-keys") == ([doc.key] if doc.key else None)
    if "default" in schema:
        assert schema["default"] == plain(field.default)
        assert f"Default: {field.default}" in description or isinstance(field.default, tuple)
        assert ".status." not in where


def test_every_pattern_and_format_is_a_rule() -> None:
    """Each pattern is checked by the API server word for word, in whichever place its rule stands."""
    for kind in crds.KINDS:
        rules = [rule["rule"] for part in parts(root(kind)) for rule in part.get(VALIDATIONS, [])]
        for where, field, _ in EVERY_FIELD:
            if where.startswith(f"{kind.name}.") and field.doc.pattern:
                literal = field.doc.pattern.replace("\\", "\\\\")
                assert any(literal in rule for rule in rules), where


def test_only_the_identity_may_not_change() -> None:
    """The one field that is documented as immutable is the one that a rule of whole objects keeps."""
    fixed = [where for where, field, _ in EVERY_FIELD if field.doc.immutable]
    assert fixed == ["IdentityMapping.spec.identity.id", "ClusterIdentityMapping.spec.identity.id"]
    for kind in crds.KINDS[:2]:
        (rule,) = root(kind)[VALIDATIONS]
        assert "oldSelf" in rule["rule"]
        assert rule["fieldPath"] == ".spec.identity.id"


@pytest.mark.parametrize("kind", crds.KINDS, ids=lambda kind: kind.name)
def test_schema_is_structural_and_bounded(kind: Kind) -> None:
    """Every value has a type or is said to be anything; every text, list and map of the user has a bound."""
    for part in parts(root(kind)):
        assert part.get("type") or part[ANY]
        assert part.get("type") != "string" or "enum" in part or part["maxLength"]
        assert part.get("type") != "array" or part["maxItems"]
        assert "additionalProperties" not in part or part["maxProperties"]
        for rule in part.get(VALIDATIONS, []):
            assert "\n" not in rule["message"]
            assert len(rule["message"]) <= MESSAGE
            names = rule.get("fieldPath", "").split(".")[1:]
            inner = part
            for name in names:
                inner = inner["properties"][name]


def test_namespaces() -> None:
    """A cluster-wide mapping has to say each namespace, a namespaced one may not say any."""
    for kind, required in ((crds.KINDS[0], False), (crds.KINDS[1], True)):
        naming = [part for part in parts(root(kind)) if {"namespace", "name"} <= set(part.get("properties", {}))]
        assert len(naming) == 3
        for part in naming:
            assert ("namespace" in part["required"]) is required
            forbidding = [rule for rule in part[VALIDATIONS] if rule.get("reason") == "FieldValueForbidden"]
            assert len(forbidding) == (not required)


def test_columns_and_selectable_fields_exist() -> None:
    """Each path that kubectl prints or selects by leads to a field of the schema."""
    for kind in crds.KINDS:
        paths = [column.path for column in kind.columns] + list(kind.selectable)
        for path in paths:
            schema = root(kind)
            for name in path.partition("[")[0].split(".")[1:]:
                if name == "metadata":
                    break
                schema = schema["properties"][name]


def test_status_of_a_collector_is_read_back() -> None:
    """A status as a collector writes it is one to its own shape, and a wrong one says what is wrong."""
    state = next(kind for kind in crds.KINDS if kind.name == "CollectorStatus").status
    given: dict[str, Any] = {field.name: plain(field.doc.example) for field in fields_of(state)}
    assert read(state, given)[1] == []
    given["heartbeatTime"] = "yesterday"
    (fault,) = read(state, given)[1]
    assert fault.message == "expected a time such as 2026-11-22T14:06:35Z, found 'yesterday': it is none"
    assert camel_case("heartbeat_time") == "heartbeatTime"


@pytest.mark.parametrize("kind", crds.KINDS, ids=lambda kind: kind.name)
def test_file_is_current(kind: Kind, tmp_path: Path) -> None:
    """The files of the repository are what the shapes give today, and YAML reads them back as that."""
    crds.write(tmp_path)
    name = f"{kind.plural}.yaml"
    text = (tmp_path / name).read_text()
    assert yaml.safe_load(text) == crd_of(kind)
    assert (FILES / name).read_text() == text, "run `python -m keytrail.domain.crds deploy/crds`"


def test_no_other_file() -> None:
    """A kind that is gone leaves no definition behind."""
    assert sorted(path.name for path in FILES.iterdir()) == sorted(f"{kind.plural}.yaml" for kind in crds.KINDS)
