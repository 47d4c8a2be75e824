"""Who has which address: objects of the API server in any order, changed and deleted, and addresses that nobody has."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from keytrail.domain.peer import Peer, PeerKind
from keytrail.domain.peer_facts import (
    endpoints,
    node_addresses,
    plain_address,
    pod_addresses,
    service_addresses,
)
from keytrail.enrich.peer_index import PeerIndex

Json = dict[str, Any]


def service(name: str, *addresses: str, namespace: str = "ml", **spec: Any) -> Json:
    """A Service as the API has it."""
    return {"metadata": {"namespace": namespace, "name": name}, "spec": {"clusterIPs": list(addresses), **spec}}


def endpoint_slice(service_: str, ports: list[int], pods: dict[str, str], namespace: str = "ml") -> Json:
    """An EndpointSlice: pods by address."""
    metadata = {"namespace": namespace, "name": f"{service_}-x1", "labels": {"kubernetes.io/service-name": service_}}
    listed = [
        {"addresses": [address], "targetRef": {"kind": "Pod", "name": pod}} if pod else {"addresses": [address]}
        for address, pod in pods.items()
    ]
    return {"metadata": metadata, "ports": [{"port": port} for port in ports], "endpoints": listed}


def node(name: str, address: str, *ranges: str) -> Json:
    """A Node."""
    listed = [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}]
    return {"metadata": {"name": name}, "spec": {"podCIDRs": list(ranges)}, "status": {"addresses": listed}}


def pod(name: str, *addresses: str, **spec: Any) -> Json:
    """A Pod of a Deployment."""
    owner = {"kind": "ReplicaSet", "name": "chat-5f4d", "controller": True}
    metadata = {"namespace": "ml", "name": name, "labels": {"pod-template-hash": "5f4d"}, "ownerReferences": [owner]}
    return {"metadata": metadata, "spec": spec, "status": {"podIPs": [{"ip": one} for one in addresses]}}


def take(index: PeerIndex, raw: Json) -> None:
    """Hand an object over, as its watch does."""
    owner = raw["metadata"].get("namespace", ""), raw["metadata"]["name"]
    if "endpoints" in raw:
        index.endpoints(owner, endpoints(raw))
    elif "clusterIPs" in raw["spec"]:
        index.service(owner, service_addresses(raw))
    elif "podIPs" in raw.get("status", {}):
        index.pod(owner, pod_addresses(raw))
    else:
        index.node(owner, node_addresses(raw))


OBJECTS = (
    service("kubernetes", "10.96.0.1", namespace="default"),
    endpoint_slice("kubernetes", [6443], {"192.168.0.10": ""}, "default"),
    service("chat", "10.96.0.7", "fd00::7"),
    service("chat-headless", "None"),
    endpoint_slice("chat", [8080], {"10.244.1.5": "chat-a", "10.244.1.6": "chat-b"}),
    endpoint_slice("chat-headless", [8080, 9090], {"10.244.1.5": "chat-a"}),
    endpoint_slice("exporter", [9100], {"192.168.0.11": "exporter-q"}),
    endpoint_slice("database", [5432], {"172.16.9.9": ""}),
    node("control", "192.168.0.10", "10.244.0.0/24"),
    node("worker", "192.168.0.11", "10.244.1.0/24", "fd00:1::/64"),
    pod("chat-c", "10.244.1.9", "fd00:1::9"),
    pod("host", "192.168.0.11", hostNetwork=True),
)
CHAT_A = Peer(PeerKind.POD, "ml", "chat-a", "chat")
EXPECTED = (
    ("10.96.0.1", 443, Peer(PeerKind.API_SERVER, "default", "kubernetes")),
    ("192.168.0.10", 6443, Peer(PeerKind.API_SERVER, "default", "kubernetes")),
    ("192.168.0.10", 10250, Peer(PeerKind.NODE, "", "control")),
    ("10.96.0.7", 80, Peer(PeerKind.SERVICE, "ml", "chat")),
    ("fd00::7", 80, Peer(PeerKind.SERVICE, "ml", "chat")),
    ("10.244.1.5", 8080, CHAT_A),
    ("10.244.1.5", 9090, Peer(PeerKind.POD, "ml", "chat-a", "chat-headless")),
    ("10.244.1.5", 22, Peer(PeerKind.POD, "ml", "chat-a")),
    ("192.168.0.11", 9100, Peer(PeerKind.POD, "ml", "exporter-q", "exporter")),
    ("192.168.0.11", 22, Peer(PeerKind.NODE, "", "worker")),
    ("172.16.9.9", 5432, Peer(PeerKind.SERVICE, "ml", "database")),
    ("10.244.1.9", 0, Peer(PeerKind.POD, "ml", "chat-c", "", "Deployment", "chat")),
    ("fd00:1::9", 0, Peer(PeerKind.POD, "ml", "chat-c", "", "Deployment", "chat")),
    ("10.244.0.77", 80, Peer(PeerKind.CLUSTER)),
    ("fd00:1::77", 80, Peer(PeerKind.CLUSTER)),
    ("10.9.9.9", 80, Peer(PeerKind.UNKNOWN)),
    ("104.18.33.45", 443, Peer(PeerKind.OUTSIDE)),
    ("2606:4700::1", 443, Peer(PeerKind.OUTSIDE)),
    ("169.254.169.254", 80, Peer(PeerKind.LINK_LOCAL)),
    ("127.0.0.1", 80, None),
    ("::", 80, None),
    ("no address", 80, None),
)


@pytest.mark.parametrize("seed", range(4))
def test_every_address_leads_to_who_has_it_whatever_came_first(seed: int) -> None:
    """Pods by port and by address, Services, nodes, the API server, ranges and the outside; any order of arrival."""
    index = PeerIndex()
    shuffled = list(OBJECTS)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - any order will do
    for raw in shuffled:
        take(index, raw)
    assert [(address, port, index.find(address, port)) for address, port, _ in EXPECTED] == list(EXPECTED)


def test_what_is_deleted_leaves_nothing_behind() -> None:
    """After every object is gone again, each address is only what it is by itself, and every table is empty."""
    index = PeerIndex()
    for raw in OBJECTS:
        take(index, raw)
    assert len(index) > 0
    gone: tuple[Callable[..., None], ...] = (index.service, index.endpoints, index.node, index.pod)
    for raw in OBJECTS:
        for forget in gone:
            forget((raw["metadata"].get("namespace", ""), raw["metadata"]["name"]), None)
    found = {index.find(address, port) for address, port, _ in EXPECTED}
    assert {None if one is None else one.kind for one in found} == {
        PeerKind.UNKNOWN, PeerKind.OUTSIDE, PeerKind.LINK_LOCAL, None,
    }  # fmt: skip
    assert len(index) == len(index._endpoints) == 0
    assert not any(table._contested or table._places for table in (index._endpoints, index._services, index._behind))


def test_an_address_that_two_services_claim_goes_to_the_other_when_one_is_gone() -> None:
    """A StatefulSet's two Services share its pods' ports: the first by name is told, then the one that is left."""
    index = PeerIndex()
    for raw in OBJECTS:
        take(index, raw)
    index.endpoints(("ml", "chat-x1"), None)
    assert index.find("10.244.1.5", 8080) == Peer(PeerKind.POD, "ml", "chat-a", "chat-headless")
    take(index, endpoint_slice("chat", [8080], {"10.244.1.5": "chat-a"}))
    assert index.find("10.244.1.5", 8080) == CHAT_A
    take(index, endpoint_slice("chat", [8081], {"10.244.1.6": "chat-b"}))
    assert index.find("10.244.1.5", 8080) == Peer(PeerKind.POD, "ml", "chat-a", "chat-headless")
    assert index.find("10.244.1.6", 8080) == Peer(PeerKind.POD, "ml", "chat-b")


def test_an_address_that_is_given_anew_is_the_new_pods() -> None:
    """The pod that had it is not told of any more, in whichever order the two changes come."""
    index = PeerIndex()
    for first, then in (("a", "b"), ("b", "a")):
        take(index, pod(first, "10.244.1.9"))
        take(index, pod(then, "10.244.1.9"))
        for gone in (None, first):
            if gone is not None:
                index.pod(("ml", gone), None)
            found = index.find("10.244.1.9", 80)
            assert found is not None
            assert found.name == then


def test_who_names_the_ranges_says_that_there_are_no_others() -> None:
    """With `cluster_ranges`, a private address outside of them is outside; one within them belongs to the cluster."""
    index = PeerIndex(["10.244.0.0/16", "nonsense"])
    assert index.find("10.9.9.9", 80) == Peer(PeerKind.OUTSIDE)
    assert index.find("10.244.9.9", 80) == Peer(PeerKind.CLUSTER)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::FFFF:0a00:0001", "10.0.0.1"),
        ("FD00:0:0:0:0:0:0:7", "fd00::7"),
        ("fd00::zz", ""),
    ],
)
def test_addresses_are_spelt_as_events_spell_them(text: str, plain: str) -> None:
    """The API takes an IPv6 address in any form, and a socket for both families shows IPv4 in IPv6's clothes."""
    assert plain_address(text) == plain


@pytest.mark.parametrize("read", [service_addresses, endpoints, node_addresses, pod_addresses])
@pytest.mark.parametrize("raw", [{}, {"spec": 3, "status": [], "metadata": None}, {"endpoints": [1, {}], "ports": {}}])
def test_odd_objects_are_read_without_a_fault(read: Callable[[Json], object], raw: Json) -> None:
    """Every field may be missing or of another type: then nothing is known, and nothing raises."""
    read(raw)
