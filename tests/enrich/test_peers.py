"""The other end of an event's connection: by address, by the name that was asked for, and what follows from a name."""

from collections.abc import Iterator

from keytrail.domain.allowed import UNVERIFIED, violations
from keytrail.domain.event import Details, Event, EventKind, EventType, Network, Payload
from keytrail.domain.peer import Peer, PeerKind
from keytrail.domain.peer_facts import ServiceAddresses
from keytrail.domain.process import Process
from keytrail.domain.resources import Allowed, AllowedDestination, ClusterIdentityMapping
from keytrail.domain.shape import read
from keytrail.enrich import peers as peers_module
from keytrail.enrich.peer_index import PeerIndex
from keytrail.enrich.peers import Peers
from keytrail.enrich.resolver import HostResolver, named_hosts
from support.processes import wait_until

OPENAI = "104.18.33.45"
SHOP = Peer(PeerKind.SERVICE, "shop", "web")


class Connection(Event):
    """An event of a connection, which asks for its peer as a decoded one does."""

    __slots__ = ("_peers", "given")

    def __init__(self, peers: Peers, details: Details, exec_id: str, kind: EventKind) -> None:
        super().__init__(kind, EventType.KPROBE, Process(exec_id), time_ns=0)
        self._peers = peers
        self.given = details

    @property
    def details(self) -> Details:
        """What the test says."""
        return self.given

    @property
    def peer(self) -> Peer | None:
        """Whom the peers know."""
        return self._peers.of(self)


def connection(
    peers: Peers, address: str = OPENAI, *, port: int = 443, name: str = "", exec_id: str = "a", family: str = "AF_INET"
) -> Connection:
    """A connect, or with a name the ClientHello that carries it."""
    network = Network(family, "IPPROTO_TCP", "10.244.1.5", 40_000, address, port)
    payload = Payload(517, "tls", server_name=name) if name else None
    kind = EventKind.SEND if name else EventKind.CONNECT
    return Connection(peers, Details(network=network, payload=payload), exec_id, kind)


def with_shop() -> Peers:
    """Peers of a cluster with one Service."""
    index = PeerIndex()
    index.service(("shop", "web"), ServiceAddresses("shop", "web", ("10.96.0.9",)))
    return Peers(index)


def test_an_address_leads_to_its_owner() -> None:
    """A Service by its address, in IPv6's clothes too; a Unix socket and this machine itself have no peer."""
    peers = with_shop()
    assert peers.of(connection(peers, "10.96.0.9")) == SHOP
    assert peers.of(connection(peers, "::ffff:10.96.0.9", family="AF_INET6")) == SHOP
    assert peers.of(connection(peers, "/run/x.sock", family="AF_UNIX")) is None
    assert peers.of(connection(peers, "127.0.0.1")) is None
    assert Peers().of(connection(peers)) is None


def test_later_events_of_a_connection_carry_the_name_that_it_was_asked_for_by() -> None:
    """Those of the same process, address and port, and of no other; the ClientHello has its name in its payload."""
    peers = with_shop()
    hello = connection(peers, "10.96.0.9", name="Web.shop.svc.")
    peers.hear(hello)
    assert peers.of(hello) == SHOP
    assert peers.of(connection(peers, "10.96.0.9")) == Peer(PeerKind.SERVICE, "shop", "web", host="web.shop.svc")
    for other in ({"exec_id": "b"}, {"port": 80}):
        assert peers.of(connection(peers, "10.96.0.9", **other)) == SHOP  # type: ignore[arg-type] # options by name
    nowhere = Peers()
    nowhere.hear(connection(nowhere, name="api.openai.com"))
    assert nowhere.of(connection(nowhere)) == Peer(PeerKind.UNKNOWN, host="api.openai.com")


def test_names_are_bounded_and_the_first_are_forgotten_first() -> None:
    """A process that asks without end makes others' names be forgotten, and takes no more memory."""
    peers = Peers()
    for number in range(peers_module._CONNECTIONS + 10):
        peers.hear(connection(peers, name="host", exec_id=str(number)))
    assert peers.names == peers_module._CONNECTIONS
    assert peers.of(connection(peers, exec_id="9")) is None
    assert peers.of(connection(peers, exec_id="10")) is not None
    one = connection(peers, name="host")
    for number in range(100):
        one.given = Details(payload=Payload(server_name=f"host-{number}"))
        peers.hear(one)
    assert len(one.process.reached) == peers_module._REACHED


def test_a_name_of_before_confirms_an_expected_host_and_never_accuses() -> None:
    """To where an expected host was asked for there is no finding; to where another one was, it stays unverified."""
    peers = Peers()
    allowed = (Allowed(destinations=(AllowedDestination(host="api.openai.com", ports=(443,)),)),)
    assert violations(allowed, connection(peers)) == (UNVERIFIED,)
    peers.hear(connection(peers, name="evil.example"))
    assert violations(allowed, connection(peers)) == (UNVERIFIED,)
    peers.hear(connection(peers, name="api.openai.com"))
    assert violations(allowed, connection(peers)) == ()
    assert violations(allowed, connection(peers, exec_id="b")) == (UNVERIFIED,)


def test_a_resolved_host_is_told_and_proves_nothing() -> None:
    """The record names it apart from names that were seen; expected use stays unverified."""
    peers = Peers(None, {OPENAI: "api.openai.com"}.get)  # type: ignore[arg-type] # every address that is asked for is there
    allowed = (Allowed(destinations=(AllowedDestination(host="api.openai.com"),)),)
    found = peers.of(connection(peers))
    assert found == Peer(PeerKind.UNKNOWN, resolved_host="api.openai.com")
    assert violations(allowed, connection(peers)) == (UNVERIFIED,)


class Names:
    """A name server whose answers a test changes."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = {}
        self.asked: list[str] = []

    def resolve(self, host: str) -> Iterator[str]:
        """Answer, or raise as the system's resolver does."""
        self.asked.append(host)
        if host not in self.answers:
            raise OSError("no such host")
        return iter(self.answers[host])


def test_hosts_are_resolved_once_a_minute_and_addresses_stay_a_while() -> None:
    """A host that cannot be resolved keeps what it had for ten minutes; one that nobody wants is forgotten at once."""
    names, now, wanted = Names(), [0.0], ["b.example", "a.example"]
    resolver = HostResolver(lambda: wanted, names.resolve, clock=lambda: now[0], uniform=lambda: 0.0)
    names.answers = {"a.example": ["192.0.2.1", "::ffff:192.0.2.2"], "b.example": ["192.0.2.1"]}
    resolver.look()
    assert [resolver.host_of(one) for one in ("192.0.2.1", "192.0.2.2", "192.0.2.3")] == ["a.example", "a.example", ""]
    names.answers = {"a.example": ["192.0.2.3"]}
    now[0] = 59.0
    resolver.look()
    assert names.asked == ["a.example", "b.example"]
    now[0] = 60.0
    resolver.look()
    assert (resolver.host_of("192.0.2.3"), resolver.host_of("192.0.2.2")) == ("a.example", "a.example")
    assert resolver.failures == 1
    now[0] = 700.0
    resolver.look()
    assert (resolver.host_of("192.0.2.3"), resolver.host_of("192.0.2.2"), resolver.host_of("192.0.2.1")) == (
        "a.example", "", "",
    )  # fmt: skip
    wanted.clear()
    resolver.look()
    assert resolver.host_of("192.0.2.3") == ""


def test_hosts_and_their_addresses_are_bounded() -> None:
    """However many a mapping names, and however many answers there are, the newest 64 of 256 hosts are kept."""
    names = Names()
    hosts = [f"h{number:03}.example" for number in range(400)]
    names.answers = {host: [f"10.0.{index % 250}.{last}" for last in range(100)] for index, host in enumerate(hosts)}
    resolver = HostResolver(lambda: hosts, names.resolve)
    resolver.look()
    assert len(names.asked) == 256
    assert {len(one) for one in resolver._found.values()} == {64}


def test_the_thread_resolves_and_ends() -> None:
    """Started, it resolves by itself; closed, it ends."""
    names = Names()
    names.answers = {"a.example": ["192.0.2.1"]}
    resolver = HostResolver(lambda: ["a.example"], names.resolve)
    resolver.start()
    assert wait_until(lambda: resolver.host_of("192.0.2.1") == "a.example")
    resolver.close(30.0)
    assert not resolver._thread.is_alive()


def test_hosts_of_mappings_are_those_without_a_wildcard() -> None:
    """What mappings name as a server's name or as a destination is resolved; a wildcard cannot be."""
    spec = {
        "identity": {"kind": "api_key"},
        "evidence": {"serverNames": ["api.openai.com", "*.openai.azure.com"]},
        "allowed": {"destinations": [{"host": "proxy.example"}, {"cidr": "10.0.0.0/8"}]},
    }
    head = {"apiVersion": "keytrail.io/v1alpha1", "kind": "ClusterIdentityMapping", "metadata": {"name": "x"}}
    made, faults = read(ClusterIdentityMapping, {**head, "spec": spec})
    assert made is not None, faults
    assert named_hosts([made]) == {"api.openai.com", "proxy.example"}
