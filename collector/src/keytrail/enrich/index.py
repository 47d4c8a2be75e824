"""What the API server says of this node's pods in; a snapshot to look containers up in out.

One or more watching threads write, under a lock, and put a new immutable snapshot in place; the deciding thread takes
one for each batch, without a lock. A node has a few hundred containers, so that making the tables anew for a
change costs some 150 us, and an update that changes nothing that is kept (most of a kubelet's) makes no snapshot.

Ids of containers are never used again, so that one that was known stays true: of a pod that restarts its containers,
and for a while of a pod that was deleted, whose last events may still be on their way. Knows no event.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as changed
from threading import Lock
from typing import Final

from keytrail.domain.placement import CloudRole, Partial, Placement
from keytrail.domain.pod_facts import CONTAINER_ID_DIGITS, ContainerFacts, PodFacts
from keytrail.domain.process import Container, Pod
from keytrail.enrich.workload import JobOwner, Workload, WorkloadResolver

_KEEP_SECONDS: Final = 600.0
_KEEP_PODS: Final = 256
_IDS_OF_A_POD: Final = 64
"""Containers of one pod that stay known: one that restarts without end gets a new id every five minutes."""
_ROLES: Final = (
    ("eks.amazonaws.com/role-arn", "aws"),
    ("iam.gke.io/gcp-service-account", "gcp"),
    ("azure.workload.identity/client-id", "azure"),
)
"""Annotations by which a ServiceAccount gets a role in a cloud."""


class Known:
    """One container: the objects that all its processes share."""

    __slots__ = ("_probe", "_unverified", "placement", "pod")

    def __init__(self, pod: Pod, placement: Placement) -> None:
        self.pod = pod
        self.placement = placement
        self._probe: Pod | None = None
        self._unverified: Placement | None = None

    @property
    def probe(self) -> Pod:
        """The pod as a process sees it that may be one of its probes."""
        if self._probe is None:
            self._probe = changed(self.pod, maybe_exec_probe=True)
        return self._probe

    @property
    def unverified(self) -> Placement:
        """The placement of a process that nobody saw enter the container."""
        if self._unverified is None:
            self._unverified = changed(self.placement, partial=Partial.UNVERIFIED)
        return self._unverified

    def same(self, other: "Known") -> bool:
        """Whether nothing that anybody reads has changed."""
        return self.content == other.content

    @property
    def content(self) -> tuple[object, ...]:
        """All of it; labels and commands are no part of a pod's own comparison."""
        pod, placement = self.pod, self.placement
        return pod, pod.labels, pod.exec_commands, placement.partial, placement.roles, placement.declared


@dataclass(frozen=True, slots=True)
class Pods:
    """A snapshot. Replaced as a whole; its tables are never changed."""

    generation: int = 0
    containers: Mapping[str, Known] = field(default_factory=dict)
    """By the first 31 digits of their ids."""
    by_name: Mapping[tuple[str, str], Known] = field(default_factory=dict)
    """By uid of the pod, or `namespace/name` where an agent sends no uid, and name of the container."""
    available: bool = False
    """Whether the list is complete and the API server answers."""

    def find(self, container_id: str, pod: Pod | None) -> Known | None:
        """The container with this id, or, when its status is late, the one that the agent names."""
        found = self.containers.get(container_id)
        if found is not None or pod is None:
            return found
        found = self.by_name.get((pod.uid or f"{pod.namespace}/{pod.name}", pod.container.name))
        if found is None or pod.container.id in {"", found.pod.container.id}:
            return found
        # Its status has the id of the one before it, or none.
        return Known(_with_id(found.pod, pod.container.id), found.placement)


class PodIndex:
    """This node's pods, as the API server tells of them; `pods` is the snapshot of now."""

    def __init__(self, job_owner: JobOwner | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.pods = Pods()
        self._workloads = WorkloadResolver(job_owner)
        self._clock = clock
        self._lock = Lock()
        self._facts: dict[str, PodFacts] = {}
        self._known: dict[str, dict[str, Known]] = {}
        """By uid of the pod and digits of the container."""
        self._roles: dict[tuple[str, str], tuple[CloudRole, ...]] = {}
        self._deleted: dict[str, float] = {}
        """When each pod that is gone was deleted, oldest first."""

    def replace(self, pods: Iterable[PodFacts]) -> None:
        """Take over a complete list: pods that are not in it are gone."""
        with self._lock:
            listed = set()
            for pod in pods:
                self._enter(pod)
                listed.add(pod.uid)
            for uid in self._facts.keys() - listed - self._deleted.keys():
                self._deleted[uid] = self._clock()
            self._publish(available=True)

    def apply(self, pod: PodFacts) -> None:
        """Take over a pod that was added or changed."""
        with self._lock:
            if self._enter(pod):
                self._publish(available=self.pods.available)

    def delete(self, uid: str) -> None:
        """Mark a pod as gone; it stays known for a while."""
        with self._lock:
            if uid in self._facts and uid not in self._deleted:
                self._deleted[uid] = self._clock()
                if self._forget():
                    self._publish(available=self.pods.available)

    def service_account(self, namespace: str, name: str, annotations: Mapping[str, str]) -> None:
        """Take over a ServiceAccount's annotations; none when it is gone."""
        roles = tuple(CloudRole(provider, annotations[key]) for key, provider in _ROLES if annotations.get(key))
        with self._lock:
            if self._roles.get((namespace, name), ()) == roles:
                return
            self._roles[namespace, name] = roles
            of_account = [
                pod for pod in self._facts.values() if (pod.namespace, pod.service_account) == (namespace, name)
            ]
            for pod in of_account:
                self._enter(pod, again=True)
            self._publish(available=self.pods.available)

    def reachable(self, *, yes: bool) -> None:
        """Say whether the API server answers: without it the snapshot stays, and what it lacks has another reason."""
        with self._lock:
            if self.pods.available != yes:
                self._publish(available=yes)

    def __len__(self) -> int:
        """Pods that are known, those that are gone included."""
        return len(self._facts)

    # -- under the lock

    def _enter(self, pod: PodFacts, *, again: bool = False) -> bool:
        """Take a pod in; return whether anything changed."""
        self._deleted.pop(pod.uid, None)
        before = self._facts.get(pod.uid)
        if before == pod and not again and not self._is_guessed(pod.uid):
            return False
        workload = self._workloads.of(pod)
        known = dict(self._known.get(pod.uid, {}))
        for container in pod.containers:
            described, placement = self._described(pod, container, workload)
            unborn = f" {container.name}"
            if container.ids:
                known.pop(unborn, None)
            for full_id in reversed(container.ids or ("",)):  # the one that runs last: names lead to it
                digits = full_id[:CONTAINER_ID_DIGITS] or unborn
                one = Known(_with_id(described, full_id), placement)
                earlier = known.pop(digits, None)
                known[digits] = earlier if earlier is not None and earlier.same(one) else one
        while len(known) > _IDS_OF_A_POD:
            del known[next(iter(known))]
        unchanged = known == self._known.get(pod.uid)
        self._facts[pod.uid], self._known[pod.uid] = pod, known
        return not unchanged

    def _is_guessed(self, uid: str) -> bool:
        known = self._known.get(uid, {}).values()
        return any(one.placement.partial is Partial.WORKLOAD_GUESSED for one in known)

    def _described(self, pod: PodFacts, container: ContainerFacts, workload: Workload) -> tuple[Pod, Placement]:
        described = Pod(
            pod.namespace,
            pod.name,
            pod.uid,
            workload.name,
            workload.kind,
            pod.service_account,
            Container("", container.name, container.image, container.image_id, container.privileged),
            dict(pod.labels or {}),
            pod.host_network,
            container.exec_commands,
        )
        roles = self._roles.get((pod.namespace, pod.service_account), ())
        partial = Partial.WORKLOAD_GUESSED if workload.guessed else None
        return described, Placement(partial, container.declared, roles)

    def _forget(self) -> bool:
        """Let go of pods that were deleted long ago, or are too many."""
        before = self._clock() - _KEEP_SECONDS
        old = [uid for uid, when in self._deleted.items() if when < before]
        old += list(self._deleted)[len(old) : max(len(old), len(self._deleted) - _KEEP_PODS)]
        for uid in old:
            del self._deleted[uid], self._facts[uid], self._known[uid]
        return bool(old)

    def _publish(self, *, available: bool) -> None:
        self._forget()
        containers: dict[str, Known] = {}
        by_name: dict[tuple[str, str], Known] = {}
        for uid, known in self._known.items():
            for digits, one in known.items():
                by_name[uid, one.pod.container.name] = one
                by_name[f"{one.pod.namespace}/{one.pod.name}", one.pod.container.name] = one
                if not digits.startswith(" "):
                    containers[digits] = one
        self.pods = Pods(self.pods.generation + 1, containers, by_name, available)


def _with_id(pod: Pod, container_id: str) -> Pod:
    return changed(pod, container=changed(pod.container, id=container_id))
