"""A Pod of the API server in, the little of it that a collector keeps out.

`pod_facts` reads the API's JSON, where every field may be missing, and copies what enrichment and identities need.
What may hold a credential value is not copied: `env[].value`, `command` and `args`, annotations that nobody chose.
Commands of probes and hooks are kept redacted, and not at all without a redactor. Knows no API client and no event.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from keytrail.domain.declared import NOTHING_DECLARED, Declared, MountedCredential, MountKind, SecretKey, WholeSource
from keytrail.domain.paths import plain_path

Json = Mapping[str, Any]
Redact = Callable[[str, str], tuple[str, tuple[str, ...]]]
"""Arguments and the name of their program in; redacted arguments and what was found out."""

CONTAINER_ID_DIGITS: Final = 31
"""As many digits of a container's id as the agent reads from the cgroup's name (its buffer ends there)."""
_COPIES_OF_THE_SPEC: Final = "kubectl.kubernetes.io/last-applied-configuration"
"""An annotation that holds the whole manifest, `env[].value` included: never kept, whoever chose it."""
_SECRETS_STORE: Final = "secrets-store.csi.k8s.io"
_KINDS: Final = (
    ("containers", "containerStatuses"),
    ("initContainers", "initContainerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
)
_ENDED: Final = frozenset({"Succeeded", "Failed"})
_HOOKS: Final = (
    ("livenessProbe",),
    ("readinessProbe",),
    ("startupProbe",),
    ("lifecycle", "postStart"),
    ("lifecycle", "preStop"),
)


@dataclass(frozen=True, slots=True)
class Owner:
    """The object that manages a Pod."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class ContainerFacts:
    """One container of a Pod, whether it runs, waits, or has ended."""

    name: str
    ids: tuple[str, ...] = ()
    """64 digits each: of the container now, and of the one before its last restart; empty until it was made."""
    image: str = ""
    image_id: str = ""
    privileged: bool = False
    state: str = ""
    """`waiting`, `running`, `terminated`; empty when the kubelet has not said."""
    started: bool = False
    declared: Declared = NOTHING_DECLARED
    exec_commands: tuple[str, ...] = ()
    """Arguments of its probes and hooks as events show a process's: without the program, redacted."""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A Pod."""

    namespace: str
    name: str
    uid: str
    node: str = ""
    labels: Mapping[str, str] | None = None
    annotations: tuple[tuple[str, str], ...] = ()
    service_account: str = ""
    owner: Owner | None = None
    """The owner that is its controller; None for a bare pod."""
    host_network: bool = False
    host_pid: bool = False
    ips: tuple[str, ...] = ()
    """None of a pod that has ended: its status keeps them, and another pod may have them."""
    containers: tuple[ContainerFacts, ...] = ()
    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets that the kubelet alone uses: no process of the pod has them."""


def pod_facts(raw: Json, *, redact: Redact | None = None, annotations: Iterable[str] = ()) -> PodFacts:
    """Read a Pod as the API's JSON has it; `annotations` are the keys of those to keep."""
    metadata, spec, status = _part(raw, "metadata"), _part(raw, "spec"), _part(raw, "status")
    namespace = _text(metadata, "namespace")
    given = _part(metadata, "annotations")
    return PodFacts(
        namespace=namespace,
        name=str(metadata.get("name", "")),
        uid=str(metadata.get("uid", "")),
        node=_text(spec, "nodeName"),
        labels={sys.intern(str(key)): sys.intern(str(value)) for key, value in _part(metadata, "labels").items()},
        annotations=tuple((key, str(given[key])) for key in annotations if key in given and key != _COPIES_OF_THE_SPEC),
        service_account=_text(spec, "serviceAccountName"),
        owner=_owner(metadata),
        host_network=spec.get("hostNetwork") is True,
        host_pid=spec.get("hostPID") is True,
        ips=() if status.get("phase") in _ENDED else tuple(str(one.get("ip", "")) for one in _list(status, "podIPs")),
        containers=_knowing_the_pod(tuple(_containers(namespace, spec, status, redact))),
        image_pull_secrets=tuple(str(one.get("name", "")) for one in _list(spec, "imagePullSecrets")),
    )


def _part(raw: Json, name: str) -> Json:
    found = raw.get(name)
    return found if isinstance(found, Mapping) else {}


def _list(raw: Json, name: str) -> list[Json]:
    found = raw.get(name)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _text(raw: Json, name: str) -> str:
    """A text that many pods share: namespaces, images, names of Secrets and variables."""
    return sys.intern(str(raw.get(name) or ""))


def _owner(metadata: Json) -> Owner | None:
    for one in _list(metadata, "ownerReferences"):
        if one.get("controller") is True:
            return Owner(_text(one, "kind"), _text(one, "name"), str(one.get("uid", "")))
    return None


# -- containers


def _containers(namespace: str, spec: Json, status: Json, redact: Redact | None) -> Iterator[ContainerFacts]:
    volumes = {str(one.get("name", "")): one for one in _list(spec, "volumes")}
    for of_spec, of_status in _KINDS:
        statuses = {str(one.get("name", "")): one for one in _list(status, of_status)}
        for raw in _list(spec, of_spec):
            known = statuses.get(str(raw.get("name", "")), {})
            yield ContainerFacts(
                name=_text(raw, "name"),
                ids=_ids(known),
                image=_text(raw, "image"),
                image_id=_text(known, "imageID"),
                privileged=_part(raw, "securityContext").get("privileged") is True,
                state=next(iter(_part(known, "state")), ""),
                started=known.get("started") is True,
                declared=_declared(namespace, raw, volumes),
                exec_commands=() if redact is None else tuple(dict.fromkeys(_commands(raw, redact))),
            )


def _knowing_the_pod(containers: tuple[ContainerFacts, ...]) -> tuple[ContainerFacts, ...]:
    """Tell each container what the others are given: they share volumes, so that one may hand it on."""
    secrets = frozenset(name for one in containers for name in one.declared.secrets)
    if not secrets:
        return containers
    return tuple(replace(one, declared=replace(one.declared, secrets_of_pod=secrets)) for one in containers)


def _ids(status: Json) -> tuple[str, ...]:
    before = _part(_part(status, "lastState"), "terminated")
    named = (str(one.get("containerID") or "").rpartition("//")[2] for one in (status, before))
    return tuple(dict.fromkeys(filter(None, named)))


def _commands(container: Json, redact: Redact) -> Iterator[str]:
    for path in _HOOKS:
        hook = container
        for step in path:
            hook = _part(hook, step)
        command = _part(hook, "exec").get("command")
        if isinstance(command, list) and command:
            # As the agent shows arguments: those with a blank in double quotes, nothing escaped.
            words = [f'"{word}"' if " " in word else word for word in map(str, command[1:])]
            yield redact(" ".join(words), str(command[0]).rpartition("/")[2])[0]


# -- what the spec gives them


def _declared(namespace: str, container: Json, volumes: Mapping[str, Json]) -> Declared:
    variables: dict[str, SecretKey | None] = {}
    for one in _list(container, "env"):
        reference = _part(_part(one, "valueFrom"), "secretKeyRef")
        secret = SecretKey(namespace, _text(reference, "name"), _text(reference, "key")) if reference else None
        variables[_text(one, "name")] = secret
    sources = tuple(
        WholeSource(_text(one, "prefix"), _text(_part(one, "secretRef"), "name")) for one in _list(container, "envFrom")
    )
    mounts = tuple(
        found
        for mount in _list(container, "volumeMounts")
        for found in _mounted(namespace, mount, volumes.get(str(mount.get("name", "")), {}))
    )
    return Declared(variables, sources, mounts) if variables or sources or mounts else NOTHING_DECLARED


def _mounted(namespace: str, mount: Json, volume: Json) -> Iterator[MountedCredential]:
    """Credentials of one mount; a mounted `subPath` is the file or folder at the path itself."""
    path = sys.intern(plain_path(str(mount.get("mountPath", "")).rstrip("/")))
    below = str(mount.get("subPath") or "").strip("/")
    for file, kind, secret, provider_class in _files(namespace, volume):
        if not below:
            place, is_folder = (f"{path}/{file}", False) if file else (path, True)
        elif file in {"", below}:
            place, is_folder = path, False
            if secret is not None and not secret.key:
                secret = SecretKey(namespace, secret.name, below)  # noqa: PLW2901 - the file is the key of its name
        elif file.startswith(below + "/"):
            place, is_folder = path + file[len(below) :], False
        else:
            continue
        yield MountedCredential(place, kind, secret, provider_class, is_folder)


def _files(namespace: str, volume: Json) -> Iterator[tuple[str, MountKind, SecretKey | None, str]]:
    """Files of a volume: path below it (empty: all that is there), kind, Secret, SecretProviderClass."""
    if secret := _part(volume, "secret"):
        yield from _of_secret(namespace, _text(secret, "secretName"), secret)
    for source in _list(_part(volume, "projected"), "sources"):
        if secret := _part(source, "secret"):
            yield from _of_secret(namespace, _text(secret, "name"), secret)
        if token := _part(source, "serviceAccountToken"):
            yield _text(token, "path"), MountKind.TOKEN, None, ""
    if (csi := _part(volume, "csi")).get("driver") == _SECRETS_STORE:
        yield "", MountKind.PROVIDER, None, _text(_part(csi, "volumeAttributes"), "secretProviderClass")


def _of_secret(namespace: str, name: str, secret: Json) -> Iterator[tuple[str, MountKind, SecretKey | None, str]]:
    items = _list(secret, "items")
    for item in items:
        yield _text(item, "path"), MountKind.SECRET, SecretKey(namespace, name, _text(item, "key")), ""
    if not items:
        yield "", MountKind.SECRET, SecretKey(namespace, name), ""
