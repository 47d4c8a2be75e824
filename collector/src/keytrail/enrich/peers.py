"""Connections in, who is at their other end out, with the name by which the process asked for it.

Asked when a rule or an output wants to know (`of`), and shown what processes send (`hear`): the name in a TLS
ClientHello or an HTTP head is that of its connection, whose later events carry it too. Works without Kubernetes, of
names alone. For the deciding thread; the tables behind it are written by others. Must not know rules.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from keytrail.domain.event import Event, Network, Payload
from keytrail.domain.peer import Peer, PeerKind
from keytrail.domain.peer_facts import plain_address
from keytrail.enrich.peer_index import PeerIndex

_INTERNET: Final = frozenset({"AF_INET", "AF_INET6"})
_CONNECTIONS: Final = 8_192
"""Whose names are remembered, some 200 bytes each."""
_REACHED: Final = 16
"""Hosts that are remembered of one process for its identities: one that asks for every host there is needs no more."""
_NOBODY: Final = Peer(PeerKind.UNKNOWN)

Resolved = Callable[[str], str]
"""An address in, the host that had it when a resolver was asked, or nothing."""


class Peers:
    """The other ends of one node's connections."""

    def __init__(self, index: PeerIndex | None = None, resolved: Resolved = lambda _address: "") -> None:
        self._index = index
        self._resolved = resolved
        self._names: OrderedDict[tuple[str, str, int], str] = OrderedDict()
        """By exec_id, address and port; the first to be forgotten first."""

    @property
    def names(self) -> int:
        """Connections whose names are remembered."""
        return len(self._names)

    def of(self, event: Event) -> Peer | None:
        """Who is at the other end; None for an event of no connection, or to this machine itself."""
        network = event.network
        if network is None or not network.peer_address or network.family not in _INTERNET:
            return None
        address = plain_address(network.peer_address)
        found = None if self._index is None else self._index.find(address, network.peer_port)
        # The event's own name stands in its payload.
        host = "" if _name(event.payload) else self._names.get((event.process.exec_id, address, network.peer_port), "")
        resolved = self._resolved(address)
        if host or resolved:
            return replace(found or _NOBODY, host=host, resolved_host=resolved)
        return found

    def hear(self, event: Event) -> None:
        """Learn from what a process sends by which name it asks for an address, and that it asks for that host."""
        name = _name(event.payload)
        if not name:
            return
        process, network = event.process, event.network
        if name not in process.reached and len(process.reached) < _REACHED:
            process.reached += (name,)
            process.attribution = None  # a host that takes a credential is evidence of its use
        if network is not None and network.peer_port:
            self._remember(process.exec_id, network, name)

    def _remember(self, exec_id: str, network: Network, name: str) -> None:
        key = exec_id, plain_address(network.peer_address), network.peer_port
        self._names.pop(key, None)
        if len(self._names) >= _CONNECTIONS:
            self._names.popitem(last=False)
        self._names[key] = name


def _name(payload: Payload | None) -> str:
    return "" if payload is None else (payload.server_name or payload.http_host).rstrip(".").lower()
