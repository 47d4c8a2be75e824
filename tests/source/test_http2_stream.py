"""Our own reader on real sockets: the same as grpcio on every recording, and grpcio instead after a surprise."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from keytrail.domain.filters import EventFilter
from keytrail.source import http2_frames as h2
from keytrail.source import http2_stream
from keytrail.source.address import Address, parse_address
from keytrail.source.grpc_stream import State
from keytrail.source.http2_stream import Http2Stream
from keytrail.source.status import Reason, StreamError
from keytrail.testing.fake_tetragon import FakeTetragon
from source.answering import answering
from support.recordings import STREAMS, messages
from support.variants import with_long

SECONDS = 60
Reading = Callable[..., AbstractContextManager[Any]]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeTetragon]:
    """Run an agent on a unix socket."""
    with FakeTetragon(f"unix://{tmp_path}/tetragon.sock") as running:
        yield running


def ending(stream: Http2Stream) -> StreamError:
    """Read a stream to its end in this thread."""
    with pytest.raises(StreamError) as caught:
        for _ in stream.batches():
            pass
    stream.close()
    return caught.value


@pytest.mark.parametrize("name", with_long(STREAMS, "burst", "event-flood", "kubernetes", "policy-library"))
def test_both_readers_hand_over_the_same(agent: FakeTetragon, name: str, reading_by: Reading) -> None:
    """Every recording comes through both readers at once, byte for byte and in order, with the same reports."""
    sent = list(messages(name))
    with reading_by(agent.address, reader="http2") as own, reading_by(agent.address, reader="grpcio") as theirs:
        own.until_connected()
        theirs.until_connected()
        assert agent.wait_for_listeners(2, timeout=SECONDS)
        agent.publish(sent, lossless=True)
        own.until(lambda: len(own.messages) >= len(sent))
        theirs.until(lambda: len(theirs.messages) >= len(sent))
    assert own.messages == sent
    assert theirs.messages == sent
    assert own.seen == theirs.seen
    assert own.batches[0] == theirs.batches[0]._replace(arrived_ns=own.batches[0].arrived_ns)


def test_a_stall_is_only_silence(agent: FakeTetragon, reading: Reading) -> None:
    """An agent that sends nothing for a while is still connected."""
    with reading(agent.address) as reader:
        reader.until_connected()
        assert agent.wait_for_listeners(timeout=SECONDS)
        agent.stall()
        agent.publish([b"\x0a\x00"])
        time.sleep(0.3)
        assert reader.messages == []
        agent.resume()
        reader.until(lambda: reader.messages)
    assert reader.seen == [(State.CONNECTED, Reason.CONNECTED)]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Reason.NOT_GRPC),
        (h2.settings({}) + h2.frame(h2.DATA, 0, 1, b"early"), Reason.PROTOCOL),
        (h2.settings({h2.ENABLE_PUSH: 1}), Reason.PROTOCOL),
    ],
)
def test_after_a_surprise_grpcio_reads(answer: bytes, reason: Reason, reading_by: Reading) -> None:
    """What our reader does not understand ends its connection, is reported and counted; grpcio makes all the next."""
    with answering(answer) as (address, heard):
        with reading_by(address) as reader:
            reader.until(lambda: len([one for one in heard if one]) >= 3)
        own = [b"keytrail/" in one for one in heard if one]
    assert own == [True] + [False] * (len(own) - 1)
    assert reader.source.reader == "grpcio"
    assert reader.seen[0] == (State.AWAY, reason)
    assert reader.transitions[0].detail.endswith("grpcio reads from now on")
    assert reader.source.transitions[State.AWAY, reason] >= 1


def test_grpcio_delivers_after_a_surprise(reading_by: Reading) -> None:
    """An agent that comes where something else was is read by grpcio, with all its events."""
    with ExitStack() as stack:
        with answering(h2.settings({h2.ENABLE_PUSH: 1})) as (address, _):
            reader = stack.enter_context(reading_by(address))
            reader.until(lambda: reader.seen)
        with FakeTetragon(address) as agent:
            reader.until_connected()
            assert agent.wait_for_listeners(timeout=SECONDS)
            agent.publish(messages("seed-demo"), lossless=True)
            reader.until(lambda: len(reader.messages) >= len(messages("seed-demo")))
            reader.source.close()
    assert reader.messages == list(messages("seed-demo"))
    assert reader.source.reader == "grpcio"


def test_a_reader_that_was_named_stays(reading_by: Reading) -> None:
    """Who asks for our own reader gets it on every connection."""
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (address, heard):
        with reading_by(address, reader="http2") as reader:
            reader.until(lambda: len(heard) >= 3)
        assert all(one.startswith(h2.PREFACE) for one in heard if one)
    assert reader.seen == [(State.AWAY, Reason.NOT_GRPC)]


def test_events_before_a_surprise_are_handed_over(reading_by: Reading) -> None:
    """A breach behind whole messages, in the same packet, loses none of them; they come as one list."""
    head = h2.frame(h2.HEADERS, h2.END_HEADERS, 1, b"\x88\x00\x0ccontent-type\x10application/grpc")
    event = h2.frame(h2.DATA, 0, 1, b"\0\0\0\0\x02\x0a\x00")
    answer = h2.settings({}) + head + event * 3 + h2.frame(h2.PING, 0, 1, bytes(8))
    with answering(answer) as (address, _), reading_by(address) as reader:
        reader.until(lambda: (State.AWAY, Reason.PROTOCOL) in reader.seen)
    assert [batch.messages for batch in reader.batches if batch.messages] == [[b"\x0a\x00"] * 3]


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever accepts a connection and stays silent, or greets and never takes the call, is an agent that hangs."""
    monkeypatch.setattr(http2_stream, "_HANDSHAKE_SECONDS", 0.2)
    for answers in ((), (h2.settings({}),)):
        with answering(*answers, close=False) as (address, _):
            assert ending(Http2Stream(parse_address(address), b"")).reason is Reason.NO_ANSWER


@pytest.mark.parametrize(
    ("host", "reason"),
    [("127.0.0.1", Reason.REFUSED), ("no.such.host.invalid", Reason.UNKNOWN_HOST), ("a..b", Reason.UNKNOWN_HOST)],
)
def test_no_connection_has_its_reason(host: str, reason: Reason) -> None:
    """A port where nobody listens and a name that nobody has are told apart, in the system's own words."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    error = ending(Http2Stream(Address(host=host, port=port), b""))
    assert error.reason is reason
    assert error.detail


def test_a_file_that_is_no_socket_is_reported(tmp_path: Path) -> None:
    """Whatever is at the address is a reason, never a crash."""
    (tmp_path / "file").touch()
    assert ending(Http2Stream(Address(path=tmp_path / "file"), b"")).reason is Reason.REFUSED
    assert ending(Http2Stream(Address(path=tmp_path / ("x" * 200)), b"")).reason is Reason.UNREACHABLE


def test_cancel_ends_a_connect_that_hangs() -> None:
    """A server that accepts nothing holds nobody: cancel from another thread ends the attempt at once."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        waiting = socket.create_connection(("127.0.0.1", port))  # fills the backlog
        stream = Http2Stream(Address(host="127.0.0.1", port=port), b"")
        found: list[StreamError] = []
        thread = threading.Thread(target=lambda: found.append(ending(stream)))
        thread.start()
        time.sleep(0.3)
        stream.cancel()
        thread.join(timeout=SECONDS)
        assert not thread.is_alive()
        assert found[0].reason is Reason.CANCELLED
        waiting.close()


def test_a_host_that_is_gone_is_noticed() -> None:
    """Over TCP the kernel asks after a minute of silence whether the other end is there; nothing else would tell."""
    with answering(h2.settings({}), close=False) as (address, heard):
        stream = Http2Stream(parse_address(address), b"")
        batches = stream.batches(pause=0.01)
        while not heard:
            next(batches)
        assert stream._socket is not None
        asks = [
            stream._socket.getsockopt(level, option)
            for level, option in (
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
            )
        ]
        stream.close()
    assert asks == [1, 60, 10, 6]


def test_cancel_before_reading_connects_to_nothing(agent: FakeTetragon) -> None:
    """A stream that was cancelled first ends at once and nobody hears of it."""
    stream = Http2Stream(parse_address(agent.address), b"")
    stream.cancel()
    assert ending(stream).reason is Reason.CANCELLED
    assert agent.listeners == 0


def test_a_request_too_long_for_one_piece_is_grpcios(agent: FakeTetragon, reading_by: Reading) -> None:
    """More than what may be sent unasked, which only a monstrous filter is, goes through grpcio."""
    wanted = EventFilter(namespaces=frozenset(f"namespace-{number:05}" for number in range(5_000)))
    with reading_by(agent.address, filters=wanted) as reader:
        reader.until_connected()
        assert reader.source.reader == "grpcio"
