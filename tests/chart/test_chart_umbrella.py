"""Tetragon and Keytrail in one release, against a stand-in of our own with the extension points of Tetragon's chart."""

import shutil
from pathlib import Path

import pytest

from chart.rendering import CHART, CHARTS, NAMESPACE, Helm, Json, environ_of, one, settings_of
from keytrail.settings_sources import load_settings

pytestmark = [pytest.mark.cluster("helm"), pytest.mark.timeout(120)]
FIELDS = {"spec.nodeName": "worker-1", "status.hostIP": "10.0.0.7"}


@pytest.fixture(scope="module")
def umbrella(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The umbrella chart with its dependencies in place, as `helm dependency update` leaves them."""
    folder = tmp_path_factory.mktemp("umbrella") / "keytrail-with-tetragon"
    shutil.copytree(CHARTS / "keytrail-with-tetragon", folder)
    shutil.copytree(CHART, folder / "charts" / "keytrail")
    shutil.copytree(Path(__file__).parent / "stand-in", folder / "charts" / "tetragon")
    return folder


def _pod(found: list[Json]) -> Json:
    return dict(one(found, "DaemonSet")["spec"]["template"]["spec"])


def test_the_collector_is_in_the_agents_pod(helm: Helm, umbrella: Path, tmp_path: Path) -> None:
    """One DaemonSet, whose collector has the socket, the state folder, the settings and the rights that it needs."""
    helm.run("lint", umbrella)
    endpoint = "global.keytrail.collector.otlp.endpoint=http://backend:4317"
    found = helm.render("--set", endpoint, "--set", "global.keytrail.clusterName=one", chart=umbrella, release="all")
    pod = _pod(found)
    collector = next(each for each in pod["containers"] if each["name"] == "keytrail")
    assert [each["name"] for each in pod["initContainers"]] == ["keytrail-own-state"]
    assert {mount["name"] for mount in collector["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}
    assert {"name": "tetragon-run", "mountPath": "/var/run/tetragon", "readOnly": True} in collector["volumeMounts"]
    assert "readinessProbe" not in collector  # it would make the agent's pod unready
    environ = environ_of(collector, FIELDS)
    assert environ["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://backend:4317"
    assert environ["OTEL_RESOURCE_ATTRIBUTES"] == "k8s.cluster.name=one"
    (tmp_path / "settings.yaml").write_text(one(found, "ConfigMap", "collector")["data"]["settings.yaml"])
    settings = load_settings({}, environ | {"KEYTRAIL_SETTINGS": str(tmp_path / "settings.yaml")})
    assert str(settings.output[0]) == "otlp"
    assert settings.agent_metrics_address == "localhost:2112"
    volume = next(each for each in pod["volumes"] if each["name"] == "keytrail-settings")
    assert volume["configMap"]["name"] == one(found, "ConfigMap", "collector")["metadata"]["name"]
    subject = one(found, "ClusterRoleBinding", "collector")["subjects"][0]
    assert (subject["name"], subject["namespace"]) == (pod["serviceAccountName"], NAMESPACE)
    policy = str(one(found, "ValidatingAdmissionPolicy", "own-node")["spec"]["matchConditions"])
    assert f"system:serviceaccount:{NAMESPACE}:{pod['serviceAccountName']}" in policy


def test_the_agent_captures_and_its_exporter_does_not(helm: Helm, umbrella: Path) -> None:
    """Environments and credentials are switched on, and the exporter's field filters set."""
    found = helm.render(chart=umbrella, release="all")
    agent = next(each for each in _pod(found)["containers"] if each["name"] == "tetragon")
    assert "--enable-process-environment-variables=true" in agent["args"]
    flags = one(found, "ConfigMap", "config")["data"]
    assert flags["field-filters"] == (CHART / "files" / "field-filters.json").read_text().strip()
    assert flags["enable-process-cred"] == "true"


def test_either_alone(helm: Helm, umbrella: Path) -> None:
    """The collector in a DaemonSet of its own leaves the agent's pod as it is; without it, too."""
    for given in ("global.keytrail.collector.mode=daemonset", "global.keytrail.collector.enabled=false"):
        found = helm.render("--set", given, chart=umbrella, release="all")
        agent = next(each for each in found if each["kind"] == "DaemonSet" and each["metadata"]["name"] == "tetragon")
        names = [each["name"] for each in agent["spec"]["template"]["spec"]["containers"]]
        assert names == ["export-stdout", "tetragon"]
        assert len([each for each in found if each["kind"] == "DaemonSet"]) == 1 + given.endswith("=daemonset")


def test_values_in_the_wrong_place(helm: Helm, umbrella: Path) -> None:
    """What Tetragon's pod would not see is refused, with the place where it belongs."""
    for given in ("keytrail.collector.otlp.endpoint=http://x:4317", "keytrail.image.tag=x", "keytrail.clusterName=x"):
        said = helm.run("template", "all", umbrella, "--set", given, fails=True)
        assert "set global.keytrail." in said
    found = helm.render("--set", "keytrail.operator.enabled=false", chart=umbrella, release="all")
    assert settings_of(found)["http_address"] == "127.0.0.1:9464"
    assert [each for each in found if each["kind"] == "Deployment"] == []
