"""What a record must say: attribute names and values written down once more, straight from the domain objects."""

from collections.abc import Mapping, Sequence

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from export.any_event import SeenEvent
from keytrail.domain.event import Details, Event, EventKind
from keytrail.domain.identity import Attribution
from keytrail.domain.process import Pod, Process
from keytrail.export.otlp_encode import RecordEncoder

OBSERVED = 1_800_000_000_000_000_000
SELF = {"service.name": "keytrail", "host.name": "own-host", "k8s.pod.name": "own-pod", "deployment.environment": "x"}


def encoder() -> RecordEncoder:
    """Make an encoder with a clock that stands."""
    return RecordEncoder(SELF, lambda: OBSERVED)


def parse(values: Sequence[KeyValue]) -> dict[str, object]:
    """Turn attributes into plain values; a name that comes twice fails."""
    plain = {item.key: _plain(item.value) for item in values}
    assert len(plain) == len(values)
    return plain


def _plain(value: AnyValue) -> object:
    which = value.WhichOneof("value")
    assert which is not None
    if which == "array_value":
        return [_plain(item) for item in value.array_value.values]
    return getattr(value, which)


def record_of(event: Event) -> tuple[LogRecord, dict[str, object]]:
    """Encode an event and parse it back."""
    record = LogRecord.FromString(encoder().encode(event)[1])
    return record, parse(record.attributes)


def clean(value: object) -> object:
    """Say what is left of a value on its way through protobuf: no lone surrogates, integers of 64 bits, lists."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return (value + 2**63) % 2**64 - 2**63
    assert isinstance(value, tuple)
    return [clean(item) for item in value]


def present(values: Mapping[str, object]) -> dict[str, object]:
    """Leave out what is None or empty."""
    return {name: clean(value) for name, value in values.items() if value not in (None, "", ())}


def expected_process(process: Process) -> dict[str, object]:
    """Attributes of the process, without its creation time."""
    partial = process.pod is None and bool(process.container_id)
    return {
        "process.pid": process.pid,
        "process.executable.path": process.binary,
        "process.executable.name": process.binary.split("/")[-1],
        "process.command_line": f"{process.binary} {process.arguments}" if process.arguments else process.binary,
        "process.working_directory": process.cwd,
        "process.user.id": process.uid,
        "keytrail.process.exec_id": process.exec_id,
        "keytrail.process.parent_exec_id": process.parent_exec_id,
        "keytrail.process.auid": None if process.auid < 0 else process.auid,
        "keytrail.process.in_init_tree": process.in_init_tree,
        "keytrail.process.flags": process.flags,
        "keytrail.process.truncated": True if "<enomem>" in (process.cwd, process.binary) else None,
        "keytrail.process.argument_credentials": process.argument_credentials,
        "keytrail.enrichment": "partial" if partial else "full",
        "keytrail.enrichment_reason": "pod_unknown" if partial else None,
    }


def expected_identity(attribution: Attribution) -> dict[str, object]:
    """Attributes of the identity."""
    if not attribution.evidence:
        return {"keytrail.identity.unknown": attribution.unknown and attribution.unknown.value}
    first = attribution.evidence[0]
    return {
        "keytrail.identity.id": first.identity_id,
        "keytrail.identity.kind": first.identity_kind,
        "keytrail.identity.provider": first.provider,
        "keytrail.identity.owner": first.owner,
        "keytrail.identity.mapping": first.mapping,
        "keytrail.identity.strength": first.strength.name.lower(),
        "keytrail.identity.mapped": first.mapped,
        "keytrail.identity.evidence": tuple(f"{e.kind.value}:{e.name}:{e.identity_id}" for e in attribution.evidence),
        "keytrail.credential.source": first.kind.value,
        "keytrail.credential.name": first.name,
    }


def expected_pod(pod: Pod | None) -> dict[str, object]:
    """Attributes that repeat the workload on the record."""
    if pod is None:
        return {}
    return {
        "keytrail.workload.namespace": pod.namespace,
        "keytrail.workload.kind": pod.workload_kind,
        "keytrail.workload.name": pod.workload,
        "keytrail.workload.pod": pod.name,
        "keytrail.workload.container": pod.container.name,
        "keytrail.service_account.namespace": pod.namespace if pod.service_account else None,
        "keytrail.service_account.name": pod.service_account,
    }


def expected_event(event: SeenEvent) -> dict[str, object]:
    """Attributes of the event itself and of its hook."""
    details = event.seen
    values: dict[str, object] = {
        "keytrail.record.kind": "event",
        "keytrail.event.kind": event.kind.value,
        "keytrail.event.type": event.type.value,
        "keytrail.event.function": event.function,
        "keytrail.event.policy": event.policy,
        "keytrail.event.thread_id": event.tid or None,
        "keytrail.event.time_estimated": True if event.time_estimated else None,
        "process.parent_pid": None if event.parent is None else event.parent.pid,
        "keytrail.event.return_value": details.returned,
        "keytrail.event.action": details.action,
        "keytrail.event.message": details.message,
        "keytrail.event.tags": details.tags,
        "keytrail.library.build_id": details.build_id,
    }
    if event.raised is not None and event.kind in {EventKind.EXEC, EventKind.PRIVILEGE}:
        values |= {
            "process.real_user.id": event.raised.uid,
            "keytrail.process.euid": event.raised.euid,
            "keytrail.process.gid": event.raised.gid,
            "keytrail.process.egid": event.raised.egid,
            "keytrail.process.capabilities": event.raised.capabilities,
            "keytrail.process.raised": event.raised.raised,
            "keytrail.process.executable_links": None if event.raised.inode_links < 0 else event.raised.inode_links,
        }
    return values


def expected_details(details: Details) -> dict[str, object]:
    """Attributes of what the event was done to."""
    values: dict[str, object] = {}
    if (network := details.network) is not None:
        transports = {"IPPROTO_TCP": "tcp", "IPPROTO_UDP": "udp", "IPPROTO_ICMP": "icmp", "": ""}
        values |= {
            "network.transport": "unix" if network.family == "AF_UNIX" else transports[network.protocol],
            "network.type": {"AF_INET": "ipv4", "AF_INET6": "ipv6"}.get(network.family),
            "network.peer.address": network.peer_address,
            "network.peer.port": network.peer_port or None,
            "network.local.address": network.local_address,
            "network.local.port": network.local_port or None,
        }
    if (file := details.file) is not None:
        values |= {
            "file.path": file.path,
            "file.name": file.path.split("/")[-1],
            "file.mode": None if file.mode is None else f"{file.mode:o}".zfill(4),
            "keytrail.file.access": file.access,
            "keytrail.file.target": file.target,
        }
    if (payload := details.payload) is not None:
        values |= {
            "server.address": payload.server_name or payload.http_host,
            "network.protocol.name": payload.protocol,
            "http.request.method": {"GET": "GET", "": ""}.get(payload.http_method, "_OTHER"),
            "dns.question.name": payload.dns_name,
            "keytrail.payload.size": payload.size or None,
            "keytrail.payload.credential": payload.credential,
        }
    if (operation := details.operation) is not None:
        values |= {
            "keytrail.operation.name": operation.name,
            "keytrail.operation.target": operation.target,
            "keytrail.operation.target_pid": operation.target_pid or None,
            "keytrail.operation.type": operation.type,
            "keytrail.operation.ids": operation.ids,
            "keytrail.operation.capabilities": operation.capabilities,
            "keytrail.operation.flags": operation.flags or None,
        }
    if (end := details.exit) is not None:
        values |= {
            "process.exit.code": None if end.signal else end.code,
            "keytrail.process.exit_signal": end.signal,
            "keytrail.process.duration": end.duration_ns or None,
        }
    return values


def expected_resource(event: SeenEvent) -> dict[str, object]:
    """Attributes of the resource: our own, less what would be taken for the observed pod."""
    pod = event.process.pod
    values: dict[str, object] = {
        "service.name": "keytrail",
        "deployment.environment": "x",
        "host.name": event.node or "own-host",
        "container.id": (pod.container.id if pod is not None else "") or event.process.container_id,
    }
    if pod is not None:
        values |= {
            "k8s.node.name": event.node,
            "k8s.namespace.name": pod.namespace,
            "k8s.pod.name": pod.name,
            "k8s.pod.uid": pod.uid,
            "k8s.container.name": pod.container.name,
            "container.image.name": "team/app" if pod.container.image else "",
            "container.image.tags": ("1.2",) if pod.container.image else (),
            "container.image.id": pod.container.image_id,
        }
        if pod.workload_kind in {"Deployment", "CronJob"}:
            values[f"k8s.{pod.workload_kind.lower()}.name"] = pod.workload
    return values
