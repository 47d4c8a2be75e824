"""The owner of a Pod in, the workload that people know it by out: the Deployment, not its ReplicaSet.

Watching every ReplicaSet and Job of a cluster from each node would cost more than all else that a collector does. A
Deployment's name follows from a label; whether a Job belongs to a CronJob is asked once for each Job, through a
resolver. Knows no API client.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from keytrail.domain.pod_facts import Owner, PodFacts

JobOwner = Callable[[str, str], Owner | None]
"""Namespace and name of a Job in, its controller out, None when it has none. Raises LookupError when nobody knows."""

_HASHED: Final = (("pod-template-hash", "Deployment"), ("rollouts-pod-template-hash", "Rollout"))
"""Labels that a controller puts on each pod, with what it has appended to its own name for the ReplicaSet's."""
_MIRRORED: Final = "Node"
"""Owner of the API's copy of a static pod."""
_STAMP_DIGITS: Final = range(8, 11)
"""A CronJob names its Jobs by the minute they were due in, counted from 1970."""
_REMEMBERED: Final = 4_096


class Workload(NamedTuple):
    """Kind and name; `guessed` when only a name's form speaks for it."""

    kind: str
    name: str
    guessed: bool = False


class WorkloadResolver:
    """Finds workloads, asking once for each Job. For one thread, the one that watches pods."""

    def __init__(self, job_owner: JobOwner | None = None) -> None:
        self._job_owner = job_owner or _nobody_knows
        self._jobs: dict[str, Workload] = {}

    def of(self, pod: PodFacts) -> Workload:
        """The workload of a pod; itself for one that nothing manages."""
        owner = pod.owner
        if owner is None or owner.kind == _MIRRORED:
            return Workload("Pod", pod.name)
        if owner.kind == "ReplicaSet":
            labels = pod.labels or {}
            for label, kind in _HASHED:
                name = owner.name.removesuffix(f"-{labels.get(label, '')}")
                if label in labels and name != owner.name:
                    return Workload(kind, name)
        if owner.kind == "Job":
            return self._of_job(pod.namespace, owner)
        return Workload(owner.kind, owner.name)

    def _of_job(self, namespace: str, job: Owner) -> Workload:
        known = self._jobs.get(job.uid)
        if known is not None:
            return known
        try:
            above = self._job_owner(namespace, job.name)
        except LookupError:
            return _guess(job.name)  # asked again with the pod's next change
        found = Workload("Job", job.name) if above is None else Workload(above.kind, above.name)
        if len(self._jobs) >= _REMEMBERED:
            self._jobs.clear()
        self._jobs[job.uid] = found  # a Job's owner never changes
        return found


def _nobody_knows(_namespace: str, _name: str) -> Owner | None:
    raise LookupError


def _guess(job: str) -> Workload:
    """A Job made by hand may be called like one of a CronJob's, so that this is a guess and says so."""
    name, _, stamp = job.rpartition("-")
    if name and stamp.isdecimal() and len(stamp) in _STAMP_DIGITS:
        return Workload("CronJob", name, guessed=True)
    return Workload("Job", job, guessed=True)
