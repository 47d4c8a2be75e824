"""The cluster's own address ranges, as far as the cluster tells: a World in, networks or the reason of ignorance out.

The egress policy reports connections that leave these ranges. A range that is missing costs events; one that is too
wide hides connections, so nothing is guessed: where pod or service ranges stay unknown, only what the administrator
gave decides. The cloud's metadata address is in no range, ever. Pure.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from keytrail_operator.world import World

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST: Final = 128
"""Of at most 256 items of a parameter; each is an entry of a BPF map on every node."""
_METADATA: Final = tuple(map(ipaddress.ip_address, ("169.254.169.254", "fd00:ec2::254")))
_PRIVATE: Final = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)
_STEPS: Final = {4: (28, 24, 20, 16), 6: (120, 112, 96, 64, 56, 48)}
"""Prefix lengths to which addresses of large clusters are widened, one step after the other."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """What is known."""

    networks: tuple[str, ...]
    """Empty when unknown."""
    reason: str
    """Of the condition, in one word."""
    message: str


def ranges(world: World) -> Ranges:
    """Return the ranges of the cluster."""
    if world.given_ranges:
        holding = [one for one in world.given_ranges if _holds_metadata(ipaddress.ip_network(one))]
        if holding:
            return Ranges((), "RangesTooWide", f"{holding[0]} holds the cloud's metadata address: give narrower ranges")
        found = [*map(ipaddress.ip_network, world.given_ranges), *_addresses(world)]
        return _bounded(found, "Given", "as given to the operator, with the addresses of nodes and API server")
    missing = list(_missing(world))
    if missing:
        hint = "give the cluster's ranges to the operator (operator.clusterCIDRs of the chart)"
        return Ranges((), "RangesUnknown", f"{'; '.join(missing)}: {hint}")
    services = [_network(one) for one in world.service_ranges or ()]
    pods = [_network(one) for node in world.nodes.values() for one in node.pod_ranges]
    found = [one for one in (*services, *pods, *_addresses(world)) if one is not None]
    return _bounded(found, "Found", "from ServiceCIDR objects, Nodes and the API server's endpoints")


def _missing(world: World) -> Iterable[str]:
    if not world.nodes:
        yield "there are no nodes"
    # Several network plugins do not use podCIDR, and then leave it unset.
    without = [name for name, node in sorted(world.nodes.items()) if not node.pod_ranges]
    if without:
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        yield f"no pod range is known of node {without[0]}{more}"
    if not world.service_ranges:
        yield "no ServiceCIDR object tells the range of Services"


def _addresses(world: World) -> list[Network]:
    texts = {*world.api_addresses, *(one for node in world.nodes.values() for one in node.addresses)}
    return [one for text in sorted(texts) if (one := _network(text)) is not None]


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:  # a node may have a name among its addresses
        return None


def _bounded(found: Iterable[Network], reason: str, message: str) -> Ranges:
    networks = _collapsed(one for one in found if not _holds_metadata(one) and not one.is_loopback)
    for step in range(len(_STEPS[6])):
        if len(networks) <= MOST:
            break
        networks = _collapsed(_wider(one, step) for one in networks)
    if len(networks) > MOST:
        hint = "give the cluster's ranges to the operator (operator.clusterCIDRs of the chart)"
        return Ranges((), "TooManyRanges", f"{len(networks)} separate ranges, at most {MOST} can be used: {hint}")
    return Ranges(tuple(map(str, networks)), reason, f"{len(networks)} ranges {message}")


def _wider(network: Network, step: int) -> Network:
    """Return the range around an address that a large cluster is likely to own whole: private space only."""
    lengths = _STEPS[network.version]
    length = lengths[min(step, len(lengths) - 1)]
    if network.prefixlen <= length:
        return network
    wide = network.supernet(new_prefix=length)
    private = any(wide.version == one.version and wide.subnet_of(one) for one in _PRIVATE)  # type: ignore[arg-type] # of one version
    return wide if private and not _holds_metadata(wide) else network


def _collapsed(networks: Iterable[Network]) -> list[Network]:
    given = set(networks)
    four = ipaddress.collapse_addresses(one for one in given if isinstance(one, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(one for one in given if isinstance(one, ipaddress.IPv6Network))
    return [*sorted(four), *sorted(six)]


def _holds_metadata(network: Network) -> bool:
    return any(one.version == network.version and one in network for one in _METADATA)
