"""The Kubernetes control plane that other tests use: it is a real one, and it keeps what it was told."""

from typing import Any

import pytest

from support.components.control_plane import ControlPlane
from support.processes import wait_until

pytestmark = [pytest.mark.cluster("kubernetes", "kwok"), pytest.mark.timeout(240)]
SECONDS = 60.0


def _node(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


def _conditions(found: dict[str, Any]) -> dict[str, str]:
    return {one["type"]: one["status"] for one in found["status"].get("conditions", [])}


def test_a_node_gets_ready(control_plane: ControlPlane) -> None:
    """A Node that nobody but kwok looks after is Ready, with an address and a range for its pods."""
    control_plane.apply(_node("ready-1"))
    assert wait_until(lambda: _conditions(control_plane.get("node", "ready-1")).get("Ready") == "True", SECONDS)
    assert wait_until(lambda: "podCIDR" in control_plane.get("node", "ready-1")["spec"], SECONDS)
    addresses = {one["type"]: one["address"] for one in control_plane.get("node", "ready-1")["status"]["addresses"]}
    assert addresses == {"InternalIP": "127.0.0.1", "Hostname": "ready-1"}


def test_pods_of_a_deployment_run(control_plane: ControlPlane) -> None:
    """Controllers make the ReplicaSet and its Pods, the scheduler places them, kwok runs them, deletion ends them."""
    labels = {"app": "api"}
    pod = {"containers": [{"name": "api", "image": "example/api:1"}]}
    control_plane.apply(
        _node("runs-1"),
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "runs"}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "api", "namespace": "runs"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
    )
    control_plane.kubectl("rollout", "status", "deployment/api", "--namespace=runs", "--timeout=50s")
    pods = control_plane.get("pods", "--namespace=runs")["items"]
    assert [one["status"]["phase"] for one in pods] == ["Running", "Running"]
    assert len({one["status"]["podIP"] for one in pods}) == 2
    assert all(one["spec"]["serviceAccountName"] == "default" for one in pods)
    control_plane.kubectl("delete", "deployment/api", "--namespace=runs", "--cascade=foreground", "--timeout=50s")
    assert control_plane.get("pods", "--namespace=runs")["items"] == []


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restart_keeps_what_was_there(control_plane: ControlPlane, end: str) -> None:
    """API server and etcd come back at the same place with the same data, and controllers go on working."""
    name = f"kept-{end}"
    control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    uid = control_plane.get("namespace", name)["metadata"]["uid"]
    for child in (control_plane.apiserver, control_plane.etcd):
        getattr(child, end)()
    control_plane.etcd.start()
    control_plane.apiserver.start()
    assert control_plane.get("namespace", name)["metadata"]["uid"] == uid
    control_plane.apply(_node(name))
    assert wait_until(lambda: _conditions(control_plane.get("node", name)).get("Ready") == "True", SECONDS)
    assert all(child.running for child in control_plane.children)


def test_who_may_what_is_enforced_and_written_down(control_plane: ControlPlane) -> None:
    """A ServiceAccount's token is refused what RBAC does not give it, and the audit log has its request."""
    token = control_plane.kubectl("create", "token", "default").strip()
    with pytest.raises(AssertionError, match="cannot list resource"):
        control_plane.kubectl("get", "secrets", token=token)
    assert wait_until(lambda: "system:serviceaccount:default:default" in control_plane.audit_log.read_text(), SECONDS)
