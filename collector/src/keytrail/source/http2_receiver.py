"""One HTTP/2 connection with one call on it, without its socket: bytes in, gRPC messages and answers out.

In: what was received, cut anywhere. Out: whole messages, the bytes to send in return, and in the end the call's status.
What breaks HTTP/2 (RFC 9113) or gRPC raises `Http2Error`, and nothing else does; whatever arrives, no more is held than
one message, one frame and one header block. Next: `http2_stream`, which has the socket.

An agent's messages are nearly all one DATA frame each (grpc-go writes them so), and those take a path of their own: one
`unpack`, one slice, no object beyond the message.
"""

import struct

import grpc

from keytrail.source.base import MAX_MESSAGE_BYTES
from keytrail.source.http2_answer import HEADERS_LIMIT, AnswerHeaders, CallStatus, reset_status
from keytrail.source.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_LIMIT,
    GOAWAY,
    HAS_PRIORITY,
    HEADER_BYTES,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM,
    WINDOW_UPDATE,
    Http2Error,
    check_settings,
    check_size,
    frame,
    read_goaway,
    read_header,
    unpadded,
    window_update,
)
from keytrail.source.http2_messages import PREFIX_BYTES, MessageCutter
from keytrail.source.http2_request import OUR_PING, WINDOW

_PLAIN = struct.Struct(">IIHI")
"""Frame header and gRPC prefix, in words that have one right value each when a DATA frame holds one whole message:
length and kind, flags and upper half of the stream, lower half (8 bits) and `compressed`, the message's length."""
_PLAIN_STREAM = STREAM << 8
_LONGEST_PLAIN = FRAME_LIMIT - PREFIX_BYTES


class Receiver:
    """The state of the connection. Used by one thread."""

    def __init__(self, limit: int = MAX_MESSAGE_BYTES) -> None:
        """`limit` is in bytes; longer messages are left out and counted."""
        self.to_send = bytearray()
        """To be sent and cleared by the owner of the socket."""
        self.greeted = False
        """Whether the server has shown to speak HTTP/2."""
        self.opened = False
        """Whether the server is known to have the call."""
        self.status: CallStatus | None = None
        """How the call ended; nothing is read after it."""
        self.goaway = ""
        """The reason that the server gave for closing the connection; empty while it has not said so."""
        self._answer = AnswerHeaders()
        self._cutter = MessageCutter(limit)
        self._rest = b""
        self._block: bytearray | None = None
        self._block_flags = 0
        self._unacknowledged = 0
        self._on = {
            DATA: self._on_data,
            HEADERS: self._on_headers,
            PRIORITY: self._on_priority,
            RST_STREAM: self._on_reset,
            SETTINGS: self._on_settings,
            PUSH_PROMISE: self._on_push,
            PING: self._on_ping,
            GOAWAY: self._on_goaway,
            WINDOW_UPDATE: self._on_window_update,
            CONTINUATION: self._on_continuation,
        }

    def take_too_large(self) -> int:
        """Return how many messages were left out since this was last asked."""
        count, self._cutter.too_large = self._cutter.too_large, 0
        return count

    def receive(self, chunk: bytes, messages: list[bytes]) -> None:
        """Append the messages that a chunk completes. When it raises, what came before the fault has been appended."""
        data = self._rest + chunk if self._rest else chunk
        position = 0
        while self.status is None:
            if self._answer.answered and not self._cutter.inside and self._block is None:
                position = self._take_plain(data, position, messages)
            if len(data) - position < HEADER_BYTES:
                break
            length, kind, flags, stream = read_header(data, position)
            end = position + HEADER_BYTES + length
            if not self.greeted and kind != SETTINGS:
                raise Http2Error("no HTTP/2 server: it did not begin with its settings")
            if end > len(data):
                break
            self._take(kind, flags, stream, data[position + HEADER_BYTES : end], messages)
            position = end
        self._rest = data[position:] if self.status is None else b""
        self._open_windows()

    def _take_plain(self, data: bytes, position: int, messages: list[bytes]) -> int:
        """Take frames as long as each is one whole message and nothing else."""
        unpack, append, size = _PLAIN.unpack_from, messages.append, len(data)
        start, count, last = position, len(messages), len(data) - _PLAIN.size
        while position <= last:
            kind, flags, stream, length = unpack(data, position)
            body = position + 14
            end = body + length
            if (
                stream != _PLAIN_STREAM
                or kind != (length + PREFIX_BYTES) << 8
                or flags
                or end > size
                or length > _LONGEST_PLAIN
            ):
                break
            append(data[body:end])
            position = end
        self._unacknowledged += position - start - (len(messages) - count) * HEADER_BYTES
        return position

    def _open_windows(self) -> None:
        if self._unacknowledged > WINDOW:
            raise Http2Error("more than the window allows")
        if self._unacknowledged > WINDOW // 2:
            self.to_send += window_update(0, self._unacknowledged) + window_update(STREAM, self._unacknowledged)
            self._unacknowledged = 0

    def _take(self, kind: int, flags: int, stream: int, payload: bytes, messages: list[bytes]) -> None:
        if self._block is not None and kind != CONTINUATION:
            raise Http2Error("a header block that was not continued")
        handle = self._on.get(kind)
        if handle is not None:  # frames of kinds unknown are to be ignored
            handle(flags, stream, payload, messages)

    def _on_data(self, flags: int, stream: int, payload: bytes, messages: list[bytes]) -> None:
        if stream != STREAM or not self._answer.answered:
            raise Http2Error("data that no call expects")
        self._unacknowledged += len(payload)
        self._cutter.cut(unpadded(flags & PADDED, payload), messages)
        if flags & END_STREAM:
            raise Http2Error("an end without a gRPC status")

    def _on_headers(self, flags: int, stream: int, payload: bytes, _messages: list[bytes]) -> None:
        if stream != STREAM:
            raise Http2Error("headers that no call expects")
        self._block = bytearray(unpadded(flags & (PADDED | HAS_PRIORITY), payload))
        self._block_flags = flags
        if flags & END_HEADERS:
            self._end_block()

    def _on_continuation(self, flags: int, stream: int, payload: bytes, _messages: list[bytes]) -> None:
        if self._block is None or stream != STREAM:
            raise Http2Error("a continuation of nothing")
        self._block += payload
        if len(self._block) > HEADERS_LIMIT:
            raise Http2Error(f"headers of more than {HEADERS_LIMIT} bytes")
        if flags & END_HEADERS:
            self._end_block()

    def _end_block(self) -> None:
        block, self._block = bytes(self._block or b""), None
        self.status = self._answer.read(block, ended=bool(self._block_flags & END_STREAM))
        self.opened = True
        if self._cutter.inside and self.status is not None and self.status.code is grpc.StatusCode.OK:
            raise Http2Error("an end inside a message")

    def _on_priority(self, _flags: int, _stream: int, payload: bytes, _messages: list[bytes]) -> None:
        check_size("PRIORITY", payload, 5)

    def _on_reset(self, _flags: int, stream: int, payload: bytes, _messages: list[bytes]) -> None:
        check_size("RST_STREAM", payload, 4)
        if stream != STREAM:
            raise Http2Error("a reset of a stream that is none")
        self.status = reset_status(int.from_bytes(payload, "big"))

    def _on_settings(self, flags: int, stream: int, payload: bytes, _messages: list[bytes]) -> None:
        if flags & ACK and not self.greeted:
            raise Http2Error("no HTTP/2 server: it did not begin with its settings")
        self.greeted = True
        check_settings(flags, stream, payload)
        if not flags & ACK:
            self.to_send += frame(SETTINGS, ACK, 0)

    def _on_push(self, _flags: int, _stream: int, _payload: bytes, _messages: list[bytes]) -> None:
        raise Http2Error("a push, where none was allowed")

    def _on_ping(self, flags: int, stream: int, payload: bytes, _messages: list[bytes]) -> None:
        check_size("PING", payload, 8)
        if stream:
            raise Http2Error("a PING frame on a stream")
        if not flags & ACK:
            self.to_send += frame(PING, ACK, 0, payload)
        elif payload == OUR_PING:
            self.opened = True

    def _on_goaway(self, _flags: int, stream: int, payload: bytes, _messages: list[bytes]) -> None:
        if stream:
            raise Http2Error("a GOAWAY frame on a stream")
        last, self.goaway = read_goaway(payload)
        if last < STREAM:
            self.status = CallStatus(grpc.StatusCode.UNAVAILABLE, self.goaway)

    def _on_window_update(self, _flags: int, _stream: int, payload: bytes, _messages: list[bytes]) -> None:
        check_size("WINDOW_UPDATE", payload, 4)
        if not int.from_bytes(payload, "big"):
            raise Http2Error("a window update by nothing")
