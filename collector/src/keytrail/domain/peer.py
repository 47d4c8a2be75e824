"""Who is at the other end of a connection, as far as addresses and names tell.

Made by `keytrail.enrich` when a rule or an output asks an event for it; knows no API server. An address tells who has
it now, not who answered: nothing here proves an identity, and a process's own pod is another matter.
"""

from dataclasses import dataclass
from enum import StrEnum


class PeerKind(StrEnum):
    """What has the address."""

    POD = "pod"
    SERVICE = "service"
    """A Service's own address: which of its pods answers is decided behind it."""
    NODE = "node"
    """A node, or a pod that uses its network."""
    API_SERVER = "api-server"
    CLUSTER = "cluster"
    """An address out of the cluster's ranges that nobody is known to have."""
    LINK_LOCAL = "link-local"
    """The cloud's metadata service, a resolver on the node: it never leaves the network segment."""
    OUTSIDE = "outside"
    """An address that the cluster cannot give to anybody."""
    UNKNOWN = "unknown"
    """A private address that could be anybody's: nobody said which ranges are the cluster's."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end. Shared by all connections to it, unless a host's name is known."""

    kind: PeerKind
    namespace: str = ""
    name: str = ""
    """Of the pod, service or node."""
    service: str = ""
    """The Service that sends connections to this pod and port."""
    workload_kind: str = ""
    workload: str = ""
    """What manages the pod, where all pods are watched."""
    host: str = ""
    """The name by which this process asked for this address and port before, in TLS or HTTP, in the clear."""
    resolved_host: str = ""
    """A host of a mapping that had this address when it was last resolved: others may have it, too. Proves nothing."""
