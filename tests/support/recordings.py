"""Recordings of a real agent, for every test that can use one."""

import io
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import zstandard

from keytrail.decode.decoder import Decoder
from keytrail.decode.details import DecodedEvent
from keytrail.decode.redact import Redactor
from keytrail.domain.agent import AgentFacts
from keytrail.domain.drop import Drop
from keytrail.source.recording import read_recording

TESTS = Path(__file__).parent.parent
CORPUS = TESTS / "corpus" / "recordings"
SHIPPED = TESTS.parent / "collector" / "src" / "keytrail" / "testing" / "recordings"
STREAMS = (
    "burst",
    "event-flood",
    "kubernetes",
    "kubernetes-late",
    "kubernetes-restart",
    "odd-input",
    "policy-library",
    "reference-policies",
    "seed-demo",
    "seed-demo-default-flags",
    "sensors",
    "throttle",
)


def folder(name: str) -> Path:
    """The folder that holds the stream: the demo's two are shipped with the package, the others are the tests' own."""
    shipped = SHIPPED / name
    return shipped if shipped.is_dir() else CORPUS / name


@cache
def messages(name: str) -> tuple[bytes, ...]:
    """Raw messages of a stream, in order."""
    return tuple(read_recording(folder(name)))


@cache
def labels(name: str) -> dict[str, Any]:
    """`labels.json` of a recording."""
    found: dict[str, Any] = json.loads((CORPUS / name / "labels.json").read_text())
    return found


def window(name: str, wanted: str) -> dict[str, Any]:
    """One labelled window; `stream_first` and `stream_last` number the messages of its markers."""
    return next(entry for entry in labels(name)["windows"] if entry["name"] == wanted)


@cache
def export_lines(name: str) -> tuple[dict[str, Any], ...]:
    """The agent's own JSON export of the same period."""
    data = (CORPUS / name / "export.json.zst").read_bytes()
    with zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(data) as reader:
        return tuple(json.loads(line) for line in io.TextIOWrapper(reader, encoding="utf-8"))


def decoded(name: str) -> tuple[DecodedEvent, ...]:
    """Every event of a stream, by a decoder of its own; fails when one is undecodable."""
    decoder = Decoder(Redactor().redact)
    decoder.connect(AgentFacts(captures_environment=name != "seed-demo-default-flags"))
    return tuple(decode_each(decoder, messages(name)))


def decode_each(decoder: Decoder, stream: Iterable[bytes]) -> Iterator[DecodedEvent]:
    """Events of a stream; fails when one is undecodable."""
    for raw in stream:
        event = decoder.decode(raw)
        assert not isinstance(event, Drop), event
        yield event


def in_window(name: str, wanted: str) -> tuple[DecodedEvent, ...]:
    """The events of one labelled window, with all that came before it known to the decoder."""
    found = window(name, wanted)
    return decoded_once(name)[found["stream_first"] : found["stream_last"] + 1]


@cache
def decoded_once(name: str) -> tuple[DecodedEvent, ...]:
    """`decoded`, shared by tests that only look."""
    return decoded(name)
