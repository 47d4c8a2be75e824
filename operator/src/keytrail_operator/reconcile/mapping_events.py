"""The Event that a mapping stopped being ready: a mapping and its condition in, an object to create out.

Its name is made of what it says, so that saying it again makes no second one. Pure.
"""

from hashlib import blake2b
from typing import Final

from keytrail.domain.objects import API_VERSION
from keytrail.kube.places import Kind
from keytrail_operator.actions import Create
from keytrail_operator.reconcile.conditions import Said, shortened, timestamp
from keytrail_operator.world import Mapped

EVENTS: Final = Kind("events")
_WHO: Final = "keytrail-operator"
_OF_CLUSTER: Final = "default"
"""Where Events about objects go that are in no namespace: `kubectl describe` looks there."""
_LONGEST_NAME: Final = 200


def not_ready(kind: str, of: Mapped, said: Said, now: float) -> Create:
    """Return the Event."""
    at = timestamp(now)
    told = blake2b(f"{of.uid} {of.generation} {said.reason} {at}".encode(), digest_size=8).hexdigest()
    about = {"apiVersion": API_VERSION, "kind": kind, "name": of.name, "uid": of.uid}
    return Create(
        EVENTS,
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{of.name[:_LONGEST_NAME]}.{told}", "namespace": of.namespace or _OF_CLUSTER},
            "involvedObject": {**about, **({"namespace": of.namespace} if of.namespace else {})},
            "type": "Warning",
            "reason": said.reason,
            "message": shortened(said.message, 1000),
            "source": {"component": _WHO},
            "reportingComponent": _WHO,
            "reportingInstance": _WHO,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        },
    )
