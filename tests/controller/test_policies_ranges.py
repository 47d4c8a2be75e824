"""The cluster's ranges: what is known of them, and that nothing is guessed."""

import ipaddress

import pytest

from keytrail_operator.reconcile.ranges import MOST, ranges
from keytrail_operator.world import Node, World


def cluster(nodes: int = 2, *, pods: bool = True, services: tuple[str, ...] | None = ("10.96.0.0/16",)) -> World:
    """A cluster with nodes in 10.9.0.0/16 and pods in 10.128.0.0/9."""
    made = {
        f"n{number}": Node(
            f"n{number}",
            f"n{number}",
            ready=True,
            addresses=(f"10.9.{number // 250}.{number % 250 + 1}", "fe80::1"),
            pod_ranges=(f"10.{128 + number // 256}.{number % 256}.0/24",) if pods else (),
        )
        for number in range(nodes)
    }
    return World(nodes=made, service_ranges=services, api_addresses=("172.18.0.2",))


def test_found_by_itself() -> None:
    """Pods, Services, nodes and the API server; what lies together is one range."""
    found = ranges(cluster())
    assert found.reason == "Found"
    assert set(found.networks) == {
        "10.9.0.1/32", "10.9.0.2/32", "10.96.0.0/16", "10.128.0.0/23", "172.18.0.2/32", "fe80::1/128"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("world", "words"),
    [
        (cluster(pods=False), "no pod range is known of node n0 and 1 more"),
        (cluster(services=None), "no ServiceCIDR object tells"),
        (World(service_ranges=("10.96.0.0/16",)), "there are no nodes"),
    ],
)
def test_unknown(world: World, words: str) -> None:
    """Where something is missing nothing is known, and the message says what and what to do."""
    found = ranges(world)
    assert found.networks == ()
    assert found.reason == "RangesUnknown"
    assert words in found.message
    assert "operator.clusterCIDRs" in found.message or "clusterCIDRs" in found.message


def test_given_decide() -> None:
    """What the administrator gives replaces what is not known; addresses of nodes are added."""
    world = cluster(pods=False, services=None)
    found = ranges(World(nodes=world.nodes, service_ranges=None, given_ranges=("10.0.0.0/12",)))
    assert found.reason == "Given"
    assert set(found.networks) == {"10.0.0.0/12", "fe80::1/128"}


@pytest.mark.parametrize("given", ["0.0.0.0/0", "169.254.0.0/16", "fd00::/8"])
def test_never_the_metadata_address(given: str) -> None:
    """A range that holds the cloud's metadata address is refused."""
    found = ranges(World(nodes=cluster().nodes, given_ranges=(given,)))
    assert found.networks == ()
    assert found.reason == "RangesTooWide"


@pytest.mark.parametrize("nodes", [1, 100, 1000, 5000])
def test_bounded(nodes: int) -> None:
    """However many nodes: few ranges, all addresses in them, and none beyond private space or over the metadata."""
    world = cluster(nodes)
    found = [ipaddress.ip_network(one) for one in ranges(world).networks]
    assert 0 < len(found) <= MOST
    four = [one for one in found if one.version == 4]
    for node in world.nodes.values():
        assert any(ipaddress.ip_address(node.addresses[0]) in one for one in four)
    assert all(one.is_private for one in four)
    assert not any(ipaddress.ip_address("169.254.169.254") in one for one in four)


def test_too_many() -> None:
    """Public addresses are never widened: too many of them are unknown, with the way out."""
    nodes = {
        f"n{n}": Node(f"n{n}", "", ready=True, addresses=(f"8.{n}.0.1",), pod_ranges=("10.1.0.0/24",))
        for n in range(200)
    }
    found = ranges(World(nodes=nodes, service_ranges=("10.96.0.0/16",)))
    assert (found.networks, found.reason) == ((), "TooManyRanges")
