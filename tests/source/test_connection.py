"""The start of a connection and its limits, against servers that do what no agent does by itself."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from keytrail.proto.tetragon.sensors_pb2 import GetVersionResponse
from keytrail.source import connection as connection_module
from keytrail.source.base import MAX_MESSAGE_BYTES
from keytrail.source.channel import RECEIVE_LIMIT
from keytrail.source.grpc_stream import State
from keytrail.source.status import Reason
from source.answering import answering

SECONDS = 60
Reading = Callable[..., AbstractContextManager[Any]]
Answer = Callable[[bytes, grpc.ServicerContext], bytes]


@contextmanager
def scripted(tmp_path: Path, stream: Callable[..., Iterator[bytes]], **answers: Answer) -> Iterator[str]:
    """Run a server that answers as told, for what no agent does by itself."""
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "GetEvents": grpc.unary_stream_rpc_method_handler(stream),
        **{name: grpc.unary_unary_rpc_method_handler(answer) for name, answer in answers.items()},
    }
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tetragon.FineGuidanceSensors", handlers),))
    address = f"unix://{tmp_path}/scripted.sock"
    server.add_insecure_port(address)
    server.start()
    try:
        yield address
    finally:
        server.stop(None).wait()


def version(_request: bytes, _context: grpc.ServicerContext) -> bytes:
    """Answer GetVersion."""
    return GetVersionResponse(version="v1.7.0").SerializeToString()


def test_events_are_drained_while_the_dump_is_on_its_way(tmp_path: Path, reading: Reading) -> None:
    """The agent's queue for us is emptied while it prepares the dump, and what came meanwhile follows the processes."""
    sent_all = threading.Event()
    count = 3_000

    def stream(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for number in range(count):
            yield b"\xba\x3e" + bytes([2]) + number.to_bytes(2)
        sent_all.set()
        while context.is_active():
            time.sleep(0.01)

    def dump(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        assert sent_all.wait(SECONDS)
        return b"\x1a\x06\x0a\x04\x0a\x02\x0a\x00"

    with scripted(tmp_path, stream, GetVersion=version, GetDebug=dump) as address, reading(address) as reader:
        reader.until(lambda: len(reader.messages) >= count)
    assert list(reader.batches[0].processes) == [b"\x0a\x00"]
    assert reader.batches[0].messages == ()
    assert [int.from_bytes(message[3:]) for message in reader.messages] == list(range(count))


def test_a_flood_during_the_dump_gives_the_dump_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reading: Reading
) -> None:
    """Events are not held without bound: the dump is abandoned, reported, and no event is lost."""
    monkeypatch.setattr(connection_module, "_HELD_LIMIT", 100_000)
    count = 300

    def stream(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for number in range(count):
            yield number.to_bytes(1000)
        while context.is_active():
            time.sleep(0.01)

    def dump(_request: bytes, context: grpc.ServicerContext) -> bytes:
        while context.is_active():
            time.sleep(0.01)
        return b""

    with scripted(tmp_path, stream, GetVersion=version, GetDebug=dump) as address, reading(address) as reader:
        reader.until(lambda: len(reader.messages) >= count)
    assert [int.from_bytes(message) for message in reader.messages] == list(range(count))
    assert reader.seen == [(State.CONNECTED, Reason.NO_PROCESS_CACHE)]
    assert "given up" in reader.transitions[0].detail


@pytest.mark.parametrize(
    ("size", "text"), [(RECEIVE_LIMIT + 100_000, "larger than max"), (5, "the message ends inside a field")]
)
def test_a_dump_that_cannot_be_used_is_survived(tmp_path: Path, size: int, text: str, reading: Reading) -> None:
    """A dump over its own limit, or one that is no dump, leaves the stream alone."""

    def stream(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"\x0a\x00"
        while context.is_active():
            time.sleep(0.01)

    def dump(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        return b"\x1a\x7f" + bytes(size)

    options = {"dump_limit": RECEIVE_LIMIT}
    with (
        scripted(tmp_path, stream, GetVersion=version, GetDebug=dump) as address,
        reading(address, **options) as reader,
    ):
        reader.until(lambda: reader.messages)
    assert reader.seen == [(State.CONNECTED, Reason.NO_PROCESS_CACHE)]
    assert text in reader.transitions[0].detail


def test_an_oversized_dump_does_not_loosen_the_limit_of_events(tmp_path: Path, reading_by: Reading) -> None:
    """The dump may be larger than any event: the two limits are kept apart on one connection."""

    def stream(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield bytes(RECEIVE_LIMIT + 1)
        while context.is_active():
            time.sleep(0.01)

    def dump(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        return b""

    assert MAX_MESSAGE_BYTES < RECEIVE_LIMIT
    with (
        scripted(tmp_path, stream, GetVersion=version, GetDebug=dump) as address,
        reading_by(address, reader="grpcio") as reader,
    ):
        reader.until(lambda: (State.AWAY, Reason.TOO_LARGE) in reader.seen)


def test_a_server_that_is_no_agent_is_said_to_be_none(tmp_path: Path, reading: Reading) -> None:
    """An answer that is no message of the agent's is a refusal, not a crash."""

    def stream(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        while context.is_active():
            time.sleep(0.01)
        yield b""

    with scripted(tmp_path, stream, GetVersion=lambda *_: b"\xff") as address, reading(address) as reader:
        reader.until(lambda: (State.AWAY, Reason.REJECTED) in reader.seen)
    assert "not a Tetragon agent" in reader.transitions[0].detail


def test_a_web_server_is_told_from_an_agent(reading: Reading) -> None:
    """An address where something else listens is named as that."""
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (address, _), reading(address) as reader:
        reader.until(lambda: (State.AWAY, Reason.NOT_GRPC) in reader.seen)


def test_too_many_pings_are_said_to_be_a_goaway(reading: Reading) -> None:
    """GOAWAY has its own reason and keeps the server's text: it means that our own settings are wrong."""
    settings = b"\0\0\0\4\0\0\0\0\0"
    goaway = bytes((0, 0, 22, 7, 0)) + bytes(4) + bytes(4) + (11).to_bytes(4) + b"too_many_pings"
    with answering(settings, goaway) as (address, _), reading(address) as reader:
        reader.until(lambda: (State.AWAY, Reason.GOAWAY) in reader.seen)
    assert "too_many_pings" in next(t.detail for t in reader.transitions if t.reason is Reason.GOAWAY)
