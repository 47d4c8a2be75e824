"""Recordings: the messages of an agent's stream in a file, written once, read as fast or as slowly as wanted.

In: a file of varint-delimited `tetragon.GetEventsResponse`, plain or compressed, or the agent's JSON export; or a
folder that holds `grpc.pb[.zst]` beside GetInfo.json and GetVersion.json. Out: batches, the first with the agent's
facts.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from keytrail.domain.agent import AgentFacts
from keytrail.domain.errors import RecordingError, UsageError
from keytrail.proto.tetragon.events_pb2 import GetEventsResponse
from keytrail.proto.tetragon.sensors_pb2 import GetInfoResponse, GetVersionResponse
from keytrail.source.base import Batch
from keytrail.source.facts import facts_of
from keytrail.source.framing import NOTHING_REJECTED, Rejected, decoded
from keytrail.source.inflate import file_chunks, zstandard_module
from keytrail.source.wire import append_varint

_NAMES = ("grpc.pb.zst", "grpc.pb")
_BATCH = 512
_ZSTD_LEVEL = 6
_ZSTD_WINDOW_LOG = 24


def read_recording(path: Path) -> Iterator[bytes]:
    """Yield the messages of a recording; those over MAX_MESSAGE_BYTES are left out (RecordingSource counts them).

    Raises UsageError for a folder that holds none; RecordingError for a file that cannot be read or, after all whole
    messages, is truncated or damaged.
    """
    for messages, _ in _read(path):
        yield from messages


def _read(path: Path) -> Iterator[tuple[list[bytes], Rejected]]:
    file = _file_of(path)
    try:
        yield from decoded(file_chunks(file))
    except RecordingError as error:
        raise RecordingError(f"{file}: {error}") from None


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in _NAMES:
        if (path / name).exists():
            return path / name
    raise UsageError(f"{path}: no recording here: expected {' or '.join(_NAMES)} in the folder")


def recording_facts(path: Path) -> AgentFacts | None:
    """Return what is stored of the agent beside a recording (or in the folder); None when nothing is."""
    folder = path if path.is_dir() else path.parent
    version = _stored(folder / "GetVersion.json", GetVersionResponse())
    info = _stored(folder / "GetInfo.json", GetInfoResponse())
    if version is None and info is None:
        return None
    return facts_of(version.version if version else "", info or GetInfoResponse())


_Stored = TypeVar("_Stored", bound=Message)


def _stored(file: Path, message: _Stored) -> _Stored | None:
    try:
        return json_format.Parse(file.read_bytes(), message, ignore_unknown_fields=True)
    except FileNotFoundError:
        return None
    except (OSError, json_format.ParseError, UnicodeDecodeError) as error:
        raise RecordingError(f"{file}: {error}") from None


class RecordingSource:
    """A recording as a source: at full speed, or `pace` times as fast as it happened (1.0 is real time)."""

    def __init__(
        self,
        path: Path,
        pace: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`sleep` and `clock` are in seconds; the default sleep is cut short by `close`."""
        self._path = path
        self._pacer = _Pacer(pace, clock) if pace else None
        self._closing = threading.Event()
        self._sleep = sleep or self._closing.wait
        self._now_ns = now_ns

    def batches(self) -> Iterator[Batch]:
        """Yield batches of up to 512; with a pace, whatever is due. Raises what `read_recording` does."""
        yield Batch((), self._now_ns(), recording_facts(self._path) or AgentFacts())
        pending: list[bytes] = []
        try:
            for messages, rejected in _read(self._path):
                for message in messages:
                    wait = self._pacer.wait(message) if self._pacer else 0.0
                    if pending and (wait > 0 or len(pending) >= _BATCH):
                        yield self._batch(pending)
                        pending = []
                    if wait > 0:
                        self._sleep(wait)
                    if self._closing.is_set():
                        return
                    pending.append(message)
                if any(rejected):
                    yield self._batch(pending, rejected)
                    pending = []
        except RecordingError:
            if pending:
                yield self._batch(pending)
            raise
        if pending:
            yield self._batch(pending)

    def close(self) -> None:
        """End `batches`."""
        self._closing.set()

    def _batch(self, messages: list[bytes], rejected: Rejected = NOTHING_REJECTED) -> Batch:
        return Batch(messages, self._now_ns(), too_large=rejected.too_large, malformed=rejected.malformed)


class _Pacer:
    """Says how long to wait before an event so that events come as far apart as they happened."""

    def __init__(self, pace: float, clock: Callable[[], float]) -> None:
        self._pace = pace
        self._clock = clock
        self._start: tuple[float, float] | None = None

    def wait(self, message: bytes) -> float:
        """Return seconds; 0 or less is due. Library loads carry no time, and events are only roughly in its order."""
        happened = _time_of(message)
        if happened is None:
            return 0.0
        now = self._clock()
        if self._start is None:
            self._start = (now, happened)
        started, first = self._start
        return (happened - first) / self._pace - (now - started)


def _time_of(message: bytes) -> float | None:
    try:
        event = GetEventsResponse.FromString(message)
    except DecodeError:
        return None
    # Processes that were there before the agent are announced with their own start time, maybe of long ago.
    if not event.HasField("time") or "procFS" in event.process_exec.process.flags:
        return None
    return event.time.seconds + event.time.nanos / 1e9


class RecordingWriter:
    """Writes a recording, compressed when the name ends in `.zst`; it appears under its name when it is complete.

    Only its owner may read it: events hold the environment of processes, credentials included.
    """

    def __init__(self, path: Path) -> None:
        """Open it. Raises UsageError when it cannot be written there."""
        if path.is_dir():  # the name itself is taken only at the end
            raise UsageError(f"{path}: it is a folder, name a file in it")
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial")
        compressor = _compressor() if path.suffix == ".zst" else None
        try:
            self._partial.unlink(missing_ok=True)
            descriptor = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None
        self._file = os.fdopen(descriptor, "wb")
        self._out: Any = compressor.stream_writer(self._file, closefd=False) if compressor else self._file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def write(self, message: bytes) -> None:
        """Append one message. Raises RecordingError when the disk refuses; the recording is then best closed."""
        frame = bytearray()
        append_varint(len(message), frame)
        frame += message
        with self._naming_partial():
            self._out.write(frame)

    def close(self) -> None:
        """Finish the file and give it its name. Idempotent."""
        if self._file.closed:
            return
        with self._naming_partial():
            try:
                if self._out is not self._file:
                    self._out.close()
                self._file.flush()
                os.fsync(self._file.fileno())
            finally:
                self._file.close()
            self._partial.replace(self._path)

    @contextlib.contextmanager
    def _naming_partial(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RecordingError(f"{self._path}: {error.strerror}; what was written is in {self._partial}") from None


def _compressor() -> Any:
    zstandard = zstandard_module()
    # A window of 16 MiB reaches back over thousands of events, which repeat each other, and costs as much memory.
    parameters = zstandard.ZstdCompressionParameters.from_level(_ZSTD_LEVEL, window_log=_ZSTD_WINDOW_LOG)
    return zstandard.ZstdCompressor(compression_params=parameters)
