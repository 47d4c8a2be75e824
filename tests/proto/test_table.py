"""The generated modules against the fact table of Tetragon's API, in both directions, and their .proto files."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor, ServiceDescriptor
from grpc_tools import protoc

import keytrail.proto.tetragon
from keytrail.proto.tetragon import (
    bpf_pb2,
    capabilities_pb2,
    eventlogservice_pb2,
    events_pb2,
    sensors_pb2,
    tetragon_pb2,
)

_TABLE: Final = Path(__file__).parents[1] / "corpus" / "tetragon-api.csv"
_MODULES: Final = (bpf_pb2, capabilities_pb2, eventlogservice_pb2, events_pb2, sensors_pb2, tetragon_pb2)
_FOLDER: Final = Path(keytrail.proto.tetragon.__file__).parent
_SCALARS: Final = {
    number: name.removeprefix("TYPE_").lower() for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}


class Row(NamedTuple):
    """One line of the table; empty where a column says nothing."""

    file: str
    kind: str
    parent: str
    name: str
    number: str
    type: str
    label: str
    oneof: str
    deprecated: str
    json_name: str


def _table() -> list[Row]:
    with _TABLE.open(newline="", encoding="utf-8") as lines:
        reader = csv.reader(lines)
        assert tuple(next(reader)) == Row._fields
        return [Row(*line) for line in reader]


def _generated() -> Iterator[Row]:
    """List our files and those of Google's that they import, which the table describes as well."""
    files: dict[str, FileDescriptor] = {}
    for module in _MODULES:
        for file in (module.DESCRIPTOR, *module.DESCRIPTOR.dependencies):
            files[file.name] = file
    for file in files.values():
        name = file.name.removeprefix("keytrail/proto/")
        for enum in file.enum_types_by_name.values():
            yield from _enum_rows(name, enum)
        for message in file.message_types_by_name.values():
            yield from _message_rows(name, message)
        for service in file.services_by_name.values():
            yield from _rpc_rows(name, service)


def _enum_rows(file: str, enum: EnumDescriptor) -> Iterator[Row]:
    for value in enum.values:
        deprecated = "true" if value.GetOptions().deprecated else ""
        yield Row(file, "enum", enum.full_name, value.name, str(value.number), "", "", "", deprecated, "")


def _message_rows(file: str, message: Descriptor) -> Iterator[Row]:
    if message.GetOptions().map_entry:
        return
    if not message.fields:
        yield Row(file, "message", message.full_name, "", "", "", "", "", "", "")
    for field in message.fields:
        yield _field_row(file, message, field)
    for nested in message.nested_types:
        yield from _message_rows(file, nested)
    for enum in message.enum_types:
        yield from _enum_rows(file, enum)


def _field_row(file: str, message: Descriptor, field: FieldDescriptor) -> Row:
    proto = descriptor_pb2.DescriptorProto()
    message.CopyToProto(proto)
    declared = next(entry for entry in proto.field if entry.number == field.number)
    oneof = proto.oneof_decl[declared.oneof_index].name if declared.HasField("oneof_index") else ""
    assert declared.proto3_optional == oneof.startswith("_")
    type_, label = _type_and_label(field)
    deprecated = "true" if field.GetOptions().deprecated else ""
    return Row(
        file,
        "message",
        message.full_name,
        field.name,
        str(field.number),
        type_,
        label,
        oneof,
        deprecated,
        field.json_name,
    )


def _type_and_label(field: FieldDescriptor) -> tuple[str, str]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (_type(field.message_type.fields_by_name[part]) for part in ("key", "value"))
        return f"map<{key},{value}>", "map"
    return _type(field), "repeated" if field.is_repeated else "optional"


def _type(field: FieldDescriptor) -> str:
    named = field.message_type or field.enum_type
    return named.full_name if named is not None else _SCALARS[field.type]


def _rpc_rows(file: str, service: ServiceDescriptor) -> Iterator[Row]:
    for method in service.methods:
        request, response = method.input_type.full_name, method.output_type.full_name
        arrow = f"{'stream ' * method.client_streaming}{request} -> {'stream ' * method.server_streaming}{response}"
        deprecated = "true" if method.GetOptions().deprecated else ""
        yield Row(file, "rpc", service.full_name, method.name, "", arrow, "", "", deprecated, "")


def test_modules_hold_exactly_what_the_table_lists() -> None:
    """Every field, enum value and method has the table's number, type, label, oneof and name; nothing is extra."""
    listed, generated = Counter(_table()), Counter(_generated())

    assert sorted(listed - generated) == []
    assert sorted(generated - listed) == []


def test_table_is_whole() -> None:
    """The table that the modules are compared with has all its rows, so that the comparison means something."""
    kinds = Counter(row.kind for row in _table())

    assert kinds == {"message": 474, "enum": 199, "rpc": 20}


def test_every_proto_file_is_among_the_compared_modules() -> None:
    """No .proto file escapes the comparison."""
    assert {path.name for path in _FOLDER.glob("*.proto")} == {
        module.DESCRIPTOR.name.rpartition("/")[2] for module in _MODULES
    }


def test_modules_are_what_protoc_makes_of_the_proto_files(tmp_path: Path) -> None:
    """Generating again changes no byte: nobody edited a module by hand or forgot `make proto`."""
    root = _FOLDER.parents[2]
    sources = [str(path) for path in sorted(_FOLDER.glob("*.proto"))]
    well_known = Path(protoc.__file__).parent / "_proto"

    status = protoc.main(
        ["protoc", f"-I{root}", f"-I{well_known}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", *sources]
    )

    made = {path.name: path.read_bytes() for path in (tmp_path / _FOLDER.relative_to(root)).iterdir()}
    committed = {path.name: path.read_bytes() for path in _FOLDER.glob("*_pb2.py*")}
    assert status == 0
    assert made == committed
