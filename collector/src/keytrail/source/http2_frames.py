"""HTTP/2 frames (RFC 9113) as a client with one call needs them: written, and looked into.

In: the parts of a frame, or its payload. Out: bytes, or what the payload says; `Http2Error` for what no server may
send. Knows no connection: `http2_receiver` decides what a frame means at the moment it arrives.
"""

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STREAM = 1
"""The first call of a connection, and here the only one."""
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK = END_STREAM = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20
HEADER_BYTES = 9
FRAME_LIMIT = 16_384
"""Bytes of payload, both ways: the limit of a peer that has asked for no other. What is buffered of a frame that has
not fully arrived is no more than that."""
FIRST_WINDOW = 65_535
"""Bytes that either side may send before the other has allowed more."""
ENABLE_PUSH, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 0x2, 0x4, 0x5, 0x6
_HIGHEST_FRAME_LIMIT = 2**24 - 1
_HIGHEST_WINDOW = 2**31 - 1
_STREAM_BITS = 2**31 - 1
_PRIORITY_BYTES = 5
_HEADER = struct.Struct(">HBBBI")
_SETTING = struct.Struct(">HI")
_GOAWAY = struct.Struct(">II")
_LONGEST_TEXT = 1_000

ERRORS = (
    *("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED"),
    *("FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM"),
    *("INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"),
)


class Http2Error(Exception):
    """The server sent what HTTP/2 or gRPC do not allow, or what this reader does not know."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Write one frame of at most FRAME_LIMIT bytes of payload."""
    return _HEADER.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """Write a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*setting) for setting in values.items()))


def window_update(stream: int, increment: int) -> bytes:
    """Allow so many more bytes on a stream, or with 0 on the connection."""
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def read_header(data: bytes, position: int) -> tuple[int, int, int, int]:
    """Return length, kind, flags and stream of the frame at `position`, of which the header must be there."""
    high, low, kind, flags, stream = _HEADER.unpack_from(data, position)
    length = high << 8 | low
    if length > FRAME_LIMIT:
        raise Http2Error(f"a frame of {length} bytes, where {FRAME_LIMIT} are the most")
    return length, kind, flags, stream & _STREAM_BITS


def unpadded(flags: int, payload: bytes) -> bytes:
    """Return the payload of a DATA or HEADERS frame without padding, and without the priority, which is obsolete."""
    start, end = 0, len(payload)
    if flags & PADDED:
        start, end = 1, end - (payload[0] if payload else 0)
    if flags & HAS_PRIORITY:
        start += _PRIORITY_BYTES
    if start > end:
        raise Http2Error("a frame with more padding than payload")
    return payload[start:end]


def check_settings(flags: int, stream: int, payload: bytes) -> None:
    """Refuse what a server may not set. The rest concerns what a client sends, and ours has sent all it ever will."""
    if stream or len(payload) % _SETTING.size or (flags & ACK and payload):
        raise Http2Error("a SETTINGS frame of a wrong form")
    for name, value in _SETTING.iter_unpack(payload):
        wrong = (
            (name == ENABLE_PUSH and value != 0)
            or (name == INITIAL_WINDOW_SIZE and value > _HIGHEST_WINDOW)
            or (name == MAX_FRAME_SIZE and not FRAME_LIMIT <= value <= _HIGHEST_FRAME_LIMIT)
        )
        if wrong:
            raise Http2Error(f"setting {name} with the value {value}")


def check_size(name: str, payload: bytes, size: int) -> None:
    """Refuse a payload of another size than its kind has."""
    if len(payload) != size:
        raise Http2Error(f"a {name} frame of {len(payload)} bytes instead of {size}")


def read_goaway(payload: bytes) -> tuple[int, str]:
    """Return the last stream that the server will serve, and in words what it gave as the reason."""
    if len(payload) < _GOAWAY.size:
        raise Http2Error("a GOAWAY frame that is too short")
    last, code = _GOAWAY.unpack_from(payload)
    text = payload[_GOAWAY.size :][:_LONGEST_TEXT].decode(errors="replace")
    return last & _STREAM_BITS, f"GOAWAY received: {error_name(code)}" + (f", {text}" if text else "")


def error_name(code: int) -> str:
    """Return the name that the standard gives an error code."""
    return ERRORS[code] if code < len(ERRORS) else f"error {code}"
