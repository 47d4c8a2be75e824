"""Pods on a real API server: whose they are, as a collector of their node knows them, and what they weigh."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from keytrail.cluster import Cluster
from keytrail.kube.api import Api
from keytrail.kube.places import PODS
from keytrail.settings import Settings
from support.components.control_plane import ControlPlane
from support.processes import wait_until

pytestmark = [pytest.mark.cluster("kubernetes", "kwok"), pytest.mark.timeout(240)]
SECONDS = 60.0
Json = dict[str, Any]


def node(name: str) -> Json:
    """A node without anything."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


def test_pods_of_this_node_come_with_workload_and_role(control_plane: ControlPlane) -> None:
    """Of all pods only the node's are kept, each with what made it and with the role that its ServiceAccount has."""
    where, role = "watch-node", "arn:aws:iam::123456789012:role/chat"
    control_plane.kubectl("create", "namespace", where)
    control_plane.apply(node("watch-here"), node("watch-there"))
    account = {"name": "chat", "namespace": where, "annotations": {"eks.amazonaws.com/role-arn": role}}
    control_plane.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    containers = [{"name": "main", "image": "example/chat:1"}]

    def template(on: str) -> Json:
        spec = {"containers": containers, "serviceAccountName": "chat", "nodeName": on, "restartPolicy": "Never"}
        return {"metadata": {"labels": {"app": f"on-{on}"}}, "spec": spec}

    for name in ("watch-here", "watch-there"):
        pods = template(name)
        pods["spec"]["restartPolicy"] = "Always"
        control_plane.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": f"on-{name}", "namespace": where},
                "spec": {"selector": {"matchLabels": pods["metadata"]["labels"]}, "template": pods},
            }
        )
    control_plane.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": "nightly", "namespace": where},
            "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template("watch-here")}}},
        }
    )
    control_plane.kubectl("create", "job", "by-hand", "--from=cronjob/nightly", f"--namespace={where}")
    settings = Settings(kubeconfig=control_plane.kubeconfig, node_name="watch-here")
    cluster = Cluster.open(settings, {}, None)

    def found() -> set[tuple[str, str, bool]]:
        known = {id(one): one for one in cluster.index.pods.by_name.values()}.values()
        return {(one.pod.workload_kind, one.pod.workload, bool(one.placement.roles)) for one in known}

    with cluster:
        expected = {("Deployment", "on-watch-here", True), ("CronJob", "nightly", True)}
        assert wait_until(lambda: found() == expected, SECONDS), found()
        assert cluster.index.pods.available
        assert wait_until(lambda: cluster.watches()[0].connected, SECONDS)
    assert not [one for one in threading.enumerate() if one.name.startswith(("keytrail-watch", "keytrail-acc"))]
    used = cluster.api.usage()
    assert used["get", "serviceaccounts"].requests == 1
    assert used["get", "jobs"].requests == 1


MEASURED = """
import json, sys
from pathlib import Path
from keytrail.domain.pod_facts import pod_facts
from keytrail.kube.access import Access, from_kubeconfig
from keytrail.kube.api import Api
from keytrail.kube.places import PODS
from keytrail.kube.watch import Watch

def memory(name):
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name)) / 1024

folder, environ, selector, count = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3], int(sys.argv[4])
from keytrail.kube.access import from_pod
api = Api(lambda: from_pod(environ, folder))
api.get(PODS.at("default"), limit="1")
before = memory("VmRSS")
selectors = {"fieldSelector": selector} if selector else {}
watch = Watch(api, PODS.at(), pod_facts, lambda *told: None, selectors=selectors)
watch.start()
assert watch.wait_synced(100)
assert watch.state().objects == count, watch.state()
used = api.usage()["watch", "pods"]
print(json.dumps({"before": before, "after": memory("VmRSS"), "peak": memory("VmHWM"), "bytes": used.received,
                  "requests": used.requests}))
watch.close()
"""


def pod(where: str, name: str, on: str) -> Json:
    """A pod as large as a plain one of a real cluster, on a node."""
    variables = [{"name": f"VARIABLE_{number}", "value": "x" * 40} for number in range(20)]
    secret = {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "api", "key": "key"}}}
    containers = [{"name": one, "image": f"example/{one}:1", "env": [*variables, secret]} for one in ("api", "proxy")]
    metadata = {"name": name, "namespace": where, "labels": {"app": "api", "team": "ml"}}
    spec = {"nodeName": on, "containers": containers, "tolerations": [{"operator": "Exists"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [5000])
def test_what_pods_weigh(
    control_plane: ControlPlane, api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    """With 5,000 pods in the cluster the watch of one node's 250 weighs a few MiB, and of all of them tens of MiB."""
    where, nodes = "watch-weight", [f"weight-{number}" for number in range(count // 250)]
    control_plane.kubectl("create", "namespace", where)
    control_plane.apply(*map(node, nodes))
    assert wait_until(lambda: "default" in control_plane.kubectl("get", "sa", f"--namespace={where}"), SECONDS)
    others = len(api.get(PODS.at())["items"])

    def create(number: int) -> None:
        api.create(PODS.at(where), pod(where, f"pod-{number}", nodes[number % len(nodes)]))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(create, range(count)))
    environ = control_plane.account(tmp_path / "account", control_plane.token)
    weights = {}
    for what, selector, expected in (("node", f"spec.nodeName={nodes[0]}", 250), ("cluster", "", count + others)):
        arguments = [str(tmp_path / "account"), json.dumps(environ), selector, str(expected)]
        ran = subprocess.run(
            [sys.executable, "-c", MEASURED, *arguments], check=False, capture_output=True, text=True, timeout=200,
            env={**os.environ, "PYTHONMALLOC": "pymalloc"},
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        weights[what] = json.loads(ran.stdout)
    with capsys.disabled():
        print(f"\n{count} pods: {json.dumps(weights)}")  # noqa: T201 - the figures are for the reader
    assert weights["node"]["peak"] - weights["node"]["before"] < 10
    assert weights["cluster"]["peak"] - weights["cluster"]["before"] < 60
