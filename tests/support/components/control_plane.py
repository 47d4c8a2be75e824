"""A real Kubernetes control plane on loopback, whose nodes and pods are played by kwok; or its API server alone.

In: the folders of the built programs. Out: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok,
running, with an administrator's token, a kubeconfig and kubectl. No container runs anywhere: what a kubelet would
report, kwok writes, as the Stage objects in `tests/cluster/components/kwok/stages.yaml` say.
"""

import json
import os
import secrets
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from support.components.build import RECIPES
from support.components.child import Child, answers, free_ports

STAGES = RECIPES / "kwok" / "stages.yaml"
SERVICES = "10.96.0.0/16"
PODS = "10.244.0.0/16"
_HOST = "127.0.0.1"
_AUDIT = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}


class ApiServer:
    """kube-apiserver and its etcd. Each may be stopped, killed and started again; its port and data stay."""

    def __init__(self, kubernetes: Path, folder: Path, *, other: Path | None = None) -> None:
        """Prepare one of the programs in `kubernetes`; its kube-apiserver may be that of an`other` version."""
        # Picked together: what nobody listens on yet could be picked twice.
        etcd, peer, api, *self._ports = free_ports(6)
        self.url = f"https://{_HOST}:{api}"
        self.etcd_url = f"http://{_HOST}:{etcd}"
        self.token = secrets.token_hex(16)
        self.kubeconfig = folder / "kubeconfig"
        self.audit_log = folder / "audit.log"
        self._programs = kubernetes
        self._folder = folder
        self.ca = folder / "apiserver" / "apiserver.crt"
        """The API server makes it at its first start: a certificate of its own, its own authority behind it."""
        self._write_files()
        self.etcd = self._etcd(etcd, peer)
        self.apiserver = self._apiserver((other or kubernetes) / "kube-apiserver", api, etcd)

    @property
    def children(self) -> tuple[Child, ...]:
        """All processes, in the order of their start."""
        return self.etcd, self.apiserver

    def __enter__(self) -> Self:
        try:
            self.etcd.start()
            self.apiserver.start()
            for child in self.children[2:]:
                child.launch()
            for child in self.children[2:]:
                child.wait_until_ready()
        except BaseException:  # also an interrupted test: __exit__ is not called when __enter__ did not return
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End all of them, those first that would wait for the others."""
        for child in reversed(self.children):
            child.stop()

    @property
    def version(self) -> str:
        """Major and minor version, as the API server has it."""
        said = json.loads(self.kubectl("get", "--raw=/version"))
        return f"{said['major']}.{said['minor']}"

    def kubectl(self, *arguments: str, stdin: str | None = None, token: str = "") -> str:
        """Run kubectl as the administrator, or as whom a token is of; fails with what it said."""
        options = [f"--server={self.url}", f"--certificate-authority={self.ca}", f"--token={token or self.token}"]
        ran = subprocess.run(
            [self._programs / "kubectl", *options, *arguments],
            check=False,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"HOME": str(self._folder)},  # its cache of what the API server has
        )
        assert ran.returncode == 0, f"kubectl {' '.join(arguments)}: {ran.stderr}"
        return ran.stdout

    def account(self, folder: Path, token: str) -> dict[str, str]:
        """Write what a kubelet mounts for a Pod's ServiceAccount; return the variables that it sets beside it."""
        folder.mkdir(exist_ok=True)
        (folder / "token").write_text(token)
        (folder / "ca.crt").write_bytes(self.ca.read_bytes())
        place = urlsplit(self.url)
        return {"KUBERNETES_SERVICE_HOST": str(place.hostname), "KUBERNETES_SERVICE_PORT": str(place.port)}

    def get(self, *arguments: str) -> Any:
        """`kubectl get` of something, as the API server has it."""
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def apply(self, *objects: object) -> None:
        """`kubectl apply` of objects."""
        self.kubectl("apply", "--filename=-", stdin="\n---\n".join(map(json.dumps, objects)))

    def _write_files(self) -> None:
        folder = self._folder
        (folder / "tokens.csv").write_text(f'{self.token},admin,admin,"system:masters"\n')
        (folder / "audit.json").write_text(json.dumps(_AUDIT))
        key = folder / "tokens.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        cluster = {"server": self.url, "certificate-authority": str(self.ca)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(json.dumps(config))

    def _etcd(self, client: int, peer: int) -> Child:
        url, peers = f"http://{_HOST}:{client}", f"http://{_HOST}:{peer}"
        command: list[str | Path] = [
            self._programs / "etcd",
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",  # what is written survives the process, which is all that a test kills
            "--log-level=warn",
        ]
        return Child("etcd", command, self._folder, ready=lambda: answers(f"{url}/readyz"))

    def _apiserver(self, program: Path, port: int, etcd: int) -> Child:
        folder = self._folder
        command: list[str | Path] = [
            program,
            f"--etcd-servers=http://{_HOST}:{etcd}",
            f"--bind-address={_HOST}",
            f"--advertise-address={_HOST}",
            f"--secure-port={port}",
            f"--cert-dir={self.ca.parent}",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder / 'tokens.key'}",
            f"--service-account-signing-key-file={folder / 'tokens.key'}",
            "--allow-privileged=true",
            "--endpoint-reconciler-type=none",  # it would refuse loopback as the address of a service
            f"--audit-policy-file={folder / 'audit.json'}",
            f"--audit-log-path={self.audit_log}",
        ]
        health = f"{self.url}/readyz"
        # It waits a minute for the watches of its clients to end.
        return Child("kube-apiserver", command, folder, ready=lambda: answers(health, ca=self.ca), stop_seconds=3.0)


class ControlPlane(ApiServer):
    """All five processes."""

    def __init__(self, kubernetes: Path, kwok: Path, folder: Path) -> None:
        super().__init__(kubernetes, folder)
        manager, scheduler, played = self._ports
        self.controller_manager = self._beside(
            "kube-controller-manager",
            manager,
            f"--service-account-private-key-file={folder / 'tokens.key'}",
            f"--root-ca-file={self.ca}",
            "--allocate-node-cidrs=true",
            f"--cluster-cidr={PODS}",
            f"--service-cluster-ip-range={SERVICES}",
        )
        self.scheduler = self._beside("kube-scheduler", scheduler)
        self.kwok = Child(
            "kwok",
            [
                kwok / "kwok",
                f"--kubeconfig={self.kubeconfig}",
                f"--config={STAGES}",
                "--manage-all-nodes=true",
                f"--node-ip={_HOST}",
                f"--server-address={_HOST}:{played}",
            ],
            folder,
            ready=lambda: answers(f"http://{_HOST}:{played}/healthz"),
        )

    @property
    def children(self) -> tuple[Child, ...]:
        """All processes, in the order of their start."""
        return *super().children, self.controller_manager, self.scheduler, self.kwok

    def _beside(self, name: str, port: int, *options: str) -> Child:
        """A controller beside the API server, with a certificate that it makes for itself."""
        certificates = self._folder / name
        command: list[str | Path] = [
            self._programs / name,
            f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            f"--bind-address={_HOST}",
            f"--secure-port={port}",
            f"--cert-dir={certificates}",
            *options,
        ]
        health = f"https://{_HOST}:{port}/healthz"
        return Child(name, command, self._folder, ready=lambda: answers(health, ca=certificates / f"{name}.crt"))
