"""What a kubelet makes of a pod: its folders, its token, its variables and its processes, from the real image.

In: a Pod as the API server has it, and which folders of the test stand for folders of the node. Out: running processes.
Knows nothing of what they do. Networks are not played: a pod has the test's loopback.
"""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess, run
from typing import Any
from urllib.parse import urlsplit

from chart.rendering import environ_of
from cluster.image.building import Image
from cluster.image.container import Container
from support.components.child import Child
from support.components.control_plane import ControlPlane

Json = dict[str, Any]
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass
class Kubelet:
    """The kubelet of one node."""

    plane: ControlPlane
    image: Image
    folder: Path
    node_folders: Mapping[str, Path] = field(default_factory=dict)
    """Path on the node -> folder of the test. Any other hostPath is a folder of the kubelet's."""

    def start(self, pod: Json, ready: Callable[[], bool], only: str = "") -> Child:
        """Run a pod: its init containers to their end, then its one container, or the `only` one, until it is ready.

        To stop it takes no longer than the pod's grace, as what is left then is killed.
        """
        own, volumes = self._prepared(pod)
        for init in pod["spec"].get("initContainers", []):
            ended = run(self._command(pod, init, volumes), check=False, capture_output=True, text=True, timeout=120)
            assert ended.returncode == 0, ended.stderr
        (container,) = (each for each in pod["spec"]["containers"] if only in {"", each["name"]})
        grace = pod["spec"]["terminationGracePeriodSeconds"]
        child = Child(container["name"], self._command(pod, container, volumes), own, ready=ready, stop_seconds=grace)
        child.start()
        return child

    def run(self, pod: Json) -> CompletedProcess[str]:
        """Run the one container of a pod that is to end, and tell the API server how it ended."""
        _, volumes = self._prepared(pod)
        (container,) = pod["spec"]["containers"]
        command = self._command(pod, container, volumes)
        ended = run(command, check=False, capture_output=True, text=True, timeout=120)
        (status,) = pod["status"]["containerStatuses"]
        terminated = {"exitCode": ended.returncode, "reason": "Error" if ended.returncode else "Completed"}
        status |= {"ready": False, "started": False, "state": {"terminated": terminated}}
        patch = {"status": {"phase": "Failed" if ended.returncode else "Succeeded", "containerStatuses": [status]}}
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        self.plane.kubectl("patch", "pod", name, f"--namespace={namespace}", "--subresource=status", "--type=merge",
                           f"--patch={json.dumps(patch)}")  # fmt: skip
        return ended

    def _prepared(self, pod: Json) -> tuple[Path, dict[str, Path]]:
        """A folder of the pod's own, and its volumes."""
        own = self.folder / f"{pod['metadata']['name']}-{pod['metadata']['uid']}"
        own.mkdir()
        return own, self._volumes(pod, own)

    def _command(self, pod: Json, container: Json, volumes: Mapping[str, Path]) -> list[str]:
        security = container["securityContext"]
        binds = {
            volumes[mount["name"]]: mount["mountPath"] + (":ro" if mount.get("readOnly") else "")
            for mount in container.get("volumeMounts", [])
        }
        rights = Container(
            self.image.root,
            binds,
            user=security["runAsUser"],
            group=security["runAsGroup"],
            capabilities=security["capabilities"].get("add", ()),
        )
        said = self.image.configuration
        argv = [*container.get("command", said["Entrypoint"]), *container.get("args", said["Cmd"])]
        return rights.command(argv, self._environ(pod, container))

    def _environ(self, pod: Json, container: Json) -> dict[str, str]:
        server = urlsplit(self.plane.url)
        fields = {
            "spec.nodeName": pod["spec"]["nodeName"],
            "status.hostIP": pod["status"]["hostIP"],
            "metadata.name": pod["metadata"]["name"],
            "metadata.namespace": pod["metadata"]["namespace"],
        }
        return {
            **dict(variable.split("=", 1) for variable in self.image.configuration["Env"]),
            "HOSTNAME": pod["metadata"]["name"],
            "KUBERNETES_SERVICE_HOST": str(server.hostname),
            "KUBERNETES_SERVICE_PORT": str(server.port),
            **environ_of({"env": [], **container}, fields),
        }

    def _volumes(self, pod: Json, own: Path) -> dict[str, Path]:
        found = {}
        for volume in pod["spec"]["volumes"]:
            folder = own / volume["name"]
            if "hostPath" in volume:
                path = volume["hostPath"]["path"]
                folder = self.node_folders.get(path, self.folder / path.strip("/").replace("/", "-"))
            folder.mkdir(exist_ok=True)
            if "emptyDir" in volume:
                folder.chmod(0o777)
            if "projected" in volume:
                self._write_account(pod, folder)
            if "configMap" in volume or "secret" in volume:
                self._write_files(pod, volume, folder)
            found[volume["name"]] = folder
        return found

    def _write_account(self, pod: Json, folder: Path) -> None:
        """A token as the kubelet asks for one: of the pod's ServiceAccount, bound to the pod, and so to its node."""
        metadata = pod["metadata"]
        bound = ("--bound-object-kind=Pod", f"--bound-object-name={metadata['name']}")
        token = self.plane.kubectl(
            "create", "token", pod["spec"]["serviceAccountName"], f"--namespace={metadata['namespace']}",
            *bound, f"--bound-object-uid={metadata['uid']}", "--duration=2h",
        ).strip()  # fmt: skip
        for name, text in (
            ("token", token),
            ("namespace", metadata["namespace"]),
            ("ca.crt", self.plane.ca.read_text()),
        ):
            (folder / name).write_text(text)

    def _write_files(self, pod: Json, volume: Json, folder: Path) -> None:
        kind = "configMap" if "configMap" in volume else "secret"
        name = volume[kind].get("name") or volume[kind]["secretName"]
        data = self.plane.get(kind.lower(), name, f"--namespace={pod['metadata']['namespace']}")["data"]
        for key, text in data.items():
            content = text.encode() if kind == "configMap" else base64.b64decode(text)
            (folder / key).write_bytes(content)
