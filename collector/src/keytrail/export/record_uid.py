"""The uid of a record: the same event or finding has the same one again, so that a backend can drop repeats.

Events and findings come in, digests go out. It is made of what the record is about, never of when or by which collector
it was made. Knows no format.
"""

from hashlib import blake2b

from keytrail.domain.event import Details, Event
from keytrail.domain.finding import Finding
from keytrail.domain.identity import NO_IDENTITY, Attribution


def digest(parts: tuple[object, ...], key: bytes = b"") -> bytes:
    """16 bytes of plain values."""
    # repr of a tuple of plain values is injective: text that holds separators cannot make two events look like one,
    # which would let a process choose the uid of its event and have a backend drop it as a repeat.
    return blake2b(repr(parts).encode("utf-8", "backslashreplace"), digest_size=16, key=key).digest()


def _identity_parts(attribution: Attribution) -> list[tuple[str, ...]]:
    unknown = [] if attribution.unknown is None else [(attribution.unknown.value,)]
    return unknown + [(item.kind.value, item.name, item.identity_id, item.mapping) for item in attribution.evidence]


def _particulars(details: Details) -> list[object]:
    """Collect what tells events of one call apart.

    Never `arguments`: a digest of what a process wrote or sent would confirm a guess at it.
    """
    parts: list[object] = [details.returned, details.build_id, details.action]
    if (n := details.network) is not None:
        parts += (n.family, n.protocol, n.local_address, n.local_port, n.peer_address, n.peer_port, n.cookie)
    if (f := details.file) is not None:
        parts += ("file", f.path, f.access, f.mode, f.target)
    if (p := details.payload) is not None:
        parts += ("payload", p.size, p.protocol, p.server_name, p.http_method, p.http_host, p.dns_name, p.credential)
    if (o := details.operation) is not None:
        parts += ("operation", o.name, o.target, o.target_pid, o.type, o.ids, o.capabilities, o.flags)
    if (x := details.exit) is not None:
        parts += ("exit", x.code, x.signal, x.duration_ns)
    return parts


def process_digest(event: Event) -> bytes:
    """Digest of the process image of an event and its identity: the part that its events share."""
    process = event.process
    attribution = process.attribution or NO_IDENTITY
    return digest((event.node, process.exec_id, process.pid, process.arguments, _identity_parts(attribution)))


def event_digest(event: Event, process: bytes) -> bytes:
    """Digest of an event; `process` is its `process_digest`."""
    call = (event.kind.value, event.type.value, event.function, event.policy, event.tid, event.time_ns)
    return digest((*call, *_particulars(event.details)), process)


def finding_digest(finding: Finding) -> bytes:
    """Digest of a finding: its event, its rule, and of a summary what it sums up."""
    event = event_digest(finding.event, process_digest(finding.event))
    return digest(("finding", finding.rule.name, finding.version, finding.suppressed, finding.until_ns), event)
