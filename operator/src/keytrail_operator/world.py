"""What was observed of the cluster, at one moment: what reconcilers decide by, and all that they may know.

`stores` makes one for each run, out of objects that `decoding` slimmed. Nothing in it changes, so that a reconciler can
be called with a world that a test wrote down. Knows no API server and no kopf.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from keytrail.domain.collector_status import CollectorState
from keytrail.domain.policy_library import PolicyLibrary
from keytrail.domain.resources import ClusterIdentityMapping, IdentityMapping
from keytrail.domain.rules import DetectionRule
from keytrail.domain.shape import Fault
from keytrail_operator.rulebook import Rulebook
from keytrail_operator.waiting import WaitingPod

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Applied(Generic[T]):
    """An object of one of our kinds, as it stands in the API server."""

    namespace: str
    """Empty for a cluster's own."""
    name: str
    uid: str
    generation: int
    value: T | None
    """What it says; None when its shape is wrong."""
    faults: tuple[Fault, ...] = ()
    """Why its shape is wrong."""
    status: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """As plain data, to compare with what is to be written."""


Mapped = Applied[IdentityMapping] | Applied[ClusterIdentityMapping]


@dataclass(frozen=True, slots=True)
class Owner:
    """The object whose deletion takes what is ours with it."""

    api_version: str
    kind: str
    name: str
    uid: str

    def reference(self) -> dict[str, Any]:
        """As `ownerReferences` has it. It never holds up the owner's deletion."""
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": False,
            "blockOwnerDeletion": False,
        }


@dataclass(frozen=True, slots=True)
class Node:
    """What is known of a node."""

    name: str
    uid: str
    ready: bool
    """Whether its kubelet says that it works. One that does not runs no agent, or nobody can tell."""
    addresses: tuple[str, ...] = ()
    """Internal ones."""
    pod_ranges: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Collector:
    """The collector of a node, as its CollectorStatus shows it."""

    node: str
    uid: str
    state: CollectorState | None
    """None when nothing was written yet, or nothing that can be read."""
    heard: float
    """When the heartbeat in it was written, seconds since the epoch; 0 when unknown."""


@dataclass(frozen=True, slots=True)
class TracingPolicy:
    """A TracingPolicy in the cluster whose name begins as ours do."""

    name: str
    uid: str
    version: str
    """The resourceVersion, so that nothing is undone that somebody else did meanwhile."""
    generation: int
    """1 until somebody changes the spec."""
    created: float
    """Seconds since the epoch, by the API server's clock."""
    sensor: str
    """Of our label; empty when it has none."""
    managed: bool
    """Whether it carries the operator's label."""
    owners: frozenset[str]
    """uids of its owners."""
    spec: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)
    deleting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The cluster at one moment. `None` means: the API server does not have that kind."""

    library: Applied[PolicyLibrary] | None = None
    libraries_served: bool = True
    rules: tuple[Applied[DetectionRule], ...] = ()
    mappings: tuple[Mapped, ...] = ()
    """Of both kinds, sorted by namespace and name."""
    rulebook: Rulebook = field(default_factory=Rulebook)
    """What of all rules, shipped and applied, can run."""
    collectors: Mapping[str, Collector] = field(default_factory=dict)
    """By node."""
    nodes: Mapping[str, Node] = field(default_factory=dict)
    policies: Mapping[str, TracingPolicy] | None = field(default_factory=dict)
    """By name; None: Tetragon's resource definitions are not installed."""
    service_ranges: tuple[str, ...] | None = ()
    """Of ServiceCIDR objects."""
    api_addresses: tuple[str, ...] = ()
    """Where the API server listens, as the endpoints of the Service `kubernetes` say."""
    service_accounts: frozenset[tuple[str, str]] | None = None
    """Namespace and name of each; None while nobody asked for them."""
    waiting: tuple[WaitingPod, ...] = ()
    """Pods that cannot start for want of a Secret."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Why the API server did not take an object the last time, by its name."""
    owner: Owner | None = None
    """What owns all that the operator makes: the release's ClusterRole."""
    given_ranges: tuple[str, ...] = ()
    """The cluster's ranges that its administrator gave the operator."""
