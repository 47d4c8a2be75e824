"""What a node's CollectorStatus says of the last 24 hours: identities that were carried, and findings by rule."""

from collections.abc import Sequence

import pytest

from keytrail.domain.event import Event, EventKind, EventType
from keytrail.domain.finding import Finding, Snapshot
from keytrail.domain.identity import Attribution, Evidence, EvidenceKind, Strength
from keytrail.domain.objects import Metadata
from keytrail.domain.process import Pod, Process
from keytrail.domain.rules import DetectionRule, DetectionRuleSpec, Maturity, Severity
from keytrail.kube.status_content import Picture, as_data, state_of
from keytrail.node_status import NodeStatus
from keytrail.observe import recent
from keytrail.observe.recent import RecentUse
from observe.pictures import Given, changed, healthy

HOUR = 3_600_000_000_000
NOW = 500_000 * HOUR
CHAT = Pod("ml", "chat-1", workload="chat", workload_kind="Deployment")
REPORT = Pod("ml", "report-1", workload="report", workload_kind="CronJob")


def carried(
    identity: str, *, mapping: str = "m", strength: Strength = Strength.OBSERVED, mapped: bool = True
) -> Evidence:
    """Evidence of one identity."""
    return Evidence(EvidenceKind.ENV, "KEY", identity, strength, mapping, mapped=mapped)


def event(exec_id: str, at_ns: int, *evidence: Evidence, pod: Pod | None = None) -> Event:
    """An event of a process that carries these."""
    process = Process(exec_id, pod=pod)
    process.attribution = Attribution(evidence)
    return Event(EventKind.CONNECT, EventType.KPROBE, process, time_ns=at_ns)


def finding(rule: str, at_ns: int, suppressed: int = 0) -> Finding:
    """A finding, or the summary of its repeats."""
    spec = DetectionRuleSpec(
        title="Title",
        description="Text.",
        severity=Severity.LOW,
        maturity=Maturity.STABLE,
        events=(EventKind.EXEC,),
        condition="true",
        message="m",
    )
    made = DetectionRule(metadata=Metadata(name=rule), spec=spec)
    return Finding(made, "1", "m", Snapshot(event("a", at_ns)), suppressed=suppressed)


def ids(use: RecentUse, now: int = NOW) -> Sequence[str]:
    """The identities of the last 24 hours, in order."""
    return [one.id for one in use.part(now).identities]


def test_an_identity_is_told_with_its_last_use_and_its_workloads() -> None:
    """The latest event counts, whatever the order; workloads come the latest first; nothing is older than a day."""
    use = RecentUse()
    use.event(event("a", NOW - 3 * HOUR, carried("openai"), pod=CHAT))
    use.event(event("b", NOW - 1 * HOUR, carried("openai"), carried("stripe"), pod=REPORT))
    use.event(event("a", NOW - 5 * HOUR, carried("openai"), pod=CHAT))
    use.event(event("c", NOW - 2 * HOUR, carried("node-key")))
    use.event(event("d", NOW - 25 * HOUR, carried("old"), pod=CHAT))
    assert [(one.id, (NOW - one.last_ns) // HOUR, one.workloads) for one in use.part(NOW).identities] == [
        ("openai", 1, ("ml/CronJob/report", "ml/Deployment/chat")),
        ("stripe", 1, ("ml/CronJob/report",)),
        ("node-key", 2, ()),
    ]
    assert ids(use, NOW + 22 * HOUR) == ["openai", "stripe"]


def test_a_process_whose_attribution_changes_counts_by_the_new_one() -> None:
    """What the memory of a process says is void with its attribution."""
    use, acting = RecentUse(), event("a", NOW, carried("first"))
    use.event(acting)
    acting.process.attribution = Attribution((carried("second"),))
    acting.time_ns = NOW + HOUR
    use.event(acting)
    assert [(one.id, one.last_ns - NOW) for one in use.part(NOW + HOUR).identities] == [("second", HOUR), ("first", 0)]


def test_what_is_not_carried_is_not_used() -> None:
    """Neither a Secret that a spec only declares, nor a variable that merely looks like a credential."""
    use = RecentUse()
    use.event(event("a", NOW, carried("declared", strength=Strength.DECLARED), carried("looks", mapped=False)))
    use.event(event("b", NOW))
    assert ids(use) == []


def test_invented_names_cannot_push_out_mapped_identities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that a workload chooses are bounded, and go before those that the user mapped."""
    monkeypatch.setattr(recent, "_MOST_USES", 20)
    use = RecentUse()
    use.event(event("mapped", NOW - HOUR, carried("openai")))
    for number in range(100):
        use.event(event(f"p{number}", NOW + number, carried(f"invented-{number}", mapping="")))
    assert len(use._uses) == 20
    assert "openai" in ids(use)
    assert "invented-99" in ids(use)


def test_findings_are_counted_by_whole_hours() -> None:
    """24 hours of findings by rule; summaries of repeats are none; a clock that jumps makes no hours without end."""
    use = RecentUse()
    use.findings([finding("shell", NOW), finding("shell", NOW - 23 * HOUR), finding("shell", NOW, suppressed=9)])
    use.findings([finding("key", NOW - 24 * HOUR)])
    assert use.part(NOW).findings == {"shell": 2}
    assert use.part(NOW + HOUR).findings == {"shell": 1}
    for number in range(200):
        use.findings([finding("shell", NOW + number * HOUR)])
    assert len(use._found["shell"]) == recent._MOST_HOURS


def test_the_status_of_the_node_has_both() -> None:
    """The picture that a CollectorStatus is made of, and its JSON, carry identities and findings."""
    used = RecentUse()
    used.event(event("a", NOW - HOUR, carried("openai"), pod=CHAT))
    used.findings([finding("shell", NOW)])
    snapshot = changed(healthy(), recent=used.part(NOW))
    picture = NodeStatus(Given(snapshot), lambda: None, tuple, tuple).picture()
    assert isinstance(picture, Picture)
    said = as_data(state_of(picture))
    assert said["identities"] == [
        {"id": "openai", "lastUsed": "2027-01-15T07:00:00Z", "workloads": ["ml/Deployment/chat"]}
    ]
    assert said["rules"] == [{"name": "shell", "findings24h": 1}]
