"""Pods on every event of the recorded cluster, with the agent's word on them and without."""

import json
from collections import defaultdict
from functools import cache

import pytest

from enrich.recorded_cluster import (
    FORGED,
    SECOND,
    UNKNOWN,
    Placed,
    known_pods,
    later_pods,
    new_index,
    placed,
    without_pods,
)
from keytrail.decode.decoder import Decoder
from keytrail.decode.redact import Redactor
from keytrail.domain.agent import AgentFacts
from keytrail.domain.event import Event
from keytrail.enrich.enricher import Enricher
from keytrail.export.attributes import PROCESS
from keytrail.source.protojson import event_from_json
from support.recordings import export_lines, labels, window

RECORDINGS = ("kubernetes", "kubernetes-late")
WORKLOADS = {
    "chat-api": "Deployment/chat-api",
    "trainer": "Deployment/trainer",
    "checkout": "Deployment/checkout",
    "report": "CronJob/report",
    "debug": "Pod/debug",
    "node-agent": "DaemonSet/node-agent",
    "thumbnailer": "CronJob/thumbnailer",
    "embedder": "Deployment/embedder",
    "indexer": "Deployment/indexer",
    "refunder": "Deployment/refunder",
}


@cache
def played(name: str, *, bare: bool) -> tuple[Placed, ...]:
    """A recording, placed with the default settings."""
    return tuple(placed(name, bare=bare))


def expected(name: str) -> dict[str, dict[str, str]]:
    """What the labels say of each container, by the digits of its id that events have."""
    uids = {pod.name: pod.uid for pod in (*known_pods(), *later_pods().values())}
    found = {}
    for one in labels(name)["windows"]:
        for identity in one["identity"]:
            workload = next(WORKLOADS[app] for app in WORKLOADS if identity["pod"].startswith(app))
            found[identity["container_id"][:31]] = {**identity, "uid": uids[identity["pod"]], "workload": workload}
    return found


def of_window(name: str, wanted: str, events: tuple[Placed, ...]) -> list[Placed]:
    """The events between a window's marks that bear a container's id."""
    found = window(name, wanted)
    inside = range(found["stream_first"], found["stream_last"] + 1)
    return [one for one in events if one.number in inside and one.event.process.container_id]


@pytest.mark.parametrize("bare", [False, True], ids=["as-sent", "without-process.pod"])
@pytest.mark.parametrize("name", RECORDINGS)
def test_every_event_of_an_announced_container_is_complete(
    name: str, bare: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """All carry namespace, pod, uid, container, workload and ServiceAccount; a table is printed."""
    containers, wrong, rows = expected(name), [], []
    for one in labels(name)["windows"]:
        if one["name"] in {FORGED, UNKNOWN}:
            continue
        right: dict[str, int] = defaultdict(int)
        events = of_window(name, one["name"], played(name, bare=bare))
        for found in events:
            told = containers[found.event.process.container_id]
            if found.pod == told and not found.partial:
                right[f"{told['namespace']}/{told['pod']}/{told['container']}"] += 1
            else:
                wrong.append((one["name"], found.event, found.pod, found.partial))
        rows.append((one["name"], len(events), sum(right.values()), ", ".join(sorted(right))))
    with capsys.disabled():
        print(f"\n{name}, {'without process.pod' if bare else 'as sent'}")  # noqa: T201 - the table is the point
        for window_name, events_of, complete, told_of in rows:
            print(f"  {window_name:<26} {events_of:>4} events {complete:>4} complete  {told_of}")  # noqa: T201 - as above
    assert wrong == []
    assert sum(row[1] for row in rows) >= {"kubernetes": 1_200, "kubernetes-late": 260}[name]


@pytest.mark.parametrize("bare", [False, True], ids=["as-sent", "without-process.pod"])
def test_forged_container_id_gives_no_pod(bare: bool) -> None:
    """A process of the node in a cgroup called like chat-api's container is told apart, whatever the agent says."""
    events = of_window("kubernetes", FORGED, played("kubernetes", bare=bare))
    assert len(events) == 47
    assert {(str(one.pod), one.partial) for one in events} == {("{}", "forged")}
    claimed = {one.event.process.placement.claimed for one in events if one.event.process.placement}
    assert claimed == {"ml/chat-api-059234886d-5883f"}


@pytest.mark.parametrize("name", RECORDINGS)
def test_container_that_nobody_announced_is_partial(name: str) -> None:
    """It gets no pod, says why, and as no runtime started it, its events do not wait for one either."""
    events = of_window(name, UNKNOWN, played(name, bare=False))
    assert len(events) == 58
    assert {(str(one.pod), one.partial, one.delay_ns) for one in events} == {("{}", "unknown_container", 0)}


@pytest.mark.parametrize("name", RECORDINGS)
def test_processes_of_the_node_have_no_pod_and_nothing_is_missing(name: str) -> None:
    """A process without a container's id is of the node: that is known, not partial."""
    events = [one for one in played(name, bare=False) if not one.event.process.container_id]
    assert len(events) > 400
    assert {(str(one.pod), one.partial) for one in events} == {("{}", "")}


def test_nobody_waits_longer_than_two_seconds_and_others_not_at_all() -> None:
    """Without the agent's holding back, events of late pods wait; those of other containers and the node do not."""
    late = {found["container_id"][:31] for found in expected("kubernetes-late").values()}
    for one in played("kubernetes-late", bare=True):
        assert one.delay_ns < 4 * SECOND  # 2 s, and until the next message comes
        assert not one.delay_ns or one.event.process.container_id in late


@pytest.mark.parametrize("wait", [0, 2, 15])
def test_order_within_a_process_is_kept(wait: int) -> None:
    """Whatever is waited for, each process's events go on in the order in which they came."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for one in placed("kubernetes-late", bare=True, wait_ns=wait * SECOND):
        numbers[one.event.process.exec_id].append(one.number)
    assert all(found == sorted(found) for found in numbers.values())


def test_relabelled_pod_is_relabelled_on_its_running_processes() -> None:
    """The agent keeps the labels of each process's exec; with the API the main process shows those of now."""
    main = [
        one.event.process.pod.labels
        for one in of_window("kubernetes", "relabel", played("kubernetes", bare=False))
        if one.event.process.pod is not None
    ]
    assert main
    assert all(found["quarantine"] == "true" for found in main)


def test_probe_stays_a_probe() -> None:
    """What only the agent says of a process, that it may be a probe, is kept beside what the API server says."""
    probes = [
        one.event.process.pod
        for one in of_window("kubernetes", "exec-probe", played("kubernetes", bare=False))
        if one.event.process.name == "cat"
    ]
    assert probes
    assert all(pod is not None and pod.maybe_exec_probe and pod.service_account == "chat-api" for pod in probes)
    assert all(pod is not None and pod.exec_commands == ("/tmp/healthy",) for pod in probes)


@pytest.mark.parametrize("bare", [False, True], ids=["as-sent", "without-process.pod"])
def test_processes_that_outlived_their_agent(bare: bool) -> None:
    """After a restart the containers' processes come from /proc: they and their new children have their pods."""
    decoder, enricher = Decoder(Redactor().redact), Enricher(new_index())
    decoder.connect(AgentFacts(captures_environment=True))
    containers, seen = expected("kubernetes-restart"), 0
    for line in export_lines("kubernetes-restart"):
        if not any(key.startswith("process_") for key in line):
            continue
        raw = event_from_json(json.dumps(line).encode())
        event = decoder.decode(without_pods(raw) if bare else raw)
        assert isinstance(event, Event)
        assert enricher.process([event], event.time_ns) == [event]
        process = event.process
        if process.container_id:
            told, pod = containers[process.container_id], process.pod
            assert pod is not None
            assert (pod.name, pod.uid, pod.service_account) == (told["pod"], told["uid"], told["service_account"])
            assert process.placement is not None
            assert process.placement.partial is None
            seen += 1
        else:
            assert process.pod is None
    assert seen == 12


def test_records_say_what_is_not_known() -> None:
    """`keytrail.enrichment` is `partial` with its reason for a forged process, `full` for the others."""
    rows = {name: value for name, _, _, value in PROCESS.rows if name.startswith("keytrail.enrichment")}
    said = set()
    for one in played("kubernetes", bare=False):
        values = {name: value(one.event.process) for name, value in rows.items() if not isinstance(value, str)}
        said.add((values["keytrail.enrichment"], values["keytrail.enrichment_reason"]))
    assert said == {("full", None), ("partial", "forged"), ("partial", "unknown_container")}
