"""The custom resources in a real API server, for tests: its answers about a manifest, and the folder's.

In: a control plane. Out: what it says against a manifest, beside what the loader of folders says. Manifests that use
every field are here, too, as are the ways to change one of them.
"""

import copy
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import requests

from keytrail.domain import crds
from keytrail.domain.collector_status import CollectorState
from keytrail.domain.errors import ManifestError
from keytrail.domain.objects import API_VERSION
from keytrail.domain.shape import read
from keytrail.manifests import load_folder
from support.components.control_plane import ControlPlane
from support.processes import wait_until

ROOT = Path(__file__).parents[2]
NAMESPACE = "crds"
SECONDS = 60.0
KIND = {kind.name: kind for kind in crds.KINDS}
Manifest = dict[str, Any]


class Server:
    """The API server with the definitions, asked over HTTP as kubectl does, and without its start of each process."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.session = requests.Session()
        self.session.trust_env = False  # a bundle named there would replace the API server's own authority
        self.session.verify = str(self.plane.ca)
        self.session.headers["Authorization"] = f"Bearer {self.plane.token}"

    def send(self, method: str, path: str, body: object, *, dry: bool = True, **query: str) -> requests.Response:
        """Send one object; unknown fields are errors, as they are to kubectl."""
        query |= {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry else {})
        kind = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        return self.session.request(
            method,
            self.plane.url + path,
            params=query,
            data=json.dumps(body),
            headers={"Content-Type": kind},
            timeout=30,
        )

    def serves(self, kind: crds.Kind) -> bool:
        """Whether objects of a kind can be asked for."""
        path = collection({"kind": kind.name, "metadata": {}})
        return self.session.get(self.plane.url + path, timeout=30).ok

    def create(self, manifest: Manifest, *, dry: bool = True) -> requests.Response:
        """Create an object."""
        return self.send("POST", collection(manifest), manifest, dry=dry)

    def apply(
        self, manifest: Manifest, manager: str, *, dry: bool = True, part: str = "", **query: str
    ) -> requests.Response:
        """Apply an object, or a part such as its status, on the side of the server."""
        path = f"{collection(manifest)}/{manifest['metadata']['name']}{part}"
        return self.send("PATCH", path, manifest, dry=dry, fieldManager=manager, **query)

    def replace(self, manifest: Manifest, *, part: str = "") -> requests.Response:
        """Replace an object that is there, or a part of it; dry."""
        path = f"{collection(manifest)}/{manifest['metadata']['name']}"
        metadata = self.session.get(self.plane.url + path, timeout=30).json()["metadata"]
        return self.send("PUT", path + part, {**manifest, "metadata": metadata})

    def refusal(self, manifest: Manifest) -> str:
        """What the API server says against a manifest; empty when it takes it."""
        if "status" not in manifest:
            return message(self.create(manifest))
        return message(self.replace(manifest, part="/status"))


def collection(manifest: Manifest) -> str:
    """Return the path under which objects of this kind are."""
    kind = KIND[manifest["kind"]]
    namespace = f"namespaces/{manifest['metadata'].get('namespace', NAMESPACE)}/" if kind.namespaced else ""
    return f"/apis/{crds.GROUP}/{crds.VERSION}/{namespace}{kind.plural}"


def message(answer: requests.Response) -> str:
    """Return what is wrong, without the words that stand in every answer."""
    if answer.ok:
        return ""
    assert answer.status_code in {400, 409, 422}, answer.text
    text = re.sub(
        r", <nil>: Invalid value: null: some validation rules were not checked[^\]]*", "", answer.json()["message"]
    )
    return re.sub(r'^\w+[.]keytrail[.]io "[^"]*" is invalid: |^.* cannot be handled as a \w+: ', "", text)


def folder_says(manifest: Manifest, folder: Path) -> str:
    """What the loader of folders says against a manifest; empty when it takes it."""
    if "status" in manifest:
        return "; ".join(f"{fault.field}: {fault.message}" for fault in read(CollectorState, manifest["status"])[1])
    file = folder / "manifest.json"
    file.write_text(json.dumps(manifest))
    try:
        load_folder(folder)
    except ManifestError as error:
        return "; ".join(f"{problem.field}: {problem.message}" for problem in error.problems)
    return ""


@contextmanager
def served(plane: ControlPlane) -> Iterator[Server]:
    """The API server once it knows all kinds."""
    folder = ROOT / "deploy" / "crds"
    plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    plane.kubectl("apply", f"--filename={folder}")
    plane.kubectl("wait", "--for=condition=Established", "--timeout=50s", f"--filename={folder}")
    server = Server(plane)
    try:
        for kind in crds.KINDS:  # established is not yet served
            assert wait_until(partial(server.serves, kind), SECONDS)
        node = {
            "apiVersion": API_VERSION,
            "kind": "CollectorStatus",
            "metadata": {"name": NAMES["CollectorStatus"]},
        }
        assert server.apply(node, "test", dry=False).ok
        yield server
    finally:
        server.session.close()


SPECS: dict[str, Manifest] = {
    "IdentityMapping": {
        "identity": {"id": "openai-prod", "kind": "api_key", "provider": "openai", "owner": "team-ml"},
        "priority": 100,
        "evidence": {
            "env": [{"name": "OPENAI_API_KEY"}, {"pattern": "OPENAI_.*_KEY"}],
            "argv": [{"contains": "openai"}],
            "secrets": [{"name": "openai", "keys": ["api-key"]}],
            "serviceAccounts": [{"name": "chat-api"}],
            "files": [{"path": "/var/run/secrets/openai/*"}],
            "serverNames": ["api.openai.com", "*.openai.azure.com"],
        },
        "allowed": {
            "workloads": [{"kind": "Deployment", "name": "chat-api"}],
            "binaries": ["/usr/local/bin/python3*"],
            "destinations": [{"host": "api.openai.com", "ports": [443]}, {"cidr": "10.0.0.0/8"}],
        },
    },
    "DetectionRule": {
        "title": "Port scan",
        "description": "Many ports in a short time.",
        "severity": "high",
        "maturity": "stable",
        "mitre": [{"tactic": "TA0007", "technique": "T1046"}],
        "references": ["https://attack.mitre.org/techniques/T1046/"],
        "events": ["connect"],
        "requires": ["tcp-connect"],
        "parameters": {"names": ["a", "b"], "limit": 3, "on": True, "ratio": 0.5, "none": []},
        "condition": "network.peer_port > params.limit",
        "exceptions": [{"name": "lab", "condition": 'pod.namespace == "lab"'}],
        "message": "{process.name} scans",
        "suppress": {"by": ["pod.uid"], "window": "10m"},
        "threshold": {"count": 20, "window": "1m", "by": ["process.exec_id"], "distinct": "network.peer_port"},
        "tests": [
            {"name": "one", "event": {"network": {"peer_port": 1}}, "match": False},
            {"name": "two", "events": [{"event": {"at": 0}, "network": {"peer_port": 1}}], "match": False},
        ],
    },
    "PolicyLibrary": {
        "mode": "listed",
        "policies": [
            {
                "name": "egress",
                "parameters": {"clusterCIDRs": "auto"},
                "namespaces": {"exclude": ["kube-system"]},
                "rateLimit": "1m",
            }
        ],
        "rules": {
            "maturity": ["stable", "sandbox"],
            "tune": [
                {
                    "name": "scan",
                    "enabled": False,
                    "severity": "low",
                    "parameters": {"limit": 4},
                    "exceptions": [{"name": "lab", "condition": "true"}],
                }
            ],
        },
    },
    "CollectorStatus": {
        "heartbeatTime": "2026-11-22T14:06:35Z",
        "version": "0.2.0",
        "tetragonVersion": "v1.7.0",
        "conditions": [
            {
                "type": "AgentConnected",
                "status": "True",
                "reason": "Connected",
                "lastTransitionTime": "2026-11-22T14:06:35Z",
            }
        ],
        "policiesLoaded": "5/6",
        "policies": [{"name": "keytrail-egress-7f3a", "state": "Failed", "message": "no such function"}],
        "eventsPerSecond": 300,
        "lostEvents": 0,
        "lag": "1s",
        "backend": "Delivering",
        "identities": [
            {"id": "ml/openai", "lastUsed": "2026-11-22T14:06:35Z", "workloads": ["ml/Deployment/chat-api"]}
        ],
        "rules": [{"name": "shell-in-container", "findings24h": 4}],
    },
}
SPECS["ClusterIdentityMapping"] = copy.deepcopy(SPECS["IdentityMapping"])
for _item in (
    SPECS["ClusterIdentityMapping"]["evidence"]["secrets"][0],
    SPECS["ClusterIdentityMapping"]["evidence"]["serviceAccounts"][0],
    SPECS["ClusterIdentityMapping"]["allowed"]["workloads"][0],
):
    _item["namespace"] = "ml"
NAMES = {"PolicyLibrary": "default", "CollectorStatus": "crds-1"}


def manifest_of(kind: str) -> Manifest:
    """Return a right manifest in which every field is used."""
    metadata = {"name": NAMES.get(kind, "crds-full")} | ({"namespace": NAMESPACE} if KIND[kind].namespaced else {})
    part = "status" if kind == "CollectorStatus" else "spec"
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": metadata,
        part: copy.deepcopy(SPECS[kind]),
    }


def changed(kind: str, path: str, value: object) -> Manifest:
    """Return that manifest with one value replaced; a path's last step may be new."""
    manifest = manifest_of(kind)
    put(manifest, [int(step) if step.isdecimal() else step for step in path.split(".")], value)
    return manifest


def put(target: Any, path: list[str | int], value: object) -> None:
    """Replace a value."""
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
