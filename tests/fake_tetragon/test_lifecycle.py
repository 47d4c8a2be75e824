"""How the fake begins and ends: sockets, restarts, and connections that break as those of a real agent do."""

import json
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from keytrail.proto.tetragon.sensors_pb2 import AddTracingPolicyRequest
from keytrail.testing.fake_tetragon import FakeTetragon

Start = Callable[..., FakeTetragon]
Connect = Callable[..., Any]
Recorded = Callable[[str], list[bytes]]

POLICY = "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {name: p}\nspec: {loader: true}\n"


def _path(agent: FakeTetragon) -> Path:
    return Path(agent.address.removeprefix("unix://"))


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_dying_agent_breaks_its_streams(listen: str, start: Start, connect: Connect, end: str) -> None:
    """Open streams end UNAVAILABLE because the socket closed, on SIGTERM and on SIGKILL, with no goodbye."""
    agent = start(listen)
    stream = connect(agent).collect()
    assert agent.wait_for_listeners(timeout=60)

    getattr(agent, end)()
    stream.wait()

    assert stream.error is not None
    assert stream.error.code() is grpc.StatusCode.UNAVAILABLE
    assert "Cancelling" not in stream.error.details()


def test_the_unix_socket_is_for_root_and_its_group_only(start: Start) -> None:
    """The socket is 0660 from the first moment, and no temporary folder is left beside it."""
    path = _path(start())

    assert stat.S_ISSOCK(path.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_stop_removes_the_socket_and_kill_leaves_it_refusing(start: Start) -> None:
    """After SIGKILL the file is still there and a connection to it is refused; after SIGTERM it is gone."""
    agent = start()
    path = _path(agent)
    agent.kill()
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(str(path))

    agent.start()
    agent.stop()

    assert not path.exists()


def test_a_stopped_agent_refuses_tcp(start: Start) -> None:
    """Nothing listens on the port between stop and start."""
    agent = start("127.0.0.1:0")
    agent.stop()

    host, _, port = agent.address.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=60)


def test_restart_keeps_the_address_and_forgets_the_rest(
    listen: str, start: Start, connect: Connect, recorded: Recorded
) -> None:
    """After a restart the same channel reconnects; policies of gRPC, counters and processes are gone."""
    agent = start(listen, queue_size=1)
    address = agent.address
    client = connect(agent)
    client.call("AddTracingPolicy", AddTracingPolicyRequest(yaml=POLICY))
    agent.stall()
    stream = client.collect()
    assert agent.wait_for_listeners(timeout=60)
    agent.publish(recorded("seed-demo"))
    assert agent.overflowed

    agent.restart()
    stream.wait()
    grpc.channel_ready_future(client.channel).result(timeout=60)

    assert agent.address == address
    assert agent.overflowed == agent.published == agent.listeners == 0
    assert not client.call("ListTracingPolicies").policies


def test_every_start_makes_a_new_inode(start: Start) -> None:
    """Who bind-mounted the socket's file instead of its folder is left with a dead one, as with the agent."""
    agent = start()
    mounted = _path(agent).with_name("mounted")
    mounted.hardlink_to(_path(agent))  # keeps the inode, so that its number is not given out again

    agent.restart()

    assert not mounted.samefile(_path(agent))


def test_a_cut_connection_ends_streams_but_not_the_agent(
    listen: str, start: Start, connect: Connect, recorded: Recorded
) -> None:
    """The connection breaks in the middle of a large message; the agent goes on and the client can come back."""
    agent = start(listen)
    client = connect(agent, options=[("grpc.http2.bdp_probe", 0), ("grpc.max_receive_message_length", -1)])
    call = client.stream()
    assert agent.wait_for_listeners(timeout=60)
    agent.publish([b"\x00" * (64 << 20)])

    agent.cut_connections()
    with pytest.raises(grpc.RpcError) as broken:
        list(call)
    grpc.channel_ready_future(client.channel).result(timeout=60)
    again = client.collect()
    assert agent.wait_for_listeners(timeout=60)
    agent.publish(recorded("seed-demo"))
    agent.wait_until_drained(timeout=60)
    agent.go_away()
    again.wait()

    assert broken.value.code() is grpc.StatusCode.UNAVAILABLE
    assert again.messages == recorded("seed-demo")


def test_go_away_ends_streams_without_an_error(start: Start, connect: Connect) -> None:
    """A clean end of stream, such as a proxy before the agent may make, is no failure for the client."""
    agent = start()
    stream = connect(agent).collect()
    assert agent.wait_for_listeners(timeout=60)

    agent.go_away()
    stream.wait()

    assert not stream.failed


def test_the_info_file_says_where_the_agent_is(start: Start, tmp_path: Path) -> None:
    """The agent's tetragon-info.json leads to both of its addresses, and goes when the agent stops."""
    info_file = tmp_path / "tetragon-info.json"
    agent = start(metrics_address="127.0.0.1:0", info_file=info_file)

    info = json.loads(info_file.read_text())
    agent.stop()

    assert info["server_address"] == agent.address
    assert info["metrics_address"] == agent.metrics_address
    assert not info_file.exists()
