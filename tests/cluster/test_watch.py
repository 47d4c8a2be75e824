"""List and watch on a real API server: nothing is lost, whoever restarts, and what it costs is counted."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from keytrail.cluster import Cluster
from keytrail.domain.errors import (
    KubeConflictError,
    KubeForbiddenError,
    KubeInvalidError,
    KubeNotFoundError,
    KubeUnreachableError,
)
from keytrail.kube.access import from_kubeconfig, from_pod
from keytrail.kube.api import Api
from keytrail.kube.backoff import Backoff
from keytrail.kube.places import NODES, PODS, VERSION, Kind
from keytrail.kube.store import Change, Key
from keytrail.kube.watch import Watch
from keytrail.settings import Settings
from kube.gate import Gate
from support.components.child import Child, answers, free_ports
from support.components.control_plane import ControlPlane
from support.processes import wait_until

pytestmark = [pytest.mark.cluster("kubernetes", "kwok"), pytest.mark.timeout(240)]
CONFIG_MAPS = Kind("configmaps")
NAMESPACES = Kind("namespaces")
SECONDS = 60.0
Json = dict[str, Any]
Told = list[tuple[Change, str, str | None]]


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> Iterator[Api]:
    """The administrator's way in, by the kubeconfig."""
    found = Api.open(control_plane.kubeconfig, "", {})
    yield found
    found.close()


def namespace(api: Api, name: str) -> str:
    """Make a namespace of a test's own."""
    api.apply(
        NAMESPACES.at(name=name), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, manager="t"
    )
    return name


def config_map(where: str, name: str, value: str) -> Json:
    """A ConfigMap with one value."""
    metadata = {"name": name, "namespace": where}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value}}


def write(api: Api, where: str, name: str, value: str) -> None:
    """Create or change a ConfigMap."""
    api.apply(CONFIG_MAPS.at(where, name), config_map(where, name, value), manager="test")


def value_of(raw: Json) -> str | None:
    """Keep the value; not of the one that every namespace has."""
    found = (raw.get("data") or {}).get("value")
    return str(found) if found is not None else None


@contextmanager
def watching(api: Api, where: str, told: Told, **options: Any) -> Iterator[Watch[str]]:
    """Watch the ConfigMaps of a namespace, without long pauses."""

    def take(change: Change, key: Key, value: str | None) -> None:
        told.append((change, key.name, value))

    watch = Watch(api, CONFIG_MAPS.at(where), value_of, take, pauses=Backoff(0.05, 0.5), **options)
    watch.start()
    try:
        yield watch
    finally:
        watch.close(SECONDS)
        assert not watch._thread.is_alive()


def delete(control_plane: ControlPlane, where: str, name: str) -> None:
    """Delete a ConfigMap."""
    control_plane.kubectl("delete", "configmap", name, f"--namespace={where}")


def test_changes_come_in_order(control_plane: ControlPlane, api: Api) -> None:
    """What is there is told of first; then creation, change and deletion, once each and in order."""
    where, told = namespace(api, "watch-order"), Told()
    write(api, where, "early", "0")
    with watching(api, where, told) as watch:
        assert watch.wait_synced(SECONDS)
        assert told == [(Change.ADDED, "early", "0")]
        for number in range(5):
            write(api, where, "late", str(number))
        api.patch(CONFIG_MAPS.at(where, "late"), {"metadata": {"labels": {"of": "nobody"}}})
        delete(control_plane, where, "late")
        write(api, where, "last", "9")
        assert wait_until(lambda: (Change.ADDED, "last", "9") in told, SECONDS)
        assert [(change, value) for change, name, value in told if name == "late"] == [
            (Change.ADDED, "0"),
            *((Change.CHANGED, str(number)) for number in range(1, 5)),
            (Change.DELETED, None),
        ]
        assert sorted(watch.objects()) == ["0", "9"]
        assert watch.state().lists == 1


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_restarts_lose_nothing(control_plane: ControlPlane, api: Api, end: str) -> None:
    """While API server and etcd are away the copy stays and the state says so; what changes afterwards arrives."""
    where, told, states = namespace(api, f"watch-restart-{end}"), Told(), []
    write(api, where, "before", "1")
    with watching(api, where, told, on_state=states.append) as watch:
        assert watch.wait_synced(SECONDS)
        for child in (control_plane.apiserver, control_plane.etcd):
            getattr(child, end)()
        assert wait_until(lambda: not watch.state().connected, SECONDS)
        assert watch.objects() == ["1"]
        assert "cannot be reached" in str(watch.state().error)
        control_plane.etcd.start()
        control_plane.apiserver.start()
        write(api, where, "after", "2")
        assert wait_until(lambda: told == [(Change.ADDED, "before", "1"), (Change.ADDED, "after", "2")], SECONDS)
        assert wait_until(lambda: watch.state().connected, SECONDS)
    assert [state.connected for state in states] == [True, False, True]


def etcd_url(control_plane: ControlPlane) -> str:
    """Where etcd answers, from its own command line."""
    found = [one.partition("=")[2] for one in control_plane.etcd._command if "--advertise-client-urls=" in str(one)]
    return str(found[0])


def compact(control_plane: ControlPlane) -> None:
    """Make etcd forget all history, as the API server has it done every five minutes."""
    url = etcd_url(control_plane)
    key = {"key": base64.b64encode(b"any").decode()}
    revision = requests.post(f"{url}/v3/kv/range", json=key, timeout=20).json()["header"]["revision"]
    done = requests.post(f"{url}/v3/kv/compaction", json={"revision": revision, "physical": True}, timeout=20)
    assert done.ok, done.text


def test_a_history_that_is_gone_is_made_up_by_a_list(control_plane: ControlPlane, api: Api) -> None:
    """Behind a cut network, with etcd compacted and the API server restarted: 410, and then every difference, once."""
    where, told = namespace(api, "watch-gone"), Told()
    for name in ("stays", "goes", "again"):
        write(api, where, name, "1")
    with Gate(urlsplit(control_plane.url).port or 0) as gate:
        access = replace(from_kubeconfig(control_plane.kubeconfig), url=f"https://127.0.0.1:{gate.port}")
        with watching(Api(lambda: access), where, told) as watch:
            assert watch.wait_synced(SECONDS)
            gate.shut()
            assert wait_until(lambda: not watch.state().connected, SECONDS)
            del told[:]
            for name in ("goes", "again"):
                delete(control_plane, where, name)
            write(api, where, "again", "1")
            write(api, where, "comes", "2")
            compact(control_plane)
            control_plane.apiserver.stop()
            control_plane.apiserver.start()
            assert watch.objects() == ["1", "1", "1"]
            gate.open()
            assert wait_until(lambda: len(told) == 4, SECONDS)
            assert [(change, value) for change, name, value in told if name == "again"] == [
                (Change.DELETED, None),
                (Change.ADDED, "1"),
            ]
            assert {name for _, name, _ in told} == {"goes", "again", "comes"}
            assert watch.state().lists == 2


def test_a_server_that_streams_no_lists_is_watched_alike(control_plane: ControlPlane, api: Api) -> None:
    """Kubernetes before 1.34 refuses WatchList; lists of built-in and of custom kinds are read object by object."""
    where, told = namespace(api, "watch-list"), Told()
    many = [f"many-{number}" for number in range(300)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda name: write(api, where, name, "x" * 2000), many))
    (port,) = free_ports(1)
    options = [
        f"--secure-port={port}" if "--secure-port=" in str(one) else one for one in control_plane.apiserver._command
    ]
    options += ["--feature-gates=WatchList=false"]
    url = f"https://127.0.0.1:{port}"
    beside = Child(
        "older-apiserver",
        options[3:],  # without what Child itself puts in front
        control_plane._folder,
        ready=lambda: answers(f"{url}/readyz", ca=control_plane.ca),
        stop_seconds=3.0,
    )
    with beside:
        access = replace(from_kubeconfig(control_plane.kubeconfig), url=url)
        older = Api(lambda: access)
        with watching(older, where, told) as watch:
            assert watch.wait_synced(SECONDS)
            assert {name for _, name, _ in told} == set(many)
            write(api, where, "late", "1")
            assert wait_until(lambda: (Change.ADDED, "late", "1") in told, SECONDS)
        assert older.usage()["list", "configmaps"].received > 300 * 2000


def in_pod(control_plane: ControlPlane, folder: Path, token: str) -> Api:
    """The way in of a Pod whose kubelet keeps these files."""
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text(token)
    (folder / "ca.crt").write_bytes(control_plane.ca.read_bytes())
    place = urlsplit(control_plane.url)
    environ = {"KUBERNETES_SERVICE_HOST": str(place.hostname), "KUBERNETES_SERVICE_PORT": str(place.port)}
    return Api(lambda: from_pod(environ, folder))


def test_rights_that_are_missing_are_named(control_plane: ControlPlane, api: Api, tmp_path: Path) -> None:
    """A ServiceAccount without a Role is told the verb, the resource and the rule to add; given it, the watch works."""
    where, told = namespace(api, "watch-rights"), Told()
    write(api, where, "one", "1")
    assert wait_until(lambda: "default" in control_plane.kubectl("get", "sa", f"--namespace={where}"), SECONDS)
    token = control_plane.kubectl("create", "token", "default", f"--namespace={where}").strip()
    own = in_pod(control_plane, tmp_path / "account", token)
    with watching(own, where, told) as watch:
        assert wait_until(lambda: watch.state().failures > 0, SECONDS)
        error = watch.state().error
        assert isinstance(error, KubeForbiddenError)
        assert f"not allowed to watch configmaps in namespace {where}: " in str(error)
        assert f'User "system:serviceaccount:{where}:default" cannot watch resource "configmaps"' in str(error)
        assert 'its Role lacks {apiGroups: [""], resources: ["configmaps"], verbs: ["watch"]}' in str(error)
        control_plane.kubectl(
            "create", "role", "r", "--verb=watch", "--verb=list", "--resource=configmaps", f"--namespace={where}"
        )
        control_plane.kubectl(
            "create", "rolebinding", "r", "--role=r", f"--serviceaccount={where}:default", f"--namespace={where}"
        )
        assert watch.wait_synced(SECONDS)
        assert told == [(Change.ADDED, "one", "1")]


def test_a_token_that_no_longer_counts_is_read_anew(control_plane: ControlPlane, api: Api, tmp_path: Path) -> None:
    """After a refusal the token's file is read again, however young the token in memory is."""
    where = namespace(api, "watch-token")
    assert wait_until(lambda: "default" in control_plane.kubectl("get", "sa", f"--namespace={where}"), SECONDS)
    own = in_pod(control_plane, tmp_path / "account", "taken-back")
    with pytest.raises(KubeForbiddenError, match="does not know who asks"):
        own.get(VERSION)
    token = control_plane.kubectl("create", "token", "default", f"--namespace={where}").strip()
    in_pod(control_plane, tmp_path / "account", token)
    assert own.get(VERSION)["gitVersion"].startswith("v1.")


def test_another_authority_is_not_trusted(control_plane: ControlPlane, tmp_path: Path) -> None:
    """A server whose certificate is not the cluster's gets no token, and the words say why."""
    own = in_pod(control_plane, tmp_path / "account", control_plane.token)
    other = control_plane._folder / "kube-scheduler" / "kube-scheduler.crt"
    (tmp_path / "account" / "ca.crt").write_bytes(other.read_bytes())
    with pytest.raises(KubeUnreachableError, match="its certificate is not trusted"):
        own.get(VERSION)


def test_each_request_is_counted(api: Api) -> None:
    """Requests, failures and bytes by verb and resource; the objects' own bytes are in them."""
    where, fresh = namespace(api, "watch-bytes"), Api(api._open)
    body = config_map(where, "one", "x" * 5000)
    made = fresh.create(CONFIG_MAPS.at(where), body)
    made["data"] = {"value": "y"}
    fresh.replace(CONFIG_MAPS.at(where, "one"), made)
    with pytest.raises(KubeConflictError):
        fresh.replace(CONFIG_MAPS.at(where, "one"), made)
    with pytest.raises(KubeNotFoundError, match=f"cannot get configmaps two in namespace {where}"):
        fresh.get(CONFIG_MAPS.at(where, "two"))
    with pytest.raises(KubeInvalidError):
        fresh.create(CONFIG_MAPS.at(where), {**body, "data": "text"})
    assert len(fresh.get(CONFIG_MAPS.at(where))["items"]) >= 1
    told = Told()
    with watching(fresh, where, told) as watch:
        assert watch.wait_synced(SECONDS)
    usage = fresh.usage()
    assert usage["create", "configmaps"].requests == 2
    assert usage["create", "configmaps"].failed == 1
    assert usage["create", "configmaps"].sent > 5000
    assert usage["create", "configmaps"].received > 5000
    assert usage["update", "configmaps"].requests == 2
    assert usage["get", "configmaps"].failed == 1
    assert usage["list", "configmaps"].requests == 1
    assert usage["watch", "configmaps"].received > 100
    fresh.close()


def test_pods_of_this_node_come_with_workload_and_role(control_plane: ControlPlane, api: Api) -> None:
    """Of all pods only the node's are kept, each with what made it and with the role that its ServiceAccount has."""
    where, role = namespace(api, "watch-node"), "arn:aws:iam::123456789012:role/chat"
    for node in ("watch-here", "watch-there"):
        api.apply(NODES.at(name=node), {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}, manager="test")
    account = {"name": "chat", "namespace": where, "annotations": {"eks.amazonaws.com/role-arn": role}}
    control_plane.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    containers = [{"name": "main", "image": "example/chat:1"}]

    def template(node: str) -> Json:
        spec = {"containers": containers, "serviceAccountName": "chat", "nodeName": node, "restartPolicy": "Never"}
        return {"metadata": {"labels": {"app": f"on-{node}"}}, "spec": spec}

    for node in ("watch-here", "watch-there"):
        pods = template(node)
        pods["spec"]["restartPolicy"] = "Always"
        control_plane.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": f"on-{node}", "namespace": where},
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


def pod(where: str, name: str, node: str) -> Json:
    """A pod as large as a plain one of a real cluster, on a node."""
    variables = [{"name": f"VARIABLE_{number}", "value": "x" * 40} for number in range(20)]
    secret = {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "api", "key": "key"}}}
    containers = [{"name": one, "image": f"example/{one}:1", "env": [*variables, secret]} for one in ("api", "proxy")]
    metadata = {"name": name, "namespace": where, "labels": {"app": "api", "team": "ml"}}
    spec = {"nodeName": node, "containers": containers, "tolerations": [{"operator": "Exists"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [5000])
def test_what_pods_weigh(
    control_plane: ControlPlane, api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    """With 5,000 pods in the cluster the watch of one node's 250 weighs a few MiB, and of all of them tens of MiB."""
    where = namespace(api, "watch-weight")
    nodes = [f"weight-{number}" for number in range(count // 250)]
    for node in nodes:
        labels = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}
        api.apply(NODES.at(name=node), labels, manager="test")
    assert wait_until(lambda: "default" in control_plane.kubectl("get", "sa", f"--namespace={where}"), SECONDS)
    others = len(api.get(PODS.at())["items"])

    def create(number: int) -> None:
        node = nodes[number % len(nodes)]
        api.create(PODS.at(where), pod(where, f"pod-{number}", node))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(create, range(count)))
    in_pod(control_plane, tmp_path / "account", control_plane.token)
    place = urlsplit(control_plane.url)
    environ = {"KUBERNETES_SERVICE_HOST": str(place.hostname), "KUBERNETES_SERVICE_PORT": str(place.port)}
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
