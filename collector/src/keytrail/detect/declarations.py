"""The environment as the CEL engine knows it: declarations for its checker, messages for its evaluation.

In: the table of `environment`, and the constants of a rule. Out: a `cel.Env`, and an event as the messages that the
engine evaluates (only for the oracle: the stream is judged by generated code). Knows no rule's condition.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel  # type: ignore[import-untyped] # stubs without py.typed
from cel_expr_python.ext import ext_strings  # type: ignore[import-untyped] # stubs without py.typed
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from keytrail.detect import environment
from keytrail.detect.environment import FUNCTIONS, VARIABLES, Field, Message
from keytrail.detect.functions import IMPLEMENTATIONS
from keytrail.detect.reading import NAMES
from keytrail.domain.event import Event

PACKAGE: Final = "keytrail.rule"
_Proto = descriptor_pb2.FieldDescriptorProto
_PROTO: Final = {"string": _Proto.TYPE_STRING, "int": _Proto.TYPE_INT64, "bool": _Proto.TYPE_BOOL}
_CEL = {"string": cel.Type.STRING, "int": cel.Type.INT, "bool": cel.Type.BOOL, "double": cel.Type.DOUBLE}
_PYTHON = {str: "string", int: "int", bool: "bool", float: "double"}

Constants = Mapping[str, Any]
"""Values of a rule's parameters; lists as tuples."""


def cel_type(text: str) -> cel.Type:
    """`list(string)` as the engine's type."""
    if text.startswith("list("):
        return cel.Type.List(cel_type(text[5:-1]))
    return _CEL[text]


def _type_name(value: Any) -> str:
    """Type of a parameter's value; an empty list is one of text."""
    if isinstance(value, tuple):
        return f"list({_type_name(value[0]) if value else 'string'})"
    return _PYTHON[type(value)]


def _declare(message: descriptor_pb2.DescriptorProto, number: int, field: Field) -> None:
    made = message.field.add(name=field.name, number=number, label=_Proto.LABEL_OPTIONAL)
    if field.type.startswith("map"):
        entry = message.nested_type.add(name=f"{field.name.capitalize()}Entry")
        entry.options.map_entry = True
        for place, name in enumerate(("key", "value"), 1):
            entry.field.add(name=name, number=place, type=_Proto.TYPE_STRING, label=_Proto.LABEL_OPTIONAL)
        made.type, made.label = _Proto.TYPE_MESSAGE, _Proto.LABEL_REPEATED
        made.type_name = f".{PACKAGE}.{message.name}.{entry.name}"
        return
    bare = field.type.removeprefix("list(").removesuffix(")")
    made.type = _PROTO[bare]
    made.label = _Proto.LABEL_REPEATED if bare != field.type else _Proto.LABEL_OPTIONAL
    if field.present:  # `has()` then asks for the mark, not for the default
        made.proto3_optional, made.oneof_index = True, len(message.oneof_decl)
        message.oneof_decl.add(name=f"_{field.name}")


def _pool() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="keytrail/rule.proto", package=PACKAGE, syntax="proto3")
    for message in environment.messages():
        made = file.message_type.add(name=message.name)
        for number, field in enumerate(message.fields, 1):
            _declare(made, number, field)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL: Final = _pool()
_CLASSES: Final = {
    message.name: message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{message.name}"))
    for message in environment.messages()
}
_FUNCTIONS: Final = [
    cel.FunctionDecl(
        function.name,
        [
            cel.Overload(
                f"keytrail_{function.name}",
                _CEL[function.returns],
                [cel_type(parameter) for parameter in function.parameters],
                impl=IMPLEMENTATIONS[function.name],
            )
        ],
    )
    for function in FUNCTIONS
]


def cel_env(constants: Constants) -> cel.Env:
    """An environment for one rule: all variables, and its parameters as `params.NAME`."""
    return _env(_types(constants))


def cel_expression(text: str, constants: Constants) -> cel.Expression:
    """A condition that was accepted, as the engine evaluates it."""
    return _expression(text, _types(constants))


def _types(constants: Constants) -> tuple[tuple[str, str], ...]:
    return tuple((name, _type_name(value)) for name, value in constants.items())


@lru_cache(maxsize=2_048)
def _expression(text: str, parameters: tuple[tuple[str, str], ...]) -> cel.Expression:
    return _env(parameters).compile(text)


# Few: a rule's conditions come one after the other, and each environment that is kept weighs 150 KiB.
@lru_cache(maxsize=4)
def _env(parameters: tuple[tuple[str, str], ...]) -> cel.Env:
    types = {one.name: cel.Type(f"{PACKAGE}.{one.message.name}") for one in VARIABLES}
    variables = {one.name: cel.Type.List(types[one.name]) if one.many else types[one.name] for one in VARIABLES}
    return cel.NewEnv(
        descriptor_pool=_POOL,
        variables=variables | {f"params.{name}": cel_type(type_) for name, type_ in parameters},
        extensions=[ext_strings.ExtStrings()],
        functions=_FUNCTIONS,
    )


def activation(event: Event, constants: Constants) -> dict[str, Any]:
    """What the engine evaluates a condition on: every field of the environment, read from the event."""
    scope = {**NAMES, "e": event}
    values: dict[str, Any] = {}
    for one in VARIABLES:
        found = _read(one.source, scope)
        values[one.name] = (
            [_message(one.message, item, scope) for item in found[: one.many]]
            if one.many
            else _message(one.message, found, scope)
        )
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in constants.items()}
    return values | {f"params.{name}": value for name, value in listed.items()}


def _read(source: str, scope: dict[str, Any]) -> Any:
    text = source.format(o="o", e="e")
    return eval(text, scope)  # noqa: S307 - sources are our own table, never a rule's text


def _message(message: Message, value: object, scope: dict[str, Any]) -> Any:
    made, scope = _CLASSES[message.name](), {**scope, "o": value}
    for field in message.fields:
        if field.present and not _read(field.present, scope):
            continue
        found = _read(field.source, scope)
        if field.type.startswith("map"):
            getattr(made, field.name).update(found)
        elif field.type.startswith("list"):
            getattr(made, field.name).extend(found)
        else:
            setattr(made, field.name, found)
    return made
