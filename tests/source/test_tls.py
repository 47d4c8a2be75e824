"""TLS to an agent on TCP, with certificates made for the test."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from keytrail.domain.errors import AgentError
from keytrail.proto.tetragon.sensors_pb2 import GetVersionResponse
from keytrail.source.address import Address
from keytrail.source.agent import AgentClient
from keytrail.source.channel import SERVICE, TlsOptions
from keytrail.source.grpc_stream import GrpcSource, State, Transition
from keytrail.source.status import Reason

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificates with openssl")
AGENT_NAME = "node.tetragon-grpc.cilium.io"
"""Like the name in an agent's own certificate, which is no name of its host."""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an agent's and a client's certificate, each its own authority."""
    place = tmp_path_factory.mktemp("tls")
    for name in ("agent", "client"):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{AGENT_NAME}", "-days", "2"]
        command += ["-keyout", str(place / f"{name}.key"), "-out", str(place / f"{name}.crt")]
        subprocess.run(command, check=True, capture_output=True)
    return place


@pytest.fixture
def serve(certificates: Path) -> Iterator[Callable[..., Address]]:
    """Start agents that speak TLS and know their version, nothing more."""
    key, certificate, client = ((certificates / name).read_bytes() for name in ("agent.key", "agent.crt", "client.crt"))
    with ExitStack() as stack:

        def start(*, mutual: bool) -> Address:
            def version(_request: bytes, _context: grpc.ServicerContext) -> bytes:
                return GetVersionResponse(version="v1.8.0").SerializeToString()

            server = grpc.server(ThreadPoolExecutor(2))
            handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(version)
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"GetVersion": handler}),))
            credentials = grpc.ssl_server_credentials(
                [(key, certificate)], client if mutual else None, require_client_auth=mutual
            )
            port = server.add_secure_port("127.0.0.1:0", credentials)
            server.start()
            stack.callback(lambda: server.stop(None).wait())
            return Address(host="127.0.0.1", port=port)

        yield start


def test_tls_checks_the_agents_certificate(certificates: Path, serve: Callable[..., Address]) -> None:
    """With its authority and its name an agent is believed; with a wrong name, or as plain text, it is not."""
    address = serve(mutual=False)
    ca = certificates / "agent.crt"
    with AgentClient(address, TlsOptions(ca_file=ca, server_name=AGENT_NAME)) as client:
        assert client.version() == "v1.8.0"
    for tls in (TlsOptions(ca_file=ca), TlsOptions(server_name=AGENT_NAME), None):
        with AgentClient(address, tls) as client, pytest.raises(AgentError) as caught:
            client.version()
        assert caught.value.status == "UNAVAILABLE"
        assert tls is None or "TLS options" in str(caught.value)


def test_mutual_tls_needs_the_clients_certificate(certificates: Path, serve: Callable[..., Address]) -> None:
    """An agent that asks for a client certificate serves who has one and nobody else."""
    address = serve(mutual=True)
    ca = certificates / "agent.crt"
    pair = {"cert_file": certificates / "client.crt", "key_file": certificates / "client.key"}
    with AgentClient(address, TlsOptions(ca_file=ca, server_name=AGENT_NAME, **pair)) as client:
        assert client.version() == "v1.8.0"
    with AgentClient(address, TlsOptions(ca_file=ca, server_name=AGENT_NAME)) as client, pytest.raises(AgentError):
        client.version()


def test_the_source_says_that_it_is_tls(certificates: Path, serve: Callable[..., Address]) -> None:
    """A certificate for another name is reported as a TLS problem, and tried again: it may be rotated."""
    transitions: list[Transition] = []
    attempts = 0

    def sleep(_seconds: float) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 2:
            source.close()

    tls = TlsOptions(ca_file=certificates / "agent.crt", server_name="somebody.else")
    source = GrpcSource(serve(mutual=False), tls=tls, on_transition=transitions.append, sleep=sleep)
    assert list(source.batches()) == []
    assert [(transition.state, transition.reason) for transition in transitions] == [(State.AWAY, Reason.TLS)]
