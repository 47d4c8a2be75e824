"""What is kept of an object: the API server's JSON in, slim typed data out.

A Node weighs ten kilobytes and a TracingPolicy as much again with its managed fields; what is kept of either is a
few hundred bytes, and what changes every few seconds in them is not kept, so that it is no change. Pure.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

from keytrail.domain.collector_status import CollectorState
from keytrail.domain.objects import Resource
from keytrail.domain.shape import read
from keytrail.kube.json_stream import Json
from keytrail.tracing.policy import SENSOR_LABEL
from keytrail.tracing.render import NAME_PREFIX
from keytrail_operator.world import Applied, Collector, Node, TracingPolicy

MANAGED_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "keytrail-operator"
R = TypeVar("R", bound=Resource)


def applied(shape: type[R], raw: Json) -> Applied[R]:
    """Keep an object of one of our kinds."""
    metadata = _mapping(raw, "metadata")
    value, faults = read(shape, raw)
    return Applied(
        str(metadata.get("namespace") or ""),
        str(metadata.get("name") or ""),
        str(metadata.get("uid") or ""),
        int(metadata.get("generation") or 0),
        value,
        tuple(faults),
        _mapping(raw, "status"),
    )


def collector(raw: Json) -> Collector:
    """Keep a CollectorStatus."""
    metadata = _mapping(raw, "metadata")
    status = _mapping(raw, "status")
    state = read(CollectorState, status)[0] if status else None
    heard = 0.0 if state is None else _seconds(state.heartbeat_time)
    return Collector(str(metadata.get("name") or ""), str(metadata.get("uid") or ""), state, heard)


def node(raw: Json) -> Node:
    """Keep a Node."""
    metadata, spec, status = (_mapping(raw, part) for part in ("metadata", "spec", "status"))
    ready = any(one.get("type") == "Ready" and one.get("status") == "True" for one in status.get("conditions") or ())
    addresses = {str(one.get("address")) for one in status.get("addresses") or () if one.get("type") == "InternalIP"}
    ranges = spec.get("podCIDRs") or [one for one in [spec.get("podCIDR")] if one]
    return Node(
        str(metadata.get("name") or ""),
        str(metadata.get("uid") or ""),
        ready,
        tuple(sorted(addresses)),
        tuple(map(str, ranges)),
    )


def tracing_policy(raw: Json) -> TracingPolicy | None:
    """Keep a TracingPolicy that may be ours, by its name; others are nobody's business here."""
    metadata = _mapping(raw, "metadata")
    name = str(metadata.get("name") or "")
    if not name.startswith(NAME_PREFIX):
        return None
    labels = _mapping(metadata, "labels")
    return TracingPolicy(
        name,
        str(metadata.get("uid") or ""),
        str(metadata.get("resourceVersion") or ""),
        int(metadata.get("generation") or 0),
        _seconds(metadata.get("creationTimestamp")),
        str(labels.get(SENSOR_LABEL) or ""),
        labels.get(MANAGED_LABEL) == MANAGER,
        frozenset(str(one.get("uid")) for one in metadata.get("ownerReferences") or ()),
        _mapping(raw, "spec"),
        bool(metadata.get("deletionTimestamp")),
    )


def service_ranges(raw: Json) -> tuple[str, ...]:
    """Keep the ranges of a ServiceCIDR."""
    return tuple(map(str, _mapping(raw, "spec").get("cidrs") or ()))


def service_account(raw: Json) -> tuple[str, str]:
    """Keep that there is a ServiceAccount."""
    metadata = _mapping(raw, "metadata")
    return str(metadata.get("namespace") or ""), str(metadata.get("name") or "")


def _seconds(time: object) -> float:
    return datetime.fromisoformat(time).timestamp() if isinstance(time, str) else 0.0


def _mapping(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = data.get(name)
    return found if isinstance(found, dict) else {}
