"""Expected use of an identity in, what an event has against it out.

`spec.allowed` of a mapping lists the workloads, binaries and destinations that are expected; each list is judged by
itself, and one that is left out is not judged. Pure: knows neither rules nor how an identity was found.
"""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import re2

from keytrail.domain.event import Event, EventKind, Network, Payload
from keytrail.domain.paths import path_expression, plain_path
from keytrail.domain.process import Pod
from keytrail.domain.resources import Allowed, AllowedDestination, AllowedWorkload

WORKLOAD: Final = "workload"
BINARY: Final = "binary"
DESTINATION: Final = "destination"
UNVERIFIED: Final = "destination-unverified"
"""A host is expected and no host name was seen: the place can be neither confirmed nor denied."""

_REMEMBERED: Final = 4_096
_OUTBOUND: Final = frozenset({EventKind.CONNECT, EventKind.SEND})
_INTERNET: Final = frozenset({"AF_INET", "AF_INET6"})
_UDP: Final = "IPPROTO_UDP"
_DNS: Final = "dns"

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def violations(allowed: Iterable[Allowed], event: Event) -> tuple[str, ...]:
    """Tell what an event has against expected use: any of the four words above, in their order.

    Several `allowed` must all hold. `destination` says more than `destination-unverified`, and stands for both.
    """
    found = {word for one in allowed for word in _judged(one, event)}
    if DESTINATION in found:
        found.discard(UNVERIFIED)
    return tuple(word for word in (WORKLOAD, BINARY, DESTINATION, UNVERIFIED) if word in found)


def _judged(allowed: Allowed, event: Event) -> Iterable[str]:
    if allowed.workloads and not _is_workload(allowed.workloads, event.process.pod):
        yield WORKLOAD
    if allowed.binaries and not _is_binary(allowed.binaries, event.process.binary):
        yield BINARY
    if allowed.destinations and event.kind in _OUTBOUND:
        details = event.details
        if _leaves(event.kind, details.network, details.payload):
            yield from _towards(allowed.destinations, details.network or Network(), _host_name(details.payload), event)


# -- who


def _is_workload(expected: Iterable[AllowedWorkload], pod: Pod | None) -> bool:
    """Whether a process's pod belongs to an expected workload.

    No pod is no workload: a host process, or a container that the API server does not know. Where the workload of a pod
    is not known, its namespace decides: a high finding must not rest on metadata that is only late.
    """
    return pod is not None and any(
        one.namespace == pod.namespace
        and (not pod.workload or (one.kind, one.name) == (pod.workload_kind, pod.workload))
        for one in expected
    )


@lru_cache(maxsize=_REMEMBERED)
def _is_binary(patterns: tuple[str, ...], binary: str) -> bool:
    plain = plain_path(binary)
    return any(_expression(pattern).match(plain) is not None for pattern in patterns)


@lru_cache(maxsize=_REMEMBERED)
def _expression(pattern: str) -> "re2._Regexp":
    return re2.compile(path_expression(pattern))


# -- where to


def _leaves(kind: EventKind, network: Network | None, payload: Payload | None) -> bool:
    """Whether the event goes somewhere: a look-up of a name is not use of an identity, nor is a server's answer.

    Connecting a UDP socket sends nothing: resolvers do it to each address only to learn which source they would have.
    What TCP sends without a name goes where the connection went, or answers a client.
    """
    if _host_name(payload):
        return True
    if network is None or not network.peer_address or network.family not in _INTERNET:
        return False
    if kind is EventKind.CONNECT:
        return network.protocol != _UDP
    return network.protocol == _UDP and (payload is None or payload.protocol != _DNS)


def _host_name(payload: Payload | None) -> str:
    return "" if payload is None else (payload.server_name or payload.http_host).rstrip(".").lower()


def _towards(expected: Iterable[AllowedDestination], network: Network, name: str, event: Event) -> Iterable[str]:
    address, named = _address(network.peer_address), False
    for one in expected:
        named = named or one.host != ""
        # Of a write to a descriptor no port is known, and the kernel's 0 matches none: only the name is judged then.
        if one.ports and network.peer_port not in one.ports and network.peer_address:
            continue
        if is_host(one.host, name) if one.host else _is_inside(one.cidr, address):
            return
    if not named or name:
        yield DESTINATION
    elif not _was_asked_for(expected, network.peer_port, event):
        # A process that carries a key also talks to its database: without a name nothing is proved.
        yield UNVERIFIED


def _was_asked_for(expected: Iterable[AllowedDestination], port: int, event: Event) -> bool:
    """Whether the process asked for this address and port before by an expected host's name.

    A name of before can confirm and never accuse: another connection may ask for another of the address's names, and
    then says so itself. An address that a host merely resolves to confirms nothing.
    """
    host = event.peer.host if event.peer is not None else ""
    return bool(host) and any(
        one.host and is_host(one.host, host) for one in expected if not one.ports or port in one.ports
    )


def is_host(expected: str, name: str) -> bool:
    """Whether a name is an expected host; a leading `*.` stands for one or more labels."""
    if expected.startswith("*."):
        return name.endswith(expected[1:]) and len(name) >= len(expected)
    return name == expected


def _is_inside(network: str, address: _Address | None) -> bool:
    return address is not None and address in _network(network)


@lru_cache(maxsize=_REMEMBERED)
def _network(text: str) -> Any:
    return ipaddress.ip_network(text, strict=False)


@lru_cache(maxsize=_REMEMBERED)
def _address(text: str) -> _Address | None:
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    # Of a socket that serves both families the kernel shows ::ffff:10.0.0.1 on both ends.
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
