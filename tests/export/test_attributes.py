"""The declared attributes: real names, nothing else on real events, and a documentation that says the same."""

import importlib
import pkgutil
from collections.abc import Iterable
from pathlib import Path

import opentelemetry.semconv._incubating.attributes as incubating
import opentelemetry.semconv.attributes as stable
import pytest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs

from keytrail.decode.decoder import Decoder
from keytrail.domain.event import Event
from keytrail.export.attribute_values import host_name, image_name, image_tags
from keytrail.export.attributes_page import declared, renewed
from keytrail.export.otlp_encode import RecordEncoder
from keytrail.export.otlp_known import ResourceKey
from support.recordings import STREAMS, messages
from support.variants import with_long

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "telemetry.md"


def registry() -> set[str]:
    """Collect the names of the installed semantic conventions."""
    return {
        value
        for package in (stable, incubating)
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        for name, value in vars(importlib.import_module(module.name)).items()
        if name.isupper() and isinstance(value, str)
    }


def test_names_are_conventional() -> None:
    """Each attribute is in OpenTelemetry's registry or under `keytrail.`, and never both."""
    names = registry()
    for name in declared():
        assert (name in names) != name.startswith("keytrail."), name


def test_no_name_is_the_namespace_of_another() -> None:
    """No attribute is a prefix of another: backends that nest names could keep only one of them."""
    names = sorted(declared())
    assert [(a, b) for a in names for b in names if b.startswith(f"{a}.")] == []


def test_documentation_is_current() -> None:
    """The document holds the declared attributes; `python -m keytrail.export.attributes_page docs/telemetry.md`."""
    text = DOCUMENT.read_text("utf-8")
    assert renewed(text) == text


@pytest.mark.parametrize(
    ("image", "name", "tags"),
    [
        ("docker.io/team/chat:1.2", "docker.io/team/chat", ("1.2",)),
        ("registry:5000/team/chat", "registry:5000/team/chat", ()),
        ("registry:5000/team/chat:1.2@sha256:ab", "registry:5000/team/chat", ("1.2",)),
        ("chat@sha256:ab", "chat", ()),
        ("", "", ()),
    ],
)
def test_images(image: str, name: str, tags: tuple[str, ...]) -> None:
    """An image's reference is split into name and tag; a registry's port and a digest are neither."""
    assert (image_name(image), image_tags(image)) == (name, tags)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("api.openai.com", "api.openai.com"),
        ("api.openai.com:8443", "api.openai.com"),
        ("[::1]:80", "[::1]"),
        ("::1", "::1"),
        ("", ""),
    ],
)
def test_hosts(host: str, name: str) -> None:
    """A Host header loses its port, an IPv6 address none of its groups."""
    assert host_name(host) == name


WIRE_TYPES = {"string_value": "string", "int_value": "int", "bool_value": "boolean"}


def types_of(attributes: Iterable[KeyValue]) -> dict[str, str]:
    """Read names and types of parsed attributes."""
    types = {}
    for item in attributes:
        which = item.value.WhichOneof("value") or ""
        if which == "array_value":
            types[item.key] = f"{WIRE_TYPES[item.value.array_value.values[0].WhichOneof('value') or '']}[]"
        else:
            types[item.key] = WIRE_TYPES[which]
    return types


@pytest.mark.parametrize("recording", with_long(STREAMS, "event-flood"))
def test_recorded_events(recording: str) -> None:
    """Over every recording each attribute is declared with its type, and each event has a uid of its own."""
    decoder, encoder = Decoder(lambda text, *_: (text, ())), RecordEncoder({}, lambda: 0)
    keys: set[ResourceKey] = set()
    uids: set[str] = set()
    types: dict[str, str] = {}
    stream = messages(recording)
    for raw in stream:
        event = decoder.decode(raw)
        assert isinstance(event, Event)
        key, encoded = encoder.encode(event)
        record = LogRecord.FromString(encoded)
        keys.add(key)
        types |= types_of(record.attributes)
        uids |= {item.value.string_value for item in record.attributes if item.key == "log.record.uid"}
    for key in keys:
        types |= types_of(ResourceLogs.FromString(encoder.resource_logs(key, [])).resource.attributes)
    assert types.items() <= declared().items()
    assert len(uids) == len(stream)
