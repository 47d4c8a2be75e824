"""Addresses of agents: what a user may write, and how an agent is found."""

import json
import socket
from pathlib import Path

import pytest

from keytrail.domain.errors import SettingsError
from keytrail.source.address import Address, find_agent, parse_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:///var/run/tetragon/tetragon.sock", Address(path=Path("/var/run/tetragon/tetragon.sock"))),
        ("unix:/run/t.sock", Address(path=Path("/run/t.sock"))),
        ("/run/tetragon", Address(path=Path("/run/tetragon"))),
        ("localhost:54321", Address(host="localhost", port=54321)),
        ("10.0.0.7:1", Address(host="10.0.0.7", port=1)),
        ("agent.example", Address(host="agent.example", port=54321)),
        ("[::1]:54321", Address(host="::1", port=54321)),
        ("[fe80::1]", Address(host="fe80::1", port=54321)),
        (":54321", Address(host="localhost", port=54321)),
    ],
)
def test_every_documented_spelling_is_understood(text: str, expected: Address) -> None:
    """An address may be written in each form that Tetragon's own flag takes, and as a folder."""
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected unix:///PATH"),
        ("http://agent:54321", "expected unix:///PATH"),
        ("::1:54321", "expected unix:///PATH"),
        ("agent:port", "expected unix:///PATH"),
        ("agent:0", "expected a port"),
        ("agent:65536", "expected a port"),
        ("unix://relative.sock", "expected an absolute path"),
        ("/" + "x" * 107, "at most 107 bytes"),
    ],
)
def test_a_wrong_address_says_what_was_expected(text: str, expected: str) -> None:
    """A wrong address is a settings error that names the right form."""
    with pytest.raises(SettingsError, match=expected):
        parse_address(text)


def test_a_folder_leads_to_the_socket_that_is_in_it_now(tmp_path: Path) -> None:
    """The socket is looked up when it is needed, and odd characters in its path survive gRPC's URI syntax."""
    folder = tmp_path / "a b#c%"
    address = Address(path=folder)
    assert address.target.endswith("/a%20b%23c%25")
    folder.mkdir()
    assert address.target.endswith("/a%20b%23c%25/tetragon.sock")
    assert str(address) == f"unix://{folder}"


def test_tcp_targets_name_their_resolver() -> None:
    """A host called like a scheme stays a host, and IPv6 keeps its brackets."""
    assert parse_address("dns:1").target == "dns:///dns:1"
    assert parse_address("[::1]:2").target == "dns:///[::1]:2"


def test_the_info_file_decides(tmp_path: Path) -> None:
    """The agent's own word about its address comes before any guess, and is followed under the mounted root."""
    info = tmp_path / "var/run/tetragon/tetragon-info.json"
    info.parent.mkdir(parents=True)
    info.write_text(json.dumps({"server_address": "localhost:9999"}))
    assert find_agent(tmp_path) == Address(host="localhost", port=9999)
    info.write_text(json.dumps({"server_address": "unix:///var/run/tetragon/tetragon.sock"}))
    assert find_agent(tmp_path) == Address(path=tmp_path / "run/tetragon/tetragon.sock")
    (info.parent / "tetragon.sock").touch()
    assert find_agent(tmp_path) == Address(path=info.parent / "tetragon.sock")


def test_an_agent_without_grpc_is_said_to_be_one(tmp_path: Path) -> None:
    """An empty address in the info file means that gRPC is off: guessing on would hide that."""
    info = tmp_path / "run/tetragon/tetragon-info.json"
    info.parent.mkdir(parents=True)
    info.write_text(json.dumps({"server_address": ""}))
    with pytest.raises(SettingsError, match="--server-address"):
        find_agent(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"server_address": 7}'])
def test_an_unusable_info_file_is_passed_over(tmp_path: Path, content: str) -> None:
    """A half-written or foreign info file does not keep the known sockets from being tried."""
    info = tmp_path / "run/tetragon/tetragon-info.json"
    info.parent.mkdir(parents=True)
    info.write_text(content)
    assert find_agent(tmp_path) == Address(host="localhost", port=54321)


def test_known_sockets_are_tried_in_order(tmp_path: Path) -> None:
    """Without an info file the newer socket wins over the older place, and only a socket counts."""
    assert find_agent(tmp_path) == Address(host="localhost", port=54321)
    old, new = (tmp_path / "run" / place for place in ("cilium/tetragon", "tetragon"))
    for folder in (old, new):
        folder.mkdir(parents=True)
    (new / "tetragon.sock").touch()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(old / "tetragon.sock"))
    assert find_agent(tmp_path) == Address(path=old / "tetragon.sock")
    (new / "tetragon.sock").unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(new / "tetragon.sock"))
    assert find_agent(tmp_path) == Address(path=new / "tetragon.sock")
