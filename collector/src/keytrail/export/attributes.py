"""Every attribute that Keytrail's OTLP records carry: its name, its type, what it means and where its value comes from.

Domain objects come in, plain values go out; an absent value (None, an empty text or list) is no attribute. The encoder
writes exactly these tables and docs/telemetry.md is made from them, so neither can name an attribute that the other
does not. Names are those of OpenTelemetry's semantic conventions 1.44 where they have one, else under `keytrail.`.

What a process wrote or sent (`Event.arguments`) has no attribute, on purpose: it may hold a credential.
`python -m keytrail.export.attributes docs/telemetry.md` renews the tables of the documentation.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

from keytrail.domain.event import Credentials, Details, Event, Exit, FileAccess, Network, Operation, Payload
from keytrail.domain.identity import Attribution, Evidence
from keytrail.domain.process import Pod, Process
from keytrail.export.otlp_wire import ValueType
from keytrail.export.output import rfc3339

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
_BEGIN, _END = "<!-- attributes: begin -->", "<!-- attributes: end -->"

Value = str | int | bool | tuple[str, ...] | tuple[int, ...] | None
S = TypeVar("S")
Row = tuple[str, ValueType, str, Callable[[S], Value]]
"""Name, type, meaning, and how the value is got from a source `S`."""


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


def image_name(image: str) -> str:
    """`registry:5000/team/app` of `registry:5000/team/app:1.2@sha256:...`."""
    reference = image.partition("@")[0]
    name, colon, tag = reference.rpartition(":")
    # A colon before a slash is a registry's port.
    return name if colon and "/" not in tag else reference


def image_tags(image: str) -> tuple[str, ...]:
    """`("1.2",)` of `registry:5000/team/app:1.2`; a digest is no tag."""
    tag = image.partition("@")[0][len(image_name(image)) + 1 :]
    return (tag,) if tag else ()


def host_name(host: str) -> str:
    """Cut the port off an HTTP Host header: `server.address` never has one. IPv6 hosts are in brackets there."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and (":" not in name or name.endswith("]")) else host


def transport(network: Network) -> str:
    """`tcp`, `udp`, `unix`, or whatever else the kernel calls the protocol."""
    return "unix" if network.family == "AF_UNIX" else network.protocol.removeprefix("IPPROTO_").lower()


def evidence_text(evidence: Evidence) -> str:
    """`env:OPENAI_API_KEY:openai-prod`: kind, name, identity."""
    return f"{evidence.kind}:{evidence.name}:{evidence.identity_id}"


def command_line(process: Process) -> str:
    """Binary and redacted arguments."""
    return f"{process.binary} {process.arguments}" if process.arguments else process.binary


def _pod_unknown(process: Process) -> bool:
    return process.pod is None and process.container_id != ""


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
        ("host.name", "string", "Node name as the agent reports it.", lambda s: s.node),
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
        ("k8s.namespace.name", "string", "The pod's namespace.", lambda p: p.namespace),
        ("k8s.pod.name", "string", "The pod.", lambda p: p.name),
        ("k8s.pod.uid", "string", "The pod's uid.", lambda p: p.uid),
        ("k8s.container.name", "string", "The container in the pod.", lambda p: p.container.name),
        *map(_workload, _WORKLOADS),
        ("container.image.name", "string", "Image without its tag.", lambda p: image_name(p.container.image)),
        ("container.image.tags", "string[]", "The image's tag.", lambda p: image_tags(p.container.image)),
        ("container.image.id", "string", "Image id.", lambda p: p.container.image_id),
    ),
)
PROCESS: Final = Group[Process](
    "Process",
    "record",
    (
        ("process.pid", "int", "Process id in the host's pid namespace.", lambda p: p.pid),
        ("process.executable.path", "string", "Path as executed, symlinks kept.", lambda p: p.binary),
        ("process.executable.name", "string", "Its last component.", lambda p: p.name),
        ("process.command_line", "string", "Path and redacted arguments; cannot be split safely.", command_line),
        ("process.working_directory", "string", "Working directory at exec.", lambda p: p.cwd),
        ("process.user.id", "int", "Effective user id at exec.", lambda p: p.uid if p.uid >= 0 else None),
        (
            "process.creation.time",
            "string",
            "Start of this image, ISO 8601 in UTC.",
            lambda p: rfc3339(p.start_ns) if p.start_ns else None,
        ),
        ("keytrail.process.exec_id", "string", "The agent's id of this process image.", lambda p: p.exec_id),
        ("keytrail.process.parent_exec_id", "string", "That of its parent image.", lambda p: p.parent_exec_id),
        ("keytrail.process.auid", "int", "Login user id.", lambda p: p.auid if p.auid >= 0 else None),
        ("keytrail.process.in_init_tree", "boolean", "Started from inside its container.", lambda p: p.in_init_tree),
        ("keytrail.process.flags", "string", "The agent's flags of the exec.", lambda p: p.flags),
        (
            "keytrail.process.truncated",
            "boolean",
            "True when the kernel could not read command line or environment: padding can hide both.",
            lambda p: p.truncated or None,
        ),
        (
            "keytrail.process.argument_credentials",
            "string[]",
            "Names of the credential patterns that were redacted on the command line.",
            lambda p: p.argument_credentials,
        ),
        (
            "keytrail.enrichment",
            "string",
            "`full`, or `partial` when something about the workload is not known.",
            lambda p: "partial" if _pod_unknown(p) else "full",
        ),
        (
            "keytrail.enrichment_reason",
            "string",
            "Why it is partial: `pod_unknown` for a container without a pod.",
            lambda p: "pod_unknown" if _pod_unknown(p) else None,
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
        ("keytrail.identity.unknown", "string", "Why nobody could look, such as `not_captured`.", lambda a: a.unknown),
        _primary("keytrail.credential.source", "Kind of the strongest evidence, such as `env`.", lambda e: e.kind),
        _primary("keytrail.credential.name", "What it was seen as, such as the variable's name.", lambda e: e.name),
    ),
)
POD: Final = Group[Pod](
    "Workload, again (a collector on the way may overwrite resource attributes with its own pod's)",
    "record",
    (
        ("keytrail.workload.namespace", "string", "The pod's namespace.", lambda p: p.namespace),
        ("keytrail.workload.kind", "string", "Such as `Deployment`.", lambda p: p.workload_kind),
        ("keytrail.workload.name", "string", "The workload's name.", lambda p: p.workload),
        ("keytrail.workload.pod", "string", "The pod's name.", lambda p: p.name),
        ("keytrail.workload.container", "string", "The container's name.", lambda p: p.container.name),
        (
            "keytrail.service_account.namespace",
            "string",
            "Namespace of the pod's ServiceAccount.",
            lambda p: p.namespace if p.service_account else None,
        ),
        ("keytrail.service_account.name", "string", "Its name.", lambda p: p.service_account),
    ),
)
EVENT: Final = Group[Event](
    "Event",
    "record",
    (
        ("keytrail.event.kind", "string", "What it is about, such as `connect`.", lambda e: e.kind),
        ("keytrail.event.type", "string", "Which message of the agent carried it.", lambda e: e.type),
        ("keytrail.event.function", "string", "Hooked function or tracepoint.", lambda e: e.function),
        ("keytrail.event.policy", "string", "TracingPolicy that made it.", lambda e: e.policy),
        ("keytrail.event.thread_id", "int", "Thread that acted.", lambda e: e.tid or None),
        (
            "keytrail.event.time_estimated",
            "boolean",
            "True when the agent gave no time: that of the event before it is used.",
            lambda e: e.time_estimated or None,
        ),
        ("process.parent_pid", "int", "Parent of the process.", lambda e: e.parent.pid if e.parent else None),
    ),
)
DETAILS: Final = Group[Details](
    "Event, from its hook",
    "record",
    (
        ("keytrail.event.return_value", "int", "What the function returned.", lambda d: d.returned),
        ("keytrail.event.action", "string", "What the policy made the agent do.", lambda d: d.action),
        ("keytrail.event.message", "string", "The policy's message.", lambda d: d.message),
        ("keytrail.event.tags", "string[]", "The policy's tags.", lambda d: d.tags),
        ("keytrail.library.build_id", "string", "Build id of the library.", lambda d: d.build_id),
    ),
)
CREDENTIALS: Final = Group[Credentials](
    "Ids and capabilities at exec (agents that report process credentials)",
    "record",
    (
        ("process.real_user.id", "int", "Real user id.", lambda c: c.uid),
        ("keytrail.process.euid", "int", "Effective user id.", lambda c: c.euid),
        ("keytrail.process.gid", "int", "Real group id.", lambda c: c.gid),
        ("keytrail.process.egid", "int", "Effective group id.", lambda c: c.egid),
        ("keytrail.process.capabilities", "string[]", "Effective set.", lambda c: c.capabilities),
        ("keytrail.process.raised", "string[]", "How this exec gained privileges.", lambda c: c.raised),
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
        ("network.peer.address", "string", "The other end.", lambda n: n.peer_address),
        ("network.peer.port", "int", "Its port.", lambda n: n.peer_port or None),
        ("network.local.address", "string", "This end.", lambda n: n.local_address),
        ("network.local.port", "int", "Its port.", lambda n: n.local_port or None),
    ),
)
FILE: Final = Group[FileAccess](
    "File",
    "record",
    (
        ("file.path", "string", "The file.", lambda f: f.path),
        ("file.name", "string", "Its last component.", lambda f: f.path.rpartition("/")[2]),
        ("file.mode", "string", "Octal bits of a chmod.", lambda f: None if f.mode is None else f"{f.mode:04o}"),
        ("keytrail.file.access", "string", "`read`, `write`, `chmod`, `rename`, ...", lambda f: f.access),
        ("keytrail.file.target", "string", "Other path of a rename or link; name of an xattr.", lambda f: f.target),
    ),
)
PAYLOAD: Final = Group[Payload](
    "What was recognised in sent data (the data itself is never kept)",
    "record",
    (
        ("server.address", "string", "Host named in TLS or HTTP.", lambda p: p.server_name or host_name(p.http_host)),
        ("network.protocol.name", "string", "`tls`, `http`, `dns`.", lambda p: p.protocol),
        (
            "http.request.method",
            "string",
            "HTTP method; `_OTHER` for one that is no standard method.",
            lambda p: p.http_method if p.http_method in _HTTP_METHODS else "_OTHER",
        ),
        ("dns.question.name", "string", "Name that was asked for.", lambda p: p.dns_name),
        ("keytrail.payload.size", "int", "Bytes that were to be sent.", lambda p: p.size or None),
        (
            "keytrail.payload.credential",
            "string",
            "Pattern of a credential sent in plain text.",
            lambda p: p.credential,
        ),
    ),
)
OPERATION: Final = Group[Operation](
    "Operation",
    "record",
    (
        ("keytrail.operation.name", "string", "Such as `load`, `setuid`, `SIGKILL`.", lambda o: o.name),
        ("keytrail.operation.target", "string", "Module, program, path or process.", lambda o: o.target),
        ("keytrail.operation.target_pid", "int", "Process it was done to.", lambda o: o.target_pid or None),
        ("keytrail.operation.type", "string", "Type of bpf object or file system.", lambda o: o.type),
        ("keytrail.operation.ids", "int[]", "Ids of a set*id call; -1 leaves one unchanged.", lambda o: o.ids),
        ("keytrail.operation.capabilities", "string[]", "Capabilities it is about.", lambda o: o.capabilities),
        ("keytrail.operation.flags", "int", "Flags of the call.", lambda o: o.flags or None),
    ),
)
EXIT: Final = Group[Exit](
    "Exit",
    "record",
    (
        ("process.exit.code", "int", "Exit code; absent after a signal.", lambda x: None if x.signal else x.code),
        ("keytrail.process.exit_signal", "string", "Signal that ended it.", lambda x: x.signal),
        ("keytrail.process.duration", "int", "Nanoseconds from exec to exit.", lambda x: x.duration_ns or None),
    ),
)

RECORD_UID: Final = "log.record.uid"
RECORD_KIND: Final = "keytrail.record.kind"
RECORD: Final[tuple[tuple[str, str], ...]] = (
    (RECORD_UID, "The same event has the same one again, so that a backend can drop repeats."),
    (RECORD_KIND, "`event`. Also the record's event name, which some backends drop."),
)
RESOURCE_GROUPS: Final[tuple[Group[Any], ...]] = (HOST, CONTAINER, WORKLOAD)
RECORD_GROUPS: Final[tuple[Group[Any], ...]] = (
    *(EVENT, DETAILS, PROCESS, CREDENTIALS, IDENTITY, POD),
    *(NETWORK, FILE, PAYLOAD, OPERATION, EXIT),
)


def declared() -> dict[str, ValueType]:
    """Names and types of all attributes."""
    named: dict[str, ValueType] = {name: "string" for name, _ in (*COLLECTOR, *RECORD)}
    return named | {name: type_ for group in (*RESOURCE_GROUPS, *RECORD_GROUPS) for name, type_, _, _ in group.rows}


def _table(title: str, where: str, rows: Iterable[tuple[str, str, str]]) -> str:
    head = f"### {title} ({where})\n\n| attribute | type | meaning |\n| --- | --- | --- |\n"
    return head + "".join(f"| `{name}` | {type_} | {meaning} |\n" for name, type_, meaning in rows)


def markdown() -> str:
    """All attributes as the tables of docs/telemetry.md."""
    return "\n".join(
        (
            _table("Collector", "resource", [(name, "string", meaning) for name, meaning in COLLECTOR]),
            _table("Record", "record", [(name, "string", meaning) for name, meaning in RECORD]),
            *(
                _table(group.title, group.where, [(name, type_, meaning) for name, type_, meaning, _ in group.rows])
                for group in RESOURCE_GROUPS + RECORD_GROUPS
            ),
        )
    )


def renewed(document: str) -> str:
    """Make the tables between the document's two marks anew."""
    before, _, rest = document.partition(_BEGIN)
    return f"{before}{_BEGIN}\n{markdown()}{_END}{rest.partition(_END)[2]}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text("utf-8")), "utf-8")
