"""One event as one line of JSON, the contract of `--output json` (docs/telemetry.md).

An event with its attribution comes in, a line without its newline goes out: ASCII only, because arguments, paths and
names are chosen by whoever starts a process, and U+2028, bidi controls or a lone surrogate would act on whatever
shows or parses the line. Built from text fragments: `json.dumps` of a whole line costs several times as much.
"""

import json

from keytrail.domain.event import Event, EventType, FileAccess, Network, Operation, Payload
from keytrail.domain.identity import NO_IDENTITY, Attribution, Evidence, EvidenceKind
from keytrail.domain.process import Pod
from keytrail.export.output import Fragments, ProcessMemo, rfc3339

_encode = json.JSONEncoder(separators=(",", ":")).encode


def _json(value: object) -> str:
    """Compact ASCII JSON. DEL is the one control character that JSON lets through raw."""
    return _encode(value).replace("\x7f", "\\u007f")


def evidence_object(evidence: Evidence) -> dict[str, object]:
    """Say what was seen and which identity it names, in the keys of the contract."""
    if evidence.kind is EvidenceKind.ENV:
        return {"type": "env", "key": evidence.name, "present": True, "id": evidence.identity_id}
    return {"type": evidence.kind, "name": evidence.name, "id": evidence.identity_id}


def identity_object(attribution: Attribution) -> dict[str, object] | None:
    """Make the `identity` of a line: None is "looked and found nothing", `unknown` is "could not look"."""
    primary = attribution.primary
    if primary is None:
        return None if attribution.unknown is None else {"type": "unknown", "reason": attribution.unknown}
    found = evidence_object(primary)
    if primary.mapping or primary.kind is EvidenceKind.ENV:
        # Without a user's mapping a word of a command line or a path is only a hint: it says no kind of credential.
        found |= {"provider": primary.provider} if primary.provider else {}
        found |= {"kind": primary.identity_kind} if primary.identity_kind else {}
    if not primary.mapped:
        found["mapped"] = False
    if primary.mapping:
        found |= {"owner": primary.owner} if primary.owner else {}
        found["mapping"] = primary.mapping
        found["strength"] = str(primary.strength)
        found["evidence"] = [
            {"type": item.kind, "name": item.name, "id": item.identity_id} for item in attribution.evidence
        ]
    return found


def _pod(pod: Pod, node: str) -> str:
    parts = {
        "namespace": pod.namespace,
        "name": pod.name,
        "uid": pod.uid,
        "container": pod.container.name,
        "node": node,
        "workload_kind": pod.workload_kind,
        "workload": pod.workload,
        "service_account": pod.service_account,
    }
    return f',"pod":{_json({key: value for key, value in parts.items() if value})}'


class _Shared(Fragments):
    """What the lines of one process share."""

    __slots__ = ("host", "identity", "pod_object", "process")

    def __init__(self, event: Event) -> None:
        process = event.process
        self.host = _json(event.node)
        self.process = f'"pid":{process.pid},"binary":{_json(process.binary)},"args":{_json(process.arguments)}'
        self.identity = f',"identity":{_json(identity_object(process.attribution or NO_IDENTITY))}'
        self.pod_object = "" if process.pod is None else _pod(process.pod, event.node)
        self.size = len(self.process) + len(self.identity)


_memo = ProcessMemo(_Shared)


def _network(network: Network) -> str:
    return (
        f',"network":{{"saddr":{_json(network.local_address)},"daddr":{_json(network.peer_address)},'
        f'"sport":{network.local_port},"dport":{network.peer_port},'
        f'"family":{_json(network.family)},"protocol":{_json(network.protocol)}}}'
    )


def _file(file: FileAccess) -> str:
    target = f',"target":{_json(file.target)}' if file.target else ""
    mode = "" if file.mode is None else f',"mode":{file.mode}'
    return f',"file":{{"path":{_json(file.path)},"access":{_json(file.access)}{target}{mode}}}'


def _payload(payload: Payload) -> str:
    """What was recognised of what was sent; never its bytes."""
    parts = {"protocol": payload.protocol, "server_name": payload.server_name, "http_method": payload.http_method}
    parts |= {"http_host": payload.http_host, "dns_name": payload.dns_name, "credential": payload.credential}
    known = "".join(f',"{name}":{_json(value)}' for name, value in parts.items() if value)
    return f',"payload":{{"size":{payload.size}{known}}}'


def _operation(operation: Operation, returned: int | None) -> str:
    parts: dict[str, object] = {"target": operation.target, "target_pid": operation.target_pid, "type": operation.type}
    parts |= {"ids": operation.ids, "capabilities": operation.capabilities, "flags": operation.flags}
    known = "".join(f',"{name}":{_json(value)}' for name, value in parts.items() if value)
    result = "" if returned is None else f',"returned":{returned}'
    return f',"operation":{{"name":{_json(operation.name)}{known}{result}}}'


def _subject(event: Event) -> str:
    """Where the event went: the parts that follow the identity."""
    details = event.details
    return "".join(
        (
            "" if details.file is None else _file(details.file),
            "" if details.network is None else _network(details.network),
            "" if details.payload is None else _payload(details.payload),
            "" if details.operation is None else _operation(details.operation, details.returned),
        )
    )


def _exit(event: Event) -> str:
    end = event.details.exit
    if end is None:
        return ""
    # A process that a signal ended has no exit code: the agent leaves the field at 0, which would read as success.
    return f',"exit":{{"signal":{_json(end.signal)}}}' if end.signal else f',"exit":{{"code":{end.code}}}'


def event_line(event: Event) -> str:
    """Write the event as JSON, without a newline."""
    shared = _memo.of(event)
    host, process, identity, pod = shared.host, shared.process, shared.identity, shared.pod_object
    stamp = rfc3339(event.time_ns)
    end = f"{pod}}}"
    if event.time_estimated or event.backfilled:
        marks = (("time_estimated", event.time_estimated), ("backfilled", event.backfilled))
        end = "".join(f',"{name}":true' for name, is_so in marks if is_so) + end
    if event.type is EventType.KPROBE:
        return (
            f'{{"ts":"{stamp}","category":"kprobe","hostname":{host},"event":{_json("kprobe:" + event.function)},'
            f"{process}{identity}{_subject(event)}{end}"
        )
    if event.type is EventType.EXEC:
        up = event.parent
        parent = "" if up is None else f',"parent":{{"pid":{up.pid},"binary":{_json(up.binary)}}}'
        return (
            f'{{"ts":"{stamp}","category":"exec","hostname":{host},"event":"process_exec",'
            f"{process}{parent}{identity}{end}"
        )
    function = f'"function":{_json(event.function)},' if event.function else ""
    return (
        f'{{"ts":"{stamp}","category":"other","hostname":{host},"event":"other","kind":{_json(event.kind)},'
        f"{function}{process}{identity}{_subject(event)}{_exit(event)}{end}"
    )
