"""Where the agent listens: parse what a user wrote, or find it as Tetragon's own tool does.

In: text, or the files an agent leaves under `/var/run`. Out: an `Address`, of its gRPC API or of its metrics page.
Knows no gRPC call.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from keytrail.domain.errors import SettingsError

_EXPECTED = "expected unix:///PATH, a socket's path or directory, HOST, HOST:PORT or [IPv6]:PORT"
_SOCKET_NAME = "tetragon.sock"
_PORT = 54321
"""Tetragon's own default."""
_LONGEST_SOCKET_PATH = 107
"""Bytes: sockaddr_un holds 108, the last one is NUL."""
_HIGHEST_PORT = 65535
_HOST_AND_PORT = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]*))(?::(?P<port>\d{1,5}))?", re.ASCII
)
_METRICS_PORT = 2112
"""Helm's; on its own the agent has none."""
_EVERY_HOST = ("", "0.0.0.0", "::")  # noqa: S104 - what an agent listens on; we connect to this machine
_RUN_FOLDERS = ("var/run", "run")
"""`/var/run` is a symbolic link to `/run`; under another root an absolute link leads out of it."""


@dataclass(frozen=True, slots=True)
class Address:
    """A unix socket (`path` is the socket or its directory), or `host` and `port`."""

    path: Path | None = None
    host: str = ""
    port: int = _PORT

    @property
    def target(self) -> str:
        """What gRPC connects to, looked up anew: every start of an agent makes a new socket, maybe where none was."""
        socket = self.socket
        return f"dns:///{self.authority}" if socket is None else f"unix://{quote(str(socket))}"

    @property
    def socket(self) -> Path | None:
        """The socket itself, looked up anew as for `target`; None for TCP."""
        return self.path / _SOCKET_NAME if self.path is not None and self.path.is_dir() else self.path

    @property
    def authority(self) -> str:
        """What HTTP calls the server: host and port, or for a socket what gRPC clients say there."""
        return "localhost" if self.path is not None else f"{_bracketed(self.host)}:{self.port}"

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path is not None else self.authority


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def parse_address(text: str) -> Address:
    """Read an address as Tetragon's `--server-address` spells it. Raises SettingsError that says what was expected."""
    for scheme in ("unix://", "unix:", ""):
        rest = text.removeprefix(scheme)
        if text.startswith(scheme) and (scheme or rest.startswith("/")):
            return Address(path=_socket(rest, text))
    match = _HOST_AND_PORT.fullmatch(text)
    if not text or match is None:
        raise SettingsError(f"agent address {text!r}: {_EXPECTED}")
    port = int(match["port"] or _PORT)
    if not 0 < port <= _HIGHEST_PORT:
        raise SettingsError(f"agent address {text!r}: expected a port from 1 to {_HIGHEST_PORT}")
    return Address(host=match["six"] or match["host"] or "localhost", port=port)


def _socket(path: str, text: str) -> Path:
    if not path.startswith("/") or "\0" in path:
        raise SettingsError(f"agent address {text!r}: expected an absolute path of a socket or of its directory")
    if len(path.encode(errors="surrogateescape")) > _LONGEST_SOCKET_PATH:
        raise SettingsError(f"agent address {text!r}: a socket's path has at most {_LONGEST_SOCKET_PATH} bytes")
    return Path(path)


def find_agent(root: Path = Path("/")) -> Address:
    """Return the address that the agent's info file names, else the first known socket, else localhost:54321.

    `root` is where the host's file system is mounted. Raises SettingsError when the info file says that the agent
    was started without gRPC.
    """
    for folder in _RUN_FOLDERS:
        address = _from_info(root / folder / "tetragon" / "tetragon-info.json", root)
        if address is not None:
            return address
    # Before 1.7 the socket, where one was configured, was a neighbour of Cilium's.
    for place in ("tetragon", "cilium/tetragon"):
        for folder in _RUN_FOLDERS:
            socket = root / folder / place / _SOCKET_NAME
            if socket.is_socket():
                return Address(path=socket)
    return Address(host="localhost")


def parse_metrics_address(text: str) -> Address:
    """Read `host:port` of a metrics page, as Tetragon's `--metrics-server` spells it. Raises SettingsError."""
    match = _HOST_AND_PORT.fullmatch(text)
    port = int(match["port"] or _METRICS_PORT) if match is not None else 0
    if match is None or not text or not 0 < port <= _HIGHEST_PORT:
        raise SettingsError(f"agent metrics address {text!r}: expected HOST:PORT or [IPv6]:PORT")
    host = match["six"] or match["host"] or ""
    return Address(host="localhost" if host in _EVERY_HOST else host, port=port)


def find_metrics(root: Path = Path("/")) -> Address | None:
    """Return where the agent's info file says that its metrics are; None when it says nothing, or nothing readable."""
    for folder in _RUN_FOLDERS:
        text = _info_text(root / folder / "tetragon" / "tetragon-info.json", "metrics_address")
        if text:
            try:
                return parse_metrics_address(text)
            except SettingsError:
                return None
    return None


def _info_text(file: Path, name: str) -> str | None:
    """Return a text of the info file; None when there is none, it is not ours to read, or it is half written."""
    try:
        info = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    text = info.get(name) if isinstance(info, dict) else None
    return text if isinstance(text, str) else None


def _from_info(file: Path, root: Path) -> Address | None:
    text = _info_text(file, "server_address")
    if text is None:
        return None  # the known sockets are next
    if not text:
        raise SettingsError(f"{file}: the agent was started without gRPC: start it with --server-address")
    try:
        address = parse_address(text)
    except SettingsError as error:
        raise SettingsError(f"{file}: {error}") from None
    return address if address.path is None else Address(path=_under(root, address.path))


def _under(root: Path, path: Path) -> Path:
    inside = root / path.relative_to("/")
    if not inside.exists() and path.is_relative_to("/var/run"):
        return root / path.relative_to("/var")
    return inside
