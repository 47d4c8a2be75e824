"""HTTP/2 as a server writes it, piece by piece, for tests that say what each piece is."""

import struct
from collections.abc import Iterator

from hpack import Encoder

from keytrail.source import http2_frames as h2
from keytrail.source.http2_frames import frame

LIMIT = 50_000
HELLO = h2.settings({3: 100, 5: 2**20, 0xABCD: 7})


def headers(*pairs: tuple[str, str]) -> bytes:
    """Write a header block, not remembering anything: blocks of a test may come in any order."""
    return b"".join(Encoder().encode([pair], huffman=False) for pair in pairs)


HEAD = frame(h2.HEADERS, h2.END_HEADERS, 1, headers((":status", "200"), ("content-type", "application/grpc+proto")))
ENDS = h2.END_HEADERS | h2.END_STREAM


def trailers(status: str = "0", text: str = "") -> bytes:
    """Write the end of a call."""
    return frame(h2.HEADERS, ENDS, 1, headers(("grpc-status", status), ("grpc-message", text)))


def message(content: bytes) -> bytes:
    """Write gRPC's prefix before a message."""
    return struct.pack(">BI", 0, len(content)) + content


def data(payload: bytes, size: int = h2.FRAME_LIMIT) -> bytes:
    """Cut a payload into DATA frames."""
    return b"".join(frame(h2.DATA, 0, 1, payload[at : at + size]) for at in range(0, len(payload), size))


def chopped(whole: bytes, size: int) -> Iterator[bytes]:
    """Cut bytes into chunks."""
    return (whole[at : at + size] for at in range(0, len(whole), size))


def frame_starts(piece: bytes) -> Iterator[int]:
    """Where the frames of some whole ones begin."""
    position = 0
    while position < len(piece):
        yield position
        position += 9 + h2.read_header(piece, position)[0]


BODY = HELLO + HEAD
