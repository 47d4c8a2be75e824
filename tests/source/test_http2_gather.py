"""Our own reader lets events gather: what is never kept waiting, and what ends the wait."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keytrail.commands.live import open_stream
from keytrail.domain.filters import EventFilter
from keytrail.settings import Settings
from keytrail.source import http2_frames as h2
from keytrail.source.address import Address
from keytrail.source.grpc_stream import Transition
from keytrail.source.http2_request import OUR_PING
from keytrail.source.http2_stream import Http2Stream
from keytrail.source.status import StreamError
from keytrail.testing.fake_tetragon import FakeTetragon
from support.processes import wait_until

SECONDS = 60
FOREVER = 1_000_000.0
HELLO = (
    h2.settings({})
    + h2.frame(h2.HEADERS, h2.END_HEADERS, 1, b"\x88\x00\x0ccontent-type\x10application/grpc")
    + h2.frame(h2.PING, h2.ACK, 0, OUR_PING)
)


def event(size: int = 1) -> bytes:
    """One event of this size, as a server frames it."""
    return h2.frame(h2.DATA, 0, 1, b"\0" + size.to_bytes(4, "big") + bytes(size))


class Wire:
    """A stream that gathers for ever, opened; its server's end, and what a thread has read of it."""

    def __init__(self, folder: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(folder / "agent.sock"))
            listening.listen()
            self.stream = Http2Stream(Address(path=folder / "agent.sock"), b"", gather_seconds=FOREVER)
            opening = self.stream.batches(pause=0.01)
            next(opening)
            self.server, _ = listening.accept()
        self.server.settimeout(SECONDS)
        self.server.sendall(HELLO)
        answered = threading.Thread(target=self.stream.wait_open)
        answered.start()
        while answered.is_alive():
            next(opening)
        self.sizes: list[int] = []
        self._thread = threading.Thread(target=self._read)

    def _read(self) -> None:
        with contextlib.suppress(StreamError):
            self.sizes.extend(len(batch.messages) for batch in self.stream.batches())

    def read(self) -> None:
        """Begin."""
        self._thread.start()

    def has_ended(self) -> bool:
        """Wait for the thread, which nothing but `cancel` ends."""
        self._thread.join(SECONDS)
        return not self._thread.is_alive()

    def close(self) -> None:
        """End it all."""
        self.stream.cancel()
        assert self.has_ended()
        self.stream.close()
        self.server.close()


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    """Open a stream."""
    opened = Wire(tmp_path)
    yield opened
    opened.close()


def test_the_first_is_handed_over_and_the_next_gather(wire: Wire) -> None:
    """After silence an event comes out at once; those behind it stay in the socket until the pause is over."""
    wire.read()
    wire.server.sendall(event())
    assert wait_until(lambda: wire.sizes == [1])
    wire.server.sendall(event() * 3)
    time.sleep(0.3)
    assert wire.sizes == [1]


def test_cancel_ends_the_pause(wire: Wire) -> None:
    """Who ends the stream while it gathers does not wait for it."""
    wire.read()
    wire.server.sendall(event())
    assert wait_until(lambda: wire.sizes == [1])
    wire.stream.cancel()
    assert wire.has_ended()


def test_who_is_behind_does_not_pause(wire: Wire) -> None:
    """A read that brought much is followed by the next."""
    wire.server.sendall(event(10_000) * 10)
    wire.read()
    assert wait_until(lambda: wire.sizes == [9, 1])


def test_who_is_brought_much_pauses_no_longer_than_that_takes(wire: Wire) -> None:
    """At a pace that soon fills the socket nothing waits for the whole pause: the agent would wait, too."""
    wire.server.sendall(event(10_000) * 10)
    wire.read()
    assert wait_until(lambda: sum(wire.sizes) == 10)
    wire.server.sendall(event())
    assert wait_until(lambda: sum(wire.sizes) == 11)


def test_while_the_connection_begins_nothing_gathers(wire: Wire) -> None:
    """Whoever holds events until the agent has answered its questions looks up in time, whatever came."""
    held = wire.stream.batches(pause=0.01)
    wire.server.sendall(event())
    assert wait_until(lambda: len(next(held).messages) == 1)
    assert next(held).messages == []
    wire.read()


def test_the_setting_reaches_the_socket(tmp_path: Path) -> None:
    """What `gather_ms` asks for is what a stream does: no more batches come than such pauses fit into the time."""
    with FakeTetragon(f"unix://{tmp_path}/tetragon.sock") as agent:
        heard: list[Transition] = []
        source = open_stream(Settings(agent_address=agent.address, gather_ms=100), EventFilter(), heard.append)
        took: list[float] = []
        thread = threading.Thread(
            target=lambda: took.extend(time.monotonic() for batch in source.batches() if batch.messages)
        )
        thread.start()
        assert wait_until(lambda: heard)
        assert agent.wait_for_listeners(timeout=SECONDS)
        agent.publish([b"\x0a\x00"])
        assert wait_until(lambda: took)
        while len(took) < 6:
            agent.publish([b"\x0a\x00"])
            time.sleep(0.002)
        source.close()
        thread.join(SECONDS)
    # Who read while the connection began may have had the second, too, and the end cuts a pause short.
    assert took[5] - took[2] >= 0.09 * 3
