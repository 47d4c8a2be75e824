"""A source read as the collector reads it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import pytest

from keytrail.source import connection, http2_stream
from keytrail.source.address import Address, parse_address
from keytrail.source.base import Batch
from keytrail.source.grpc_stream import Backoff, GrpcSource, State, Transition
from keytrail.source.status import Reason
from support.processes import wait_until

SECONDS = 60
"""How long to wait for what should come at once, before a test has failed."""
QUICK = Backoff(first=0.02, limit=0.1)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent of a slow machine answers late: that it hangs is for the tests to say that are about it."""
    for module, name in (
        (connection, "_ANSWER_SECONDS"),
        (connection, "_DUMP_SECONDS"),
        (http2_stream, "_CONNECT_SECONDS"),
        (http2_stream, "_HANDSHAKE_SECONDS"),
        (http2_stream, "_SEND_SECONDS"),
    ):
        monkeypatch.setattr(module, name, float(SECONDS))


class Reader:
    """A source read on a thread of its own, as the collector reads it."""

    def __init__(self, address: Address | str, **options: object) -> None:
        """`options` are GrpcSource's."""
        self.batches: list[Batch] = []
        self.transitions: list[Transition] = []
        if isinstance(address, str):
            address = parse_address(address)
        settings = {"backoff": QUICK, "on_transition": self.transitions.append, **options}
        self.source = GrpcSource(address, **settings)  # type: ignore[arg-type]  # tests name options freely
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        self.batches.extend(self.source.batches())

    @property
    def messages(self) -> list[bytes]:
        """What arrived."""
        return [message for batch in list(self.batches) for message in batch.messages]

    @property
    def seen(self) -> list[tuple[State, Reason]]:
        """What was reported of the connection."""
        return [(transition.state, transition.reason) for transition in list(self.transitions)]

    def until(self, what: Callable[[], object]) -> None:
        """Wait until something holds."""
        assert wait_until(lambda: bool(what())), (self.seen, len(self.messages))

    def until_connected(self, times: int = 1) -> None:
        """Wait until a connection stands, for the given time since the start."""
        self.until(lambda: [state for state, _ in self.seen].count(State.CONNECTED) == times)

    def close(self) -> None:
        """End it; it must not take long."""
        self.source.close()
        self._thread.join(timeout=SECONDS)
        assert not self._thread.is_alive()


@contextmanager
def _reading(address: Address | str, **options: object) -> Iterator[Reader]:
    """Read for as long as the block lasts."""
    reader = Reader(address, **options)
    try:
        yield reader
    finally:
        reader.close()


@pytest.fixture
def reading_by() -> Callable[..., AbstractContextManager[Reader]]:
    """Read an address by the reader that a test names, or by the one that the source chooses."""
    return _reading


@pytest.fixture(params=["http2", "grpcio"])
def reading(request: pytest.FixtureRequest) -> Callable[..., AbstractContextManager[Reader]]:
    """Read an address, with options for GrpcSource, for as long as a block lasts: once with each of the two readers.

    What a test sees through it is what both show. A test of one of them names it.
    """
    return partial(_reading, reader=request.param)
