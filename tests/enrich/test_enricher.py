"""Waiting for pods: for whom, how long, in which order, and what is said when nobody came."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from keytrail.domain.event import Event, EventKind, EventType
from keytrail.domain.identity import NO_IDENTITY
from keytrail.domain.placement import Partial
from keytrail.domain.pod_facts import ContainerFacts, PodFacts
from keytrail.domain.process import Container, Pod, Process
from keytrail.enrich.enricher import Enricher
from keytrail.enrich.index import Known, PodIndex

SECOND = 1_000_000_000
SHIM = Process("shim", binary="/usr/bin/containerd-shim-runc-v2")


def a_pod(number: int) -> PodFacts:
    """A pod with one container, whose id is made of one digit."""
    app = ContainerFacts("app", (f"{number}" * 64,))
    return PodFacts("shop", f"web-{number}", f"uid-{number}", service_account="web", containers=(app,))


def in_container(number: int, pid: int = 1, **fields: object) -> Process:
    """A process of that pod."""
    values = {"binary": "/app", "host_namespaces": False, "container_id": f"{number}" * 31, **fields}
    return Process(f"{number}-{pid}", pid=pid, **values)  # type: ignore[arg-type] # fields by name


def event(process: Process, parent: Process = SHIM) -> Event:
    """An event of a process that a runtime started."""
    return Event(EventKind.EXEC, EventType.EXEC, process, time_ns=0, parent=parent)


def new(*pods: int, synced: bool = True, **options: int) -> tuple[PodIndex, Enricher]:
    """An index with these pods, and an enricher over it."""
    index = PodIndex()
    if synced:
        index.replace([a_pod(number) for number in pods])
    return index, Enricher(index, **options)


def partial(process: Process) -> Partial | None:
    """What is not known of it."""
    assert process.placement is not None
    return process.placement.partial


def test_known_containers_and_the_node_go_on_at_once() -> None:
    """Events of known containers and of the node's own processes pass, in the order in which they came."""
    _, enricher = new(1, 2)
    events = [event(in_container(2)), event(Process("node")), event(in_container(1))]
    assert enricher.process(events, 0) == events
    assert [one.process.pod and one.process.pod.name for one in events] == ["web-2", None, "web-1"]
    assert (enricher.waiting, enricher.waited, enricher.misses) == (0, 0, Counter())


def test_late_pod_is_waited_for_without_holding_up_others() -> None:
    """Its container's events wait, in order; those of others pass; when it is announced they go on, complete."""
    index, enricher = new(1)
    first, second = in_container(5, 1), in_container(5, 2)
    held = [event(first), event(second), event(first), event(second)]
    other = event(in_container(1))
    assert enricher.process([held[0], held[1], other], 0) == [other]
    assert enricher.process([held[2]], SECOND) == []
    assert enricher.waiting == 3
    index.apply(a_pod(5))
    assert enricher.process([held[3]], SECOND) == held
    assert (first.pod and first.pod.name, second.pod is first.pod, partial(first)) == ("web-5", True, None)
    assert (enricher.waiting, enricher.waited) == (0, 3)


def test_waiting_ends_and_the_next_processes_do_not_wait_again() -> None:
    """After two seconds the events go on as they are; a container given up on costs nobody another two seconds."""
    index, enricher = new(1)
    process = in_container(5)
    held = event(process)
    assert enricher.process([held], 0) == []
    assert enricher.process([], 2 * SECOND - 1) == []
    assert enricher.process([], 2 * SECOND) == [held]
    assert partial(process) is Partial.UNKNOWN_CONTAINER
    later = event(in_container(5, 2))
    assert enricher.process([later], 3 * SECOND) == [later]
    assert enricher.misses == {Partial.UNKNOWN_CONTAINER: 2}
    process.attribution = NO_IDENTITY
    index.apply(a_pod(5))
    again = event(process)
    assert enricher.process([again], 9 * SECOND) == [again]
    assert (partial(process), process.pod and process.pod.name) == (None, "web-5")
    assert process.attribution is None


def test_no_waiting_when_it_is_switched_off() -> None:
    """With a wait of zero every event goes on at once."""
    _, enricher = new(wait_ns=0)
    late = event(in_container(5))
    assert enricher.process([late], 0) == [late]


def test_too_many_waiting_events_go_on_rather_than_get_lost() -> None:
    """Over the bound the container that waits longest goes on, and says why it is incomplete."""
    _, enricher = new(most_waiting=3)
    first, second = in_container(5), in_container(6)
    waiting = [event(first), event(second), event(second)]
    assert enricher.process(waiting, 0) == []
    last = event(second)
    assert enricher.process([last], 0) == waiting[:1]
    assert (partial(first), enricher.waiting) == (Partial.TOO_MANY_WAIT, 3)
    assert enricher.flush() == [*waiting[1:], last]
    assert (partial(second), enricher.waiting) == (Partial.UNKNOWN_CONTAINER, 0)


def agents_word(number: int, uid: str = "") -> Pod:
    """A pod as an agent names it."""
    container = Container(f"{number}" * 64, "app")
    return Pod("shop", f"web-{number}", uid or f"uid-{number}", container=container, maybe_exec_probe=True)


def test_agents_word_stays_where_the_api_server_says_nothing() -> None:
    """A pod that only the agent names is kept, and the record says that it was not announced."""
    _, enricher = new(1, wait_ns=0)
    process = in_container(5, pod=agents_word(5))
    enricher.process([event(process)], 0)
    assert (process.pod and process.pod.name, partial(process)) == ("web-5", Partial.NOT_ANNOUNCED)


def test_agents_word_leads_to_a_container_whose_id_is_not_announced_yet() -> None:
    """A restarted container's id comes with a status; pod uid, or name for agents without uids, and container do."""
    for uid in ("uid-5", ""):
        _, enricher = new(5)
        pod = replace(agents_word(5), uid=uid)
        process = in_container(7, pod=replace(pod, container=Container("7" * 64, "app")))
        enricher.process([event(process)], 0)
        assert process.pod is not None
        assert (process.pod.service_account, process.pod.maybe_exec_probe, partial(process)) == ("web", True, None)
        assert process.pod.container.id == "7" * 64  # not that of the container before it


def test_away_api_server_is_another_reason() -> None:
    """Before the first list, and while the server does not answer, a container is not simply unknown."""
    index, enricher = new(synced=False, wait_ns=0)
    before, after = in_container(5, 1), in_container(5, 2)
    enricher.process([event(before)], 0)
    assert partial(before) is Partial.API_UNAVAILABLE
    index.replace([])
    enricher.process([event(after)], 0)
    assert partial(after) is Partial.UNKNOWN_CONTAINER
    index.apply(a_pod(1))
    index.reachable(yes=False)
    known, unknown = in_container(1), in_container(6)
    enricher.process([event(known), event(unknown)], 0)
    assert (partial(known), partial(unknown)) == (None, Partial.API_UNAVAILABLE)


def test_sandbox_of_a_pod_does_not_wait() -> None:
    """The container that holds a pod's namespaces is in no status: its one process is told by its program."""
    _, enricher = new(1)
    pause = in_container(5, binary="/pause")
    assert len(enricher.process([event(pause)], 0)) == 1
    assert (partial(pause), pause.pod) == (Partial.SANDBOX, None)


def test_unverified_process_has_its_pod_and_says_so() -> None:
    """Where neither parent nor namespaces are known the pod is likely, and the record marks it."""
    _, enricher = new(1)
    process = in_container(1, host_namespaces=None)
    enricher.process([event(process, Process("gone"))], 0)
    assert (process.pod and process.pod.name, partial(process)) == ("web-1", Partial.UNVERIFIED)


def test_place_of_a_process_is_kept_when_its_pod_is_forgotten() -> None:
    """A process that outlives its pod's record, as a stuck one does, stays in the pod that it ran in."""
    index, enricher = new(1)
    process = in_container(1)
    enricher.process([event(process)], 0)
    pod = process.pod
    empty = PodIndex()
    empty.replace([])
    index.pods = replace(empty.pods, generation=index.pods.generation + 1)
    last = event(process)
    assert enricher.process([last], SECOND) == [last]
    assert (process.pod is pod, partial(process)) == (True, None)


def test_update_of_another_pod_voids_no_attribution() -> None:
    """Each process is looked at once more, and found where it was."""
    index, enricher = new(1)
    process = in_container(1)
    enricher.process([event(process)], 0)
    process.attribution = NO_IDENTITY
    index.apply(a_pod(2))
    enricher.process([event(process)], 0)
    assert process.attribution is NO_IDENTITY


def test_pod_that_the_agent_names_late_ends_the_wait() -> None:
    """The event that brings the pod's name takes those along that waited for it, without a word of the API server."""
    _, enricher = new(5)
    process = in_container(7)
    held = [event(process), event(process)]
    assert enricher.process(held, 0) == []
    process.pod = replace(agents_word(5), container=Container("7" * 64, "app"))
    last = event(process)
    assert enricher.process([last], 1) == [*held, last]
    assert (process.pod and process.pod.service_account, enricher.waiting) == ("web", 0)


def test_those_that_wait_are_looked_up_once_for_each_word_of_the_api_server() -> None:
    """However many batches come meanwhile, waiting costs nothing: whoever forges container ids pays for itself."""
    index, enricher = new(1)
    looked_up: list[str] = []

    class Listening(dict[str, Known]):
        def get(self, key: str, default: Known | None = None) -> Known | None:  # type: ignore[override] # of three
            looked_up.append(key)
            return super().get(key, default)

    def listen() -> None:
        index.pods = replace(index.pods, containers=Listening(index.pods.containers))

    listen()
    waiting = [event(in_container(number)) for number in range(2, 10)]
    assert enricher.process(waiting, 0) == []
    enricher.process([], 1)
    looked_up.clear()
    for now_ns in range(2, 100):
        assert enricher.process([], now_ns) == []
    assert looked_up == []
    index.apply(a_pod(5))
    listen()
    assert enricher.process([], 100) == waiting[3:4]
    assert len(looked_up) < 16
    assert enricher.process([], 2 * SECOND) == [one for one in waiting if one is not waiting[3]]


def test_many_late_containers_keep_their_order() -> None:
    """Interleaved events of ten late containers go on container by container, each in its own order."""
    index, enricher = new()
    processes = [in_container(number) for number in range(1, 10)]
    numbered = [(number, event(processes[number % 9])) for number in range(90)]
    assert enricher.process([one for _, one in numbered], 0) == []
    for number in range(1, 10):
        index.apply(a_pod(number))
    ready: Sequence[Event] = enricher.process([], SECOND)
    assert len(ready) == 90
    for process in processes:
        own = [one for one in ready if one.process is process]
        assert own == [one for _, one in numbered if one.process is process]
