"""Real API servers, the oldest that the charts ask for, a new one and one between, judge every manifest strictly.

The new one judges by the Pod Security Standards, too.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chart.rendering import CHART, CHARTS, FEATURES, NAMESPACE, Helm, Json, dumped, one, pods
from cluster.operator.tetragon_definitions import definitions
from support.components.control_plane import ApiServer, ControlPlane
from support.processes import wait_until

pytestmark = [pytest.mark.cluster("helm", "kubernetes", "kubernetes-1.31", "kwok"), pytest.mark.timeout(240)]
SECONDS = 60.0
OLDEST, BETWEEN = "1.31", "1.33"
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
def newest(control_plane: ControlPlane) -> ApiServer:
    """A whole control plane with the namespaces that releases go to."""
    return _with_namespaces(control_plane)


# Between the two only where long tests are asked for: another API server takes minutes to build.
_BETWEEN = pytest.param(BETWEEN, marks=[pytest.mark.long, pytest.mark.cluster(f"kubernetes-{BETWEEN}")])


@pytest.fixture(scope="module", params=[OLDEST, _BETWEEN, "newest"])
def plane(
    request: pytest.FixtureRequest, programs: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApiServer]:
    """Each in turn; of the older ones an API server alone."""
    if request.param == "newest":
        yield request.getfixturevalue("newest")
        return
    other = programs(f"kubernetes-{request.param}")
    with ApiServer(programs("kubernetes"), tmp_path_factory.mktemp("plane"), other=other) as running:
        assert running.version == request.param
        yield _with_namespaces(running)


def _with_namespaces(plane: ApiServer) -> ApiServer:
    for name in (NAMESPACE, "kube-system"):
        plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return plane


def _refused(plane: ApiServer, found: list[Json], token: str = "") -> str:
    """What a dry run says against objects of whom a token is of; nothing when all are taken."""
    try:
        plane.kubectl(
            "create", "--dry-run=server", "--validate=strict", "--filename=-", stdin=dumped(found), token=token
        )
    except AssertionError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("feature", FEATURES, ids=[file.stem for file in FEATURES])
def test_every_manifest_is_strictly_valid(helm: Helm, plane: ApiServer, feature: Path) -> None:
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


def test_a_field_that_nobody_knows(helm: Helm, plane: ApiServer) -> None:
    """The check above would notice: one wrong field is refused by its name."""
    daemonset = one(helm.render(), "DaemonSet")
    daemonset["spec"]["template"]["spec"]["hostNetwrk"] = True
    assert "hostNetwrk" in _refused(plane, [daemonset])


def _violations(plane: ApiServer, level: str, name: str, spec: Json) -> set[str]:
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


def test_pod_security(helm: Helm, newest: ApiServer) -> None:
    """Everything but the collector runs where `restricted` is enforced; the collector has exactly these exceptions."""
    found = helm.render(
        "--values", CHART / "values-demo.yaml", "--set", "collector.sending_queue.storage.type=hostPath"
    )
    newest.apply(*(each for each in found if each["kind"] == "PriorityClass"))
    specs = dict(pods(found))
    assert set(specs) == {
        "keytrail-collector", "keytrail-operator", "keytrail-first-look", "keytrail-doctor"
    }  # fmt: skip
    for name in ("keytrail-operator", "keytrail-first-look"):
        assert _violations(newest, "restricted", name, specs[name]) == set()
    exceptions = _violations(newest, "restricted", "collector", specs["keytrail-collector"])
    assert exceptions == COLLECTORS_EXCEPTIONS - {"hostPath volumes"}
    assert _violations(newest, "baseline", "collector", specs["keytrail-collector"]) == {"hostPath volumes"}
    without = helm.render("--set", "collector.sending_queue.storage.type=emptyDir")
    spec = dict(pods(without))["keytrail-collector"]
    assert _violations(newest, "restricted", "collector", spec) == {"restricted volume types"}
    assert _violations(newest, "baseline", "collector", spec) == {"hostPath volumes"}


def test_the_oldest_is_what_the_charts_ask_for(helm: Helm) -> None:
    """Both charts ask for the Kubernetes that is tested here, and Helm refuses one that is older."""
    for chart in ("keytrail", "keytrail-with-tetragon"):
        assert f'kubeVersion: ">={OLDEST}.0-0"' in (CHARTS / chart / "Chart.yaml").read_text()
    assert "chart requires kubeVersion" in helm.run("template", "k", CHART, "--kube-version", "1.30.0", fails=True)


@pytest.fixture
def access(helm: Helm, plane: ApiServer) -> Iterator[tuple[str, ...]]:
    """Options for Helm on a real release that is installed, and gone at the end."""
    ours = "--selector=app.kubernetes.io/part-of=keytrail"
    plane.kubectl("delete", "priorityclass,clusterrole,clusterrolebinding", ours)
    plane.kubectl("delete", "serviceaccount", f"--namespace={NAMESPACE}", ours)
    options = ("--kubeconfig", str(plane.kubeconfig), "--namespace", NAMESPACE)
    helm.run("install", "keytrail", CHART, *options)
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/clusteridentitymappings.keytrail.io",
                  "crd/collectorstatuses.keytrail.io")  # fmt: skip
    yield options
    helm.run("uninstall", "keytrail", *options)


def test_what_is_kept(helm: Helm, plane: ApiServer, access: tuple[str, ...]) -> None:
    """A real release installs, upgrades and goes; definitions and the objects of users stay, nothing else does."""
    plane.apply(_mapping("kept"))
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


def _mapping(name: str, **spec: Json) -> Json:
    whole = {"identity": {"owner": "team"}, "evidence": {"env": [{"name": "KEPT"}]}, **spec}
    kind = {"apiVersion": "keytrail.io/v1alpha1", "kind": "ClusterIdentityMapping"}
    return {**kind, "metadata": {"name": name}, "spec": whole}


@pytest.mark.usefixtures("access")
def test_the_definitions_judge_by_their_own_rules(plane: ApiServer) -> None:
    """Rules in CEL hold, also those with functions that only newer API servers have."""
    networks = {"10.0.0.0/8": "", "10.1.0.0/8": "host bits", "10.0.0.0": "expected"}
    for network, said in networks.items():
        refused = _refused(plane, [_mapping("network", allowed={"destinations": [{"cidr": network}]})])
        assert said in refused if said else refused == ""


@pytest.mark.usefixtures("access")
def test_a_collector_speaks_for_its_own_node(plane: ApiServer) -> None:
    """The oldest server, too, names the node of a pod's token to the admission policy, which lets in no other."""
    account = "keytrail-collector"
    pod = {"nodeName": "mine", "serviceAccountName": account, "containers": [{"name": "c", "image": "none"}]}
    plane.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "mine"}})
    metadata = {"name": "collector", "namespace": NAMESPACE}
    plane.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod})
    bound = _token(plane, account, "--bound-object-kind=Pod", "--bound-object-name=collector")

    def said(token: str, node: str) -> str:
        status = {"apiVersion": "keytrail.io/v1alpha1", "kind": "CollectorStatus", "metadata": {"name": node}}
        return _refused(plane, [status], token)

    # A new admission policy takes a moment.
    assert wait_until(lambda: "on node mine may write only" in said(bound, "yours"), SECONDS), said(bound, "yours")
    assert said(bound, "mine") == ""
    assert "this token names none" in said(_token(plane, account), "mine")
    plane.kubectl("delete", "pod", "collector", f"--namespace={NAMESPACE}", "--force")
    plane.kubectl("delete", "node", "mine")


def _token(plane: ApiServer, account: str, *options: str) -> str:
    return plane.kubectl("create", "token", account, f"--namespace={NAMESPACE}", *options).strip()


@pytest.mark.usefixtures("access")
def test_the_operator_only_observes(plane: ApiServer) -> None:
    """With its token a policy that observes is taken, one that kills and one under another name are not."""
    plane.apply(*definitions())
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/tracingpolicies.cilium.io")
    token = _token(plane, "keytrail-operator")

    def said(name: str, action: str) -> str:
        hook = {"call": "tcp_connect", "syscall": False, "selectors": [{"matchActions": [{"action": action}]}]}
        policy = {"apiVersion": "cilium.io/v1alpha1", "kind": "TracingPolicy", "metadata": {"name": name}}
        return _refused(plane, [{**policy, "spec": {"kprobes": [hook]}}], token)

    assert wait_until(lambda: "more than observe" in said("keytrail-try", "Sigkill"), SECONDS)
    assert "names that begin with keytrail-" in said("other", "Post")
    assert said("keytrail-try", "Post") == ""
