"""What a Pod's spec says about a container's credentials in, evidence out: declared, and by files that were opened.

No Secret is read: a key is named by the spec, or by the file that the kubelet made of it. Used by `matcher`.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import chain

from keytrail.domain.declared import Declared, MountedCredential, MountKind, SecretKey
from keytrail.domain.identity import Evidence, EvidenceKind, Strength
from keytrail.domain.placement import CloudRole
from keytrail.domain.process import Pod
from keytrail.identify.mapping_rules import MappingRules

_CLOUD_ROLE = "cloud_role"
_TOKEN = "service_account"  # noqa: S105 - a kind of identity


def source_of(
    name: str, namespace: str, declared: Declared, given: Collection[str] | None, rules: MappingRules
) -> SecretKey | None:
    """The Secret's key that a variable comes from; None when it comes from elsewhere, or that cannot be known.

    A variable that an `envFrom` may have set was `given` by the runtime to the container's first process. Which of
    several Secrets it comes from only their keys would tell: then it counts for the one that a mapping names.
    """
    if name in declared.variables:
        return declared.variables[name]
    if given is None or name not in given:
        return None
    keys = [
        SecretKey(namespace, one.secret, one.key_of(name))
        for one in declared.sources
        if one.secret and one.key_of(name)
    ]
    if len(keys) == 1:
        return keys[0]
    return next((key for key in keys if rules.of_secret(key)), None)


def is_undeclared(name: str, declared: Declared, given: Collection[str] | None) -> bool:
    """Whether neither the spec nor the image can have set a variable: the container began without it."""
    return name not in declared.variables and given is not None and name not in given


def declared_evidence(
    pod: Pod, declared: Declared, roles: tuple[CloudRole, ...], seen: Collection[SecretKey], rules: MappingRules
) -> Iterator[Evidence]:
    """What the container is given, whether or not a process takes it; without the keys `seen` in variables."""
    for name, key in declared.variables.items():
        if key is not None and key not in seen:
            yield from _of_secret(key, EvidenceKind.SECRET, name, Strength.DECLARED, rules)
    of_variables = {(key.namespace, key.name) for key in chain(seen, filter(None, declared.variables.values()))}
    for source in declared.sources:
        if source.secret and (pod.namespace, source.secret) not in of_variables:
            whole = SecretKey(pod.namespace, source.secret)
            yield from _of_secret(whole, EvidenceKind.SECRET, f"{source.prefix}*", Strength.DECLARED, rules)
    for mount in declared.mounts:
        if mount.kind is not MountKind.TOKEN:
            yield from _of_mount(mount, mount.path, EvidenceKind.SECRET, Strength.DECLARED, pod, rules)
    yield from _of_account(pod, roles, EvidenceKind.SERVICE_ACCOUNT, Strength.DECLARED, rules, token=declared.has_token)


def file_evidence(
    path: str, pod: Pod | None, declared: Declared | None, roles: tuple[CloudRole, ...], rules: MappingRules
) -> list[Evidence]:
    """What opening a file shows: by the mappings' files, and by what the Pod's spec mounts there."""
    mounts = () if declared is None else declared.mounts
    found = [(mount, below) for mount in mounts if (below := mount.file_of(path)) is not None]
    secrets = {key for mount, below in found if (key := _key_of(mount, below)) is not None}
    # Several Secrets in one folder: only their keys would tell which of them the file is.
    secret = next(iter(secrets)) if len(secrets) == 1 else None
    by_mapping = [
        replace(item, kind=EvidenceKind.FILE, name=path, secret=secret)
        for item in rules.of_file(path, "" if pod is None else pod.namespace, secret)
    ]
    if pod is None or any(item.mapping for item in by_mapping):
        return by_mapping
    if secret is not None:
        known = by_mapping[0] if by_mapping else Evidence(EvidenceKind.FILE, path, "", secret=secret)
        return [replace(known, identity_id=secret.identity_id)]
    by_spec = [item for mount, _ in found for item in _of_opened(mount, path, pod, roles, rules)]
    return by_spec or by_mapping


def _of_opened(
    mount: MountedCredential, path: str, pod: Pod, roles: tuple[CloudRole, ...], rules: MappingRules
) -> Iterator[Evidence]:
    """What a mounted file is that shows no key of a Secret."""
    if mount.kind is MountKind.TOKEN:
        for item in _of_account(pod, roles, EvidenceKind.FILE, Strength.OBSERVED, rules, token=True):
            yield replace(item, name=path)
    elif mount.kind is MountKind.PROVIDER:
        yield from _of_mount(mount, path, EvidenceKind.FILE, Strength.OBSERVED, pod, rules)


def _key_of(mount: MountedCredential, below: str) -> SecretKey | None:
    if mount.secret is None or mount.secret.key:
        return mount.secret
    key = below.removeprefix("..data/")  # the kubelet's link to the files of now
    # Keys hold no slash: what lies deeper belongs to another volume, mounted there.
    return None if "/" in key else SecretKey(mount.secret.namespace, mount.secret.name, key)


def _of_secret(
    key: SecretKey, kind: EvidenceKind, name: str, strength: Strength, rules: MappingRules
) -> Iterator[Evidence]:
    found = rules.of_secret(key)
    for item in found:
        yield replace(item, kind=kind, name=name, strength=strength, secret=key)
    if not found:
        yield Evidence(kind, name, key.identity_id, strength, secret=key)


def _of_mount(  # noqa: PLR0917 - one caller for each of two kinds of evidence
    mount: MountedCredential, name: str, kind: EvidenceKind, strength: Strength, pod: Pod, rules: MappingRules
) -> Iterator[Evidence]:
    if mount.secret is not None:
        yield from _of_secret(mount.secret, kind, name, strength, rules)
    elif mount.kind is MountKind.PROVIDER:
        yield Evidence(kind, name, f"secret-provider-class/{pod.namespace}/{mount.provider_class}", strength)


def _of_account(
    pod: Pod,
    roles: tuple[CloudRole, ...],
    kind: EvidenceKind,
    strength: Strength,
    rules: MappingRules,
    *,
    token: bool,
) -> Iterator[Evidence]:
    """The ServiceAccount, and each role in a cloud that it stands for; nothing where no token is at hand."""
    account = f"{pod.namespace}/{pod.service_account}"
    found = rules.of_service_account(pod.namespace, pod.service_account)
    lent = roles[0].provider if roles else ""
    for item in found:
        yield replace(item, kind=kind, name=account, strength=strength, provider=item.provider or lent)
    if found:
        return
    for role in roles:
        yield Evidence(kind, account, role.id, strength, provider=role.provider, identity_kind=_CLOUD_ROLE)
    if token and pod.service_account:
        yield Evidence(
            kind, account, f"service-account/{account}", strength, provider="kubernetes", identity_kind=_TOKEN
        )
