"""Chunks of a file or pipe, decompressed when they are zstd or gzip, which the first bytes tell.

In: a path, or chunks. Out: chunks of plain bytes. It must not know what they hold. A compressed stream that ends early
is an error even where the cut falls between two messages: the file reader of the zstd library would end silently there.
"""

import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from keytrail.domain.errors import RecordingError

CHUNK = 16 * 1024
_PACKED = 512
"""Bytes that are unpacked at once. zstd writes 128 KiB of the same byte in four: a chunk of somebody's making would
come out as 512 MiB, these as 16."""
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_GZIP_MAGIC = b"\x1f\x8b\x08"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_ZSTD_WINDOW = 2**27
"""As `zstd --long=27`: neighbouring events repeat whole processes, some of them far apart."""


def zstandard_module() -> Any:
    """Import the zstd library, which only recordings need. Raises RecordingError that says how to get it."""
    try:
        import zstandard
    except ImportError:
        raise RecordingError("zstd needs the library zstandard: pip install keytrail[demo]") from None
    return zstandard


def file_chunks(path: Path) -> Iterator[bytes]:
    """Yield a file's plain bytes. Raises RecordingError, without the path, when it cannot be read or decompressed."""
    try:
        with path.open("rb") as file:
            yield from inflated(iter(lambda: file.read(CHUNK), b""))
    except OSError as error:
        raise RecordingError(error.strerror) from None


def inflated(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield plain bytes; chunks that are not compressed pass unchanged."""
    waiting = iter(chunks)
    head = b""
    for chunk in waiting:
        head += chunk
        if len(head) >= len(_ZSTD_MAGIC):
            break
    chunks = itertools.chain((head,), waiting)
    pieces = (chunk[at : at + _PACKED] for chunk in chunks for at in range(0, len(chunk), _PACKED))
    if head.startswith(_ZSTD_MAGIC):
        zstandard = zstandard_module()
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        yield from _decompressed(decompressor.decompressobj, zstandard.ZstdError, pieces)
    elif head.startswith(_GZIP_MAGIC):
        yield from _decompressed(lambda: zlib.decompressobj(_GZIP_WINDOW), zlib.error, pieces)
    else:
        yield from chunks


def _decompressed(start: Callable[[], Any], failure: type[Exception], chunks: Iterator[bytes]) -> Iterator[bytes]:
    stream = start()
    rest = next(chunks, None)
    while rest is not None:
        while rest:
            if stream.eof:  # several compressed streams may follow one another
                stream = start()
            try:
                plain = stream.decompress(rest)
            except failure as error:
                raise RecordingError(f"damaged compressed data: {error}") from None
            rest = stream.unused_data if stream.eof else b""
            if plain:
                yield plain
        rest = next(chunks, None)
    if not stream.eof:
        raise RecordingError("truncated: the compressed data ends early")
