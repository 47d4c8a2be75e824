"""An agent that can do nothing but send: one event stream, framed before anybody asks, over a unix socket.

In: serialized events. Out: the HTTP/2 bytes of a gRPC response, as fast as the client's flow-control windows allow, and
for each connection what sending cost. A server that frames, serializes or locks for each message takes as long as the
clients it is meant to measure; this one slices one buffer.

Only as much HTTP/2 (RFC 9113) as gRPC clients use towards a server that they trust.
"""

import contextlib
import socket
import struct
import time
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple

from hpack import Decoder

from keytrail.proto.tetragon.sensors_pb2 import GetVersionResponse

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, WINDOW_UPDATE = 0, 1, 4, 8
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4
_RST_STREAM, _PING = 3, 6
_ACK = _END_STREAM = 1
_WINDOW = 65_535
"""Both windows at the start of a connection."""
_FRAME_LIMIT = 16_384
"""Payload of a frame that every client must accept; a larger message takes several."""
_AT_ONCE = 256 * 1024
_HEADER = struct.Struct(">HBBBI")
"""Of a frame: length (two bytes and one), type, flags, stream."""


def literal(name: bytes, value: bytes) -> bytes:
    """Write a header as HPACK (RFC 7541, 6.2.2), neither compressed nor remembered."""
    return b"\x00%c%b%c%b" % (len(name), name, len(value), value)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame."""
    return _HEADER.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def _message(payload: bytes) -> bytes:
    return struct.pack(">BI", 0, len(payload)) + payload


_HEAD = b"\x88" + literal(b"content-type", b"application/grpc")  # 0x88: `:status: 200` in HPACK's static table
_OK = literal(b"grpc-status", b"0")
_UNIMPLEMENTED = _HEAD + literal(b"grpc-status", b"12")
_VERSION = _message(GetVersionResponse(version="v1.7.0").SerializeToString())


class Stream:
    """A response's DATA frames; after which byte, and after how much of the window, each of them ends."""

    def __init__(self, messages: Iterable[bytes]) -> None:
        """Frame messages as grpc-go does: each in a frame of its own, or in several when it is too large."""
        self.number = 1
        frames = [
            frame(DATA, 0, self.number, whole[start : start + _FRAME_LIMIT])
            for whole in map(_message, messages)
            for start in range(0, len(whole), _FRAME_LIMIT)
        ]
        self.ends = list(accumulate(map(len, frames)))
        self.used = [end - _HEADER.size * count for count, end in enumerate(self.ends, 1)]
        self.data = memoryview(bytearray().join(frames))

    def renumber(self, number: int) -> None:
        """Make it the response to that call. Which of several first calls grpcio writes first is up to its threads."""
        if number != self.number:
            for start in (0, *self.ends[:-1]):
                struct.pack_into(">I", self.data, start + _HEADER.size - 4, number)
            self.number = number


class Cost(NamedTuple):
    """What sending a stream took, from the request for it to its last byte."""

    seconds: float
    cpu: float
    bytes: int


def serve(connection: socket.socket, stream: Stream) -> Cost | None:
    """Serve a connection until the client leaves; None when it did not ask for events, only questions."""
    client = Client(connection, stream)
    with connection, contextlib.suppress(ConnectionError):
        client.serve()
    return client.cost


class Client:
    """One connection: answers what it must, and sends as much of the stream as the windows allow."""

    def __init__(self, connection: socket.socket, stream: Stream) -> None:
        self._connection = connection
        self._stream = stream
        self._received = bytearray()
        self._headers = Decoder()
        self._connection_window = self._initial_window = self._stream_window = _WINDOW
        self._next = 0
        self._greeted = self._asked = self._ended = False
        self._since = (0.0, 0.0)
        self.cost: Cost | None = None

    def serve(self) -> None:
        """Alternate between a slice of the stream and whatever the client said meanwhile."""
        self._connection.sendall(frame(SETTINGS, 0, 0))
        while True:
            sent = self._send()
            with contextlib.suppress(BlockingIOError):
                received = self._connection.recv(65_536, socket.MSG_DONTWAIT if sent else 0)
                if not received:
                    return
                self._hear(received)

    def _hear(self, received: bytes) -> None:
        """Take what the client said: first its greeting, then frames."""
        self._received += received
        if not self._greeted and len(self._received) >= len(PREFACE):
            del self._received[: len(PREFACE)]
            self._greeted = True
        if self._greeted:
            self._take_frames()

    def _send(self) -> bool:
        """Send the next whole frames that fit both windows; False when there are none."""
        stream, first = self._stream, self._next
        if not self._asked or self._ended:
            return False
        used, start = (stream.used[first - 1], stream.ends[first - 1]) if first else (0, 0)
        last = bisect_right(stream.used, used + min(self._connection_window, self._stream_window), first)
        last = min(last, bisect_right(stream.ends, start + _AT_ONCE, first))
        if last > first:
            self._connection.sendall(stream.data[start : stream.ends[last - 1]])
            self._connection_window -= stream.used[last - 1] - used
            self._stream_window -= stream.used[last - 1] - used
            self._next = last
            wall, cpu = self._since
            self.cost = Cost(time.perf_counter() - wall, time.process_time() - cpu, stream.ends[last - 1])
        if self._next == len(stream.ends):
            self._connection.sendall(frame(HEADERS, END_HEADERS | _END_STREAM, stream.number, _OK))
            self._ended = True
        return last > first

    def _take_frames(self) -> None:
        while len(self._received) >= _HEADER.size:
            high, low, kind, flags, number = _HEADER.unpack_from(self._received)
            end = _HEADER.size + (high << 8 | low)
            if len(self._received) < end:
                return
            payload = bytes(self._received[_HEADER.size : end])
            del self._received[:end]
            self._take(kind, flags, number, payload)

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == HEADERS:
            self._call(number, payload)
        elif kind == WINDOW_UPDATE:
            increment = int.from_bytes(payload, "big")
            if not number:
                self._connection_window += increment
            elif number == self._stream.number:
                self._stream_window += increment
        elif kind == SETTINGS and not flags & _ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == INITIAL_WINDOW_SIZE:
                    self._stream_window += value - self._initial_window
                    self._initial_window = value
            self._connection.sendall(frame(SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            self._connection.sendall(frame(_PING, _ACK, 0, payload))
        elif kind == _RST_STREAM and number == self._stream.number:
            self._ended = True

    def _call(self, number: int, header_block: bytes) -> None:
        path = str(dict(self._headers.decode(header_block))[":path"])
        if path.endswith("/GetEvents"):
            self._stream.renumber(number)
            self._stream_window = self._initial_window
            self._connection.sendall(frame(HEADERS, END_HEADERS, number, _HEAD))
            self._asked = True
            self._since = time.perf_counter(), time.process_time()
        elif path.endswith("/GetVersion"):
            ends = frame(HEADERS, END_HEADERS | _END_STREAM, number, _OK)
            self._connection.sendall(
                frame(HEADERS, END_HEADERS, number, _HEAD) + frame(DATA, 0, number, _VERSION) + ends
            )
        else:
            # As an agent before 1.7 answers GetInfo, and one that was built without it the dump of its processes.
            self._connection.sendall(frame(HEADERS, END_HEADERS | _END_STREAM, number, _UNIMPLEMENTED))
