"""gRPC messages out of DATA payloads that are not simply one message each: parts, several, empty or too large ones.

In: payloads in order. Out: whole messages. At most one message is held, and of one above the limit nothing is.
"""

from keytrail.source.http2_frames import Http2Error

PREFIX_BYTES = 5
"""Before each message: whether it is compressed (one byte), and its length (four)."""


class MessageCutter:
    """Puts messages together. `too_large` counts those that were longer than `limit` and left out."""

    def __init__(self, limit: int) -> None:
        self.too_large = 0
        self._limit = limit
        self._prefix = b""
        self._body = bytearray()
        self._missing = 0
        self._skipping = False

    @property
    def inside(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._missing > 0 or self._prefix != b""

    def cut(self, payload: bytes, messages: list[bytes]) -> None:
        """Append the messages that end in this payload."""
        position = 0
        while position < len(payload):
            if self._missing:
                position = self._go_on(payload, position, messages)
            else:
                position = self._begin(payload, position, messages)

    def _begin(self, payload: bytes, position: int, messages: list[bytes]) -> int:
        end = position + PREFIX_BYTES - len(self._prefix)
        prefix = self._prefix + payload[position:end]
        if len(prefix) < PREFIX_BYTES:
            self._prefix = prefix
            return len(payload)
        self._prefix = b""
        if prefix[0]:
            raise Http2Error("a compressed message, where no compression was offered")
        self._missing = int.from_bytes(prefix[1:], "big")
        self._skipping = self._missing > self._limit
        if self._skipping:
            self.too_large += 1
        elif not self._missing:
            messages.append(b"")
        return end

    def _go_on(self, payload: bytes, position: int, messages: list[bytes]) -> int:
        end = min(position + self._missing, len(payload))
        self._missing -= end - position
        if self._skipping:
            return end
        # One growing buffer instead of a list of parts: frames may be a byte long, and each part is an object.
        self._body += payload[position:end]
        if not self._missing:
            messages.append(bytes(self._body))
            self._body = bytearray()
        return end
