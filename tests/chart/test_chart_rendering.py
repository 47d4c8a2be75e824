"""The chart as the real Helm renders it: what runs is what the collector and the operator themselves accept."""

import re
from pathlib import Path
from typing import Any

import pytest

from chart.rendering import CHART, CHARTS, FEATURES, NAMESPACE, Helm, Json, as_set, environ_of, one, pods, settings_of
from keytrail.export.otlp_settings import otlp_settings
from keytrail.settings_sources import load_settings
from keytrail_operator.settings import load as load_operator_settings

pytestmark = [pytest.mark.cluster("helm"), pytest.mark.timeout(120)]
FIELDS = {
    "spec.nodeName": "worker-1",
    "status.hostIP": "10.0.0.7",
    "metadata.namespace": NAMESPACE,
    "metadata.name": "pod-1",
}
NAMES = [file.stem.removesuffix("-values") for file in FEATURES]


@pytest.fixture(params=FEATURES, ids=NAMES)
def feature(request: pytest.FixtureRequest) -> Path:
    """Values of each feature and preset in turn."""
    return Path(request.param)


@pytest.mark.parametrize("chart", ["keytrail"])
def test_lint(helm: Helm, chart: str, feature: Path) -> None:
    """Helm finds nothing to complain of."""
    said = helm.run("lint", "--strict", CHARTS / chart, "--values", feature)
    assert "0 chart(s) failed" in said
    assert "[WARNING]" not in said


def test_what_runs_is_accepted(helm: Helm, feature: Path, tmp_path: Path) -> None:
    """Collector and operator take the settings and variables that their pods get, and mount whatever they name."""
    found = helm.render("--values", feature)
    for name, spec in pods(found):
        assert spec.get("enableServiceLinks") is False or "first-look" in name
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        for container in (*spec.get("initContainers", []), *spec["containers"]):
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
        if name.endswith("-operator"):
            _operator_accepts(spec["containers"][0])
        if name.endswith(("-collector", "-doctor")):
            _collector_accepts(found, spec["containers"][0], tmp_path)


def _operator_accepts(container: Json) -> None:
    settings = load_operator_settings({}, environ_of(container, FIELDS))
    assert settings.namespace == NAMESPACE
    assert settings.http_address == f":{container['ports'][0]['containerPort']}"


def _collector_accepts(found: list[Json], container: Json, folder: Path) -> None:
    (folder / "settings.yaml").write_text(one(found, "ConfigMap", "collector")["data"]["settings.yaml"])
    (folder / "headers").write_text("authorization=Bearer x\n")
    mounted = {
        "/etc/keytrail/settings.yaml": folder / "settings.yaml",
        "/etc/keytrail-otlp/headers": folder / "headers",
    }
    environ = {name: str(mounted.get(value, value)) for name, value in environ_of(container, FIELDS).items()}
    for name in [name for name in environ if name.endswith(("CERTIFICATE", "CLIENT_KEY"))]:
        environ[name] = str(folder / "headers")
    settings = load_settings({}, environ)
    assert settings.node_name == "worker-1"
    assert [str(output) for output in settings.output] == (
        ["otlp"] if "OTEL_EXPORTER_OTLP_ENDPOINT" in environ else ["findings"]
    )
    if "OTEL_EXPORTER_OTLP_ENDPOINT" in environ:
        otlp_settings(environ)


def test_values_that_nobody_knows(helm: Helm) -> None:
    """A key or a value that is wrong is refused before anything is rendered, by its path."""
    wrong = {
        "collector.sending_queue.queue_siz=1": "at '/collector/sending_queue': additional properties 'queue_siz' not",
        "colector.mode=sidecar": "additional properties 'colector' not allowed",
        "collector.mode=deployment": "at '/collector/mode'",
        "collector.settings.pod_wait_mss=1": "at '/collector/settings': additional properties 'pod_wait_mss' not",
        "collector.settings.state_dir=/x": "additional properties 'state_dir' not allowed",
        "image.digest=abc": "at '/image/digest'",
        "collector.retry_on_failure.max_elapsed_time=3 days": "at '/collector/retry_on_failure/max_elapsed_time'",
        "tetragon.address=localhost:54321": "set collector.hostNetwork=true",
        "collector.otlp.endpoint=localhost:4317": '"localhost:4317" is the collector\'s own pod, where nothing takes',
        "collector.otlp.endpoint=https://127.0.0.1": "name a Service, or for a receiver on each node set collector.hos",
        "collector.otlp.tls.clientCertificate=true": "needs collector.otlp.tls.secretName",
    }
    for given, said in wrong.items():
        assert said in helm.run("template", "keytrail", CHART, "--set", given, fails=True), given


def test_receiver_that_is_reached_on_loopback(helm: Helm) -> None:
    """One on the node, or one that is injected into the pod, may be named by loopback; a name like it is none."""
    inject = "collector.podAnnotations.sidecar\\.opentelemetry\\.io/inject=true"
    for endpoint, more in (
        ("http://localhost:4317", "collector.hostNetwork=true"),
        ("http://[::1]:4317", "collector.mode=sidecar"),
        ("http://127.0.0.1:4317", inject),
        ("http://localhost.example:4317", "collector.hostNetwork=false"),
    ):
        helm.render("--set", f"collector.otlp.endpoint={endpoint}", "--set", more)


def test_defaults(helm: Helm) -> None:
    """What the chart says of itself holds: group 0 and no capability beside CHOWN, no host namespace, no credential."""
    found = helm.render()
    spec = one(found, "DaemonSet")["spec"]["template"]["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    (collector,), (own_state,) = spec["containers"], spec["initContainers"]
    assert collector["securityContext"] == {
        "runAsUser": 65532,
        "runAsGroup": 0,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert own_state["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
    assert one(found, "DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"] == 0
    for each in found:
        if each["kind"] == "CustomResourceDefinition":
            assert each["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        assert not each["apiVersion"].startswith("keytrail.io"), "a first install has no such kind yet"
    assert {kind for each in found if (kind := each["kind"]) == "Secret"} == set()


def test_helm_test_runs_where_a_collector_does(helm: Helm) -> None:
    """Its pod may be put on just the nodes that have a collector, those with a taint among them."""
    found = helm.render("--values", CHART / "ci" / "everything-values.yaml")
    (doctor,) = (spec for name, spec in pods(found) if name.endswith("-doctor"))
    collector = one(found, "DaemonSet")["spec"]["template"]["spec"]
    where = ("nodeSelector", "affinity", "tolerations")
    assert [doctor[name] for name in where] == [collector[name] for name in where]


def test_the_queue_in_peers_words(helm: Helm) -> None:
    """What an OpenTelemetry Collector calls sending_queue and retry_on_failure become the collector's settings."""
    found = helm.render("--values", CHART / "ci" / "backend-values.yaml")
    settings = settings_of(found)
    assert settings["spool_bytes"] == 2147483648
    assert settings["requests_in_flight"] == 4
    assert settings["spool_age_hours"] == 24
    environ = environ_of(one(found, "DaemonSet")["spec"]["template"]["spec"]["containers"][0], FIELDS)
    read = otlp_settings(environ | {name: "" for name in environ if "FILE" in name or "CERT" in name or "KEY" in name})
    assert dict(read.resource_attributes) == {
        "k8s.cluster.name": "prod eu/1",
        "deployment.environment.name": "prod, eu",
    }
    assert read.timeout_seconds == 5
    assert environ["KEYTRAIL_AGENT_METRICS_ADDRESS"] == "10.0.0.7:2112"


def test_what_a_collector_may(helm: Helm) -> None:
    """All that a collector may: it writes nothing but its status, reads no Secret; names cost three watches."""
    kinds = ("identitymappings", "clusteridentitymappings", "detectionrules", "policylibraries")
    least = {(f"{kind}.keytrail.io", verb) for kind in kinds for verb in ("list", "watch")} | {
        ("pods", "list"),
        ("pods", "watch"),
        ("jobs.batch", "get"),
        ("serviceaccounts", "get"),
        ("nodes", "get"),
        ("collectorstatuses.keytrail.io", "get"),
        ("collectorstatuses.keytrail.io", "create"),
        ("collectorstatuses.keytrail.io", "patch"),
        ("collectorstatuses/status.keytrail.io", "patch"),
    }
    peers = {("services", "list"), ("nodes", "list"), ("endpointslices.discovery.k8s.io", "list")}
    peers |= {(resource, "watch") for resource, _ in peers}
    assert _rights(helm.render("--set", "collector.peers=none")) == least
    assert _rights(helm.render()) == least | peers


def _rights(found: list[Json]) -> set[tuple[str, str]]:
    return {pair for rule in one(found, "ClusterRole", "collector")["rules"] for pair in as_set(rule)}


def test_notes(helm: Helm) -> None:
    """The notes name one command to see a finding, Tetragon's upgrade, and each risk that the values take."""

    def notes(*options: str) -> str:
        said = helm.run("install", "keytrail", CHART, "--dry-run=client", "--namespace", NAMESPACE, *options)
        return said.partition("NOTES:")[2]

    plain = notes()
    assert "kubectl run keytrail-first" in plain
    assert "enable-process-environment-variables" in plain
    assert re.findall("WARNING: (\\S+)", plain) == ["collector.otlp.endpoint"]
    risky = notes("--values", str(CHART / "ci" / "old-agent-values.yaml"), "--set", "operator.enabled=false")
    warned = ["collector.otlp.endpoint is", "storage.type=memory", "collector.hostNetwork", "operator.enabled=false"]
    assert [each for each in warned if each not in risky] == []
    assert "without TLS" in notes("--set", "collector.otlp.endpoint=http://otlp.example.com:4317")
    assert "WARNING" not in notes("--set", "collector.otlp.endpoint=http://otel-collector.observability:4317")


def test_the_sidecar_beside_an_installed_agent(helm: Helm, tmp_path: Path) -> None:
    """With our values Tetragon's chart runs the collector in the place of its exporter, with the settings of ours."""
    stand_in = Path(__file__).parent / "stand-in"
    values = CHARTS / "tetragon-sidecar-values.yaml"
    pod = one(helm.render("--values", values, chart=stand_in), "DaemonSet")["spec"]["template"]["spec"]
    ours = helm.render("--set", "collector.mode=sidecar", "--set", "collector.sending_queue.storage.type=emptyDir")
    assert [each["kind"] for each in ours if each["kind"] in {"DaemonSet", "Pod"}] == []
    container = pod["containers"][0]
    assert [*container["command"], *container["args"]] == ["/opt/keytrail/bin/keytrail", "collect"]
    own = one(helm.render(), "DaemonSet")["spec"]["template"]["spec"]["containers"][0]
    assert container["securityContext"] == own["securityContext"]
    assert container["image"] == own["image"]
    assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}
    assert one(ours, "ConfigMap")["metadata"]["name"] in str(pod["volumes"])
    (tmp_path / "settings.yaml").write_text(one(ours, "ConfigMap")["data"]["settings.yaml"])
    environ = environ_of(container, FIELDS) | {"KEYTRAIL_SETTINGS": str(tmp_path / "settings.yaml")}
    assert load_settings({}, environ).http_address == "127.0.0.1:9464"
    subject: Any = one(ours, "ClusterRoleBinding", "collector")["subjects"][0]
    assert (subject["name"], subject["namespace"]) == (pod["serviceAccountName"], "kube-system")
