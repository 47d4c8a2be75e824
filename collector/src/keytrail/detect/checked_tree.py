"""The type-checked tree that the CEL engine gives for a condition, as messages that can be read.

Bytes of a `cel.expr.CheckedExpr` come in, its message goes out. The engine's package brings no Python classes for it,
so the part of the format that the compiler reads is declared here, with the numbers of cel.dev's checked.proto and
syntax.proto; everything else (timestamps, optional values) is unknown to it and refused by the compiler.
"""

from typing import Any, Final

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "keytrail.celtree"
_Proto = descriptor_pb2.FieldDescriptorProto
_MESSAGE: Final = _Proto.TYPE_MESSAGE
_TYPES: Final = {
    "bool": _Proto.TYPE_BOOL,
    "int32": _Proto.TYPE_INT32,
    "int64": _Proto.TYPE_INT64,
    "double": _Proto.TYPE_DOUBLE,
    "string": _Proto.TYPE_STRING,
    "enum": _Proto.TYPE_INT32,  # travels as a number
}
_LAYOUT: Final[dict[str, tuple[tuple[int, str, str], ...]]] = {
    "CheckedExpr": (
        (2, "references", "map Reference"),
        (3, "types", "map Type"),
        (4, "expr", "Expr"),
        (5, "source", "SourceInfo"),
    ),
    "Reference": ((1, "name", "string"), (3, "overload_id", "[] string")),
    "SourceInfo": ((3, "line_offsets", "[] int32"), (4, "positions", "map int32")),
    "Empty": (),
    "ListType": ((1, "elem", "Type"),),
    "MapType": ((1, "key", "Type"), (2, "value", "Type")),
    "Type": (
        (1, "dyn", "| Empty"),
        (3, "primitive", "| enum"),
        (6, "list", "| ListType"),
        (7, "map", "| MapType"),
        (9, "message", "| string"),
    ),
    "Constant": ((2, "bool", "| bool"), (3, "int", "| int64"), (5, "double", "| double"), (6, "string", "| string")),
    "Ident": ((1, "name", "string"),),
    "Select": ((1, "operand", "Expr"), (2, "field", "string"), (3, "test_only", "bool")),
    "Call": ((1, "target", "Expr"), (2, "function", "string"), (3, "args", "[] Expr")),
    "CreateList": ((1, "elements", "[] Expr"),),
    "Entry": ((3, "key", "Expr"), (4, "value", "Expr")),
    "CreateStruct": ((1, "message_name", "string"), (2, "entries", "[] Entry")),
    "Comprehension": (
        (1, "iter_var", "string"),
        (2, "iter_range", "Expr"),
        (3, "accu_var", "string"),
        (4, "accu_init", "Expr"),
        (6, "loop_step", "Expr"),
        (7, "result", "Expr"),
    ),
    "Expr": (
        (2, "id", "int64"),
        (3, "const", "| Constant"),
        (4, "ident", "| Ident"),
        (5, "select", "| Select"),
        (6, "call", "| Call"),
        (7, "list", "| CreateList"),
        (8, "struct", "| CreateStruct"),
        (9, "comprehension", "| Comprehension"),
    ),
}
"""Message to fields: number, name, and type; `[]` repeated, `map` from int64, `|` member of the message's one oneof."""

PRIMITIVES: Final = {1: "bool", 2: "int", 4: "double", 5: "string"}
"""Type.PrimitiveType; 3 is uint and 6 bytes, which rules do not have."""


def _field(message: descriptor_pb2.DescriptorProto, number: int, name: str, type_: str) -> None:
    mark, _, bare = type_.rpartition(" ")
    field = message.field.add(
        name=name, number=number, label=_Proto.LABEL_REPEATED if mark in {"[]", "map"} else _Proto.LABEL_OPTIONAL
    )
    if mark == "map":
        entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        _field(entry, 1, "key", "int64")
        _field(entry, 2, "value", bare)
        field.type, field.type_name = _MESSAGE, f".{_PACKAGE}.{message.name}.{entry.name}"
    elif bare in _TYPES:
        field.type = _TYPES[bare]
    else:
        field.type, field.type_name = _MESSAGE, f".{_PACKAGE}.{bare}"
    if mark == "|":
        field.oneof_index = 0


def _checked_expr() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="keytrail/celtree.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _LAYOUT.items():
        message = file.message_type.add(name=name)
        if any(type_.startswith("|") for _, _, type_ in fields):
            message.oneof_decl.add(name="which")
        for number, field, type_ in fields:
            _field(message, number, field, type_)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.CheckedExpr"))


_CHECKED_EXPR: Final = _checked_expr()


def parse(serialized: bytes) -> Any:
    """Read a serialized `cel.expr.CheckedExpr`, which the engine packs into a `google.protobuf.Any`."""
    return _CHECKED_EXPR.FromString(any_pb2.Any.FromString(serialized).value)
