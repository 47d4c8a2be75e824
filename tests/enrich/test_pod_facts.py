"""What is kept of a Pod, and that nothing else is."""

import gc
import json
import tracemalloc
from typing import Any

import pytest

from enrich.recorded_cluster import objects
from keytrail.decode.redact import Redactor
from keytrail.domain.declared import MountedCredential, MountKind, SecretKey, WholeSource
from keytrail.domain.pod_facts import ContainerFacts, Owner, PodFacts, pod_facts

CANARY = "canary-4f9d1c7e2b"


def pod(spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    """A Pod as the API has it."""
    return {"metadata": {"namespace": "shop", "name": "web-0", "uid": "u-1", **metadata}, "spec": spec or {}}


def container(**fields: Any) -> dict[str, Any]:
    """A container of a Pod's spec."""
    return {"name": "app", "image": "team/app:1", **fields}


def mounted(volume: dict[str, Any], **mount: Any) -> tuple[MountedCredential, ...]:
    """What one volume, mounted at /etc/keys, gives its container."""
    at = {"name": "keys", "mountPath": "/etc/keys", **mount}
    spec = {"volumes": [{"name": "keys", **volume}], "containers": [container(volumeMounts=[at])]}
    return pod_facts(pod(spec)).containers[0].declared.mounts


def test_recorded_pod() -> None:
    """A Pod of the recorded cluster: who it is, its container and what the spec gives it."""
    found = next(one for one in map(pod_facts, objects("pods")) if one.name.startswith("chat-api"))
    assert (found.namespace, found.node, found.service_account) == ("ml", "worker-1", "chat-api")
    assert found.owner == Owner("ReplicaSet", "chat-api-059234886d", "00c1f0c0-9b11-44d5-8e2f-e6bcbfa44eb2")
    assert (found.ips, found.host_network, found.host_pid) == (("10.244.1.11",), False, False)
    assert found.labels is not None
    assert found.labels["team"] == "ml"
    [app] = found.containers
    assert app.ids == ("49057d0e58d56e7d2db302f8101cde1dd714bc5774bbb971012b492f2a83d9af",)
    assert (app.state, app.started, app.image) == ("running", True, "registry.example/ml/chat-api:1.4.2")
    assert app.declared.variables == {"OPENAI_API_KEY": SecretKey("ml", "openai", "api-key"), "LOG_LEVEL": None}
    assert app.declared.sources == (WholeSource("", "db-credentials"),)
    place = "/run/secrets/kubernetes.io/serviceaccount/token"
    assert app.declared.mounts == (MountedCredential(place, MountKind.TOKEN),)


def test_containers_of_all_kinds_and_those_before_a_restart() -> None:
    """Init and ephemeral containers are read; a restarted container has its former id too, without prefix."""
    raw = pod(
        {
            "initContainers": [container(name="init")],
            "containers": [container(securityContext={"privileged": True})],
            "ephemeralContainers": [container(name="debugger")],
            "imagePullSecrets": [{"name": "registry"}],
            "hostNetwork": True,
        }
    )
    before = {"terminated": {"containerID": "containerd://" + "b" * 64}}
    raw["status"] = {
        "containerStatuses": [
            {"name": "app", "containerID": "cri-o://" + "a" * 64, "state": {"waiting": {}}, "lastState": before}
        ],
        "ephemeralContainerStatuses": [{"name": "debugger", "containerID": "docker://" + "c" * 64}],
    }
    found = pod_facts(raw)
    assert [(one.name, one.ids) for one in found.containers] == [
        ("app", ("a" * 64, "b" * 64)),
        ("init", ()),
        ("debugger", ("c" * 64,)),
    ]
    assert (found.containers[0].privileged, found.containers[0].state) == (True, "waiting")
    assert (found.image_pull_secrets, found.host_network) == (("registry",), True)


@pytest.mark.parametrize(
    ("volume", "mount", "expected"),
    [
        (
            {"secret": {"secretName": "stripe"}},
            {},
            [("/etc/keys", True, MountKind.SECRET, SecretKey("shop", "stripe"))],
        ),
        (
            {"secret": {"secretName": "stripe", "items": [{"key": "api-key", "path": "live/key"}]}},
            {},
            [("/etc/keys/live/key", False, MountKind.SECRET, SecretKey("shop", "stripe", "api-key"))],
        ),
        (
            {"secret": {"secretName": "stripe"}},
            {"mountPath": "/etc/stripe.key", "subPath": "api-key"},
            [("/etc/stripe.key", False, MountKind.SECRET, SecretKey("shop", "stripe", "api-key"))],
        ),
        (
            {"projected": {"sources": [{"secret": {"name": "a"}}, {"serviceAccountToken": {"path": "t"}}, {}]}},
            {"mountPath": "/var/run/keys/"},
            [
                ("/run/keys", True, MountKind.SECRET, SecretKey("shop", "a")),
                ("/run/keys/t", False, MountKind.TOKEN, None),
            ],
        ),
        (
            {
                "csi": {
                    "driver": "secrets-store.csi.k8s.io",
                    "volumeAttributes": {"secretProviderClass": "vault-keys"},
                }
            },
            {},
            [("/etc/keys", True, MountKind.PROVIDER, None)],
        ),
        ({"csi": {"driver": "disks.example"}}, {}, []),
        ({"configMap": {"name": "c"}}, {}, []),
        ({"emptyDir": {}}, {}, []),
    ],
)
def test_mounted_credentials(volume: dict[str, Any], mount: dict[str, Any], expected: list[Any]) -> None:
    """Secret, projected and CSI volumes, with items and sub-paths, as files or folders in the kernel's spelling."""
    found = mounted(volume, **mount)
    assert [(one.path, one.is_folder, one.kind, one.secret) for one in found] == expected


def test_values_and_arguments_are_not_kept() -> None:
    """Literal variables, commands, arguments, foreign annotations and the copy of the manifest leave nothing behind."""
    applied = "kubectl.kubernetes.io/last-applied-configuration"
    raw = pod(
        {
            "containers": [
                container(
                    env=[{"name": "API_KEY", "value": CANARY}],
                    command=["run", CANARY],
                    args=[f"--password={CANARY}"],
                    livenessProbe={"httpGet": {"httpHeaders": [{"name": "Authorization", "value": CANARY}]}},
                    readinessProbe={"exec": {"command": ["redis-cli", "--password", CANARY, "ping"]}},
                )
            ]
        },
        annotations={"team": "web", "note": CANARY, applied: CANARY},
    )
    found = pod_facts(raw, redact=Redactor().redact, annotations=["team", applied])
    assert CANARY not in repr(found)
    assert CANARY not in repr(pod_facts(raw))
    assert found.annotations == (("team", "web"),)
    assert found.containers[0].declared.variables == {"API_KEY": None}
    assert found.containers[0].exec_commands == ("--password [redacted] ping",)
    assert pod_facts(raw).containers[0].exec_commands == ()


def test_a_pod_that_has_ended_has_no_address() -> None:
    """Its status keeps the address for as long as the object is there, while another pod has been given it."""
    for phase, ips in (("Running", ("10.0.0.7",)), ("Succeeded", ()), ("Failed", ())):
        found = pod_facts({"metadata": {"name": "job"}, "status": {"phase": phase, "podIPs": [{"ip": "10.0.0.7"}]}})
        assert found.ips == ips


def test_commands_are_spelt_as_the_agent_spells_arguments() -> None:
    """Without the program; an argument with a blank stands in double quotes; the same command counts once."""
    command = {"exec": {"command": ["/bin/sh", "-c", "test -f /tmp/ok"]}}
    spec = {"containers": [container(livenessProbe=command, readinessProbe=command, lifecycle={"preStop": command})]}
    [app] = pod_facts(pod(spec), redact=Redactor().redact).containers
    assert app.exec_commands == ('-c "test -f /tmp/ok"',)


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"metadata": None, "spec": None, "status": None},
        {"spec": {"containers": [None, {}, {"name": "a", "env": [{}], "envFrom": [{}], "volumeMounts": [{}]}]}},
        {"spec": {"containers": {}}, "status": {"containerStatuses": [{"name": "a", "state": None}]}},
    ],
)
def test_objects_with_less_than_expected(raw: dict[str, Any]) -> None:
    """Whatever is missing or null is read as absent."""
    assert isinstance(pod_facts(raw), PodFacts)


def test_pods_of_a_full_node_are_small() -> None:
    """250 pods cost less than 4 KiB each, the objects that the API sends of them several times as much."""
    text = json.dumps(objects("pods")[0])

    def numbered(index: int) -> dict[str, Any]:
        raw: dict[str, Any] = json.loads(text.replace("49057d0e", f"{index:08x}").replace("eb7c81bf", f"{index:08x}"))
        raw["metadata"]["name"] = f"chat-api-{index}"
        return raw

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [pod_facts(numbered(index), redact=Redactor().redact) for index in range(250)]
        gc.collect()
        size = (tracemalloc.get_traced_memory()[0] - before) / len(kept)
    finally:
        tracemalloc.stop()
    assert all(isinstance(one.containers[0], ContainerFacts) for one in kept)
    assert size < 4_096, f"{size:.0f} bytes a pod"
