"""The recorded cluster in a real API server: each event of its containers is complete, by the watch and the pipeline.

Objects come, change and go at the recorded times: the clock of waiting is the recording's own, which stands still until
a change has come through the watch. So order and lateness are the recorded ones on a machine of any speed.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

from cluster.stored_objects import SECONDS, Storage, World
from enrich.recorded_cluster import (
    FORGED,
    UNKNOWN,
    arrivals,
    changes,
    known_pods,
    objects,
    remembered,
    stream,
    without_pods,
)
from enrich.test_recorded_pods import expected
from keytrail.cluster import Cluster
from keytrail.configuration import load_configuration
from keytrail.decode.decoder import Decoder
from keytrail.decode.redact import Redactor
from keytrail.domain.agent import AgentFacts
from keytrail.domain.event import Event
from keytrail.domain.finding import Finding
from keytrail.domain.identity import Attribution, Strength
from keytrail.enrich.enricher import Enricher
from keytrail.enrich.index import PodIndex
from keytrail.observe.accounting import Accounting
from keytrail.pipeline import Pipeline
from keytrail.records import Outputs
from keytrail.settings import Settings
from keytrail.source.base import Batch
from keytrail.source.protojson import event_from_json
from support.components.control_plane import ControlPlane
from support.processes import wait_until
from support.recordings import export_lines, labels, messages, window

pytestmark = [pytest.mark.cluster("kubernetes", "kwok"), pytest.mark.timeout(300)]
SECOND = 1_000_000_000
Json = dict[str, Any]
FORMS = pytest.mark.parametrize("bare", [False, True], ids=["as-sent", "without-process.pod"])
RECORDINGS = pytest.mark.parametrize("name", ["kubernetes", "kubernetes-late"])
ROLE = "arn:aws:iam::000000000000:role/ml-trainer-not-real declared"
_OPENAI, _ANTHROPIC, _STRIPE = (f"secret/{name}/api-key" for name in ("ml/openai", "ml/anthropic", "payments/stripe"))
IDENTITIES: Mapping[str, str] = {
    "init-container": ROLE,
    "chat-openai-python": f"{_OPENAI} used",
    "chat-openai-curl": f"{_OPENAI} used",
    "chat-db": f"{_OPENAI} used",
    "exec-probe": f"{_OPENAI} observed",
    "trainer-anthropic": f"{_ANTHROPIC} used",
    "trainer-sidecar": ROLE,
    "checkout-stripe": f"{_STRIPE} used",
    "report-job": "report@not-a-real-project.iam.gserviceaccount.com declared",
    "debug-exec": "service-account/default/default declared",
    "node-agent": "service-account/kube-system/node-agent declared",
    "host-openai": "",
    "sni-cli": "",
    "exec-shell": f"{_OPENAI} observed",
    "sa-token-read": f"{_OPENAI} observed, service-account/ml/chat-api used",
    "stolen-key": f"{_OPENAI} observed, stripe_api_key-present used",
    "trainer-evil": f"{_ANTHROPIC} used",
    "sidecar-reads-main-env": ROLE,
    "stripe-file-other-process": f"{_STRIPE} observed",
    "checkout-shadow": f"{_STRIPE} observed",
    FORGED: "",
    "short-lived-pod": f"{_OPENAI} observed",
    "deleted-pod": f"{_OPENAI} observed",
    "late-pod-3s": f"{_OPENAI} used",
    "late-pod-12s": f"{_OPENAI} used",
    "pending-pod": f"{_STRIPE} used",
    "relabel": f"{_OPENAI} used",
    UNKNOWN: "",
    "privileged-setuid": "service-account/kube-system/node-agent declared",
}
"""Window -> the identities that its events name first, each with the most that is proved."""


class _Timed(Enricher):
    """Waits by the recording's clock."""

    def __init__(self, index: PodIndex, **options: Any) -> None:
        super().__init__(index, **options)
        self.now_ns = 0

    def process(self, events: Any, now_ns: int) -> list[Event]:
        """As ever, but at the recording's time."""
        del now_ns
        return super().process(events, self.now_ns)


@dataclass(frozen=True)
class Seen:
    """An event, as it was when it was handed over."""

    event: Event
    container: str
    pod: Mapping[str, str]
    partial: str
    attribution: Attribution


@dataclass
class Taken:
    """An output that keeps what it is given."""

    events: list[Seen] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def write(self, record: Any) -> None:
        """Take an event or a finding."""
        if isinstance(record, Finding):
            self.findings.append(record)
            return
        process, pod = record.process, record.process.pod
        told = {} if pod is None else {
            "namespace": pod.namespace, "pod": pod.name, "uid": pod.uid, "container": pod.container.name,
            "container_id": pod.container.id, "workload": f"{pod.workload_kind}/{pod.workload}",
            "service_account": pod.service_account,
        }  # fmt: skip
        partial = process.placement.partial
        self.events.append(Seen(record, process.container_id, told, partial or "", process.attribution))

    def flush(self) -> None:
        """Nothing waits."""

    def close(self, deadline: float) -> None:
        """Nothing is open."""


@pytest.fixture(scope="module")
def plane(programs: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server with its etcd, and nobody else."""
    made = ControlPlane(programs("kubernetes"), programs("kwok"), tmp_path_factory.mktemp("stored"))
    with made.etcd, made.apiserver:
        yield made


@cache
def _raw_pods() -> dict[str, Json]:
    return {raw["metadata"]["uid"]: raw for raw in (*objects("pods"), *objects("pods-announced-later"))}


class Player:
    """Recordings through the pipeline of a node, beside a real API server."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._storage = Storage(plane)
        for raw in (*objects("serviceaccounts"), *objects("jobs")):
            self._storage.put(raw)
        self._played: dict[tuple[str, bool], Taken] = {}

    def play(self, name: str, *, bare: bool) -> Taken:
        """What came out at the end; the equations of the accounting hold."""
        if (name, bare) not in self._played:
            self._played[name, bare] = self._play(name, bare=bare)
        return self._played[name, bare]

    def _play(self, name: str, *, bare: bool) -> Taken:
        settings = Settings(kubeconfig=self._plane.kubeconfig, node_name="worker-1")
        redact = Redactor().redact
        taken, accounting = Taken(), Accounting()
        with Cluster.open(settings, {}, redact) as cluster:
            world = World(self._storage, cluster, _raw_pods())
            try:
                self._begin(cluster, world, name)
                enricher = _Timed(cluster.index)
                configuration = load_configuration(settings, redact, live=False, findings=True)
                outputs = Outputs((taken,), (taken,))
                pipeline = Pipeline(Decoder(redact), configuration, outputs, accounting, enricher=enricher)
                pipeline.process(Batch((), 0, agent=AgentFacts(captures_environment=True)))
                _stream(pipeline, enricher, world, name, bare=bare)
                pipeline.finish()
            finally:
                for uid in tuple(world.present):
                    world.delete(uid)
        counted = accounting.summary()["events"]
        assert counted["received"] == counted["decoded"] == len(taken.events)
        return taken

    def _begin(self, cluster: Cluster, world: World, name: str) -> None:
        """What was there before the recording began, known to the collector; roles of ServiceAccounts too."""
        assert wait_until(lambda: cluster.watches()[0].connected, SECONDS)
        for pod in known_pods():
            world.apply(pod)
        remembered(name, world)  # type: ignore[arg-type] # it takes what a PodIndex takes
        assert wait_until(lambda: _with_roles(cluster) >= {"trainer", "report"}, SECONDS)


def _with_roles(cluster: Cluster) -> set[str]:
    """ServiceAccounts whose cloud roles are known."""
    return {one.pod.service_account for one in cluster.index.pods.by_name.values() if one.placement.roles}


def _stream(pipeline: Pipeline, enricher: _Timed, world: World, name: str, *, bare: bool) -> None:
    """Play messages as they arrived, and changes at their times."""
    if name == "kubernetes-restart":  # its stream is the agent's own export
        lines = (line for line in export_lines(name) if any(key.startswith("process_") for key in line))
        raws = [event_from_json(json.dumps(line).encode()) for line in lines]
        times: list[int] = []
    else:
        raws, times = list(messages(name)), arrivals(name)
    pending = [] if name == "kubernetes-restart" else changes(name)
    for number, raw in enumerate(raws):
        enricher.now_ns = times[number] if number < len(times) else enricher.now_ns + SECOND
        while pending and pending[0].at_ns <= enricher.now_ns:
            pending.pop(0).make(world)  # type: ignore[arg-type] # it takes what a PodIndex takes
        pipeline.process(Batch((without_pods(raw) if bare else raw,), enricher.now_ns))
    enricher.now_ns += 60 * SECOND
    pipeline.process(Batch((), enricher.now_ns))


@pytest.fixture(scope="module")
def player(plane: ControlPlane) -> Player:
    """Plays each recording once."""
    return Player(plane)


@cache
def _decoded(name: str) -> tuple[Event, ...]:
    return tuple(stream(name))


def _key(event: Event) -> tuple[str, int, int, str, str]:
    return event.process.exec_id, event.tid, event.time_ns, event.kind.value, event.function


def of_window(name: str, wanted: str, taken: Taken) -> list[Seen]:
    """The events of containers between a window's marks."""
    found = window(name, wanted)
    inside = {_key(one) for one in _decoded(name)[found["stream_first"] : found["stream_last"] + 1]}
    return [one for one in taken.events if one.container and _key(one.event) in inside]


def _identities(events: list[Seen]) -> str:
    primaries = {seen.attribution.primary for seen in events} - {None}
    strongest: dict[str, Strength] = {}
    for one in filter(None, primaries):
        strongest[one.identity_id] = max(one.strength, strongest.get(one.identity_id, Strength.DECLARED))
    return ", ".join(f"{identity} {strength}" for identity, strength in sorted(strongest.items()))


@FORMS
@RECORDINGS
def test_every_event_of_an_announced_container_is_complete(
    player: Player, name: str, bare: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """All carry namespace, pod, uid, container, workload and ServiceAccount, the late and the short-lived pod's too."""
    taken, containers = player.play(name, bare=bare), expected(name)
    rows, wrong, complete = [], [], 0
    for one in labels(name)["windows"]:
        events = of_window(name, one["name"], taken)
        right = [seen for seen in events if seen.pod == containers.get(seen.container) and not seen.partial]
        reasons = ",".join(sorted({seen.partial for seen in events if seen.partial}))
        inside = {_key(seen.event) for seen in events}
        rules = sorted({finding.rule.name for finding in taken.findings if _key(finding.event) in inside})
        rows.append((one["name"], len(events), len(right), reasons, _identities(events), ", ".join(rules)))
        complete += len(right)
        if one["name"] not in {FORGED, UNKNOWN}:
            wrong += [(one["name"], seen.pod, seen.partial) for seen in events if seen not in right]
    with capsys.disabled():
        form = "without process.pod" if bare else "as sent"
        print(f"\n{name}, {form}: events, of them complete, not known, identities, rules")  # noqa: T201 - the table is the point
        for row in rows:
            print("  {:<26}{:>4}{:>4} {:<17} {:<40} {}".format(*row))  # noqa: T201 - as above
    assert wrong == []
    assert complete >= {"kubernetes": 1_150, "kubernetes-late": 260}[name]
    said = {row[0]: row[4] for row in rows if row[0] in IDENTITIES}
    assert said == {wanted: IDENTITIES[wanted] for wanted in said}


@FORMS
def test_forged_and_unknown_containers_get_nobodys_identity(player: Player, bare: bool) -> None:
    """They have no pod and say why; nothing that a Pod's spec declares is among what they are said to carry."""
    taken = player.play("kubernetes", bare=bare)
    for wanted, count, reason in ((FORGED, 47, "forged"), (UNKNOWN, 58, "unknown_container")):
        events = of_window("kubernetes", wanted, taken)
        assert len(events) == count
        assert {(str(seen.pod), seen.partial) for seen in events} == {("{}", reason)}
        assert [item for seen in events for item in seen.attribution.evidence if item.secret is not None] == []


@FORMS
def test_the_stolen_key_is_undeclared_and_becomes_a_finding(player: Player, bare: bool) -> None:
    """The Stripe variable of payments in a pod of ml is marked, and `credential-not-declared` says so, high."""
    taken = player.play("kubernetes", bare=bare)
    events = [seen for seen in of_window("kubernetes", "stolen-key", taken) if seen.event.process.name == "curl"]
    assert len(events) == 108
    for seen in events:
        assert seen.pod["namespace"] == "ml"
        undeclared = {item.name for item in seen.attribution.evidence if item.undeclared}
        assert undeclared == {"STRIPE_API_KEY"}
    found = [one for one in taken.findings if one.rule.name == "credential-not-declared" and not one.suppressed]
    assert [(one.severity.value, one.event.process.name) for one in found] == [("high", "curl")]
    assert found[0].event.process.pod is not None
    assert found[0].event.process.pod.name == "chat-api-059234886d-5883f"


@FORMS
def test_processes_that_outlived_their_agent_have_their_pods(player: Player, bare: bool) -> None:
    """After a restart of the agent, what it lists of the running containers and their new children is complete."""
    taken, containers = player.play("kubernetes-restart", bare=bare), expected("kubernetes-restart")
    events = [seen for seen in taken.events if seen.container]
    assert len(events) == 12
    for seen in events:
        told = containers[seen.container]
        names = ("namespace", "pod", "uid", "container", "service_account")
        assert {name: seen.pod[name] for name in names} == {name: told[name] for name in names}
        assert seen.partial == ""
