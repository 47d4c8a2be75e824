"""Who has which address: what the API server says of Services, endpoints, nodes and pods in, peers out.

Several watching threads write, under a lock, into tables that the deciding thread reads without one: a look-up is a few
`dict.get`, each of which sees a table before or after a change, never in between. Snapshots would cost a copy of all
addresses of the cluster for each pod that comes or goes. Knows no event; `peers` asks.

An address that a deleted object had is nobody's at once: the cluster may have given it to another.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from functools import lru_cache
from ipaddress import ip_address, ip_network
from threading import Lock
from typing import Final, Generic, NamedTuple, TypeVar

from keytrail.domain.peer import Peer, PeerKind
from keytrail.domain.peer_facts import Endpoint, Endpoints, NodeAddresses, PodAddresses, ServiceAddresses

WhereT = TypeVar("WhereT", bound=Hashable)
Named = tuple[str, str]
"""Namespace and name of the object that says who has an address."""

_REMEMBERED: Final = 4_096
_API_SERVER: Final = ("default", "kubernetes")
"""The Service that every API server makes for itself."""
_OF_KIND: Final = {kind: Peer(kind) for kind in PeerKind}


class _Claim(NamedTuple):
    owner: Named
    peer: Peer


class _Table(Generic[WhereT]):
    """Peers by address.

    Of several objects that claim one the newest is right, for addresses are given again; where they
    mean the same pod, as a StatefulSet's two Services do, the first Service by name is told.
    """

    def __init__(self) -> None:
        self._claims: dict[WhereT, _Claim] = {}
        self._contested: dict[WhereT, dict[Named, _Claim]] = {}
        self._places: dict[Named, tuple[WhereT, ...]] = {}

    def __len__(self) -> int:
        return len(self._claims)

    def get(self, where: WhereT) -> Peer | None:
        """For any thread."""
        found = self._claims.get(where)
        return None if found is None else found.peer

    def put(self, owner: Named, found: Iterable[tuple[WhereT, Peer]] = ()) -> None:
        """Take over everything that an object says now; nothing when it is gone."""
        claims = {where: _Claim(owner, peer) for where, peer in found}
        for where in self._places.pop(owner, ()):
            if where not in claims:
                self._release(owner, where)
        for where, claim in claims.items():
            self._take(where, claim)
        if claims:
            self._places[owner] = tuple(claims)

    def _take(self, where: WhereT, claim: _Claim) -> None:
        known = self._claims.get(where)
        if known is not None and known.owner != claim.owner:
            self._contested.setdefault(where, {known.owner: known})
        rivals = self._contested.get(where)
        if rivals is not None:
            rivals.pop(claim.owner, None)
            rivals[claim.owner] = claim
            claim = _winner(rivals)
        self._claims[where] = claim

    def _release(self, owner: Named, where: WhereT) -> None:
        rivals = self._contested.get(where)
        if rivals is None:
            del self._claims[where]
            return
        del rivals[owner]
        self._claims[where] = _winner(rivals)
        if len(rivals) == 1:
            del self._contested[where]


def _winner(rivals: dict[Named, _Claim]) -> _Claim:
    newest = next(reversed(rivals.values())).peer
    same = (one for one in rivals.values() if (one.peer.namespace, one.peer.name) == (newest.namespace, newest.name))
    return min(same, key=lambda one: one.peer.service)


class _Ranges:
    """Networks of the cluster, found by their length: there are few lengths, and a network for each node."""

    def __init__(self) -> None:
        self._by_length: tuple[tuple[int, int, Counter[int]], ...] = ()
        """Version, bits that are not the network's, and the networks."""

    def count(self, networks: Iterable[str], by: int) -> None:
        """Add networks, or take them away."""
        for text in networks:
            try:
                network = ip_network(text, strict=False)
            except ValueError:  # nothing that an address could be in
                continue
            host_bits = network.max_prefixlen - network.prefixlen
            known = next((one for one in self._by_length if one[:2] == (network.version, host_bits)), None)
            if known is None:
                known = network.version, host_bits, Counter()
                self._by_length += (known,)
            known[2][int(network.network_address) >> host_bits] += by

    def have(self, version: int, address: int) -> bool:
        """For any thread."""
        return any(
            of_version == version and found.get(address >> bits, 0) > 0 for of_version, bits, found in self._by_length
        )


class PeerIndex:
    """Addresses of one cluster. `find` is for any thread; everything else takes the lock."""

    def __init__(self, ranges: Iterable[str] = ()) -> None:
        """`ranges` are networks of pods and Services that the cluster does not tell of itself."""
        self._lock = Lock()
        self._endpoints: _Table[tuple[str, int]] = _Table()
        self._services: _Table[str] = _Table()
        self._nodes: _Table[str] = _Table()
        self._pods: _Table[str] = _Table()
        self._behind: _Table[str] = _Table()
        """Pods as their Services' slices name them."""
        self._ranges = _Ranges()
        self._given = tuple(ranges)
        self._ranges.count(self._given, 1)
        self._ranges_of: dict[str, tuple[str, ...]] = {}

    def __len__(self) -> int:
        """Addresses that lead somewhere."""
        return len(self._services) + len(self._nodes) + len(self._pods) + len(self._behind)

    def find(self, address: str, port: int) -> Peer | None:
        """Who has an address, spelt as events spell it; None for this machine itself."""
        return (
            self._endpoints.get((address, port))
            or self._services.get(address)
            or self._nodes.get(address)  # before pods: those with the node's network are listed under its address
            or self._pods.get(address)
            or self._behind.get(address)
            or self._by_range(address)
        )

    def _by_range(self, address: str) -> Peer | None:
        version, number, kind = _scope(address)
        if kind is None:
            return None
        if self._ranges.have(version, number):
            kind = PeerKind.CLUSTER
        elif kind is PeerKind.UNKNOWN and self._given:  # whoever names the ranges says that there are no others
            kind = PeerKind.OUTSIDE
        return _OF_KIND[kind]

    # -- the watching threads

    def service(self, owner: Named, found: ServiceAddresses | None) -> None:
        """Take over a Service; None when it is gone. So are the three below."""
        kind = PeerKind.API_SERVER if owner == _API_SERVER else PeerKind.SERVICE
        peer = Peer(kind, *owner)
        with self._lock:
            self._services.put(owner, ((one, peer) for one in found.addresses) if found else ())

    def endpoints(self, owner: Named, found: Endpoints | None) -> None:
        """Take over an EndpointSlice."""
        listed = () if found is None else tuple((one, _behind(found, one)) for one in found.endpoints)
        ports = () if found is None else found.ports
        with self._lock:
            self._endpoints.put(owner, _with_ports(listed, ports))
            self._behind.put(
                owner,
                (
                    (address, Peer(PeerKind.POD, peer.namespace, peer.name))
                    for one, peer in listed
                    if one.pod
                    for address in one.addresses
                ),
            )

    def node(self, owner: Named, found: NodeAddresses | None) -> None:
        """Take over a Node."""
        name = owner[1]
        ranges = () if found is None else found.ranges
        with self._lock:
            peer = Peer(PeerKind.NODE, "", name)
            self._nodes.put(owner, ((one, peer) for one in found.addresses) if found else ())
            before = self._ranges_of.pop(name, ())
            if before != ranges:
                self._ranges.count(before, -1)
                self._ranges.count(ranges, 1)
            if ranges:
                self._ranges_of[name] = ranges

    def pod(self, owner: Named, found: PodAddresses | None) -> None:
        """Take over a Pod."""
        with self._lock:
            if found is None:
                self._pods.put(owner)
            else:
                peer = Peer(PeerKind.POD, *owner, "", found.workload_kind, found.workload)
                self._pods.put(owner, ((one, peer) for one in found.addresses))


def _behind(found: Endpoints, one: Endpoint) -> Peer:
    """Who answers at an endpoint: a pod, or what the Service stands for."""
    if one.pod:
        return Peer(PeerKind.POD, found.namespace, one.pod, found.service)
    owner = found.namespace, found.service
    return Peer(PeerKind.API_SERVER if owner == _API_SERVER else PeerKind.SERVICE, *owner)


def _with_ports(
    listed: Iterable[tuple[Endpoint, Peer]], ports: tuple[int, ...]
) -> Iterator[tuple[tuple[str, int], Peer]]:
    for one, peer in listed:
        for address in one.addresses:
            for port in ports:
                yield (address, port), peer


@lru_cache(maxsize=_REMEMBERED)
def _scope(text: str) -> tuple[int, int, PeerKind | None]:
    """Version, number, and what an address is where nobody is known to have it; None for the machine's own."""
    try:
        address = ip_address(text)
    except ValueError:
        return 0, 0, None
    kind: PeerKind | None = PeerKind.UNKNOWN
    if address.is_loopback or address.is_unspecified:
        kind = None
    elif address.is_link_local:
        kind = PeerKind.LINK_LOCAL
    elif address.is_global and not address.is_multicast:
        kind = PeerKind.OUTSIDE
    return address.version, int(address), kind
