"""The library reconciled as a whole: pure runs over worlds that a test wrote down."""

from dataclasses import replace
from typing import Any

import pytest

from keytrail.domain.policy_library import PolicyLibrary
from keytrail.domain.resources import ClusterIdentityMapping
from keytrail.domain.rules import DetectionRule
from keytrail.domain.shape import read
from keytrail.tracing import sensors
from keytrail_operator.actions import Create, Delete, WriteStatus
from keytrail_operator.decoding import applied, tracing_policy
from keytrail_operator.reconcile import Outcome
from keytrail_operator.reconcile.policies import Memory, reconcile
from keytrail_operator.rulebook import Rulebook, rulebook
from keytrail_operator.world import Applied, Collector, Node, World

GATHER = 600.0


def library(status: dict[str, Any] | None = None, generation: int = 1, **spec: Any) -> Applied[PolicyLibrary]:
    """A library as it is in the API server."""
    return applied(
        PolicyLibrary,
        {
            "apiVersion": "keytrail.io/v1alpha1",
            "kind": "PolicyLibrary",
            "metadata": {"name": "default", "uid": "library", "generation": generation},
            "spec": spec,
            "status": status or {},
        },
    )


def rule(name: str, *requires: str, condition: str = "network.peer_port == 1") -> DetectionRule:
    """A rule that needs some sensors."""
    made, faults = read(
        DetectionRule,
        {
            "metadata": {"name": name},
            "spec": {
                "title": "T", "description": "D.", "severity": "low", "maturity": "stable", "events": ["connect"],
                "requires": list(requires), "condition": condition, "message": "{process.name}",
            },
        },
    )  # fmt: skip
    assert made is not None, faults
    return made


def world(of: Applied[PolicyLibrary] | None, *rules: DetectionRule, **more: Any) -> World:
    """A cluster of one node, whose ranges are known."""
    node = Node("a", "a", ready=True, addresses=("10.9.0.1",), pod_ranges=("10.128.0.0/24",))
    book = rulebook(rules, of.value if of else None, sensors(), Rulebook())
    facts: dict[str, Any] = {
        "nodes": {"a": node}, "service_ranges": ("10.96.0.0/16",), "collectors": {"a": Collector("a", "a", None, 0.0)}
    }  # fmt: skip
    return World(library=of, rulebook=book, **(facts | more))


def run(at: World, memory: Memory | None = None, now: float = 1000.0) -> Outcome[Memory]:
    """One run."""
    return reconcile(at, memory or Memory(), now, shipped=sensors(), gather_seconds=GATHER)


def made(outcome: Outcome[Memory]) -> dict[str, dict[str, Any]]:
    """The policies that are to be made, by sensor."""
    bodies = [dict(one.body) for one in outcome.actions if isinstance(one, Create)]
    return {one["metadata"]["labels"]["keytrail.io/sensor"]: one for one in bodies}


def status_of(outcome: Outcome[Memory]) -> dict[str, Any]:
    """The status that is to be written."""
    return next(dict(one.status) for one in outcome.actions if isinstance(one, WriteStatus))


def stored(body: dict[str, Any]) -> dict[str, Any]:
    """Policies of the cluster after one was made."""
    metadata = {**body["metadata"], "uid": "u", "resourceVersion": "1", "generation": 1,
                "creationTimestamp": "1970-01-01T00:00:10Z"}  # fmt: skip
    found = tracing_policy({**body, "metadata": metadata})
    assert found is not None
    return {found.name: found}


def condition(status: dict[str, Any], type_: str) -> dict[str, Any]:
    """One condition of a status."""
    return next(one for one in status["conditions"] if one["type"] == type_)


def test_makes_the_library() -> None:
    """Where there is no library, one is made, and nothing else until it is there; without its kind nothing at all."""
    (action,) = run(world(None)).actions
    assert isinstance(action, Create)
    assert str(action) == "create policylibraries.keytrail.io default"
    assert run(world(None, libraries_served=False)).actions == []


def test_exactly_what_is_required() -> None:
    """Sensors of enabled rules and nothing else; an agent's feature is no policy."""
    at = world(library(), rule("one", "mounts", "process-credentials"), rule("two", "mounts", "dns"))
    assert sorted(made(run(at))) == ["dns", "mounts"]
    off = {"rules": {"tune": [{"name": "two", "enabled": False}]}}
    assert sorted(made(run(world(library(**off), rule("one", "mounts"), rule("two", "dns"))))) == ["mounts"]


def test_a_broken_rule_keeps_its_sensor() -> None:
    """Collectors keep the last good version of a rule that became wrong, which needs its events."""
    at = world(library(), rule("one", "mounts", condition="nothing.like_that == 1"))
    assert sorted(made(run(at))) == ["mounts"]
    assert status_of(run(at))["rules"] == {"enabled": 0, "failing": 1}


def test_mappings_need_sensors() -> None:
    """A mapping's files, Secrets and destinations load what shows their use, with its own paths among those watched."""
    mapping = applied(
        ClusterIdentityMapping,
        {
            "metadata": {"name": "m", "uid": "m"},
            "spec": {
                "evidence": {
                    "files": [{"path": "/opt/app/key*"}, {"path": "/var/run/secrets/x"}, {"path": "**/.app/key"}]
                },
                "allowed": {"destinations": [{"host": "a.example"}]},
            },
        },
    )
    found = made(run(world(library(), mappings=(mapping,))))
    assert sorted(found) == ["credential-files", "mounted-secrets", "tcp-connect", "tls-server-name"]
    selectors = found["credential-files"]["spec"]["kprobes"][0]["selectors"]
    folders, files = (selectors[number]["matchArgs"][0]["values"] for number in (0, 1))
    assert "/opt/app/key" in folders
    assert "/.app/key" in files
    assert "/run/secrets/x" not in folders  # /run/secrets/ is watched anyway


def test_listed_and_off() -> None:
    """A list is loaded as it is; off loads nothing and takes away what is there."""
    listed = run(world(library(mode="listed", policies=[{"name": "dns"}]), rule("one", "mounts")))
    assert sorted(made(listed)) == ["dns"]
    off = run(world(library(mode="off"), policies=stored(made(listed)["dns"])))
    assert [type(one) for one in off.actions] == [Delete, WriteStatus]
    assert condition(status_of(off), "Ready")["reason"] == "Off"


def test_tuning() -> None:
    """Parameters, namespaces and rate limits are in the manifest, which never acts."""
    tuning = [
        {"name": "file-deletion", "parameters": {"folders": ["/data"]}, "namespaces": {"include": ["b", "a"]}},
        {"name": "dns", "namespaces": {"exclude": ["kube-system"]}},
    ]
    found = made(run(world(library(mode="listed", policies=tuning))))
    spec = found["file-deletion"]["spec"]
    assert spec["podSelector"]["matchExpressions"] == [
        {"key": "k8s:io.kubernetes.pod.namespace", "operator": "In", "values": ["a", "b"]}
    ]
    assert spec["kprobes"][0]["selectors"][0]["matchArgs"][0]["values"] == ["/data"]
    assert found["dns"]["spec"]["podSelector"]["matchExpressions"][0]["operator"] == "NotIn"


def test_wrong_parameter_keeps_what_is_loaded() -> None:
    """What cannot be rendered is said with its reason, and what was loaded before stays."""
    before = made(run(world(library(mode="listed", policies=[{"name": "file-deletion"}]))))["file-deletion"]
    wrong = library(mode="listed", policies=[{"name": "file-deletion", "parameters": {"folders": ["data"]}}])
    outcome = run(world(wrong, policies=stored(before)))
    assert [type(one) for one in outcome.actions] == [WriteStatus]
    status = status_of(outcome)
    assert condition(status, "Accepted")["reason"] == "InvalidParameter"
    assert "expected an absolute path" in condition(status, "Ready")["message"]
    assert status["policies"][0]["state"] == "Failed"


def test_a_wrong_library_changes_nothing() -> None:
    """A library whose shape is wrong leaves all policies alone and says why."""
    before = made(run(world(library(mode="listed", policies=[{"name": "dns"}]))))["dns"]
    outcome = run(world(library(mode="sometimes"), policies=stored(before)))
    assert [type(one) for one in outcome.actions] == [WriteStatus]
    assert condition(status_of(outcome), "Ready")["reason"] == "InvalidSpec"


def test_without_tetragon() -> None:
    """Where Tetragon's kinds are missing nothing is written but the condition that says so."""
    outcome = run(world(library(), rule("one", "mounts"), policies=None))
    assert [type(one) for one in outcome.actions] == [WriteStatus]
    status = status_of(outcome)
    assert condition(status, "TetragonInstalled")["reason"] == "NoDefinitions"
    assert status["policies"][0]["state"] == "Missing"


def test_a_refused_policy_says_why() -> None:
    """A policy that the API server does not take, as its definition is too old, is Failed with the server's words."""
    of = library(mode="listed", policies=[{"name": "dns"}])
    name = made(run(world(of)))["dns"]["metadata"]["name"]
    entry = status_of(run(world(of, refused={name: "unknown field"})))["policies"][0]
    assert entry["state"] == "Failed"
    assert "unknown field: is Tetragon too old for it?" in entry["message"]


def test_unknown_ranges_keep_egress_unloaded() -> None:
    """Egress is not loaded without ranges, all else is; once it is loaded, ranges that get lost change nothing."""
    of = library(mode="listed", policies=[{"name": "egress"}, {"name": "dns"}])
    outcome = run(world(of, service_ranges=None))
    assert sorted(made(outcome)) == ["dns"]
    assert condition(status_of(outcome), "ClusterRangesKnown")["reason"] == "RangesUnknown"
    there = stored(made(run(world(of)))["egress"])
    assert not any(isinstance(one, Delete) for one in run(world(of, service_ranges=None, policies=there)).actions)


def test_given_ranges_outrank_found_ones() -> None:
    """Values in the library itself are taken as they are, whatever the cluster tells."""
    of = library(mode="listed", policies=[{"name": "egress", "parameters": {"clusterCIDRs": ["10.0.0.0/8"]}}])
    values = made(run(world(of, service_ranges=None)))["egress"]["spec"]["kprobes"][0]["selectors"][0]["matchArgs"][0]
    assert values["values"][3:] == ["10.0.0.0/8", "::ffff:10.0.0.0/104"]


def test_changes_of_ranges_are_gathered() -> None:
    """A new node makes a new egress policy only after ten minutes; another choice of the user's does so at once."""
    of = library(mode="listed", policies=[{"name": "egress"}])
    before = world(of)
    there = stored(made(run(before))["egress"])
    node = Node("b", "b", ready=True, addresses=("10.9.0.2",), pod_ranges=("10.128.1.0/24",))
    after = replace(before, nodes={**before.nodes, "b": node}, policies=there)
    first = run(after, now=1000.0)
    assert made(first) == {}
    assert first.again is not None
    assert first.again <= GATHER
    second = run(after, first.memory, now=1000.0 + GATHER - 1)
    assert made(second) == {}
    assert list(made(run(after, second.memory, now=1000.0 + GATHER))) == ["egress"]
    # Back to what is loaded: nothing is left to gather.
    back = replace(before, policies=there)
    assert run(back, second.memory, now=1100.0).memory.ranges_since is None
    narrowed = library(mode="listed", policies=[{"name": "egress", "namespaces": {"include": ["shop"]}}])
    assert list(made(run(replace(after, library=narrowed), first.memory, now=1001.0))) == ["egress"]


def test_status_is_written_once() -> None:
    """A second run on what the first wrote writes nothing; figures alone wait a minute, conditions do not."""
    of = library(mode="listed", policies=[{"name": "dns"}])
    there = stored(made(run(world(of)))["dns"])
    first = run(world(of, policies=there))
    of = library(status_of(first), mode="listed", policies=[{"name": "dns"}])
    assert run(world(of, policies=there), first.memory).actions == []
    two = {name: Node(name, name, ready=True, pod_ranges=("10.128.0.0/24",)) for name in "ab"}
    both = {name: Collector(name, name, None, 0.0) for name in "ab"}
    later = run(world(of, policies=there, nodes=two, collectors=both), first.memory, now=1010.0)
    assert later.actions == []
    assert later.again == pytest.approx(50.0)
    assert run(world(of, policies=None), first.memory, now=1010.0).actions != []
