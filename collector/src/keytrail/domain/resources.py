"""The shapes of Keytrail's custom resources: the one source of truth.

In flows plain data, from a manifest in a folder or from the API server, through `keytrail.domain.shape.read`; out flow
the objects that `keytrail.identify` and the operator work with. Descriptions, bounds, defaults and examples stand here
and nowhere else, so that the schemas in the cluster, `kubectl explain` and the messages about a wrong manifest cannot
drift apart. Lists and texts are bounded, because whoever may write an object could otherwise fill every collector.

Knows no YAML, no API server, and nothing of how a mapping is matched.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from keytrail.domain.objects import (
    API_VERSION,
    BUILTIN_LABEL,
    CIDR,
    OBJECT_FIELDS,
    NamespaceName,
    Resource,
    list_doc,
    name_doc,
    path_doc,
    printable_doc,
    word_doc,
)
from keytrail.domain.policy_library import PolicyLibrary
from keytrail.domain.rules import DetectionRule
from keytrail.domain.shape import RE2_EXPRESSION, Doc, Fault, Rules, quoted

__all__ = ["API_VERSION", "BUILTIN_LABEL", "KINDS", "ClusterIdentityMapping", "IdentityMapping", "Resource"]

_HOST = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"


def _host(description: str, example: object, *, max_items: int | None = None) -> Doc:
    words = "a host name in lower case without scheme, port or path; only its first label may be *"
    full = f"{description} A leading *. stands for one or more labels."
    return Doc(full, example, max_items=max_items, max_length=253, pattern=_HOST, expected=words)


def _judged(description: str, *example: object) -> Doc:
    """Document a list of `allowed`. Empty is refused: it could mean "nothing" as well as "not judged"."""
    return Doc(f"{description} Left out: not judged.", example, min_items=1, max_items=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The machine identity that a mapping describes."""

    id: Annotated[
        str,
        name_doc(
            "What records call the identity. Default: metadata.name. Cannot be changed: records already sent carry it.",
            "openai-prod",
            immutable=True,
        ),
    ] = ""
    kind: Annotated[
        str, word_doc("Sort of credential: api_key, token, password, certificate, cloud_role, ...", "api_key")
    ] = ""
    provider: Annotated[str, word_doc("Who issued the credential or accepts it.", "openai")] = ""
    owner: Annotated[str, printable_doc("Whom to ask about it: a team, a person, an address.", "team-ml")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvEvidence:
    """An environment variable of the process, by exact name or by pattern."""

    name: Annotated[
        str,
        Doc(
            "Exact name of a variable. One that is set but empty is no evidence.",
            "OPENAI_API_KEY",
            max_length=256,
            pattern="^[A-Za-z_][-A-Za-z0-9_.]*$",
            expected="a variable's exact name, without value or wildcard (`pattern` takes RE2)",
        ),
    ] = ""
    pattern: Annotated[
        str,
        Doc(
            "Expression in RE2's syntax that the whole name of a variable must match.",
            "OPENAI_.*_KEY",
            max_length=256,
            format=RE2_EXPRESSION,
        ),
    ] = ""
    RULES: ClassVar[Rules] = Rules(exactly_one_of=("name", "pattern"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgvEvidence:
    """A word of the command line."""

    contains: Annotated[
        str,
        printable_doc("Text that occurs in the command line, in upper or lower case.", "openai", min_length=3),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretEvidence:
    """A Kubernetes Secret that the Pod's spec gives to the container."""

    namespace: NamespaceName = ""
    name: Annotated[str, name_doc("Name of the Secret.", "openai")]
    keys: Annotated[
        tuple[str, ...],
        Doc(
            "Keys of the Secret that hold the credential. Left out: any key.",
            ("api-key",),
            max_items=64,
            max_length=253,
            pattern="^[-._a-zA-Z0-9]+$",
            expected="a Secret's key of letters, digits, -, _ and .",
        ),
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccountEvidence:
    """The ServiceAccount that a Pod runs as."""

    namespace: NamespaceName = ""
    name: Annotated[str, name_doc("Name of the ServiceAccount.", "chat-api")]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEvidence:
    """A file that holds the credential."""

    path: Annotated[str, path_doc("Path of the file.", "/var/run/secrets/openai/*")]


_SECRET = {"namespace": "ml", "name": "openai", "keys": ("api-key",)}
_SERVICE_ACCOUNT = {"namespace": "ml", "name": "chat-api"}
_WORKLOAD = {"namespace": "ml", "kind": "Deployment", "name": "chat-api"}
_DESTINATION = {"host": "api.openai.com", "ports": (443,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceSpec:
    """What ties a process to the identity. Any item is enough."""

    env: Annotated[tuple[EnvEvidence, ...], list_doc("Environment variables.", {"name": "OPENAI_API_KEY"})] = ()
    argv: Annotated[tuple[ArgvEvidence, ...], list_doc("Words of the command line.", {"contains": "openai"})] = ()
    secrets: Annotated[tuple[SecretEvidence, ...], list_doc("Secrets given by the Pod's spec.", _SECRET)] = ()
    service_accounts: Annotated[
        tuple[ServiceAccountEvidence, ...], list_doc("ServiceAccounts that Pods run as.", _SERVICE_ACCOUNT)
    ] = ()
    files: Annotated[
        tuple[FileEvidence, ...], list_doc("Files that the process opens.", {"path": "/var/run/secrets/openai/*"})
    ] = ()
    server_names: Annotated[
        tuple[str, ...],
        _host(
            "Hosts that take the credential. Connecting to one is evidence only of a process that also carries it.",
            ("api.openai.com", "*.openai.azure.com"),
            max_items=64,
        ),
    ] = ()
    RULES: ClassVar[Rules] = Rules(
        at_least_one_of=("env", "argv", "secrets", "serviceAccounts", "files", "serverNames")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedWorkload:
    """A workload that may use the identity."""

    namespace: NamespaceName = ""
    kind: Annotated[
        str,
        Doc(
            "Kind of the workload: Deployment, StatefulSet, DaemonSet, Job, CronJob, Pod, or a controller of your own.",
            "Deployment",
            max_length=63,
            pattern="^[A-Z][A-Za-z0-9]*$",
            expected="a kind such as Deployment",
        ),
    ]
    name: Annotated[str, name_doc("Name of the workload.", "chat-api")]


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedDestination:
    """A place that the identity may be used towards: a host or a network."""

    host: Annotated[str, _host("Name of the host.", "api.openai.com")] = ""
    cidr: Annotated[
        str,
        Doc(
            "Network in CIDR notation, IPv4 or IPv6.",
            "10.0.0.0/8",
            max_length=43,
            pattern="^[0-9a-fA-F:.]+/[0-9]{1,3}$",
            expected=CIDR.expected,
            format=CIDR,
        ),
    ] = ""
    ports: Annotated[
        tuple[int, ...],
        Doc("TCP or UDP ports. Left out: any port.", (443,), min_items=1, max_items=64, minimum=1, maximum=65535),
    ] = ()
    RULES: ClassVar[Rules] = Rules(exactly_one_of=("host", "cidr"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """Expected use: anything else is a finding. Each list is judged by itself and all that are given must hold."""

    workloads: Annotated[tuple[AllowedWorkload, ...], _judged("Workloads that may use the identity.", _WORKLOAD)] = ()
    binaries: Annotated[
        tuple[str, ...],
        path_doc(
            "Executables that may use the identity. Left out: not judged.",
            ("/usr/local/bin/python3*",),
            min_items=1,
            max_items=64,
        ),
    ] = ()
    destinations: Annotated[
        tuple[AllowedDestination, ...],
        _judged("Places that the identity may be used towards.", _DESTINATION, {"cidr": "10.0.0.0/8"}),
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingSpec:
    """Which credentials are which identity, and how it may be used."""

    identity: Annotated[Identity, Doc("The identity.", {"kind": "api_key", "provider": "openai"})] = Identity()
    priority: Annotated[
        int,
        Doc(
            "Decides between mappings with equally strong evidence: the higher one names the identity.",
            100,
            minimum=-1000,
            maximum=1000,
        ),
    ] = 0
    evidence: Annotated[
        EvidenceSpec, Doc("What ties a process to the identity.", {"env": ({"name": "OPENAI_API_KEY"},)})
    ]
    allowed: Annotated[
        Allowed,
        Doc("Expected use: anything else is a finding. Left out: not judged.", {"destinations": (_DESTINATION,)}),
    ] = Allowed()


@dataclass(frozen=True, slots=True, kw_only=True)
class _MappingObject(Resource):
    """What both kinds of mapping have in common."""

    spec: Annotated[MappingSpec, Doc("What the mapping says.", {"evidence": {"env": ({"name": "OPENAI_API_KEY"},)}})]

    @property
    def name(self) -> str:
        """What records call the mapping: `name`, or `namespace/name`."""
        return _qualified(self.metadata.namespace, self.metadata.name)

    @property
    def identity_id(self) -> str:
        """What records call the identity. A tenant's carries its namespace: it can never pass for a cluster's."""
        return _qualified(self.metadata.namespace, self.spec.identity.id or self.metadata.name)


def _qualified(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def _named_namespaces(mapping: _MappingObject) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield where a mapping names a namespace, and which."""
    evidence, allowed = mapping.spec.evidence, mapping.spec.allowed
    lists: tuple[tuple[tuple[str, ...], Iterable[Any]], ...] = (
        (("spec", "evidence", "secrets"), evidence.secrets),
        (("spec", "evidence", "serviceAccounts"), evidence.service_accounts),
        (("spec", "allowed", "workloads"), allowed.workloads),
    )
    for path, items in lists:
        for index, item in enumerate(items):
            yield (*path, index, "namespace"), item.namespace


def _speaks_for_its_own_namespace(mapping: _MappingObject) -> Iterator[Fault]:
    own = mapping.metadata.namespace
    if not own:
        yield Fault(("metadata", "namespace"), "is required in an IdentityMapping (a ClusterIdentityMapping has none)")
        return
    for path, named in _named_namespaces(mapping):
        if named not in {"", own}:
            yield Fault(
                path,
                f"an IdentityMapping speaks for its own namespace only: expected {quoted(own)}, found {quoted(named)}",
            )


def _says_each_namespace(mapping: _MappingObject) -> Iterator[Fault]:
    if mapping.metadata.namespace:
        message = "a ClusterIdentityMapping has no namespace: remove it, or use kind IdentityMapping"
        yield Fault(("metadata", "namespace"), message)
    for path, named in _named_namespaces(mapping):
        if not named:
            yield Fault(path, "is required in a ClusterIdentityMapping")


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityMapping(_MappingObject):
    """Which credentials of one namespace are which identity, and how it may be used."""

    RULES: ClassVar[Rules] = Rules(ignored=OBJECT_FIELDS, checks=(_speaks_for_its_own_namespace,))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterIdentityMapping(_MappingObject):
    """Which credentials of the cluster are which identity, and how it may be used. Outranks every IdentityMapping."""

    RULES: ClassVar[Rules] = Rules(ignored=OBJECT_FIELDS, checks=(_says_each_namespace,))


KINDS: Mapping[str, type[Resource]] = {
    kind.__name__: kind for kind in (IdentityMapping, ClusterIdentityMapping, DetectionRule, PolicyLibrary)
}
"""The kinds of `API_VERSION`, by name. A further kind is one shape and one entry here."""
