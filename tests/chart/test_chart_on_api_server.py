"""A real API server judges every manifest: strictly by its schemas, and by the Pod Security Standards."""

import re
from pathlib import Path

import pytest

from chart.rendering import CHART, CHARTS, FEATURES, NAMESPACE, Helm, Json, dumped, one, pods
from support.components.control_plane import ControlPlane

pytestmark = [pytest.mark.cluster("helm", "kubernetes", "kwok"), pytest.mark.timeout(240)]
NOT_THERE = {"PodMonitor", "ServiceMonitor", "PrometheusRule"}
"""Kinds of the Prometheus operator, which this API server does not know."""
COLLECTORS_EXCEPTIONS = {
    "hostPath volumes",
    "restricted volume types",
    "unrestricted capabilities",
    "runAsNonRoot != true",
    "runAsUser=0",
}
"""All that keeps the collector from `restricted`: the socket's and the spool's folders on the node, and the init
container that hands the latter over. With the spool elsewhere the last three are gone."""


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> ControlPlane:
    """An API server with the namespaces that releases go to."""
    for name in (NAMESPACE, "kube-system"):
        control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return control_plane


def _refused(plane: ControlPlane, found: list[Json]) -> str:
    """What a dry run says against objects; nothing when all are taken."""
    try:
        plane.kubectl("create", "--dry-run=server", "--validate=strict", "--filename=-", stdin=dumped(found))
    except AssertionError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("feature", FEATURES, ids=[file.stem for file in FEATURES])
def test_every_manifest_is_strictly_valid(helm: Helm, plane: ControlPlane, feature: Path) -> None:
    """No manifest has a field that the API server does not know, or a value that it refuses."""
    found = helm.render("--values", feature)
    assert {each["kind"] for each in found if "monitoring.coreos.com" in each["apiVersion"]} <= NOT_THERE
    known = [each for each in found if each["kind"] not in NOT_THERE]
    for account in (each for each in known if each["kind"] == "ServiceAccount"):
        plane.apply(account)  # pods are refused without it, also in a dry run
    priorities = [each for each in known if each["kind"] == "PriorityClass"]
    if priorities:
        plane.apply(*priorities)
    there = ("ServiceAccount", "PriorityClass")
    assert _refused(plane, [each for each in known if each["kind"] not in there]) == ""


def test_a_field_that_nobody_knows(helm: Helm, plane: ControlPlane) -> None:
    """The check above would notice: one wrong field is refused by its name."""
    daemonset = one(helm.render(), "DaemonSet")
    daemonset["spec"]["template"]["spec"]["hostNetwrk"] = True
    assert "hostNetwrk" in _refused(plane, [daemonset])


def _violations(plane: ControlPlane, level: str, name: str, spec: Json) -> set[str]:
    """What the Pod Security Standards have against a pod, in a namespace that enforces a level."""
    namespace = f"pss-{level}"
    labels = {"pod-security.kubernetes.io/enforce": level, "pod-security.kubernetes.io/enforce-version": "latest"}
    plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
    account = {"name": spec.get("serviceAccountName", "default"), "namespace": namespace}
    plane.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
    said = _refused(plane, [pod])
    if not said:
        return set()
    assert "violates PodSecurity" in said, said
    listed = said.partition('violates PodSecurity "')[2].partition('": ')[2]
    return {part.strip() for part in re.sub(r"\((?:[^()]|\([^()]*\))*\)", "", listed).splitlines()[0].split(",")}


def test_pod_security(helm: Helm, plane: ControlPlane) -> None:
    """Everything but the collector runs where `restricted` is enforced; the collector has exactly these exceptions."""
    found = helm.render(
        "--values", CHART / "values-demo.yaml", "--set", "collector.sending_queue.storage.type=hostPath"
    )
    plane.apply(*(each for each in found if each["kind"] == "PriorityClass"))
    specs = dict(pods(found))
    assert set(specs) == {
        "keytrail-collector", "keytrail-operator", "keytrail-first-look", "keytrail-doctor"
    }  # fmt: skip
    for name in ("keytrail-operator", "keytrail-first-look"):
        assert _violations(plane, "restricted", name, specs[name]) == set()
    exceptions = _violations(plane, "restricted", "collector", specs["keytrail-collector"])
    assert exceptions == COLLECTORS_EXCEPTIONS - {"hostPath volumes"}
    assert _violations(plane, "baseline", "collector", specs["keytrail-collector"]) == {"hostPath volumes"}
    without = helm.render("--set", "collector.sending_queue.storage.type=emptyDir")
    spec = dict(pods(without))["keytrail-collector"]
    assert _violations(plane, "restricted", "collector", spec) == {"restricted volume types"}
    assert _violations(plane, "baseline", "collector", spec) == {"hostPath volumes"}


def test_manifests_of_the_oldest_kubernetes(helm: Helm) -> None:
    """Every API that the charts use is served, as stable, since the Kubernetes that Chart.yaml asks for."""
    stable_in_1_31 = {
        "v1", "apps/v1", "rbac.authorization.k8s.io/v1", "scheduling.k8s.io/v1", "policy/v1",
        "networking.k8s.io/v1", "apiextensions.k8s.io/v1", "admissionregistration.k8s.io/v1",
    }  # fmt: skip
    used = {each["apiVersion"] for feature in FEATURES for each in helm.render("--values", feature)}
    assert used - {"monitoring.coreos.com/v1"} <= stable_in_1_31
    for chart in ("keytrail", "keytrail-with-tetragon"):
        assert 'kubeVersion: ">=1.31.0-0"' in (CHARTS / chart / "Chart.yaml").read_text()
    assert "chart requires kubeVersion" in helm.run("template", "k", CHART, "--kube-version", "1.30.0", fails=True)


def test_what_is_kept(helm: Helm, plane: ControlPlane) -> None:
    """A real release installs, upgrades and goes; definitions and the objects of users stay, nothing else does."""
    access = ("--kubeconfig", str(plane.kubeconfig), "--namespace", NAMESPACE)
    plane.kubectl(
        "delete", "priorityclass,clusterrole,clusterrolebinding", "--selector=app.kubernetes.io/part-of=keytrail"
    )
    plane.kubectl("delete", "serviceaccount", "--namespace", NAMESPACE, "--selector=app.kubernetes.io/part-of=keytrail")
    helm.run("install", "keytrail", CHART, *access)
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/clusteridentitymappings.keytrail.io")
    spec = {"identity": {"owner": "team"}, "evidence": {"env": [{"name": "KEPT"}]}}
    mapping = {"kind": "ClusterIdentityMapping", "metadata": {"name": "kept"}, "spec": spec}
    plane.apply({"apiVersion": "keytrail.io/v1alpha1", **mapping})
    helm.run("upgrade", "keytrail", CHART, *access, "--set", "clusterName=other", "--set", "operator.replicas=2")
    settings = plane.get("configmap", "keytrail-collector", "--namespace", NAMESPACE)["data"]["settings.yaml"]
    assert "rules: stable" in settings
    helm.run("uninstall", "keytrail", *access)
    assert len(plane.get("crd", "--selector=!app")["items"]) >= 5
    assert plane.get("clusteridentitymapping", "kept")["spec"]["identity"]["owner"] == "team"
    left = plane.get("all,configmap,serviceaccount,networkpolicy", "--namespace", NAMESPACE,
                     "--selector=app.kubernetes.io/part-of=keytrail")  # fmt: skip
    assert [each["metadata"]["name"] for each in left["items"] if "deletionTimestamp" not in each["metadata"]] == []
    helm.run("install", "keytrail", CHART, *access)  # beside what was kept
    assert plane.get("clusteridentitymapping", "kept")["metadata"]["name"] == "kept"
    helm.run("uninstall", "keytrail", *access)
