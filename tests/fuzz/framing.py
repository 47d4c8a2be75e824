"""Recordings and pipes: however the bytes are cut, the same messages, whatever they are and whatever packs them.

What was written as a recording is read, packed or not. Nothing but RecordingError is raised. Where packed data is
damaged, a stream may end a little earlier or later; what came out by then is the same. No chunk of what is unpacked is
large: a small file must not fill the memory.
"""

import gzip
import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import zstandard

from fuzz.feed import Feed, cut
from keytrail.domain.errors import RecordingError
from keytrail.source.framing import JsonLines, decoded, decoder_for
from keytrail.source.inflate import CHUNK, inflated
from keytrail.source.wire import append_varint
from support.recordings import export_lines, messages

WORDS = (
    b"\x28\xb5\x2f\xfd",
    b"\x1f\x8b\x08",
    b'{"process_exec":{',
    b"\xff\xff\xff\xff\x07",
    b"\x80\x80\x80\x80",
    b"\n",
)
_PACKED = (b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08")
_LARGEST_CHUNK = 32 << 20


class _Read(NamedTuple):
    messages: list[bytes]
    too_large: int
    malformed: int
    fault: str


def seeds() -> Iterator[bytes]:
    """Yield recordings of a few events, plain and packed, and lines of an export."""
    plain = b"".join(map(delimited, messages("policy-library")[:4]))
    lines = b"".join(json.dumps(line).encode() + b"\n" for line in export_lines("reference-policies")[:2])
    for content in (plain, lines, plain[:-1], b" " + lines, b"\xff" * 12, delimited(b"") * 3):
        yield b"\x00\x05" + content
        yield b"\x00\x05" + gzip.compress(content, mtime=0)
        yield b"\x00\x05" + zstandard.ZstdCompressor().compress(content)
        yield b"\x01\x05" + content[:2_000]


def delimited(message: bytes) -> bytes:
    """Write a message as a recording holds it."""
    frame = bytearray()
    append_varint(len(message), frame)
    return bytes(frame + message)


def check(data: bytes) -> None:
    """Read the input as a file is read, and cut elsewhere."""
    feed = Feed(data)
    form, seed = feed.number(), feed.number()
    content = feed.rest()
    if form:
        _promised(content, seed)
        return
    whole = _read(content[at : at + CHUNK] for at in range(0, len(content), CHUNK))
    other = _read(cut(content, seed))
    if whole != other:
        assert content.startswith(_PACKED), "the same bytes cut elsewhere read otherwise"
        assert whole.fault, "only one of the two found the end"
        assert other.fault, "only one of the two found the end"
        shorter, longer = sorted((whole.messages, other.messages), key=len)
        assert longer[: len(shorter)] == shorter


def _promised(content: bytes, seed: int) -> None:
    """Write a recording of pieces of the content, as it is or packed: the very same messages are read from it."""
    pieces = list(cut(content, seed or 1))
    plain = b"".join(map(delimited, pieces))
    if plain.startswith(_PACKED) or isinstance(decoder_for(plain), JsonLines):
        return  # no event begins so, for these bytes would be fields that it does not have
    for packed in (plain, gzip.compress(plain, 1, mtime=0), zstandard.ZstdCompressor().compress(plain)):
        assert _read(cut(packed, seed + 1)) == _Read(pieces, 0, 0, "")


def _read(chunks: Iterable[bytes]) -> _Read:
    messages: list[bytes] = []
    too_large = malformed = 0
    try:
        for found, rejected in decoded(_bounded(inflated(chunks))):
            messages += found
            too_large += rejected.too_large
            malformed += rejected.malformed
    except RecordingError as error:
        return _Read(messages, too_large, malformed, str(error))
    return _Read(messages, too_large, malformed, "")


def _bounded(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        assert len(chunk) <= _LARGEST_CHUNK, f"{len(chunk)} bytes at once"
        yield chunk
