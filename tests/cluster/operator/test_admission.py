"""The admission policies of the chart, on a real API server: what a stolen token of ours is not worth."""

import copy
from typing import Any

import pytest

from cluster.operator.release import COLLECTOR, NAMESPACE, OPERATOR, POLICIES, SECONDS, STATUSES, Admin, Release
from support.processes import wait_until

pytestmark = [pytest.mark.cluster("kubernetes", "kwok", "helm"), pytest.mark.timeout(200)]

HARMLESS: dict[str, Any] = {
    "apiVersion": "cilium.io/v1alpha1",
    "kind": "TracingPolicy",
    "metadata": {"name": "keytrail-try"},
    "spec": {
        "kprobes": [
            {
                "call": "tcp_connect",
                "syscall": False,
                "args": [{"index": 0, "type": "sock"}],
                "selectors": [{"matchActions": [{"action": "Post", "rateLimit": "1m"}]}],
            }
        ]
    },
}


def changed(**spec: Any) -> dict[str, Any]:
    """The harmless policy with other parts of its spec."""
    made = copy.deepcopy(HARMLESS)
    made["spec"].update(spec)
    return made


def hook(**selector: Any) -> dict[str, Any]:
    """A hook with one selector."""
    return {"call": "tcp_connect", "syscall": False, "selectors": [selector]}


REFUSED = {
    "name": HARMLESS | {"metadata": {"name": "somebody-elses"}},
    "sigkill": changed(kprobes=[hook(matchActions=[{"action": "Sigkill"}])]),
    "second hook": changed(kprobes=[hook(), hook(matchActions=[{"action": "Override", "argError": -1}])]),
    "on return": changed(kprobes=[hook(matchReturnActions=[{"action": "Signal", "argSig": 9}])]),
    "request from the node": changed(kprobes=[hook(matchActions=[{"action": "GetUrl", "argUrl": "http://x"}])]),
    "tracepoint": changed(
        tracepoints=[{"subsystem": "a", "event": "b", "selectors": [{"matchActions": [{"action": "Sigkill"}]}]}]
    ),
    "lsm hook": changed(lsmhooks=[{"hook": "file_open", "selectors": [{"matchActions": [{"action": "Override"}]}]}]),
    "enforcer": changed(enforcers=[{"calls": ["sys_kill"]}]),
    "macro": changed(selectorsMacros={"m": {"matchActions": [{"action": "Sigkill"}]}}),
}


@pytest.fixture
def operator(release: Release) -> Admin:
    """The API server as a thief of the operator's token asks it, once the admission policies are in force."""
    release.install_tetragon()
    asks = Admin(release.plane, release.token(OPERATOR))

    def refuses() -> bool:
        return bool(asks.ask("POST", POLICIES, REFUSED["enforcer"], dryRun="All").status_code == 403)

    assert wait_until(refuses, SECONDS)  # a new admission policy takes a moment
    return asks


def test_the_operator_only_observes(operator: Admin) -> None:
    """With the operator's token only observing policies can be made, under our names."""
    assert operator.ask("POST", POLICIES, HARMLESS).ok
    for what, body in REFUSED.items():
        answer = operator.ask("POST", POLICIES, body, dryRun="All")
        assert (answer.status_code, "the operator may write" in answer.text) == (403, True), (what, answer.text)
    assert operator.ask("DELETE", f"{POLICIES}/keytrail-try").ok


def test_the_operator_updates_and_deletes_only_its_own(operator: Admin, release: Release) -> None:
    """An update that adds an action, and the deletion of somebody else's policy, are refused; an administrator may."""
    others = HARMLESS | {"metadata": {"name": "somebody-elses"}}
    for body in (HARMLESS, others):
        assert release.admin.ask("POST", POLICIES, body).ok
    found = release.admin.get(f"{POLICIES}/keytrail-try")
    for what in ("sigkill", "enforcer", "macro"):
        answer = operator.ask("PUT", f"{POLICIES}/keytrail-try", {**found, "spec": REFUSED[what]["spec"]})
        assert answer.status_code == 403, what
    theirs = release.admin.get(f"{POLICIES}/somebody-elses")
    assert operator.ask("PUT", f"{POLICIES}/somebody-elses", theirs).status_code == 403
    assert operator.ask("DELETE", f"{POLICIES}/somebody-elses").status_code == 403
    assert operator.ask("PUT", f"{POLICIES}/keytrail-try", found).ok
    assert release.admin.ask("PUT", f"{POLICIES}/keytrail-try", {**found, "spec": REFUSED["sigkill"]["spec"]}).ok
    for body in (HARMLESS, others):
        assert release.admin.ask("DELETE", f"{POLICIES}/{body['metadata']['name']}").ok


def test_a_collector_speaks_for_its_own_node(release: Release) -> None:
    """A collector's token writes the status of the node that its pod runs on, and no other; without a node none."""
    admin = release.admin
    for node in ("mine", "yours"):
        assert admin.ask("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}).ok
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "collector", "namespace": NAMESPACE},
        "spec": {
            "nodeName": "mine",
            "serviceAccountName": COLLECTOR,
            "containers": [{"name": "c", "image": "none"}],
            "tolerations": [{"operator": "Exists"}],
        },
    }
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    assert wait_until(lambda: bool(admin.ask("POST", pods, pod).ok), SECONDS)  # once its ServiceAccount is known
    bound = release.token(COLLECTOR, "--bound-object-kind=Pod", "--bound-object-name=collector")
    collector, unbound = Admin(release.plane, bound), Admin(release.plane, release.token(COLLECTOR))
    body = {"apiVersion": "keytrail.io/v1alpha1", "kind": "CollectorStatus"}
    status = {"heartbeatTime": "2026-11-22T14:06:35Z", "version": "1"}

    def write(asks: Admin, node: str, part: str = "") -> Any:
        return asks.ask(
            "PATCH",
            f"{STATUSES}/{node}{part}",
            {**body, "metadata": {"name": node}, **({"status": status} if part else {})},
            kind="application/apply-patch+yaml",
            fieldManager="test",
        )

    assert wait_until(lambda: write(collector, "yours").status_code == 403, SECONDS)
    assert "a collector on node mine may write only" in write(collector, "yours").text
    admin.ask("DELETE", f"{STATUSES}/yours")
    assert write(collector, "mine").ok
    assert write(collector, "mine", "/status").ok
    admin.apply(f"{STATUSES}/yours", {**body, "metadata": {"name": "yours"}})
    for asks in (collector, unbound):
        assert write(asks, "yours", "/status").status_code == 403
    assert write(unbound, "mine", "/status").status_code == 403
    assert "names none" in write(unbound, "mine", "/status").text
    assert collector.ask("DELETE", f"{STATUSES}/yours").status_code == 403
    release.plane.kubectl("delete", "pod", "collector", f"--namespace={NAMESPACE}", "--wait=false", "--force")
    assert wait_until(lambda: admin.get(f"{pods}/collector") is None, SECONDS)
