"""An installed operator: the chart's rights and admission policies in a real API server, and the operator as a process.

In: a control plane and Helm. Out: what `helm install` would have made for the operator, a token of its ServiceAccount
and nothing more, and its process, which may be killed and started again. Everything else a test does as administrator.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
import yaml

from cluster.operator.tetragon_definitions import definitions
from keytrail.domain.crds import KINDS
from support.components.child import Child, answers, free_ports
from support.components.control_plane import ControlPlane
from support.processes import wait_until

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "helm" / "keytrail"
NAMESPACE = "keytrail-system"
NAME = "keytrail"
OPERATOR = f"{NAME}-operator"
COLLECTOR = f"{NAME}-collector"
SECONDS = 90.0
"""For anything to happen: far more than it takes, on a machine that is busy."""
_WANTED = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount")
_ADMISSION = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


class Admin:
    """The API server as its administrator asks it: plain HTTP, quicker than kubectl."""

    def __init__(self, plane: ControlPlane, token: str = "") -> None:
        self.plane = plane
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = str(plane.ca)
        self.session.headers["Authorization"] = f"Bearer {token or plane.token}"

    def ask(self, method: str, path: str, body: object = None, *, kind: str = "application/json", **query: str) -> Any:
        """Send a request; return the answer, whatever it is."""
        data = None if body is None else json.dumps(body)
        return self.session.request(
            method, self.plane.url + path, params=query, data=data, headers={"Content-Type": kind}, timeout=120
        )

    def get(self, path: str, **query: str) -> Any:
        """Return an object, or a list; None when there is none."""
        answer = self.ask("GET", path, **query)
        if answer.status_code == requests.codes.not_found:
            return None
        answer.raise_for_status()
        return answer.json()

    def merge(self, path: str, body: object, **query: str) -> Any:
        """Merge fields into an object."""
        return self.ask("PATCH", path, body, kind="application/merge-patch+json", **query)

    def apply(self, path: str, body: object) -> None:
        """Have an object with these fields."""
        answer = self.ask("PATCH", path, body, kind="application/apply-patch+yaml", fieldManager="test", force="true")
        assert answer.ok, answer.text


LIBRARY = "/apis/keytrail.io/v1alpha1/policylibraries/default"
POLICIES = "/apis/cilium.io/v1alpha1/tracingpolicies"
STATUSES = "/apis/keytrail.io/v1alpha1/collectorstatuses"
RULES = "/apis/keytrail.io/v1alpha1/detectionrules"
OWN_RULE = {
    "apiVersion": "keytrail.io/v1alpha1",
    "kind": "DetectionRule",
    "metadata": {"name": "own"},
    "spec": {
        "title": "Own", "description": "Own.", "severity": "low", "maturity": "stable", "events": ["connect"],
        "requires": ["egress"], "condition": "network.peer_port == 1", "message": "{process.name}",
    },
}  # fmt: skip
"""Of a user; it needs a sensor that is not loaded otherwise."""


class Release:
    """One release of the chart, as far as the operator needs it. A context manager."""

    def __init__(self, plane: ControlPlane, helm: Path, folder: Path, *values: str) -> None:
        self.plane = plane
        self.admin = Admin(plane)
        self._helm = helm
        self._folder = folder
        self._values = values
        self._port = free_ports(1)[0]
        self.objects: list[dict[str, Any]] = []
        self.process: Child | None = None
        self._audited = 0
        """Up to where the audit log is about earlier tests."""

    def __enter__(self) -> Self:
        self._audited = self.plane.audit_log.stat().st_size
        self.objects = [
            one
            for one in self.render()
            if one["kind"] in (*_WANTED, *_ADMISSION) and "hook" not in str(one["metadata"])
        ]
        self.plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        self.plane.kubectl("apply", f"--filename={ROOT / 'deploy' / 'crds'}")
        self.plane.apply(*self.objects)
        for kind in KINDS:
            namespaced = "namespaces/default/" if kind.namespaced else ""
            path = f"/apis/keytrail.io/v1alpha1/{namespaced}{kind.plural}"
            assert wait_until(partial(self._serves, path), SECONDS)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        self.admin.session.close()

    def render(self) -> list[dict[str, Any]]:
        """What the chart makes of the values."""
        command = [self._helm, "template", NAME, CHART, "--namespace", NAMESPACE]
        command += [part for value in self._values for part in ("--set", value)]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        return [one for one in yaml.safe_load_all(ran.stdout) if one]

    def install_tetragon(self) -> None:
        """Have Tetragon's kinds in the cluster."""
        self.plane.apply(*definitions())
        assert wait_until(lambda: self._serves(POLICIES), SECONDS)

    def token(self, account: str, *options: str) -> str:
        """Return a token of one of the release's ServiceAccounts."""
        return self.plane.kubectl(
            "create", "token", account, "--namespace", NAMESPACE, "--duration=2h", *options
        ).strip()

    def start(self, *flags: str, wait: bool = True) -> Child:
        """Run the operator, with a token of its own."""
        kubeconfig = self._folder / "operator.kubeconfig"
        cluster = {"server": self.plane.url, "certificate-authority": str(self.plane.ca)}
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": "operator", "user": {"token": self.token(OPERATOR)}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "operator"}}],
                    "current-context": "test",
                }
            )
        )
        clean = {name: text for name, text in os.environ.items() if not name.startswith(("KEYTRAIL_", "KUBERNETES_"))}
        command: list[str | Path] = [
            sys.executable, "-m", "keytrail_operator", "run",
            f"--kubeconfig={kubeconfig}", f"--namespace={NAMESPACE}", f"--release-owner={OPERATOR}",
            f"--http-address=127.0.0.1:{self._port}", *flags,
        ]  # fmt: skip
        self.process = Child(
            "operator", command, self._folder, ready=lambda: answers(self.page("readyz")), environ=clean
        )
        self.process.start() if wait else self.process.launch()
        return self.process

    def stop(self) -> None:
        """End the operator, if it runs."""
        if self.process is not None:
            self.process.stop()

    def page(self, name: str) -> str:
        """Return the address of one of its pages."""
        return f"http://127.0.0.1:{self._port}/{name}"

    def metrics(self) -> dict[str, float]:
        """Return its metrics by name, summed over labels."""
        found: dict[str, float] = {}
        for line in requests.get(self.page("metrics"), timeout=10).text.splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.partition("{")[0]
                found[name] = found.get(name, 0.0) + float(value)
        return found

    # -- what is in the cluster

    def policies(self) -> dict[str, dict[str, Any]]:
        """Return the TracingPolicies that are ours, by name."""
        found = (self.admin.get(POLICIES) or {"items": []})["items"]
        return {one["metadata"]["name"]: one for one in found if _is_ours(one)}

    def sensors(self) -> dict[str, list[str]]:
        """Return the names of our TracingPolicies by sensor."""
        found: dict[str, list[str]] = {}
        for name, one in self.policies().items():
            found.setdefault(one["metadata"]["labels"]["keytrail.io/sensor"], []).append(name)
        return found

    def library(self) -> dict[str, Any]:
        """Return the library; empty when there is none."""
        return self.admin.get(LIBRARY) or {}

    def condition(self, type_: str) -> tuple[str, str, str]:
        """Return status, reason and message of one of its conditions."""
        conditions = self.library().get("status", {}).get("conditions", ())
        found = next((one for one in conditions if one["type"] == type_), None)
        return ("", "", "") if found is None else (found["status"], found["reason"], found["message"])

    def tune(self, **spec: object) -> None:
        """Replace the library's spec."""
        answer = self.admin.merge(LIBRARY, {"spec": {"mode": "required", "policies": None, "rules": None, **spec}})
        assert answer.ok, answer.text

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something is so."""
        log = "" if self.process is None else self.process.log[-3000:]
        assert wait_until(condition, SECONDS), f"{what}: {json.dumps(self.library().get('status'))[:3000]}\n{log}"

    def writes(self) -> list[dict[str, Any]]:
        """Return what the operator asked for so far that was no reading, as the audit log has it."""
        return [one for one in self.audit() if one["verb"] not in {"get", "list", "watch"}]

    def audit(self) -> list[dict[str, Any]]:
        """Return all requests of the operator since the release was made, as far as they were answered."""
        user = f"system:serviceaccount:{NAMESPACE}:{OPERATOR}"
        with self.plane.audit_log.open(encoding="utf-8") as file:
            file.seek(self._audited)
            entries = [json.loads(line) for line in file if user in line]
        # A watch is answered long before it ends.
        answered = {"watch": "ResponseStarted"}
        return [
            one
            for one in entries
            if one["user"]["username"] == user and one["stage"] == answered.get(one["verb"], "ResponseComplete")
        ]

    def _serves(self, path: str) -> bool:
        return bool(self.admin.ask("GET", path).ok)


def _is_ours(policy: dict[str, Any]) -> bool:
    return policy["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == OPERATOR_LABEL


OPERATOR_LABEL = "keytrail-operator"
