"""Whatever happens to operator and API server, what is there in the end is what a fresh computation wants."""

import threading
import time

import pytest
import requests

from cluster.operator.agents import Agents, Witness
from cluster.operator.release import NAMESPACE, OPERATOR, OWN_RULE, POLICIES, RULES, Release
from cluster.operator.test_policies_cluster import all_loaded
from keytrail.detect.library import load_rules
from keytrail.kube.api import Api
from keytrail.manifests import builtin_folder
from keytrail.tracing import sensors
from keytrail_operator.actions import Action
from keytrail_operator.reconcile.policies import policies
from keytrail_operator.stores import Stores

pytestmark = [pytest.mark.cluster("kubernetes", "kwok", "helm"), pytest.mark.timeout(400)]


@pytest.fixture
def agents(release: Release) -> Agents:
    """Three nodes with agents."""
    release.install_tetragon()
    made = Agents(release.admin, ["one", "two", "three"])
    made.make_nodes(lambda number: f"10.128.{number}.0/24")
    return made


def wanted_afresh(release: Release) -> list[Action]:
    """What a reconciler without any memory would do now: nothing, once all has converged."""
    rules, _ = load_rules(builtin_folder() / "rules", sensors=sensors())
    api = Api.open(release.plane.kubeconfig, "", {})
    stores = Stores(lambda: None, shipped_rules=rules, sensors=sensors(), owner_name=OPERATOR)
    assert stores.look(api, time.time())
    one = policies(gather_seconds=600)
    outcome = one.reconcile(stores.world(), one.begins_with, time.time())
    api.close()
    return list(outcome.actions)


def test_killed_in_the_middle(release: Release, agents: Agents, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed while it writes, six times over, the operator ends where a fresh computation is, and no hook was lost."""
    release.start()
    with agents:
        release.wait(lambda: all_loaded(release), "loaded")
        kept = {"file-deletion", "mounts", "dns"}
        began = time.monotonic()
        with Witness(agents, kept) as witness:
            for turn in range(6):
                seen = witness.changes
                folders = {"parameters": {"folders": [f"/data-{turn}"]}}
                others = [{"name": name} for name in sensors() if turn % 2 or name in kept]
                release.tune(
                    mode="listed",
                    policies=[{**one, **(folders if one["name"] == "file-deletion" else {})} for one in others],
                )
                release.wait(lambda seen=seen: witness.changes > seen, "it writes")
                assert release.process is not None
                release.process.kill()
                release.start(wait=False)
            release.wait(lambda: all_loaded(release) and not wanted_afresh(release), "converged")
        seconds = time.monotonic() - began
        assert not witness.uncovered
    assert {len(names) for names in release.sensors().values()} == {1}
    with capsys.disabled():
        print(f"\n6 kills: converged after {seconds:.1f} s, {witness.changes} changes, {len(release.writes())} writes")  # noqa: T201 - the figures are for the reader


def test_the_api_server_restarts(release: Release, agents: Agents, capsys: pytest.CaptureFixture[str]) -> None:
    """An API server that is killed and comes back finds a live operator, which works on at once."""
    release.start()
    with agents:
        release.wait(lambda: all_loaded(release), "loaded")
        release.plane.apiserver.kill()
        assert requests.get(release.page("healthz"), timeout=10).ok
        release.plane.apiserver.start()
        began = time.monotonic()
        release.tune(policies=[{"name": "file-deletion", "parameters": {"folders": ["/data"]}}])
        generation = release.library()["metadata"]["generation"]

        def done() -> bool:
            status = release.library().get("status", {})
            return status.get("observedGeneration") == generation and all_loaded(release)

        release.wait(lambda: done() and not wanted_afresh(release), "converged")
        seconds = time.monotonic() - began
        with capsys.disabled():
            print(f"\nAPI server restarted: {seconds:.1f} s to a new policy that is loaded everywhere")  # noqa: T201 - the figures are for the reader
        assert requests.get(release.page("healthz"), timeout=10).ok


def test_somebody_else_writes_at_the_same_time(release: Release, agents: Agents) -> None:
    """Forty edits in a row of what the operator repairs end with its own version, and without endless writes."""
    release.start()
    with agents:
        release.wait(lambda: all_loaded(release), "loaded")
        name = release.sensors()["mounts"][0]
        before = release.policies()[name]["spec"]

        def edit() -> None:
            for number in range(40):
                change = {"spec": {"podSelector": {"matchLabels": {"try": str(number)}}}}
                release.admin.merge(f"{POLICIES}/{name}", change)

        editing = threading.Thread(target=edit)
        editing.start()
        editing.join()
        release.wait(lambda: release.policies()[name]["spec"] == before, "repaired")
        release.wait(lambda: not wanted_afresh(release) or _only_verifies(release), "converged")
    writes = [one for one in release.writes() if one["verb"] == "update"]
    assert len(writes) < 45


def _only_verifies(release: Release) -> bool:
    """A run without memory puts back once what was ever edited, which changes nothing."""
    return all(str(one).startswith("replace") for one in wanted_afresh(release))


def test_least_rights_and_a_quiet_cluster(release: Release, agents: Agents) -> None:
    """Every right of the ClusterRole is used, nothing else is asked for, and heartbeats make it write nothing."""
    mapping = {"metadata": {"name": "own"}, "spec": {"evidence": {"env": [{"name": "OWN_KEY"}]}}}
    mappings = "/apis/keytrail.io/v1alpha1"
    head = {"apiVersion": "keytrail.io/v1alpha1"}
    assert release.admin.ask("POST", RULES, OWN_RULE).ok
    cluster = {**head, "kind": "ClusterIdentityMapping", **mapping}
    assert release.admin.ask("POST", f"{mappings}/clusteridentitymappings", cluster).ok
    # Of a ServiceAccount that is not there: never ready, which an Event says.
    evidence = {"serviceAccounts": [{"name": "nobody"}]}
    own = {**head, "kind": "IdentityMapping", **mapping, "spec": {"evidence": evidence}}
    assert release.admin.ask("POST", f"{mappings}/namespaces/{NAMESPACE}/identitymappings", own).ok
    release.start()
    with agents:
        release.wait(lambda: all_loaded(release), "loaded")
        name = release.sensors()["mounts"][0]
        assert release.admin.merge(f"{POLICIES}/{name}", {"metadata": {"labels": None}}).ok
        release.wait(lambda: name in release.policies(), "repaired")
        release.tune(policies=[{"name": "file-deletion", "parameters": {"folders": ["/data"]}}])
        release.wait(lambda: all_loaded(release) and len(release.sensors()["file-deletion"]) == 1, "replaced")
        release.wait(lambda: not wanted_afresh(release), "converged")
    allowed = {
        (group, resource, verb)
        for one in release.objects
        if one["kind"] in {"ClusterRole", "Role"} and one["metadata"]["name"].startswith(OPERATOR)
        for given in one["rules"]
        for group in given["apiGroups"]
        for resource in given["resources"]
        for verb in given["verbs"]
    }
    release.wait(lambda: allowed <= used(release), f"every right used: {sorted(allowed - used(release))}")
    assert used(release) == allowed
    assert [one for one in release.audit() if one["responseStatus"]["code"] == 403] == []
    quiet(release, agents)


def used(release: Release) -> set[tuple[str, str, str]]:
    """What the operator asked for so far, as a ClusterRole says it."""
    found = set()
    for one in release.audit():
        at = one.get("objectRef")
        if at is not None and "resource" in at:
            part = f"/{at['subresource']}" if at.get("subresource") else ""
            found.add((at.get("apiGroup", ""), at["resource"] + part, one["verb"]))
    return found


def quiet(release: Release, agents: Agents) -> None:
    """Heartbeats of all nodes, again and again: runs, but not one write."""
    writes = len(release.writes())
    for _ in range(3):
        runs = release.metrics()["keytrail_operator_runs_total"]
        for node in agents.names:
            agents.report(node, agents.loaded[node])
        release.wait(lambda runs=runs: release.metrics()["keytrail_operator_runs_total"] > runs, "it looks")
    found = release.writes()[writes:]
    assert found == [], [(one["verb"], one["requestURI"]) for one in found]
