"""Every attribute that Keytrail's OTLP records carry: its name, its type, what it means and where its value comes from.

Domain objects come in, plain values go out; an absent value (None, an empty text or list) is no attribute. The encoder
writes exactly these tables and docs/telemetry.md is made from them (`attributes_page`), so neither can name an
attribute that the other does not. Names are those of OpenTelemetry's semantic conventions 1.44 where they have one,
else under `keytrail.`.

What a process wrote or sent (`Event.arguments`) has no attribute, on purpose: it may hold a credential.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

from keytrail.domain.declared import SecretKey
from keytrail.domain.event import Credentials, Details, Event, Exit, FileAccess, Network, Operation, Payload
from keytrail.domain.identity import Attribution, Evidence
from keytrail.domain.peer import Peer, PeerKind
from keytrail.domain.process import Pod, Process
from keytrail.export.attribute_values import command_line, evidence_text, host_name, image_name, image_tags, transport
from keytrail.export.otlp_wire import ValueType
from keytrail.export.output import rfc3339

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

Value = str | int | bool | tuple[str, ...] | tuple[int, ...] | None
S = TypeVar("S")
Row = tuple[str, ValueType, str, str | Callable[[S], Value]]
"""Name, type, meaning, and a source's attribute (its path, and ` or None` where 0 is no value) or a function of it."""


@dataclass(frozen=True)  # no slots: with them Python 3.11 fails to make a `Group[S]`
class Group(Generic[S]):
    """Attributes that come from the same object, and so are there or not there together."""

    title: str
    where: Literal["resource", "record"]
    rows: tuple[Row[S], ...]


class Subject(NamedTuple):
    """Where an event was observed: what its resource describes."""

    node: str
    pod: Pod | None
    container_id: str


_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob")
_NETWORK_TYPES = {"AF_INET": "ipv4", "AF_INET6": "ipv6"}
_HTTP_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE", ""})


def _missing(process: Process) -> str | None:
    """What of the workload is not known; without Kubernetes all that can be told is that an agent named no pod."""
    if process.placement is not None:
        return process.placement.partial
    return "pod_unknown" if process.pod is None and process.container_id else None


def _secret(name: str, meaning: str, value: Callable[[SecretKey], str]) -> Row[Attribution]:
    return _primary(f"keytrail.credential.secret.{name}", meaning, lambda e: value(e.secret) if e.secret else None)


def _workload(kind: str) -> Row[Pod]:
    name = f"k8s.{kind.lower()}.name"
    return name, "string", f"The {kind} of the pod.", lambda p: p.workload if p.workload_kind == kind else None


def _primary(name: str, meaning: str, value: Callable[[Evidence], Value]) -> Row[Attribution]:
    return name, "string", meaning, lambda a: None if a.primary is None else value(a.primary)


COLLECTOR: Final[tuple[tuple[str, str], ...]] = (
    ("service.name", "`keytrail`, unless `OTEL_SERVICE_NAME` says otherwise."),
    ("service.version", "Keytrail's version."),
    ("service.instance.id", "This collector."),
    ("k8s.cluster.name", "The cluster, where it is configured."),
)
"""Resource attributes that the settings give; `OTEL_RESOURCE_ATTRIBUTES` may add any others."""

HOST: Final = Group[Subject](
    "Host",
    "resource",
    (
        ("host.name", "string", "Node name as the agent reports it.", "node"),
        ("k8s.node.name", "string", "The same, for events of pods.", lambda s: s.node if s.pod else None),
    ),
)
CONTAINER: Final = Group[Subject](
    "Observed container",
    "resource",
    (
        (
            "container.id",
            "string",
            "Without runtime prefix; its first 31 digits while only the cgroup's name is known.",
            lambda s: (s.pod.container.id if s.pod else "") or s.container_id,
        ),
    ),
)
WORKLOAD: Final = Group[Pod](
    "Observed workload",
    "resource",
    (
        ("k8s.namespace.name", "string", "The pod's namespace.", "namespace"),
        ("k8s.pod.name", "string", "The pod.", "name"),
        ("k8s.pod.uid", "string", "The pod's uid.", "uid"),
        ("k8s.container.name", "string", "The container in the pod.", "container.name"),
        *map(_workload, _WORKLOADS),
        ("container.image.name", "string", "Image without its tag.", lambda p: image_name(p.container.image)),
        ("container.image.tags", "string[]", "The image's tag.", lambda p: image_tags(p.container.image)),
        ("container.image.id", "string", "Image id.", "container.image_id"),
    ),
)
PROCESS: Final = Group[Process](
    "Process",
    "record",
    (
        ("process.pid", "int", "Process id in the host's pid namespace.", "pid"),
        ("process.executable.path", "string", "Path as executed, symlinks kept.", "binary"),
        ("process.executable.name", "string", "Its last component.", "name"),
        ("process.command_line", "string", "Path and redacted arguments; cannot be split safely.", command_line),
        ("process.working_directory", "string", "Working directory at exec.", "cwd"),
        ("process.user.id", "int", "Effective user id at exec.", lambda p: p.uid if p.uid >= 0 else None),
        (
            "process.creation.time",
            "string",
            "Start of this image, ISO 8601 in UTC.",
            lambda p: rfc3339(p.start_ns) if p.start_ns else None,
        ),
        ("keytrail.process.exec_id", "string", "The agent's id of this process image.", "exec_id"),
        ("keytrail.process.parent_exec_id", "string", "That of its parent image.", "parent_exec_id"),
        ("keytrail.process.auid", "int", "Login user id.", lambda p: p.auid if p.auid >= 0 else None),
        ("keytrail.process.in_init_tree", "boolean", "Started from inside its container.", "in_init_tree"),
        ("keytrail.process.flags", "string", "The agent's flags of the exec.", "flags"),
        (
            "keytrail.process.truncated",
            "boolean",
            "True when the kernel could not read command line or environment: padding can hide both.",
            "truncated or None",
        ),
        (
            "keytrail.process.argument_credentials",
            "string[]",
            "Names of the credential patterns that were redacted on the command line.",
            "argument_credentials",
        ),
        (
            "keytrail.enrichment",
            "string",
            "`full`, or `partial` when something about the workload is not known.",
            lambda p: "partial" if _missing(p) else "full",
        ),
        (
            "keytrail.enrichment_reason",
            "string",
            "Why it is partial: `unknown_container`, `forged`, `not_announced`, ...; `pod_unknown` without Kubernetes.",
            _missing,
        ),
        (
            "keytrail.process.claimed_pod",
            "string",
            "`namespace/name` of the pod whose container's id a process bears that does not run in it.",
            lambda p: p.placement.claimed if p.placement else None,
        ),
    ),
)
IDENTITY: Final = Group[Attribution](
    "Machine identity",
    "record",
    (
        _primary("keytrail.identity.id", "The identity that the strongest evidence names.", lambda e: e.identity_id),
        _primary("keytrail.identity.kind", "Such as `api_key`.", lambda e: e.identity_kind),
        _primary("keytrail.identity.provider", "Such as `openai`.", lambda e: e.provider),
        _primary("keytrail.identity.owner", "Owner, as the mapping says.", lambda e: e.owner),
        _primary("keytrail.identity.mapping", "The user's mapping that named it.", lambda e: e.mapping),
        _primary(
            "keytrail.identity.strength", "`declared`, `observed`, `verified`, `used`.", lambda e: str(e.strength)
        ),
        (
            "keytrail.identity.mapped",
            "boolean",
            "False for a variable that looks like a credential and that nothing knows.",
            lambda a: None if a.primary is None else a.primary.mapped,
        ),
        (
            "keytrail.identity.evidence",
            "string[]",
            "All evidence, strongest first, each `KIND:NAME:IDENTITY`. Names, never values.",
            lambda a: tuple(map(evidence_text, a.evidence)),
        ),
        ("keytrail.identity.unknown", "string", "Why nobody could look, such as `not_captured`.", "unknown"),
        _primary("keytrail.credential.source", "Kind of the strongest evidence, such as `env`.", lambda e: e.kind),
        _primary("keytrail.credential.name", "What it was seen as, such as the variable's name.", lambda e: e.name),
        _secret(
            "namespace", "Namespace of the Secret that it comes from, as the Pod's spec says.", lambda s: s.namespace
        ),
        _secret("name", "Name of that Secret.", lambda s: s.name),
        _secret("key", "Key of that Secret.", lambda s: s.key),
        (
            "keytrail.credential.undeclared",
            "string[]",
            "Variables that neither the Pod's spec nor the container's image gave the process.",
            lambda a: tuple(item.name for item in a.evidence if item.undeclared),
        ),
    ),
)
POD: Final = Group[Pod](
    "Workload, again (a collector on the way may overwrite resource attributes with its own pod's)",
    "record",
    (
        ("keytrail.workload.namespace", "string", "The pod's namespace.", "namespace"),
        ("keytrail.workload.kind", "string", "Such as `Deployment`.", "workload_kind"),
        ("keytrail.workload.name", "string", "The workload's name.", "workload"),
        ("keytrail.workload.pod", "string", "The pod's name.", "name"),
        ("keytrail.workload.container", "string", "The container's name.", "container.name"),
        (
            "keytrail.workload.host_network",
            "boolean",
            "True for a pod that uses the node's network.",
            lambda p: p.host_network or None,
        ),
        (
            "keytrail.service_account.namespace",
            "string",
            "Namespace of the pod's ServiceAccount.",
            lambda p: p.namespace if p.service_account else None,
        ),
        ("keytrail.service_account.name", "string", "Its name.", "service_account"),
    ),
)
THREAD_ID: Final = "keytrail.event.thread_id"
EVENT: Final = Group[Event](
    "Event",
    "record",
    (
        ("keytrail.event.kind", "string", "What it is about, such as `connect`.", "kind"),
        ("keytrail.event.type", "string", "Which message of the agent carried it.", "type"),
        ("keytrail.event.function", "string", "Hooked function or tracepoint.", "function"),
        ("keytrail.event.policy", "string", "TracingPolicy that made it.", "policy"),
        (THREAD_ID, "int", "Thread that acted.", "tid or None"),
        (
            "keytrail.event.time_estimated",
            "boolean",
            "True when the agent gave no time: that of the event before it is used.",
            "time_estimated or None",
        ),
        (
            "keytrail.backfilled",
            "boolean",
            "True when it was missed and found later in the agent's export file.",
            "backfilled or None",
        ),
        ("process.parent_pid", "int", "Parent of the process.", lambda e: e.parent.pid if e.parent else None),
    ),
)
DETAILS: Final = Group[Details](
    "Event, from its hook",
    "record",
    (
        ("keytrail.event.return_value", "int", "What the function returned.", "returned"),
        ("keytrail.event.action", "string", "What the policy made the agent do.", "action"),
        ("keytrail.event.message", "string", "The policy's message.", "message"),
        ("keytrail.event.tags", "string[]", "The policy's tags.", "tags"),
        ("keytrail.library.build_id", "string", "Build id of the library.", "build_id"),
    ),
)
CREDENTIALS: Final = Group[Credentials](
    "Ids and capabilities at exec (agents that report process credentials)",
    "record",
    (
        ("process.real_user.id", "int", "Real user id.", "uid"),
        ("keytrail.process.euid", "int", "Effective user id.", "euid"),
        ("keytrail.process.gid", "int", "Real group id.", "gid"),
        ("keytrail.process.egid", "int", "Effective group id.", "egid"),
        ("keytrail.process.capabilities", "string[]", "Effective set.", "capabilities"),
        ("keytrail.process.raised", "string[]", "How this exec gained privileges.", "raised"),
        (
            "keytrail.process.executable_links",
            "int",
            "Hard links of the executed file; 0 for a deleted file or one that lives in memory only.",
            lambda c: c.inode_links if c.inode_links >= 0 else None,
        ),
    ),
)
NETWORK: Final = Group[Network](
    "Network",
    "record",
    (
        ("network.transport", "string", "`tcp`, `udp`, `unix`, or another protocol's name.", transport),
        ("network.type", "string", "`ipv4` or `ipv6`.", lambda n: _NETWORK_TYPES.get(n.family)),
        ("network.peer.address", "string", "The other end.", "peer_address"),
        ("network.peer.port", "int", "Its port.", "peer_port or None"),
        ("network.local.address", "string", "This end.", "local_address"),
        ("network.local.port", "int", "Its port.", "local_port or None"),
    ),
)
PEER: Final = Group[Peer](
    "The other end of a connection (who has the address now; with Kubernetes)",
    "record",
    (
        (
            "keytrail.peer.kind",
            "string",
            "`pod`, `service`, `node`, `api-server`, `cluster`, `link-local`, `outside`; absent where nobody knows.",
            lambda p: None if p.kind is PeerKind.UNKNOWN else p.kind,
        ),
        ("keytrail.peer.namespace", "string", "Namespace of the pod or Service.", "namespace"),
        ("keytrail.peer.name", "string", "Name of the pod, Service or node.", "name"),
        ("keytrail.peer.service", "string", "Service whose connections go to this pod and port.", "service"),
        ("keytrail.peer.workload.kind", "string", "Such as `Deployment`; where all pods are watched.", "workload_kind"),
        ("keytrail.peer.workload.name", "string", "Name of the pod's workload.", "workload"),
        ("server.address", "string", "Host that the process asked for at this address and port before.", "host"),
        (
            "keytrail.peer.resolved_host",
            "string",
            "Host of a mapping that had the address when it was last resolved; others may have it too.",
            "resolved_host",
        ),
    ),
)
FILE: Final = Group[FileAccess](
    "File",
    "record",
    (
        ("file.path", "string", "The file.", "path"),
        ("file.name", "string", "Its last component.", lambda f: f.path.rpartition("/")[2]),
        ("file.mode", "string", "Octal bits of a chmod.", lambda f: None if f.mode is None else f"{f.mode:04o}"),
        ("keytrail.file.access", "string", "`read`, `write`, `chmod`, `rename`, ...", "access"),
        ("keytrail.file.target", "string", "Other path of a rename or link; name of an xattr.", "target"),
    ),
)
PAYLOAD: Final = Group[Payload](
    "What was recognised in sent data (the data itself is never kept)",
    "record",
    (
        ("server.address", "string", "Host named in TLS or HTTP.", lambda p: p.server_name or host_name(p.http_host)),
        ("network.protocol.name", "string", "`tls`, `http`, `dns`.", "protocol"),
        (
            "http.request.method",
            "string",
            "HTTP method; `_OTHER` for one that is no standard method.",
            lambda p: p.http_method if p.http_method in _HTTP_METHODS else "_OTHER",
        ),
        ("dns.question.name", "string", "Name that was asked for.", "dns_name"),
        ("keytrail.payload.size", "int", "Bytes that were to be sent.", "size or None"),
        ("keytrail.payload.credential", "string", "Pattern of a credential sent in the clear.", "credential"),
    ),
)
OPERATION: Final = Group[Operation](
    "Operation",
    "record",
    (
        ("keytrail.operation.name", "string", "Such as `load`, `setuid`, `SIGKILL`.", "name"),
        ("keytrail.operation.target", "string", "Module, program, path or process.", "target"),
        ("keytrail.operation.target_pid", "int", "Process it was done to.", "target_pid or None"),
        ("keytrail.operation.type", "string", "Type of bpf object or file system.", "type"),
        ("keytrail.operation.ids", "int[]", "Ids of a set*id call; -1 leaves one unchanged.", "ids"),
        ("keytrail.operation.capabilities", "string[]", "Capabilities it is about.", "capabilities"),
        ("keytrail.operation.flags", "int", "Flags of the call.", "flags or None"),
    ),
)
EXIT: Final = Group[Exit](
    "Exit",
    "record",
    (
        ("process.exit.code", "int", "Exit code; absent after a signal.", lambda x: None if x.signal else x.code),
        ("keytrail.process.exit_signal", "string", "Signal that ended it.", "signal"),
        ("keytrail.process.duration", "int", "Nanoseconds from exec to exit.", "duration_ns or None"),
    ),
)

RECORD_UID: Final = "log.record.uid"
RECORD_KIND: Final = "keytrail.record.kind"
RECORD: Final[tuple[tuple[str, str], ...]] = (
    (RECORD_UID, "The same event has the same one again, so that a backend can drop repeats."),
    (RECORD_KIND, "`event`, `finding` or `gap`. Also the record's event name, which some backends drop."),
)
RESOURCE_GROUPS: Final[tuple[Group[Any], ...]] = (HOST, CONTAINER, WORKLOAD)
EVENT_GROUPS: Final[tuple[Group[Any], ...]] = (
    *(EVENT, DETAILS, PROCESS, CREDENTIALS, IDENTITY, POD),
    *(NETWORK, PEER, FILE, PAYLOAD, OPERATION, EXIT),
)
