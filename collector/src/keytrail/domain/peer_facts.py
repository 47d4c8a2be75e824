"""Services, EndpointSlices, Nodes and Pods of the API server in, the addresses that peers are found by out.

Every field of the API's JSON may be missing. Addresses are spelt as the kernel's events spell them. Of an object that
has no address nothing is kept. Knows no API client and no event.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

Json = Mapping[str, Any]

_OF_SERVICE: Final = "kubernetes.io/service-name"
_HASHED: Final = ("pod-template-hash", "rollouts-pod-template-hash")
"""Labels with what a Deployment or Rollout has appended to its own name for the ReplicaSet's."""
_MAPPED: Final = "::ffff:"


@dataclass(frozen=True, slots=True)
class ServiceAddresses:
    """A Service and every address at which it is reached."""

    namespace: str
    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One pod behind a Service; without a name, something that is no pod."""

    addresses: tuple[str, ...]
    pod: str = ""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """An EndpointSlice: where a Service's connections go."""

    namespace: str
    service: str
    ports: tuple[int, ...]
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class NodeAddresses:
    """A Node, its addresses, and the ranges that its pods get theirs from."""

    name: str
    addresses: tuple[str, ...]
    ranges: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PodAddresses:
    """A Pod with addresses of its own."""

    namespace: str
    name: str
    addresses: tuple[str, ...]
    workload_kind: str
    workload: str


def plain_address(text: str) -> str:
    """Spell an address as events do: IPv6 in its short form, an IPv4 address in IPv6's clothes as itself."""
    if ":" not in text:
        return text
    if text.startswith(_MAPPED) and "." in text:
        return text[len(_MAPPED) :]
    try:
        parsed = ip_address(text)
    except ValueError:
        return ""
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def service_addresses(raw: Json) -> ServiceAddresses | None:
    """Read a Service; None for one without an address of its own, such as a headless one."""
    spec, ingress = _part(raw, "spec"), _list(_part(_part(raw, "status"), "loadBalancer"), "ingress")
    given = [*_texts(spec, "clusterIPs"), *_texts(spec, "externalIPs"), *(_text(one, "ip") for one in ingress)]
    addresses = _addresses(one for one in given if one != "None")
    namespace, name = _named(raw)
    return ServiceAddresses(namespace, name, addresses) if addresses else None


def endpoints(raw: Json) -> Endpoints | None:
    """Read an EndpointSlice; None for one of names instead of addresses, or of no Service."""
    namespace, _ = _named(raw)
    service = _text(_part(_part(raw, "metadata"), "labels"), _OF_SERVICE)
    if not service or raw.get("addressType") == "FQDN":
        return None
    found = tuple(_endpoint(one) for one in _list(raw, "endpoints"))
    ports = tuple(port for one in _list(raw, "ports") if isinstance(port := one.get("port"), int))
    return Endpoints(namespace, service, ports, found) if found else None


def _endpoint(raw: Json) -> Endpoint:
    target = _part(raw, "targetRef")
    return Endpoint(_addresses(_texts(raw, "addresses")), _text(target, "name") if target.get("kind") == "Pod" else "")


def node_addresses(raw: Json) -> NodeAddresses:
    """Read a Node."""
    spec = _part(raw, "spec")
    listed = _list(_part(raw, "status"), "addresses")
    ranges = _texts(spec, "podCIDRs") or [_text(spec, "podCIDR")]
    addresses = _addresses(_text(one, "address") for one in listed if _text(one, "type").endswith("IP"))
    return NodeAddresses(_named(raw)[1], addresses, tuple(filter(None, ranges)))


def pod_addresses(raw: Json) -> PodAddresses | None:
    """Read a Pod; None while it has no address, and for one that shares its node's."""
    if _part(raw, "spec").get("hostNetwork") is True:
        return None
    addresses = _addresses(_text(one, "ip") for one in _list(_part(raw, "status"), "podIPs"))
    namespace, name = _named(raw)
    return PodAddresses(namespace, name, addresses, *_workload(_part(raw, "metadata"), name)) if addresses else None


def _workload(metadata: Json, pod: str) -> tuple[str, str]:
    """Kind and name of what manages it: who made its Job is not asked, for there are thousands in a cluster."""
    owner = next((one for one in _list(metadata, "ownerReferences") if one.get("controller") is True), None)
    if owner is None:
        return "Pod", pod
    kind, name = _text(owner, "kind"), _text(owner, "name")
    for label in _HASHED if kind == "ReplicaSet" else ():
        above = name.removesuffix(f"-{_part(metadata, 'labels').get(label)}")
        if above != name:
            return ("Deployment" if label == _HASHED[0] else "Rollout"), sys.intern(above)
    return kind, name


def _addresses(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, map(plain_address, given))))


def _named(raw: Json) -> tuple[str, str]:
    metadata = _part(raw, "metadata")
    return _text(metadata, "namespace"), _text(metadata, "name")


def _part(raw: Json, name: str) -> Json:
    found = raw.get(name)
    return found if isinstance(found, Mapping) else {}


def _list(raw: Json, name: str) -> list[Json]:
    found = raw.get(name)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _texts(raw: Json, name: str) -> list[str]:
    found = raw.get(name)
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def _text(raw: Json, name: str) -> str:
    """A text that many objects share: namespaces, services, kinds, names that pods and slices both have."""
    found = raw.get(name)
    return sys.intern(found) if isinstance(found, str) else ""
