"""A recording's folder and an export file with its rotated ones: read to the end, or refused with a reason.

Nothing but the declared errors is raised, whatever is in GetInfo.json, GetVersion.json, the stream, or a file that was
rotated and packed; a folder gives the messages that its stream alone gives.
"""

import gzip
import json
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz.feed import Feed
from fuzz.framing import delimited
from keytrail.domain.errors import RecordingError, SourceError
from keytrail.source.base import Batch
from keytrail.source.export_file import ExportFileSource
from keytrail.source.inflate import inflated
from keytrail.source.recording import RecordingSource, read_recording
from support.recordings import export_lines, folder, messages

WORDS = (
    *(b'{"conf":[{"key":"enable-process-cred","value":{"@type":"type.googleapis.com/', b'google.protobuf.BoolValue"'),
    *(b'"value":true}}]}', b'{"version":"v1.5.0"}', b"[" * 40, b"\xff", b"null", b'"@type":"x"', b"\x1f\x8b\x08"),
)


def seeds() -> Iterator[bytes]:
    """Yield what is stored of a real agent, with a few of its messages, and an export file with a rotated one."""
    for name in ("sensors", "kubernetes"):
        place = folder(name)
        version, info = ((place / f"{name_}.json").read_bytes() for name_ in ("GetVersion", "GetInfo"))
        yield _seed(0, version, info, b"".join(map(delimited, messages(name)[:3])))
    lines = [json.dumps(line).encode() + b"\n" for line in export_lines("reference-policies")[:3]]
    yield _seed(1, gzip.compress(lines[0], mtime=0), lines[1], lines[2])
    yield _seed(1, b"", b"{", lines[2][:-1])


def _seed(what: int, first: bytes, second: bytes, rest: bytes) -> bytes:
    return b"".join(
        (bytes((what,)), len(first).to_bytes(2, "big"), first, len(second).to_bytes(2, "big"), second, rest)
    )


def check(data: bytes) -> None:
    """Lay the files out and read them."""
    feed = Feed(data)
    what = feed.number() & 1
    first, second = (feed.take(feed.number(2)) for _ in range(2))
    with TemporaryDirectory() as place:
        (_export if what else _folder)(Path(place), first, second, feed.rest())


def _folder(place: Path, version: bytes, info: bytes, stream: bytes) -> None:
    (place / "GetVersion.json").write_bytes(version)
    (place / "GetInfo.json").write_bytes(info)
    (place / "grpc.pb").write_bytes(stream)
    fault, batches = _read(RecordingSource(place))
    if batches:  # else what is said of the agent cannot be read
        alone: list[bytes] = []
        with suppress(RecordingError) if fault else nullcontext():
            alone.extend(read_recording(place / "grpc.pb"))
        assert [message for batch in batches for message in batch.messages] == alone


def _export(place: Path, packed: bytes, rotated: bytes, current: bytes) -> None:
    (place / "tetragon-2026-11-22T10-00-00.000.log.gz").write_bytes(packed)
    (place / "tetragon-2026-11-22T11-00-00.000.log").write_bytes(rotated)
    (place / "tetragon.log").write_bytes(current)
    fault, batches = _read(ExportFileSource(place / "tetragon.log", follow=False, from_start=True))
    assert not fault
    told = sum(len(batch.messages) + batch.too_large + batch.malformed for batch in batches)
    contents = [current]
    with suppress(RecordingError):
        contents.append(b"".join(inflated((rotated,))))  # which may be packed whatever its name says
    lines = sum(1 for content in contents for line in content.split(b"\n") if line.strip())
    assert told >= lines, "lines that are neither events nor counted"


def _read(source: RecordingSource | ExportFileSource) -> tuple[str, list[Batch]]:
    batches: list[Batch] = []
    try:
        batches.extend(source.batches())
    except SourceError as error:
        return str(error) or "no reason", batches
    return "", batches
