"""A running fake agent and a real grpcio client for it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.protobuf.message import Message

import keytrail.testing
from keytrail.proto.tetragon import events_pb2, sensors_pb2, tetragon_pb2
from keytrail.source.recording import read_recording
from keytrail.testing.fake_tetragon import FakeTetragon

_PACKAGED: Final = Path(keytrail.testing.__file__).parent / "recordings"
_CORPUS: Final = Path(__file__).parents[1] / "corpus" / "recordings"
_REPLIES: Final[dict[str, type[Message]]] = {
    "GetHealth": tetragon_pb2.GetHealthStatusResponse,
    **{
        name: getattr(sensors_pb2, f"{name}Response")
        for name in (
            *("GetVersion", "GetInfo", "GetDebug", "ListSensors", "ListDomains"),
            *(f"{verb}TracingPolicy" for verb in ("Add", "Delete", "Configure", "Enable", "Disable")),
            "ListTracingPolicies",
        )
    },
}


class Client:
    """Calls one agent as any grpcio program would."""

    def __init__(self, address: str, options: list[tuple[str, int]] | None = None) -> None:
        self.channel = grpc.insecure_channel(address, options=options)

    def call(self, method: str, request: Message | None = None, timeout: float = 60) -> Any:
        """Make one call; raises grpc.RpcError."""
        rpc = self.channel.unary_unary(f"/tetragon.FineGuidanceSensors/{method}")
        raw = rpc(request.SerializeToString() if request else b"", timeout=timeout)
        return _REPLIES[method].FromString(raw)

    def stream(self, request: events_pb2.GetEventsRequest | None = None) -> Any:
        """Open a GetEvents stream of undecoded messages."""
        rpc = self.channel.unary_stream("/tetragon.FineGuidanceSensors/GetEvents")
        return rpc(request.SerializeToString() if request else b"")

    def collect(self, request: events_pb2.GetEventsRequest | None = None) -> "Collected":
        """Open a stream and read it from a thread until it ends."""
        return Collected(self.stream(request))


class Collected:
    """What a stream brought so far, and how it ended."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.messages: list[bytes] = []
        self.error: grpc.RpcError | None = None
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    @property
    def failed(self) -> bool:
        """Whether it ended in an error of its own.

        A server that has said goodbye closes its socket, and a window update of ours that meets the closed socket makes
        gRPC forget the goodbye that it had not read yet.
        """
        return self.error is not None and "Stream removed" not in str(self.error)

    def wait(self) -> None:
        """Wait for the stream's end."""
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _read(self) -> None:
        try:
            self.messages.extend(self.call)
        except grpc.RpcError as error:
            self.error = error


@pytest.fixture(params=["unix", "tcp"])
def listen(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give an address of either kind."""
    return f"unix://{tmp_path}/tetragon.sock" if request.param == "unix" else "127.0.0.1:0"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., FakeTetragon]]:
    """Start agents that are stopped after the test."""
    with ExitStack() as stack:

        def started(address: str = f"unix://{tmp_path}/agent.sock", **options: Any) -> FakeTetragon:
            return stack.enter_context(FakeTetragon(address, **options))

        yield started


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """Connect clients whose channels are closed after the test."""
    with ExitStack() as stack:

        def connected(agent: FakeTetragon, **options: Any) -> Client:
            client = Client(agent.address, **options)
            stack.callback(client.channel.close)
            return client

        yield connected


@pytest.fixture(scope="session")
def recorded() -> Callable[[str], list[bytes]]:
    """Read a recording of a real agent by its folder's name."""
    cache: dict[str, list[bytes]] = {}

    def read(name: str) -> list[bytes]:
        if name not in cache:
            folder = _PACKAGED / name
            cache[name] = list(read_recording(folder if folder.exists() else _CORPUS / name))
        return cache[name]

    return read


@pytest.fixture(scope="session")
def packaged() -> Path:
    """Name the folder of the recordings that the package carries."""
    return _PACKAGED
