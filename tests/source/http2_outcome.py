"""What becomes of a server's bytes in our own HTTP/2 reader, to be compared between two ways of cutting them."""

from collections.abc import Iterable

from keytrail.source import http2_frames as h2
from keytrail.source.http2_answer import HEADERS_LIMIT
from keytrail.source.http2_frames import Http2Error
from keytrail.source.http2_receiver import Receiver
from source.http2_bytes import LIMIT


class Plodder(Receiver):
    """The reader without its quick path: every frame is taken the long way."""

    def _take_plain(self, _data: bytes, position: int, _messages: list[bytes]) -> int:
        """Take none."""
        return position


class Outcome:
    """What becomes of a stream: its messages, its end or error, and what was skipped; memory is bounded on the way."""

    def __init__(self, chunks: Iterable[bytes], receiver: Receiver | None = None) -> None:
        receiver = receiver or Receiver(LIMIT)
        self.messages: list[bytes] = []
        self.fault = ""
        self.chunks = 0
        for chunk in chunks:
            self.chunks += 1
            receiver.to_send.clear()
            try:
                receiver.receive(chunk, self.messages)
            except Http2Error as error:
                self.fault = str(error)
                break
            assert len(receiver._rest) < h2.FRAME_LIMIT + 9
            assert len(receiver._cutter._body) <= LIMIT
            assert len(receiver._block or b"") <= HEADERS_LIMIT
            assert len(receiver.to_send) <= 2 * len(chunk) + 60
            if receiver.status is not None:
                break
        self.status = receiver.status
        self.too_large = receiver.take_too_large()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Outcome) and self._parts == other._parts

    __hash__ = None  # type: ignore[assignment]  # what is compared by value and changes has none

    @property
    def _parts(self) -> tuple[object, ...]:
        return self.messages, self.fault, self.status, self.too_large
