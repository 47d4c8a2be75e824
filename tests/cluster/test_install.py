"""From `helm install` to the first finding in a log backend, with everything real but the kernel and the kubelet.

Helm, a control plane, the processes of the image as the pods of the release say, an OpenTelemetry Collector, Loki. The
agent is a fake one, which plays what a real one recorded, moved into a pod of this cluster.
"""

import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chart.rendering import CHART, Helm
from cluster.image import tour
from cluster.image.building import built_image
from cluster.image.kubelet import Kubelet
from cluster.operator.tetragon_definitions import definitions
from keytrail.proto.tetragon.events_pb2 import GetEventsResponse
from keytrail.source.recording import read_recording
from keytrail.testing.fake_tetragon import FakeTetragon
from support.commands import keytrail
from support.components.backends_page import configuration
from support.components.build import Unavailable
from support.components.child import Child, answers, free_ports
from support.components.collector import OtelCollector
from support.components.control_plane import ControlPlane
from support.components.loki import TENANT, Loki
from support.processes import wait_until
from support.recordings import folder as recording

pytestmark = [pytest.mark.cluster("helm", "kubernetes", "kwok", "collector", "loki"), pytest.mark.timeout(1800)]
SECONDS = 120.0
NAMESPACE, NODE, WORKLOAD = "keytrail-install", "install-1", "ml-install"
VALUE = "sk_test_not_a_real_key"
CONTAINER_ID = "feed" * 16
RULE = "identity-unexpected-workload"
QUERY = '{service_name="keytrail"} | security_rule_name="' + RULE + '"'
Json = dict[str, Any]


class Cluster:
    """What the release meets: a node with an agent, a workload, a backend; and its processes once it is there."""

    def __init__(self, plane: ControlPlane, helm: Helm, kubelet: Kubelet, agent: FakeTetragon, endpoint: str) -> None:
        self.plane = plane
        self.kubelet = kubelet
        self.agent = agent
        self.children: list[Child] = []
        self._helm = helm
        self._access = ("--kubeconfig", str(plane.kubeconfig), "--namespace", NAMESPACE, "--timeout", "3m")
        self._collector_port, self._operator_port = free_ports(2)
        self._values = (
            f"collector.otlp.endpoint={endpoint}",
            f"tetragon.metricsAddress=$(HOST_IP):{str(agent.metrics_address).rpartition(':')[2]}",
            f"collector.http.port={self._collector_port}",
            f"operator.http.port={self._operator_port}",
            f"collector.nodeSelector.kubernetes\\.io/hostname={NODE}",
            "clusterName=installed",
            # The processes that stand in for the pods' containers run here, and so does the backend.
            "collector.podAnnotations.sidecar\\.opentelemetry\\.io/inject=receiver",
        )

    def helm(self, verb: str, *options: str) -> str:
        """Run Helm on the release as an administrator does."""
        chart = [] if verb == "uninstall" else [str(CHART)]
        settings = [] if verb == "uninstall" else [word for value in self._values for word in ("--set", value)]
        return self._helm.run(verb, "keytrail", *chart, *self._access, "--wait", *settings, *options)

    def helm_test(self, *, fails: bool = False) -> str:
        """Run `helm test`, and its pod as a kubelet does, by whose end Helm judges. Return what it printed."""
        with ThreadPoolExecutor(1) as pool:
            judged = pool.submit(self._helm.run, "test", "keytrail", *self._access, fails=fails)
            ended = self.kubelet.run(self.pod("test"))
            said = judged.result(SECONDS)
        assert ("failed" if fails else "Succeeded") in said
        return ended.stdout + ended.stderr

    def pod(self, component: str, unlike: str = "") -> Json:
        """The release's pod of a component, once it runs; of an update the new one."""
        found: list[Json] = []

        def runs() -> bool:
            selector = f"--selector=app.kubernetes.io/component={component}"
            pods = self.plane.get("pods", f"--namespace={NAMESPACE}", selector)["items"]
            found[:] = [
                one
                for one in pods
                if one["status"]["phase"] == "Running"
                and "deletionTimestamp" not in one["metadata"]
                and one["metadata"]["uid"] != unlike
            ]
            return len(found) == 1

        assert wait_until(runs, SECONDS), f"no pod of the {component}"
        return found[0]

    def start(self, component: str, unlike: str = "") -> tuple[Json, Child]:
        """Run that pod's processes, until the pod would be ready."""
        pod = self.pod(component, unlike)
        port = self._collector_port if component == "collector" else self._operator_port
        probe = pod["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"]
        child = self.kubelet.start(pod, lambda: answers(f"http://127.0.0.1:{port}{probe}"))
        self.children.append(child)
        return pod, child


@pytest.fixture
def backend(otel_collector: Callable[..., OtelCollector], loki: Loki) -> OtelCollector:
    """An OpenTelemetry Collector as docs/backends.md has it, with Loki behind it."""
    here = {"endpoint": loki.otlp_endpoint, "headers": {TENANT: "install"}}
    return otel_collector({"otlp_http/loki": configuration("receivers")["exporters"]["otlp_http/loki"] | here})


@pytest.fixture
def control_plane(programs: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One of its own: definitions that other tests applied belong to no release, and Helm leaves such alone."""
    with ControlPlane(programs("kubernetes"), programs("kwok"), tmp_path_factory.mktemp("plane")) as running:
        yield running


@pytest.fixture
def cluster(
    control_plane: ControlPlane, programs: Callable[[str], Path], backend: OtelCollector, tmp_path: Path
) -> Iterator[Cluster]:
    """A node with an agent on it, Tetragon's kinds, and a workload that has a key which is not its own."""
    run = tmp_path / "tetragon"
    run.mkdir()
    (metrics,) = free_ports(1)
    with ExitStack() as stack:
        try:
            image = stack.enter_context(built_image())
        except Unavailable as error:
            pytest.skip(str(error))
        agent = stack.enter_context(FakeTetragon(f"unix://{run}/tetragon.sock", metrics_address=f"127.0.0.1:{metrics}"))
        (run / "tetragon.sock").chmod(0o660)
        node = {"metadata": {"name": NODE, "labels": {"kubernetes.io/os": "linux", "kubernetes.io/hostname": NODE}}}
        control_plane.apply({"apiVersion": "v1", "kind": "Node", **node}, *definitions(), *_workload())
        control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        kubelet = Kubelet(control_plane, image, tmp_path, {"/var/run/tetragon": run})
        found = Cluster(control_plane, Helm(programs("helm") / "helm", tmp_path), kubelet, agent, backend.grpc_endpoint)
        yield found
        for child in found.children:
            child.stop()
        control_plane.kubectl("delete", "node", NODE)


def _workload() -> tuple[Json, Json]:
    labels = {"app": "chat-api"}
    containers = [{"name": "app", "image": "example/chat-api:1"}]
    template = {"metadata": {"labels": labels}, "spec": {"nodeName": NODE, "containers": containers}}
    deployment = {"selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": "chat-api", "namespace": WORKLOAD}
    return (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": WORKLOAD}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": deployment},
    )


def _workload_pod(plane: ControlPlane) -> Json:
    """The workload's pod, with what a runtime would have reported of its container."""

    def pods() -> list[Json]:
        found = plane.get("pods", f"--namespace={WORKLOAD}")["items"]
        return [one for one in found if one["status"]["phase"] == "Running"]

    assert wait_until(lambda: len(pods()) == 1, SECONDS)
    (pod,) = pods()
    (status,) = pod["status"]["containerStatuses"]
    patch = {"status": {"containerStatuses": [status | {"containerID": f"containerd://{CONTAINER_ID}"}]}}
    name = pod["metadata"]["name"]
    plane.kubectl("patch", "pod", name, f"--namespace={WORKLOAD}", "--subresource=status", "--type=merge",
                  f"--patch={json.dumps(patch)}")  # fmt: skip
    return pod


def _stolen_key(pod: Json) -> list[bytes]:
    """The recorded curl with another team's key, its start and its connection, as if it ran in that pod now."""
    events = [GetEventsResponse.FromString(raw) for raw in read_recording(recording("kubernetes"))]
    connects = [one for one in events if one.process_kprobe.function_name == "tcp_connect" and _has_key(one)]
    chosen = connects[0]
    exec_id = chosen.process_kprobe.process.exec_id
    begins = next(one for one in events if one.process_exec.process.exec_id == exec_id)
    return [_moved(one, pod) for one in (begins, chosen)]


def _has_key(event: GetEventsResponse) -> bool:
    process = event.process_kprobe.process
    keys = {one.Key for one in process.environment_variables}
    return process.binary.endswith("/curl") and "STRIPE_API_KEY" in keys and process.pod.namespace == "ml"


def _moved(event: GetEventsResponse, pod: Json) -> bytes:
    moved = GetEventsResponse()
    moved.CopyFrom(event)
    moved.node_name = NODE
    moved.time.GetCurrentTime()
    inner = getattr(moved, str(moved.WhichOneof("event")))
    for process in (inner.process, inner.parent):
        process.docker = CONTAINER_ID[:31]
        process.pod.namespace = WORKLOAD
        process.pod.name = pod["metadata"]["name"]
        process.pod.uid = pod["metadata"]["uid"]
        process.pod.container.id = f"containerd://{CONTAINER_ID}"
        for variable in process.environment_variables:
            if variable.Key == "STRIPE_API_KEY":
                variable.Value = VALUE
    return moved.SerializeToString()


def _findings(loki: Loki) -> list[Json]:
    now = time.time_ns()
    return loki.query(QUERY, tenant="install", start_ns=now - 3600 * 10**9, end_ns=now + 3600 * 10**9)


def test_from_install_to_finding_and_out_again(
    cluster: Cluster, backend: OtelCollector, loki: Loki, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mapping is applied and its finding is in Loki; upgrading keeps all, uninstalling leaves what users made."""
    plane = cluster.plane
    workload = _workload_pod(plane)
    events = _stolen_key(workload)
    began = time.monotonic()
    cluster.helm("install")
    installed = time.monotonic() - began
    _, operator = cluster.start("operator")
    pod, collector = cluster.start("collector")
    running = time.monotonic() - began
    mapping = next(step.given for step in tour.steps() if step.given)
    plane.kubectl("apply", "--filename=-", stdin=mapping)

    def found() -> bool:
        cluster.agent.publish(events)  # until the mapping is in force there is nothing to find
        return bool(_findings(loki))

    assert wait_until(found, SECONDS), collector.log[-3000:]
    took = time.monotonic() - began
    _is_right(_findings(loki)[0], workload)
    with capsys.disabled():
        sys.stdout.write(
            f"\nhelm install --wait {installed:.1f} s, processes ready after {running:.1f} s, "
            f"first finding in Loki after {took:.1f} s\n"
        )
    _node_says_so(plane)
    assert "critical" not in cluster.helm_test()
    plane.kubectl("delete", "clusteridentitymapping", "stripe-installed")  # the tour begins without it
    tour.follow(partial(_run, plane, loki))
    _operator_has_loaded_policies(plane, operator)

    cluster.helm("upgrade", "--set", "collector.rules=all")
    collector.stop()
    _, upgraded = cluster.start("collector", unlike=pod["metadata"]["uid"])
    assert plane.get("clusteridentitymapping", "stripe-installed")["spec"]["identity"]["owner"] == "payments"
    logs = "".join(child.log for child in cluster.children)
    assert VALUE not in logs + json.dumps(_findings(loki))

    upgraded.stop()
    _test_fails_for_what_is_broken(cluster, backend)
    operator.stop()
    cluster.helm("uninstall")
    _is_gone(plane)


def _run(plane: ControlPlane, loki: Loki, step: tour.Step) -> str:
    """Run a step of the tour as its reader would, but for Loki, which is asked the same without Grafana's logcli."""
    program, *arguments = shlex.split(step.command)
    if program == "kubectl":
        return plane.kubectl(*arguments, stdin=step.given or None)
    if program == "logcli":
        assert arguments[-1] == QUERY
        return "\n".join(line["line"] for line in _findings(loki)[:1])
    assert program == "keytrail"
    ran = keytrail(*arguments, "--kubeconfig", plane.kubeconfig)
    assert ran.code == 0, ran.err
    return ran.out


def _is_right(finding: Json, workload: Json) -> None:
    """The finding names whose key it is, which pod and workload used it, and where this was seen."""
    labels = finding["labels"]
    expected = {
        "keytrail_identity_id": "stripe-installed",
        "keytrail_identity_owner": "payments",
        "keytrail_identity_mapping": "stripe-installed",
        "keytrail_record_kind": "finding",
        "keytrail_workload_kind": "Deployment",
        "keytrail_workload_name": "chat-api",
        "k8s_namespace_name": WORKLOAD,
        "k8s_deployment_name": "chat-api",
        "k8s_pod_name": workload["metadata"]["name"],
        "k8s_cluster_name": "installed",
        "k8s_node_name": NODE,
        "severity_text": "HIGH",
    }
    assert {name: labels.get(name) for name in expected} == expected


def _node_says_so(plane: ControlPlane) -> None:
    """The collector's own token was let write the status of its node."""

    def status() -> Json:
        items = plane.get("collectorstatuses")["items"]
        return next((one.get("status", {}) for one in items if one["metadata"]["name"] == NODE), {})

    assert wait_until(lambda: bool(status().get("version")), SECONDS)


def _test_fails_for_what_is_broken(cluster: Cluster, backend: OtelCollector) -> None:
    """`helm test` fails, and its pod says why: without the agent, without the backend, without the collector's role."""
    cluster.agent.stop()
    backend.stop()
    cluster.plane.kubectl("delete", "clusterrolebinding", "keytrail-collector")
    said = cluster.helm_test(fails=True)
    assert re.findall("(?m)^critical +([a-z]+):", said) == ["agent", "cluster", "backend"], said
    # It stays for `kubectl logs`, and is no part of the release: UPGRADING.md says how it goes.
    cluster.plane.kubectl("delete", "pod", f"--namespace={NAMESPACE}", "--selector=app.kubernetes.io/component=test")


def _policies(plane: ControlPlane) -> list[str]:
    return [one["metadata"]["name"] for one in plane.get("tracingpolicies")["items"]]


def _operator_has_loaded_policies(plane: ControlPlane, operator: Child) -> None:
    """The rules' sensors are in the cluster, and go with the release: they are owned by its role."""
    assert wait_until(lambda: any("tcp-connect" in name for name in _policies(plane)), SECONDS), operator.log[-3000:]
    for one in plane.get("tracingpolicies")["items"]:
        assert [owner["kind"] for owner in one["metadata"]["ownerReferences"]] == ["ClusterRole"]


def _is_gone(plane: ControlPlane) -> None:
    """No TracingPolicy, no role, no pod of ours; the definitions and what users applied stay."""
    assert wait_until(lambda: not any(name.startswith("keytrail-") for name in _policies(plane)), SECONDS)
    assert wait_until(lambda: not plane.get("policylibraries")["items"], SECONDS)
    ours = partial(plane.get, "--selector=app.kubernetes.io/part-of=keytrail")
    kinds = "clusterrole,clusterrolebinding,priorityclass,validatingadmissionpolicy"
    assert wait_until(lambda: not ours(kinds)["items"], SECONDS)
    assert wait_until(lambda: not ours("pods,configmap,serviceaccount", f"--namespace={NAMESPACE}")["items"], SECONDS)
    assert plane.get("crd", "clusteridentitymappings.keytrail.io")
    assert plane.get("clusteridentitymapping", "stripe-installed")
    plane.kubectl("delete", "clusteridentitymapping", "stripe-installed")
