"""What a whole `keytrail collect` takes beside an API server with thousands of pods: memory, requests, bytes.

Run as in a Pod: with a ServiceAccount's token and the collector's own Role, shipped rules, a spool and an OTLP backend.
Objects are as large as real ones, and written behind the API server's back, as nobody has to act on them.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from cluster.stored_objects import Storage
from keytrail.testing.fake_tetragon import FakeTetragon
from keytrail.testing.otlp_sink import OtlpSink
from support.components.child import free_ports
from support.components.control_plane import ControlPlane
from support.processes import wait_until
from support.recordings import messages

pytestmark = [pytest.mark.cluster("kubernetes", "kwok"), pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
SECONDS = 120.0
ON_NODE = 250
A_SERVICE = 25
"""Pods behind each Service."""
AIMS_MIB = {"none": 110, "services": 140, "all": 140}
Json = dict[str, Any]
IN_POD = """
import sys
from pathlib import Path
from keytrail.kube import surroundings
surroundings.ACCOUNT_FOLDER = Path(sys.argv.pop(1))
surroundings.in_pod.__defaults__ = (surroundings.ACCOUNT_FOLDER,)
from keytrail.cli import main
sys.exit(main())
"""
"""The collector, with the kubelet's files in another folder."""
RULES = [
    {"apiGroups": [""], "resources": ["pods", "services", "nodes"], "verbs": ["list", "watch", "get"]},
    {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get"]},
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    {"apiGroups": ["keytrail.io"], "resources": ["*"], "verbs": ["list", "watch", "get", "create", "patch"]},
]


@pytest.fixture
def plane(programs: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server with its etcd, and a collector's rights."""
    made = ControlPlane(programs("kubernetes"), programs("kwok"), tmp_path_factory.mktemp("memory"))
    with made.etcd, made.apiserver:
        folder = ROOT / "deploy" / "crds"
        made.kubectl("apply", f"--filename={folder}")
        made.kubectl("wait", "--for=condition=Established", "--timeout=50s", f"--filename={folder}")
        rbac = "rbac.authorization.k8s.io"
        made.apply(
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "ClusterRole",
                "metadata": {"name": "collector"},
                "rules": RULES,
            },
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": "collector"},
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "collector"},
                "subjects": [{"kind": "ServiceAccount", "name": "collector", "namespace": "default"}],
            },
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": "collector", "namespace": "default"},
            },
        )
        yield made


def uid(kind: int, number: int) -> str:
    """A uid of the usual form."""
    return f"{kind:08x}-0000-4000-8000-{number:012x}"


def address(number: int) -> str:
    """The address of a pod: each node has a /24."""
    return f"10.{64 + (number // ON_NODE) // 256}.{(number // ON_NODE) % 256}.{number % ON_NODE + 2}"


def pod(number: int) -> Json:
    """A running pod of two containers, of some 9 KB as the API server sends it."""
    service, node = number // A_SERVICE, number // ON_NODE
    key = {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": f"key-{service}", "key": "api-key"}}}
    plain = [{"name": f"VARIABLE_{one}", "value": "x" * 40} for one in range(15)]
    names = ("app", "proxy")
    owner = {
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"app-{service}-5f4d8c9b7", "uid": uid(2, service),
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    mount = {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True}
    projected = {"sources": [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]}
    probe = {"exec": {"command": ["/bin/health", "--quick"]}, "periodSeconds": 10}
    conditions = [
        {"type": one, "status": "True", "lastTransitionTime": "2026-11-22T10:00:00Z"}
        for one in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    managed = [
        {
            "manager": manager,
            "operation": "Update",
            "apiVersion": "v1",
            "time": "2026-11-22T10:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {f"f:field-{one}": {f'k:{{"type":"{one}"}}': {".": {}, "f:value": {}}} for one in range(18)},
        }
        for manager in ("kube-controller-manager", "kubelet")
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"app-{service}-5f4d8c9b7-{number:05d}",
            "namespace": f"team-{service % 20}",
            "uid": uid(1, number),
            "creationTimestamp": "2026-11-22T10:00:00Z",
            "labels": {"app": f"app-{service}", "team": f"team-{service % 20}", "pod-template-hash": "5f4d8c9b7"},
            "ownerReferences": [owner],
            "managedFields": managed,
        },
        "spec": {
            "nodeName": f"node-{node}",
            "serviceAccountName": "default",
            "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
            "volumes": [{"name": "token", "projected": projected}],
            "containers": [
                {
                    "name": one, "image": f"example/{one}:1.{service}", "env": [*plain, key],
                    "volumeMounts": [mount], "livenessProbe": probe, "readinessProbe": probe,
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                }
                for one in names
            ],
        },
        "status": {
            "phase": "Running",
            "podIP": address(number),
            "podIPs": [{"ip": address(number)}],
            "hostIP": f"192.168.{node // 250}.{node % 250 + 1}",
            "conditions": conditions,
            "containerStatuses": [
                {
                    "name": one, "image": f"example/{one}:1.{service}", "ready": True, "started": True,
                    "imageID": f"example/{one}@sha256:" + "ab" * 32, "restartCount": 0,
                    "containerID": f"containerd://{number * 2 + place + 1:064x}",
                    "state": {"running": {"startedAt": "2026-11-22T10:00:00Z"}},
                }
                for place, one in enumerate(names)
            ],
        },
    }  # fmt: skip


def service(number: int, pods: list[Json]) -> tuple[Json, Json]:
    """A Service and its EndpointSlice."""
    metadata = {"name": f"app-{number}", "namespace": f"team-{number % 20}", "uid": uid(3, number)}
    ip = f"10.96.{number // 250}.{number % 250 + 2}"
    spec = {"clusterIP": ip, "clusterIPs": [ip], "type": "ClusterIP", "ports": [{"port": 80}]}
    slices = {**metadata, "name": f"app-{number}-x7k2p", "uid": uid(4, number)}
    endpoints = [
        {
            "addresses": [one["status"]["podIP"]],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": one["spec"]["nodeName"],
            "targetRef": {"kind": "Pod", "name": one["metadata"]["name"], "uid": one["metadata"]["uid"]},
        }
        for one in pods
    ]
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}, {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**slices, "labels": {"kubernetes.io/service-name": f"app-{number}"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    }


def node(number: int) -> Json:
    """A Node."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"node-{number}", "uid": uid(5, number)},
        "spec": {"podCIDR": f"10.64.{number}.0/24", "podCIDRs": [f"10.64.{number}.0/24"]},
        "status": {
            "addresses": [{"type": "InternalIP", "address": f"192.168.{number // 250}.{number % 250 + 1}"}],
            "images": [{"names": [f"example/app@sha256:{one:064x}"], "sizeBytes": 1} for one in range(50)],
        },
    }


def populate(storage: Storage, first: int, last: int) -> None:
    """Put pods into the cluster, with their nodes and Services."""
    storage.put(*map(node, range(first // ON_NODE, last // ON_NODE)))
    for number in range(first // A_SERVICE, last // A_SERVICE):
        pods = [pod(one) for one in range(number * A_SERVICE, (number + 1) * A_SERVICE)]
        storage.put(*pods, *service(number, pods))


@contextmanager
def collecting(plane: ControlPlane, folder: Path, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A collector of node-0, which finds the API server as in a Pod."""
    folder.mkdir()
    account = folder / "account"
    where = plane.account(account, plane.kubectl("create", "token", "collector").strip())
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "KEYTRAIL_", "KUBERNETES_"))
    }
    command = [sys.executable, "-c", IN_POD, str(account), "collect"]
    with (folder / "err.log").open("wb") as err:
        process = subprocess.Popen(command, stdout=err, stderr=err, env={**clean, **where, **environ})
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (folder / "err.log").read_text()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def status(port: int) -> Json:
    """What the collector says of itself; nothing while it does not answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/status")
        found: Json = json.loads(connection.getresponse().read())
    except (OSError, ValueError):
        return {}
    finally:
        connection.close()
    return found


def memory(pid: int) -> dict[str, float]:
    """MiB: what is resident, its share of what others have too, and the most that ever was."""
    text = Path(f"/proc/{pid}/status").read_text()
    fields = {"rss": ("VmRSS", text), "peak": ("VmHWM", text)}
    if os.geteuid() == 0:  # the collector forbids it to everybody else
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        fields |= {"pss": ("Pss", rollup), "private": ("Private_Dirty", rollup)}
    return {
        name: next(int(line.split()[1]) for line in lines.splitlines() if line.startswith(f"{key}:")) / 1024
        for name, (key, lines) in fields.items()
    }


def measured(plane: ControlPlane, folder: Path, peers: str, pods: int) -> Json:
    """Run a collector until it knows everything and has decided on a recording; return what it took."""
    [port] = free_ports(1)
    socket = f"unix://{folder}/{peers}-{pods}.sock"
    with FakeTetragon(socket) as agent, OtlpSink(http=None) as sink:
        environ = {
            "KEYTRAIL_AGENT_ADDRESS": socket,
            "KEYTRAIL_NODE_NAME": "node-0",
            "KEYTRAIL_PEERS": peers,
            "KEYTRAIL_HTTP_ADDRESS": f"127.0.0.1:{port}",
            "KEYTRAIL_STATE_DIR": str(folder / f"state-{peers}-{pods}"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.grpc_endpoint,
        }
        with collecting(plane, folder / f"run-{peers}-{pods}", environ) as process:
            assert agent.wait_for_listeners(timeout=SECONDS)
            sent = messages("kubernetes")
            agent.publish(sent)

            def settled() -> bool:
                found = status(port)
                watches = (found.get("cluster") or {}).get("watches", [])
                return (
                    bool(watches)
                    and all(one["synced"] for one in watches)
                    and found["accounting"]["events"]["received"] >= len(sent)
                    and found["cluster"]["waiting"] == 0
                )

            assert wait_until(settled, SECONDS), (folder / f"run-{peers}-{pods}" / "err.log").read_text()
            time.sleep(1.0)  # lets what the last batches needed go; nothing depends on it
            taken, found = memory(process.pid), status(port)["cluster"]
    objects = {one["resource"]: one["objects"] for one in found["watches"] if one["objects"]}
    requests = {f"{one['verb']} {one['resource']}": one for one in found["requests"]}
    return {**taken, "objects": objects, "requests": requests, "addresses": found.get("peers")}


def lines(found: Json) -> Iterator[str]:
    """What was measured, for a reader."""
    names = ("rss", "pss", "private", "peak")
    yield "MiB: " + ", ".join(f"{name} {found[name]:.1f}" for name in names if name in found)
    requests = found["requests"]
    total = [sum(one[part] for one in requests.values()) for part in ("requests", "received")]
    yield f"{total[0]} requests, {total[1] / 1024:.0f} KiB received; objects {found['objects']}"
    biggest = sorted(requests.items(), key=lambda one: -one[1]["received"])[:4]
    yield ", ".join(f"{name}: {one['requests']} of {one['received'] / 1024:.0f} KiB" for name, one in biggest)
    yield f"addresses whose owners are known: {found['addresses']}"


@pytest.mark.parametrize(
    ("sizes", "modes"),
    [((5_000,), ("none", "services")), pytest.param((1_000, 5_000), tuple(AIMS_MIB), marks=pytest.mark.long)],
    ids=["aims", "growth"],
)
def test_a_whole_collector_fits_its_memory(
    plane: ControlPlane,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    sizes: tuple[int, ...],
    modes: tuple[str, ...],
) -> None:
    """With 250 pods on its node and thousands in the cluster it stays within its aims; all that it took is shown."""
    storage, found, done = Storage(plane), {}, 0
    for pods in sizes:
        populate(storage, done, pods)
        done = pods
        found |= {(peers, pods): measured(plane, tmp_path, peers, pods) for peers in modes}
    with capsys.disabled():
        for (peers, pods), one in found.items():
            print(f"\n{pods} pods in the cluster, peers: {peers}")  # noqa: T201 - the figures are the point
            for line in lines(one):
                print(f"    {line}")  # noqa: T201 - as above
    for (peers, pods), one in found.items():
        assert one["objects"]["pods of this node"] == ON_NODE
        assert one["rss"] < AIMS_MIB[peers], (peers, pods, one["rss"])
    # What one node asks for does not grow with the cluster, unless it wants to know its peers.
    own = [sum(one["received"] for one in found["none", pods]["requests"].values()) for pods in sizes]
    assert own[-1] < 1.2 * own[0]
