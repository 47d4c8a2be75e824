"""Where the API server is and how to be let in: from inside a Pod, or by a kubeconfig.

Out flows an `Access`: the address, a pool of connections that trusts the right authority, and the headers of now. From
inside a Pod that takes two files and two variables, which are read here: the official client would weigh 15 MB and
half a second on every node, and reads a rotated token late when a clock is set back. A kubeconfig with its contexts,
certificates, proxies and credential plugins is the official client's matter (`keytrail[kubernetes]`).

Tokens of ServiceAccounts live for an hour and their file is renewed: it is read again every minute.
"""

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import urllib3
import yaml
from urllib3.connection import HTTPConnection

from keytrail.domain.errors import KubeError, SettingsError
from keytrail.kube.surroundings import ACCOUNT_FOLDER, HOST, PORT, in_pod

_TOKEN_SECONDS: Final = 60.0
_CONNECTIONS: Final = 16
"""Kept open; a watch occupies one for itself."""
_SOCKET_OPTIONS: Final = [
    *HTTPConnection.default_socket_options,
    # A watch is silent for minutes, and a server whose node lost its power says nothing either: found in 45 s.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


@dataclass(frozen=True, slots=True)
class Access:
    """How to ask one API server."""

    url: str
    """Without a slash at its end."""
    pool: urllib3.PoolManager
    headers: Callable[[], Mapping[str, str]]
    """What says who asks, as of now. Never to be logged."""


def from_pod(
    environ: Mapping[str, str], folder: Path = ACCOUNT_FOLDER, *, clock: Callable[[], float] = time.monotonic
) -> Access:
    """Return the access that the kubelet gives every Pod. Raises SettingsError where there is none.

    Proxies in the environment are for the world outside: the API server of one's own cluster is asked directly.
    """
    if not in_pod(environ, folder):
        raise SettingsError(
            f"no API server is known: {HOST} or {folder}/token is missing; outside of a Pod set `kubeconfig`, and in "
            "one automountServiceAccountToken: true"
        )
    host = environ[HOST]
    pool = urllib3.PoolManager(
        cert_reqs="CERT_REQUIRED",
        ca_certs=str(folder / "ca.crt"),  # read for every new connection: authorities are rotated, too
        maxsize=_CONNECTIONS,
        retries=False,
        socket_options=_SOCKET_OPTIONS,
    )
    token = _TokenFile(folder / "token", clock)
    url = f"https://{f'[{host}]' if ':' in host else host}:{environ[PORT]}"
    return Access(url, pool, lambda: {"Authorization": f"Bearer {token.read()}"})


class _TokenFile:
    """A token that somebody else renews in its file."""

    def __init__(self, file: Path, clock: Callable[[], float]) -> None:
        self._file = file
        self._clock = clock
        self._token = ""
        self._read = 0.0

    def read(self) -> str:
        """Return the token of now; the last one while the file cannot be read."""
        now = self._clock()
        if not self._token or now - self._read >= _TOKEN_SECONDS:
            try:
                self._token, self._read = self._file.read_text("ascii").strip(), now
            except (OSError, UnicodeDecodeError) as error:
                if not self._token:
                    raise KubeError(f"{self._file}: cannot be read ({type(error).__name__})") from None
        return self._token


def from_kubeconfig(file: Path, context: str = "") -> Access:
    """Return the access that a kubeconfig's context describes; by default its current one. Raises SettingsError."""
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        absent = isinstance(error, FileNotFoundError)
        why = "there is no such file: --kubeconfig names another" if absent else f"cannot be read: {error.strerror}"
        raise SettingsError(f"kubeconfig {file}: {why}") from None
    try:
        from kubernetes.client import Configuration
        from kubernetes.client.rest import RESTClientObject
        from kubernetes.config import ConfigException, load_kube_config
    except ImportError:
        raise SettingsError("a kubeconfig needs the official client: pip install 'keytrail[kubernetes]'") from None
    configuration = Configuration()
    configuration.retries = False
    configuration.socket_options = _SOCKET_OPTIONS
    configuration.connection_pool_maxsize = _CONNECTIONS
    try:
        load_kube_config(str(file), context or None, configuration, persist_config=False)  # type: ignore[no-untyped-call] # the client has no types there
        pool = RESTClientObject(configuration).pool_manager
    except (ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, AttributeError) as error:
        # Only the type where the text may quote what a file held: one that is no kubeconfig could be anything.
        why = str(error) if isinstance(error, ConfigException) else f"this is no kubeconfig ({type(error).__name__})"
        raise SettingsError(f"kubeconfig {file}: {why}") from None

    def headers() -> dict[str, str]:
        # Calls the credential plugin again when what it gave has expired.
        token = configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        return {"Authorization": token} if token else {}

    return Access(configuration.host.rstrip("/"), pool, headers)
