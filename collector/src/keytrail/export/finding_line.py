"""One finding as one line of JSON, the contract of `--output findings`.

A finding comes in, a line without its newline goes out: ASCII only, with stable keys in the contract's order; a part
that the finding does not have is left out. Knows no rule's meaning and no other format.
"""

import json
from collections.abc import Mapping
from typing import Final

from keytrail.domain.event import Event
from keytrail.domain.finding import Finding
from keytrail.domain.identity import Evidence
from keytrail.domain.peer import Peer, PeerKind
from keytrail.domain.process import Pod
from keytrail.export.output import rfc3339
from keytrail.export.record_uid import finding_digest

_encode = json.JSONEncoder(separators=(",", ":")).encode
_PROTOCOL: Final = "IPPROTO_"


def finding_line(finding: Finding) -> str:
    """Write the finding as JSON, without a newline."""
    spec, event = finding.rule.spec, finding.event
    attribution = event.process.attribution
    primary = None if attribution is None else attribution.primary
    parts: dict[str, object] = {
        "ts": rfc3339(finding.time_ns),
        "rule": finding.rule.name,
        "title": spec.title,
        "severity": spec.severity,
        "maturity": spec.maturity,
        "message": finding.message,
        "uid": finding_digest(finding).hex(),
        "event": _given({"kind": event.kind, "function": event.function}),
        "process": _process(event),
        "identity": None if primary is None or attribution is None else _identity(primary, attribution.evidence),
        "credential": None if primary is None else _given({"source": primary.kind, "name": primary.name}),
        "pod": None if event.process.pod is None else _pod(event.process.pod),
        "network": _network(event),
        "file": _file(event),
        "count": finding.count,
        "steps": [_step(step) for step in finding.steps],
        "suppressed": finding.suppressed,
        "version": finding.version,
    }
    # DEL is the one control character that JSON lets through raw.
    return _encode({name: part for name, part in parts.items() if part}).replace("\x7f", "\\u007f")


def _given(parts: Mapping[str, object]) -> dict[str, object]:
    """Leave out what is absent; 0 and False are values."""
    return {name: value for name, value in parts.items() if value or value == 0}


def _process(event: Event) -> dict[str, object]:
    process, credentials = event.process, event.credentials
    ids = {} if credentials is None else {"euid": credentials.euid, "gid": credentials.gid, "egid": credentials.egid}
    return _given(
        {
            "exec_id": process.exec_id,
            "pid": process.pid,
            "uid": process.uid,
            **ids,
            "binary": process.binary,
            "arguments": process.arguments,
            "cwd": process.cwd,
            "ancestors": [ancestor.binary for ancestor in event.ancestors()],
        }
    )


def _identity(primary: Evidence, evidence: tuple[Evidence, ...]) -> dict[str, object]:
    return _given(
        {
            "id": primary.identity_id,
            "kind": primary.identity_kind,
            "provider": primary.provider,
            "mapping": primary.mapping,
            "strength": str(primary.strength),
            "evidence": [{"type": item.kind, "name": item.name, "id": item.identity_id} for item in evidence],
        }
    )


def _pod(pod: Pod) -> dict[str, object]:
    return _given(
        {
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
            "container": pod.container.name,
            "workload_kind": pod.workload_kind,
            "workload": pod.workload,
            "service_account": pod.service_account,
        }
    )


def _network(event: Event) -> dict[str, object] | None:
    network, payload = event.details.network, event.details.payload
    name = "" if payload is None else payload.server_name or payload.http_host or payload.dns_name
    if network is None:
        return {"server_name": name} if name else None
    peer = event.peer
    parts = {
        "peer_address": network.peer_address,
        "peer_port": network.peer_port or None,
        "local_port": network.local_port or None,
        "protocol": network.protocol.removeprefix(_PROTOCOL).lower(),
        "server_name": name or (peer.host if peer is not None else ""),
        "peer": None if peer is None else _peer(peer),
    }
    return _given(parts)


def _peer(peer: Peer) -> dict[str, object] | None:
    """Who has the peer's address; None where nobody knows."""
    if peer.kind is PeerKind.UNKNOWN:
        return None
    parts = {"kind": peer.kind, "namespace": peer.namespace, "name": peer.name, "service": peer.service}
    return _given(parts)


def _file(event: Event) -> dict[str, object] | None:
    file = event.details.file
    return None if file is None else _given({"path": file.path, "access": file.access})


def _step(event: Event) -> dict[str, object]:
    """An earlier step of a sequence: enough to find its own event."""
    process = event.process
    parts = {
        "ts": rfc3339(event.time_ns),
        "kind": event.kind,
        "function": event.function,
        "exec_id": process.exec_id,
        "pid": process.pid,
        "binary": process.binary,
        "file": _file(event),
        "network": _network(event),
    }
    return _given(parts)
