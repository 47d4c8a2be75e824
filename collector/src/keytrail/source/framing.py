"""From bytes to messages: varint-delimited protobuf or the agent's JSON lines, told apart by the first bytes.

In: chunks of any size, from a file or a pipe. Out: serialized `tetragon.GetEventsResponse`. The decoders are fed
rather than given a file, so that a file that grows, a pipe and a compressed recording share them. They must not know
where the bytes come from.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from keytrail.domain.errors import RecordingError
from keytrail.source.base import MAX_MESSAGE_BYTES
from keytrail.source.protojson import event_from_json
from keytrail.source.wire import WireError, read_varint

_LARGEST_PROTOBUF = 2**31 - 1
"""Protobuf itself allows no larger message: a longer length means that the bytes are something else."""
MAX_LINE_BYTES = 4 * MAX_MESSAGE_BYTES
"""JSON makes a usual event seven times as large, but what makes an event long (arguments, environments) hardly."""
_BLANK = b" \t\r\n"
_SNIFFED = 2
"""Bytes that tell a recording from JSON, behind blank ones; more than `_SNIFF_LIMIT` of those are no export."""
_SNIFF_LIMIT = 4096


class Rejected(NamedTuple):
    """Input that became no message, since the last time somebody asked."""

    too_large: int
    malformed: int


NOTHING_REJECTED = Rejected(0, 0)


class Decoder(Protocol):
    """Turns chunks into messages."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the messages that `chunk` completes. Raises RecordingError when the bytes are no messages."""
        ...

    def finish(self) -> list[bytes]:
        """Return what the end of the input completes. Raises RecordingError when it cuts a message in two."""
        ...

    def rejected(self) -> Rejected:
        """Return and reset the counts of what was kept out."""
        ...


def decoder_for(head: bytes) -> Decoder:
    """Choose by the first bytes. `{"` starts no recording: as protobuf it would be a field 4, which no event has."""
    return JsonLines() if head[:_SNIFF_LIMIT].lstrip(_BLANK).startswith((b'{"', b"{ ")) else DelimitedMessages()


def decoded(chunks: Iterable[bytes]) -> Iterator[tuple[list[bytes], Rejected]]:
    """Yield what each chunk completes, and at the end what that does. Raises RecordingError after all that is whole."""
    waiting = iter(chunks)
    head = b""
    for chunk in waiting:
        head += chunk
        if len(head) >= _SNIFF_LIMIT or len(head.lstrip(_BLANK)) >= _SNIFFED:
            break
    decoder = decoder_for(head)
    for chunk in itertools.chain((head,), waiting):
        yield decoder.feed(chunk), decoder.rejected()
    yield decoder.finish(), decoder.rejected()


class DelimitedMessages:
    """Messages that are each preceded by their length as a varint."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._consumed = 0
        self._skip = 0
        self._skip_began = 0
        self._too_large = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the messages that `chunk` completes; larger ones than MAX_MESSAGE_BYTES are passed over unbuffered."""
        self._buffer += chunk
        messages: list[bytes] = []
        position = self._pass_over(0)
        with memoryview(self._buffer) as view:
            while not self._skip:
                try:
                    header = self._length(position)
                except RecordingError:
                    if not messages:
                        raise
                    break  # what is whole comes first; the next call fails
                if header is None:
                    break
                length, start = header
                if length > MAX_MESSAGE_BYTES:
                    self._too_large += 1
                    self._skip, self._skip_began = length, self._consumed + position
                    position = self._pass_over(start)
                elif start + length <= len(view):
                    messages.append(bytes(view[start : start + length]))
                    position = start + length
                else:
                    break
        del self._buffer[:position]
        self._consumed += position
        return messages

    def _pass_over(self, position: int) -> int:
        step = min(self._skip, len(self._buffer) - position)
        self._skip -= step
        return position + step

    def _length(self, position: int) -> tuple[int, int] | None:
        try:
            header = read_varint(self._buffer, position)
        except WireError:
            header = (_LARGEST_PROTOBUF + 1, position)
        if header is not None and header[0] > _LARGEST_PROTOBUF:
            at = self._consumed + position
            raise RecordingError(f"byte {at}: no message length here: this is no recording, or a damaged one")
        return header

    def finish(self) -> list[bytes]:
        """Return nothing; raise RecordingError when a message is incomplete."""
        self._length(0)
        if self._buffer or self._skip:
            at = self._skip_began if self._skip else self._consumed
            raise RecordingError(f"byte {at}: the input ends inside a message: truncated, or no recording")
        return []

    def rejected(self) -> Rejected:
        """Return and reset the counts of what was kept out."""
        counts = Rejected(self._too_large, 0)
        self._too_large = 0
        return counts


class JsonLines:
    """The agent's JSON export: one event a line. A line that is none is counted, and the next one is read."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._discarding = False
        self._too_large = 0
        self._malformed = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the events of the lines that `chunk` completes."""
        head, newline, rest = chunk.partition(b"\n")
        if not newline:
            self._extend(head)
            return []
        self._extend(head)
        lines = rest.split(b"\n")
        partial = lines.pop()
        messages = [*self.finish(), *self._events(lines)]
        self._extend(partial)
        return messages

    def finish(self) -> list[bytes]:
        """Return the event of a last line without a newline: the file is over, or another one follows."""
        line, self._partial = bytes(self._partial), bytearray()
        discarded, self._discarding = self._discarding, False
        return [] if discarded else self._events([line])

    def _extend(self, piece: bytes) -> None:
        if self._discarding:
            return
        self._partial += piece
        if len(self._partial) > MAX_LINE_BYTES:
            self._too_large += 1
            self._partial.clear()
            self._discarding = True

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events = []
        for line in lines:
            if not line.strip():
                continue
            try:
                event = event_from_json(line)
            except ValueError:
                self._malformed += 1
                continue
            if len(event) > MAX_MESSAGE_BYTES:
                self._too_large += 1
            else:
                events.append(event)
        return events

    def rejected(self) -> Rejected:
        """Return and reset the counts of what was kept out."""
        counts = Rejected(self._too_large, self._malformed)
        self._too_large = self._malformed = 0
        return counts
