"""The index of pods: snapshots, what stays known, and for how long."""

from dataclasses import replace

import pytest

from enrich.recorded_cluster import job_owner, known_pods
from keytrail.domain.placement import CloudRole, Partial
from keytrail.domain.pod_facts import ContainerFacts, Owner, PodFacts
from keytrail.enrich.index import Known, PodIndex
from keytrail.enrich.workload import Workload, WorkloadResolver


def a_pod(number: int = 0, *ids: str, **fields: object) -> PodFacts:
    """A pod with one container."""
    containers = (ContainerFacts("app", ids or (f"{number:064x}"[::-1],)),)
    return replace(PodFacts("shop", f"web-{number}", f"uid-{number}", containers=containers), **fields)  # type: ignore[arg-type] # fields by name


def found(index: PodIndex, full_id: str) -> Known | None:
    """Who has a container."""
    return index.pods.find(full_id[:31], None)


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


def test_container_is_found_by_what_the_agent_knows_of_its_id() -> None:
    """By 31 digits of the id; all its processes share one pod object, which has the whole id."""
    index = PodIndex()
    index.replace(known_pods())
    full = "b78076d2b570c0b02f41801e48dfcc309477c909948f67ddc3f41b226161fdc4"
    known = found(index, full)
    assert known is not None
    assert (known.pod.name, known.pod.container.name, known.pod.container.id) == (
        "trainer-40f01088c8-06ea1",
        "app",
        full,
    )
    assert found(index, full) is known


def test_update_that_changes_nothing_makes_no_snapshot() -> None:
    """Most updates are conditions and times of a kubelet: processes need not be placed again for them."""
    index = PodIndex()
    index.replace([a_pod(1)])
    before = index.pods
    index.apply(a_pod(1))
    index.apply(a_pod(1, ips=("10.0.0.1",)))
    assert index.pods is before


def test_change_of_one_pod_leaves_the_objects_of_others() -> None:
    """Only what changed becomes another object: what was concluded of other pods' processes stays."""
    index = PodIndex()
    index.replace([a_pod(1), a_pod(2)])
    one, other = found(index, a_pod(1).containers[0].ids[0]), found(index, a_pod(2).containers[0].ids[0])
    index.apply(a_pod(1, labels={"version": "v2"}))
    again = found(index, a_pod(1).containers[0].ids[0])
    assert again is not None
    assert again is not one
    assert again.pod.labels == {"version": "v2"}
    assert found(index, a_pod(2).containers[0].ids[0]) is other


def test_former_containers_of_a_pod_stay_known() -> None:
    """A restarted container has a new id; the last events of the old one are still its own."""
    index = PodIndex()
    index.apply(a_pod(1, "a" * 64))
    index.apply(a_pod(1, "b" * 64, "a" * 64))
    index.apply(a_pod(1, "c" * 64, "b" * 64))
    assert all(found(index, digit * 64) is not None for digit in "abc")
    running = index.pods.by_name["uid-1", "app"]
    assert running.pod.container.id == "c" * 64
    for number in range(200):
        index.apply(a_pod(1, f"{number:064d}"[::-1]))
    assert len(index.pods.containers) <= 64


def test_deleted_pods_stay_for_a_while() -> None:
    """For ten minutes, and at most 256 of them: the oldest go first."""
    clock = Clock()
    index = PodIndex(clock=clock)
    index.replace([a_pod(1), a_pod(2)])
    index.delete("uid-1")
    index.delete("unknown")
    assert found(index, a_pod(1).containers[0].ids[0]) is not None
    clock.now = 601.0
    index.apply(a_pod(3))
    assert found(index, a_pod(1).containers[0].ids[0]) is None
    assert found(index, a_pod(2).containers[0].ids[0]) is not None
    for number in range(10, 310):
        index.apply(a_pod(number))
        index.delete(f"uid-{number}")
    assert len(index) == 2 + 256
    assert found(index, a_pod(309).containers[0].ids[0]) is not None
    assert found(index, a_pod(10).containers[0].ids[0]) is None


def test_list_replaces_what_was_known() -> None:
    """After a gap in the watch a new list comes: pods that it lacks are as good as deleted, others are back."""
    clock = Clock()
    index = PodIndex(clock=clock)
    index.replace([a_pod(1), a_pod(2)])
    index.delete("uid-2")
    index.replace([a_pod(2), a_pod(3)])
    clock.now = 601.0
    index.replace([a_pod(2), a_pod(3)])
    assert [found(index, a_pod(n).containers[0].ids[0]) is not None for n in (1, 2, 3)] == [False, True, True]


def test_roles_of_a_service_account() -> None:
    """Annotations of three clouds give the pods of the account their roles, whichever is known first."""
    index = PodIndex()
    index.apply(a_pod(1, service_account="web"))
    index.service_account("shop", "web", {"eks.amazonaws.com/role-arn": "arn:aws:iam::0:role/web", "other": "x"})
    known = found(index, a_pod(1).containers[0].ids[0])
    assert known is not None
    assert known.placement.roles == (CloudRole("aws", "arn:aws:iam::0:role/web"),)
    before = index.pods
    index.service_account("shop", "web", {"eks.amazonaws.com/role-arn": "arn:aws:iam::0:role/web"})
    index.service_account("else", "web", {})
    assert index.pods is before
    index.service_account("shop", "web", {})
    known = found(index, a_pod(1).containers[0].ids[0])
    assert known is not None
    assert known.placement.roles == ()


@pytest.mark.parametrize(
    ("owner", "labels", "expected"),
    [
        (None, {}, ("Pod", "web-0", False)),
        (Owner("Node", "worker-1", "u"), {}, ("Pod", "web-0", False)),
        (Owner("ReplicaSet", "web-7f9", "u"), {"pod-template-hash": "7f9"}, ("Deployment", "web", False)),
        (Owner("ReplicaSet", "web-7f9", "u"), {"rollouts-pod-template-hash": "7f9"}, ("Rollout", "web", False)),
        (Owner("ReplicaSet", "web-7f9", "u"), {"pod-template-hash": "other"}, ("ReplicaSet", "web-7f9", False)),
        (Owner("ReplicaSet", "by-hand-12345", "u"), {}, ("ReplicaSet", "by-hand-12345", False)),
        (Owner("StatefulSet", "web", "u"), {}, ("StatefulSet", "web", False)),
        (Owner("Job", "nightly-29385720", "u"), {}, ("CronJob", "nightly", True)),
        (Owner("Job", "migrate", "u"), {}, ("Job", "migrate", True)),
    ],
)
def test_workload_without_asking(owner: Owner | None, labels: dict[str, str], expected: tuple[str, str, bool]) -> None:
    """A Deployment follows from a label; of a Job only its name speaks, and the answer says that it is a guess."""
    assert WorkloadResolver().of(a_pod(0, owner=owner, labels=labels)) == Workload(*expected)


def test_job_is_asked_for_once() -> None:
    """With the API server's word a plain Job stays one, whatever it is called; each Job is asked for once."""
    asked = []

    def owner_of(namespace: str, name: str) -> Owner | None:
        asked.append(name)
        return job_owner(namespace, name) if name.startswith("report") else None

    workloads = WorkloadResolver(owner_of)
    report = next(pod for pod in known_pods() if pod.name.startswith("report"))
    plain = a_pod(0, owner=Owner("Job", "thumbnailer-29385720", "uid-of-job"))
    for _ in range(3):
        assert workloads.of(report) == Workload("CronJob", "report")
        assert workloads.of(plain) == Workload("Job", "thumbnailer-29385720")
    assert asked == ["report-29385720", "thumbnailer-29385720"]


def test_guess_is_replaced_when_the_api_server_answers() -> None:
    """While nobody can be asked the record says that the workload is guessed; with the next update it is known."""
    answers: dict[str, Owner | None] = {}

    def owner_of(_namespace: str, name: str) -> Owner | None:
        return answers[name]  # KeyError is a LookupError: nobody knows

    index = PodIndex(owner_of)
    pod = a_pod(1, owner=Owner("Job", "nightly-29385720", "u"))
    index.apply(pod)
    known = found(index, pod.containers[0].ids[0])
    assert known is not None
    assert (known.pod.workload_kind, known.placement.partial) == ("CronJob", Partial.WORKLOAD_GUESSED)
    answers["nightly-29385720"] = None
    index.apply(pod)
    known = found(index, pod.containers[0].ids[0])
    assert known is not None
    assert (known.pod.workload_kind, known.pod.workload, known.placement.partial) == ("Job", "nightly-29385720", None)
