"""What the header blocks of a call's answer say of its outcome.

In: HPACK blocks, or an error code. Out: a `CallStatus` in gRPC's terms. HPACK itself (RFC 7541) is the `hpack`
library's.
"""

from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import grpc
from hpack import Decoder, HPACKError

from keytrail.source.http2_frames import Http2Error, error_name

HEADERS_LIMIT = 64 * 1024
"""Bytes of a header block, compressed or not: an agent's own has some hundred."""
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_LONGEST_NUMBER = 3
_HTTP_OK = 200
_FIRST_FINAL = 200
"""Statuses below it (1xx) announce that the answer is still to come."""
_HTTP_STATUS = {
    400: grpc.StatusCode.INTERNAL,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.UNIMPLEMENTED,
    429: grpc.StatusCode.UNAVAILABLE,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.UNAVAILABLE,
}
"""What a proxy's HTTP status means to a gRPC client, as gRPC's own documents map it; any other is UNKNOWN."""
_RESETS = {
    "REFUSED_STREAM": grpc.StatusCode.UNAVAILABLE,
    "CANCEL": grpc.StatusCode.CANCELLED,
    "ENHANCE_YOUR_CALM": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "INADEQUATE_SECURITY": grpc.StatusCode.PERMISSION_DENIED,
}
"""The same for RST_STREAM; any other is INTERNAL."""


class CallStatus(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    text: str
    """The server's own words; may be empty."""


class AnswerHeaders:
    """The header blocks of one answer, in order: HPACK refers back to earlier ones."""

    def __init__(self) -> None:
        self.answered = False
        """Whether the head has come that messages follow."""
        self._decoder = Decoder(max_header_list_size=HEADERS_LIMIT)

    def read(self, block: bytes, *, ended: bool) -> CallStatus | None:
        """Return how the call ended; None while it goes on. `ended` is END_STREAM. Raises Http2Error."""
        try:
            headers = dict(self._decoder.decode(block, raw=True))
        except HPACKError as error:
            # Not its text: that may quote the whole block.
            raise Http2Error(f"headers that cannot be read ({type(error).__name__})") from None
        if ended and b"grpc-status" in headers:
            return _status(headers)
        if self.answered:
            raise Http2Error("trailers without a gRPC status")
        status = _number(headers.get(b":status", b""))
        if status >= _FIRST_FINAL and status != _HTTP_OK:
            return CallStatus(_HTTP_STATUS.get(status, grpc.StatusCode.UNKNOWN), f"HTTP status {status}")
        if ended:
            raise Http2Error("an answer without a gRPC status")
        if status == _HTTP_OK:
            if not headers.get(b"content-type", b"").startswith(b"application/grpc"):
                raise Http2Error("an answer that is not gRPC's")
            self.answered = True
        return None


def reset_status(code: int) -> CallStatus:
    """Return what RST_STREAM with this error code means."""
    name = error_name(code)
    return CallStatus(_RESETS.get(name, grpc.StatusCode.INTERNAL), f"RST_STREAM received: {name}")


def _status(headers: dict[bytes, bytes]) -> CallStatus:
    code = _CODES.get(_number(headers[b"grpc-status"]), grpc.StatusCode.UNKNOWN)
    return CallStatus(code, unquote_to_bytes(headers.get(b"grpc-message", b"")).decode(errors="replace"))


def _number(value: bytes) -> int:
    if not value.isdigit() or len(value) > _LONGEST_NUMBER:
        raise Http2Error("a status that is no number")
    return int(value)
