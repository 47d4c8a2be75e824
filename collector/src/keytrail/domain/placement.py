"""Where a process runs, as `keytrail.enrich` concluded it; what of that is not known, and why.

One object for all processes of a container while nothing about it changes. Read by `identify`, rules and outputs.
"""

from dataclasses import dataclass
from enum import StrEnum

from keytrail.domain.declared import Declared


class Partial(StrEnum):
    """Why something about a process's workload is not known."""

    UNKNOWN_CONTAINER = "unknown_container"
    """No pod of this node has the container, and waiting for one did not help."""
    TOO_MANY_WAIT = "too_many_wait"
    """The same, but more events waited for pods than may: this one was not waited for to the end."""
    API_UNAVAILABLE = "api_unavailable"
    """The container is not known, and the API server cannot be asked."""
    NOT_ANNOUNCED = "not_announced"
    """The agent names the pod, the API server does not: ServiceAccount and Secrets are not known."""
    SANDBOX = "sandbox"
    """The container that only holds a pod's namespaces: the API server never names its id."""
    RUNTIME = "container_runtime"
    """The container's runtime itself, which some put into the container's cgroup."""
    FORGED = "forged"
    """The process bears a container's id and was not started by a container runtime."""
    UNVERIFIED = "unverified"
    """Nothing is known that could tell whether the process belongs to the container whose id it bears."""
    WORKLOAD_GUESSED = "workload_guessed"
    """The workload is concluded from a name alone."""


@dataclass(frozen=True, slots=True)
class CloudRole:
    """A role in a cloud that a ServiceAccount's annotations name."""

    provider: str
    """`aws`, `gcp`, `azure`."""
    id: str


class Provenance(StrEnum):
    """How a process came to bear a container's id."""

    GENUINE = "genuine"
    RUNTIME = "runtime"
    FORGED = "forged"
    UNVERIFIED = "unverified"


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """What all processes have in common that descend from one that entered a container."""

    provenance: Provenance
    environment: tuple[str, ...] | None = None
    """Names of the variables that the runtime gave the first of them; None when nobody saw them."""


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """What is known of a process's place; compared by identity, because it is shared."""

    partial: Partial | None = None
    declared: Declared | None = None
    """What the Pod's spec gives the container; None when the process is in none that is known."""
    roles: tuple[CloudRole, ...] = ()
    claimed: str = ""
    """`namespace/name` of the pod whose container's id a forged process bears; empty when nobody knows it."""


ON_NODE = Placement()
"""A process of the node itself, in no container."""
