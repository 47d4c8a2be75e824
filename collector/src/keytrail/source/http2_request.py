"""What a client says of itself: everything for one gRPC call, in one piece, before anything is known of the server.

In: authority, path and request. Out: bytes. Next: `http2_receiver` reads what comes back.
"""

from hpack import Encoder

from keytrail import __version__
from keytrail.source.http2_answer import HEADERS_LIMIT
from keytrail.source.http2_frames import (
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    FRAME_LIMIT,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_HEADER_LIST_SIZE,
    PING,
    PREFACE,
    STREAM,
    frame,
    settings,
    window_update,
)
from keytrail.source.http2_messages import PREFIX_BYTES

WINDOW = 16 * 1024 * 1024
"""Bytes that the server may send before it needs to hear from us. Nothing is buffered on our side: what holds a server
back is the socket, as long as it is not read."""
REQUEST_LIMIT = FIRST_WINDOW - PREFIX_BYTES
"""Bytes of a request that may be sent before the server has opened its windows further."""
OUR_PING = b"keytrail"
"""Payload of the PING behind the call, eight bytes."""


def opening(authority: str, path: str, request: bytes) -> bytes:
    """Return preface, settings, windows, the call, and a PING behind it.

    Frames are taken in order: who answers the PING has the call. `request` has at most REQUEST_LIMIT bytes.
    """
    body = bytes(1) + len(request).to_bytes(4, "big") + request
    parts = [body[start : start + FRAME_LIMIT] for start in range(0, len(body), FRAME_LIMIT)]
    return b"".join(
        (
            PREFACE,
            settings({ENABLE_PUSH: 0, INITIAL_WINDOW_SIZE: WINDOW, MAX_HEADER_LIST_SIZE: HEADERS_LIMIT}),
            window_update(0, WINDOW - FIRST_WINDOW),
            frame(HEADERS, END_HEADERS, STREAM, _block(authority, path)),
            *(frame(DATA, 0, STREAM, part) for part in parts[:-1]),
            frame(DATA, END_STREAM, STREAM, parts[-1]),
            # A server counts pings against its clients (grpc-go: one in five minutes), and allows this single one.
            frame(PING, 0, 0, OUR_PING),
        )
    )


def _block(authority: str, path: str) -> bytes:
    """Write the headers of a gRPC call without compression, timeout or metadata."""
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", f"keytrail/{__version__}"),
    ]
    return Encoder().encode(headers, huffman=False)  # readable in a capture, and once per connection
