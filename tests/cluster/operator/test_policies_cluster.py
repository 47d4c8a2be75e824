"""The operator's policies on a real API server, under exactly the rights that the chart gives."""

import pytest

from cluster.operator.agents import Agents, Witness
from cluster.operator.release import LIBRARY, OWN_RULE, POLICIES, RULES, SECONDS, Release
from cluster.operator.tetragon_definitions import definitions
from keytrail.tracing import rendered, sensors
from support.processes import wait_until

pytestmark = [pytest.mark.cluster("kubernetes", "kwok", "helm"), pytest.mark.timeout(300)]

OTHERS = {
    "apiVersion": "cilium.io/v1alpha1",
    "kind": "TracingPolicy",
    "metadata": {"name": "keytrail-of-somebody-else"},
    "spec": {"kprobes": [{"call": "tcp_connect", "syscall": False}]},
}


@pytest.fixture
def agents(release: Release) -> Agents:
    """Three nodes with agents, in a cluster that has Tetragon's kinds."""
    release.install_tetragon()
    made = Agents(release.admin, ["one", "two", "three"])
    made.make_nodes(lambda number: f"10.128.{number}.0/24")
    return made


def all_loaded(release: Release) -> bool:
    """Whether the library says that all is well, of its newest version."""
    library = release.library()
    ready = next(iter(library.get("status", {}).get("conditions", ())), {})
    return bool(ready.get("status") == "True" and ready.get("observedGeneration") == library["metadata"]["generation"])


def test_tetragon_comes_later(release: Release) -> None:
    """Without Tetragon's kinds the library says so; when they come, what stable rules need is loaded and owned."""
    release.plane.kubectl("delete", "customresourcedefinitions", "tracingpolicies.cilium.io", "--ignore-not-found")
    agents = Agents(release.admin, ["one", "two"])
    agents.make_nodes()
    release.start()
    release.wait(lambda: release.condition("TetragonInstalled")[:2] == ("False", "NoDefinitions"), "said")
    assert "install Tetragon" in release.condition("Ready")[2]
    release.install_tetragon()
    with agents:
        release.wait(lambda: all_loaded(release), "loaded")
    made = release.policies()
    owner = release.admin.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/keytrail-operator")["metadata"]["uid"]
    owners = [reference for one in made.values() for reference in one["metadata"]["ownerReferences"]]
    assert {(one["uid"], one.get("blockOwnerDeletion", False)) for one in owners} == {(owner, False)}
    status = release.library()["status"]
    assert [one["name"] for one in status["policies"]] == sorted(release.sensors())
    assert {one["nodesLoaded"] for one in status["policies"]} == {2}
    assert status["rules"]["failing"] == 0
    assert status["rules"]["enabled"] > 50


def test_every_policy_is_accepted(release: Release, agents: Agents) -> None:
    """The API server takes every shipped policy, as the operator and as a user renders it, unknown fields refused."""
    release.start()
    release.wait(lambda: bool(release.library()), "the library")
    with agents:
        release.tune(mode="listed", policies=[{"name": name} for name in sensors()])
        release.wait(lambda: all_loaded(release) and len(release.sensors()) == len(sensors()), "all")
    assert {len(names) for names in release.sensors().values()} == {1}
    for policy in sensors().values():
        if policy.name != "egress":
            answer = release.admin.ask("POST", POLICIES, rendered(policy), dryRun="All", fieldValidation="Strict")
            assert answer.ok, answer.text


def test_changes_leave_no_gap(release: Release, agents: Agents) -> None:
    """Through new parameters, a failing node and the way back, every wanted sensor stays loaded on every node."""
    release.start()
    with agents:
        release.wait(lambda: all_loaded(release), "loaded")
        first = release.sensors()
        with Witness(agents, first) as witness:
            folders = {"name": "file-deletion", "parameters": {"folders": ["/data"]}}
            agents.refuse["keytrail-file-deletion"] = "two"
            release.tune(policies=[folders])
            release.wait(lambda: len(release.sensors()["file-deletion"]) == 2, "the next beside the first")
            release.wait(lambda: release.condition("PoliciesLoaded")[1] == "Failed", "failed")
            entry = next(one for one in release.library()["status"]["policies"] if one["name"] == "file-deletion")
            assert (entry["state"], entry["nodesFailed"]) == ("Failed", 1)
            assert "two: no such function" in entry["message"]
            assert first["file-deletion"][0] in release.sensors()["file-deletion"]
            # The agent of that node could load it after all.
            agents.refuse.clear()
            release.wait(lambda: all_loaded(release) and len(release.sensors()["file-deletion"]) == 1, "replaced")
            assert release.sensors()["file-deletion"] != first["file-deletion"]
            release.tune(policies=[{"name": "mounts", "namespaces": {"exclude": ["kube-system"]}}])
            release.wait(lambda: all_loaded(release) and release.sensors()["mounts"] != first["mounts"], "narrowed")
            release.wait(lambda: release.sensors()["file-deletion"] == first["file-deletion"], "back")
            release.tune()
            release.wait(lambda: all_loaded(release) and release.sensors() == first, "as at first")
    assert not witness.uncovered
    assert witness.changes > 5


def test_rules_decide(release: Release, agents: Agents) -> None:
    """A rule of the user's own loads what it requires; disabling all that need a sensor unloads it; off unloads all."""
    release.start()
    with agents:
        release.wait(lambda: all_loaded(release), "loaded")
        assert "egress" not in release.sensors()
        assert release.admin.ask("POST", RULES, OWN_RULE).ok
        release.wait(lambda: "egress" in release.sensors(), "what the rule requires")
        release.wait(lambda: release.condition("ClusterRangesKnown")[:2] == ("True", "Found"), "ranges")
        values = next(one for name, one in release.policies().items() if name.startswith("keytrail-egress"))["spec"]
        ranges = values["kprobes"][0]["selectors"][0]["matchArgs"][0]["values"]
        assert {"10.96.0.0/16", "10.128.0.0/23", "::ffff:10.96.0.0/112"} <= set(ranges)
        # What a collector keeps in force of a rule that became wrong needs its events still.
        wrong = {"spec": {"condition": "nothing.like_that == 1"}}
        assert release.admin.merge(f"{RULES}/own", wrong).ok
        release.wait(lambda: release.library()["status"]["rules"]["failing"] == 1, "failing")
        assert "egress" in release.sensors()
        assert release.admin.ask("DELETE", f"{RULES}/own").ok
        release.wait(lambda: "egress" not in release.sensors(), "unloaded")
        release.tune(mode="off")
        release.wait(lambda: not release.policies() and all_loaded(release), "off")
        assert release.condition("Ready")[1] == "Off"


def test_drift_is_repaired(release: Release, agents: Agents) -> None:
    """What is edited, unlabelled or deleted by hand comes back as it was; what is somebody else's is not touched."""
    assert release.admin.ask("POST", POLICIES, OTHERS).ok
    release.start()
    with agents:
        release.wait(lambda: all_loaded(release), "loaded")
        before = {name: one["spec"] for name, one in release.policies().items()}
        names = sorted(before)

        def as_before() -> bool:
            return {name: one["spec"] for name, one in release.policies().items()} == before

        for path, change in (
            (names[0], {"spec": {"podSelector": {"matchLabels": {"a": "b"}}}}),
            (names[1], {"spec": {"kprobes": [{"call": "tcp_connect", "syscall": False}]}}),
            (names[2], {"metadata": {"labels": None}}),
        ):
            assert release.admin.merge(f"{POLICIES}/{path}", change).ok
            release.wait(as_before, f"repaired after {change}")
        assert release.admin.merge(f"{POLICIES}/{names[0]}", {"spec": {"podSelector": {"matchLabels": {"a": "c"}}}}).ok
        release.wait(as_before, "repaired a second time")
        assert release.admin.ask("DELETE", f"{POLICIES}/{names[3]}").ok
        release.wait(as_before, "made again")
    found = release.admin.get(f"{POLICIES}/keytrail-of-somebody-else")
    assert found["metadata"]["generation"] == 1
    assert found["metadata"]["managedFields"][0]["manager"] != "keytrail-operator"
    release.admin.ask("DELETE", f"{POLICIES}/keytrail-of-somebody-else")


def test_a_taken_name(release: Release, agents: Agents) -> None:
    """A policy of somebody else under the very name that is wanted stays as it is, and the library says so."""
    release.start()
    with agents:
        release.wait(lambda: all_loaded(release), "loaded")
        name = release.sensors()["mounts"][0]
        release.tune(mode="listed", policies=[{"name": "dns"}])
        release.wait(lambda: list(release.sensors()) == ["dns"], "only one")
        assert release.admin.ask("POST", POLICIES, OTHERS | {"metadata": {"name": name}}).ok
        release.tune()
        release.wait(lambda: release.condition("PoliciesLoaded")[1] == "Failed", "said")
        entry = next(one for one in release.library()["status"]["policies"] if one["name"] == "mounts")
        assert f"somebody else's TracingPolicy has the name {name}" in entry["message"]
        assert release.admin.get(f"{POLICIES}/{name}")["metadata"]["generation"] == 1
        release.admin.ask("DELETE", f"{POLICIES}/{name}")
        release.wait(lambda: all_loaded(release), "once it is free")


def test_wrong_parameter(release: Release, agents: Agents) -> None:
    """A wrong value is refused with its reason in the condition, and the last good policy stays."""
    release.start()
    with agents:
        release.wait(lambda: all_loaded(release), "loaded")
        before = release.sensors()
        release.tune(policies=[{"name": "file-deletion", "parameters": {"folders": ["data"]}}, {"name": "egres"}])
        release.wait(lambda: release.condition("Accepted")[1] == "InvalidParameter", "refused")
        message = release.condition("Accepted")[2]
        assert "there is no policy 'egres', did you mean" in message
        assert "expected an absolute path, found" in message
        assert release.sensors() == before
        release.tune()
        release.wait(lambda: all_loaded(release), "mended")
        assert release.admin.get(LIBRARY)["status"]["observedGeneration"] == 3


def test_tetragon_is_too_old(release: Release, agents: Agents) -> None:
    """A definition without a field that a policy needs: that policy says so in the server's words, all others load."""
    old = definitions()
    for one in old:
        properties = one["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        properties["kprobes"]["items"]["properties"]["args"]["items"]["properties"].pop("resolve", None)
    release.plane.apply(*old)
    probe = sensors()["mounted-secrets"]

    def refuses() -> bool:  # a changed definition is in force a moment later
        answer = release.admin.ask("POST", POLICIES, rendered(probe), dryRun="All", fieldValidation="Strict")
        return bool(answer.status_code == 400)

    assert wait_until(refuses, SECONDS)
    release.start()
    with agents:
        release.wait(lambda: len(release.sensors()) > 15, "the others")
        release.wait(lambda: release.condition("PoliciesLoaded")[1] == "Failed", "said")
        entries = {one["name"]: one for one in release.library()["status"]["policies"]}
        assert entries["mounted-secrets"]["state"] == "Failed"
        assert 'unknown field "spec.kprobes[0].args[2].resolve"' in entries["mounted-secrets"]["message"]
        release.wait(lambda: state_of(release, "listeners") == "Loaded", "the others load")
    assert "mounted-secrets" not in release.sensors()


def state_of(release: Release, sensor: str) -> str:
    """The state of one policy, as the library says it."""
    found = release.library().get("status", {}).get("policies", ())
    return next((str(one["state"]) for one in found if one["name"] == sensor), "")
