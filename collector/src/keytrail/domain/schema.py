"""A shape becomes a structural schema: what the API server checks and `kubectl explain` shows.

In flows a class whose fields carry a `Doc`; out flows an OpenAPI v3 schema as plain data, in the form that a
CustomResourceDefinition takes. Patterns become CEL rules with our words, and those of a field stand on the object
around it: for a `pattern`, or a rule of the field itself, the API server quotes the text that it refuses, and a
credential that was pasted into the wrong field would be in its answer and its audit log. Items of a list are quoted,
for the rule of a whole list could not say which of them it means.

Knows no kind: `keytrail.domain.crds` comes next.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from keytrail.domain.shape import Doc, Rules, ShapeField, fields_of, rules_of

Schema = dict[str, Any]

VALIDATIONS: Final = "x-kubernetes-validations"
ANY: Final = "x-kubernetes-preserve-unknown-fields"
_DATE_TIME: Final = "date-time"


def schema_of(cls: type, *, defaults: bool = True) -> Schema:
    """Return the schema of an object. `defaults`: the API server fills in what was left out."""
    fields = fields_of(cls)
    schema: Schema = {
        "type": "object",
        "description": _first_paragraph(cls),
        "properties": {field.name: _field(field, defaults=defaults) for field in fields},
    }
    if required := [field.name for field in fields if field.default is dataclasses.MISSING]:
        schema["required"] = required
    if validations := [*_counted(rules_of(cls)), *filter(None, map(_text_rule, fields))]:
        schema[VALIDATIONS] = validations
    return schema


def _field(field: ShapeField, *, defaults: bool) -> Schema:
    schema = _value(field.type, field.doc, defaults=defaults)
    default = _default(field)
    schema["description"] = _description(field.doc, default)
    if defaults and default is not None:
        schema["default"] = default
    return schema


def _value(type_: Any, doc: Doc, *, defaults: bool) -> Schema:  # noqa: PLR0911 - one return for each type
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin in {types.UnionType, typing.Union}:
        inner = next(argument for argument in arguments if argument is not types.NoneType)
        return _value(inner, doc, defaults=defaults)
    if origin is tuple:
        return _list(arguments[0], doc, defaults=defaults)
    if origin is not None:
        return _map(arguments[1], doc, defaults=defaults)
    if dataclasses.is_dataclass(type_):
        return schema_of(typing.cast("type", type_), defaults=defaults)
    if issubclass(type_, Enum):
        return {"type": "string", "enum": [str(member.value) for member in type_]}
    if type_ is bool:
        return {"type": "boolean"}
    return _text(doc) if issubclass(type_, str) else _number(type_, doc)


def _list(type_: Any, doc: Doc, *, defaults: bool) -> Schema:
    # An item may be any JSON object, such as an event of a rule's test; the bounds of the list are not the item's.
    items = _anything() if typing.get_origin(type_) is not None else _value(type_, doc, defaults=defaults)
    if type_ is str and (check := _text_check(doc, "self")):
        items[VALIDATIONS] = [check]
    schema: Schema = {"type": "array", "items": items}
    if doc.min_items:
        schema["minItems"] = doc.min_items
    schema["maxItems"] = doc.max_items
    if doc.key:
        schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [doc.key]}
    return schema


def _map(type_: Any, doc: Doc, *, defaults: bool) -> Schema:
    if type_ is not object:
        values = _value(type_, doc, defaults=defaults)
    elif doc.max_length is None:
        return {**_anything(), "maxProperties": doc.max_items}
    else:
        # A schema can say neither "text, number, boolean or list" nor which names are keys: bounds only. They hold for
        # the types that they are about. The object's condition says the rest.
        values = {ANY: True, "maxLength": doc.max_length, "maxItems": doc.max_length, "maxProperties": 0}
    return {"type": "object", "additionalProperties": values, "maxProperties": doc.max_items}


def _anything() -> Schema:
    return {"type": "object", ANY: True}


def _text(doc: Doc) -> Schema:
    schema: Schema = {"type": "string"}
    if doc.min_length:
        schema["minLength"] = doc.min_length
    schema["maxLength"] = doc.max_length
    if doc.format and doc.format.name == _DATE_TIME:
        schema["format"] = _DATE_TIME
    return schema


def _text_rule(field: ShapeField) -> dict[str, str]:
    """The check of a text, as a rule of the object around it; empty where there is nothing to check."""
    name = _in_cel(field.name)
    check = _text_check(field.doc, name) if field.type is str else {}
    if check and field.default is not dataclasses.MISSING:
        check["rule"] = f"!has({name}) || {check['rule']}"
    return check and {**check, "fieldPath": f".{field.name}"}


def _text_check(doc: Doc, text: str) -> dict[str, str]:
    """Pattern and format of a text as CEL."""
    checks = [f"{text}.matches({_literal(doc.pattern)})"] if doc.pattern else []
    if doc.format and doc.format.cel:
        checks.append(doc.format.cel.format(text=text))
    if not checks:
        return {}
    expected = doc.expected or (doc.format.expected if doc.format else "")
    check = {"rule": " && ".join(checks), "message": f"expected {expected}"}
    if doc.format and doc.format.cel_message:
        check["messageExpression"] = doc.format.cel_message.format(text=text)
    return check


def _number(type_: type, doc: Doc) -> Schema:
    schema: Schema = {"type": "integer", "format": "int64"} if type_ is int else {"type": "number"}
    return {**schema, "minimum": doc.minimum, "maximum": doc.maximum}


def _counted(rules: Rules) -> list[dict[str, str]]:
    """Rules between the fields of an object, as CEL."""
    found = []
    for words, names, compared in (
        ("exactly", rules.exactly_one_of, "== 1"),
        ("at most", rules.at_most_one_of, "<= 1"),
    ):
        if names:
            given = ", ".join(f"has({_in_cel(name)})" for name in names)
            rule = f"[{given}].filter(given, given).size() {compared}"
            found.append({"rule": rule, "message": f"expected {words} one of {', '.join(names)}"})
    if names := rules.at_least_one_of:
        rule = " || ".join(f"(has({_in_cel(name)}) && {_in_cel(name)}.size() > 0)" for name in names)
        found.append({"rule": rule, "message": f"expected at least one of {', '.join(names)}"})
    return found


def _default(field: ShapeField) -> Any:
    """The value that a field has when it is left out, where that is one; None where being left out means something."""
    default = field.default
    if default is dataclasses.MISSING or dataclasses.is_dataclass(default) or default in (None, "", (), {}):
        return None
    return plain(default)


def _description(doc: Doc, default: Any) -> str:
    expected = doc.expected or (doc.format.expected if doc.format else "")
    parts = (
        doc.description,
        f"Expected: {expected}." if expected else "",
        f"Unit: {doc.unit}." if doc.unit else "",
        "" if default is None else f"Default: {_shown(default)}.",
        f"Example: {_shown(plain(doc.example))}",
    )
    return " ".join(filter(None, parts))


def _first_paragraph(cls: type) -> str:
    return " ".join((cls.__doc__ or "").partition("\n\n")[0].split())


def plain(value: Any) -> Any:
    """Return a value of a shape as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [plain(inner) for inner in value]
    return value.value if isinstance(value, Enum) else value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _in_cel(name: str) -> str:
    # A word that CEL reserves; the API server has a field of that name between double underscores.
    return "self.__namespace__" if name == "namespace" else f"self.{name}"


def _literal(text: str) -> str:
    """Write a text as CEL does: its escapes are JSON's."""
    return json.dumps(text)
