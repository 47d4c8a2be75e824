"""The uid of a record: the same event or finding has the same one again, so that a backend can drop repeats.

Events and findings come in, digests go out. It is made of what the record is about, never of when or by which collector
it was made. Knows no format.
"""

from hashlib import blake2b

from keytrail.domain.event import NO_DETAILS, Details, Event
from keytrail.domain.finding import Finding
from keytrail.domain.identity import NO_IDENTITY, Attribution

_CALLS = 4096
_calls: dict[tuple[int, int, str, str], str] = {}
"""What events of one kind from one hook share, by ids of the two enumerations' members, whose hash is slow."""
_IDENTITIES = 1024
_identities: dict[int, tuple[Attribution, str]] = {}
"""What an attribution adds, by its id; the attribution is kept, so that the id stays its own."""


def digest(parts: tuple[object, ...], key: bytes = b"") -> bytes:
    """16 bytes of plain values."""
    # repr of a tuple of plain values is injective: text that holds separators cannot make two events look like one,
    # which would let a process choose the uid of its event and have a backend drop it as a repeat.
    return _digest(repr(parts), key)


def _digest(text: str, key: bytes) -> bytes:
    # The key is a digest or nothing, so that it ends where it ends; as blake2b's own key it would cost a block more.
    # repr has escaped lone surrogates, which UTF-8 cannot hold.
    return blake2b(key + text.encode(), digest_size=16).digest()


def _identity(attribution: Attribution) -> str:
    known = _identities.get(id(attribution))
    if known is None:
        unknown = [] if attribution.unknown is None else [(attribution.unknown.value,)]
        items = [(item.kind.value, item.name, item.identity_id, item.mapping) for item in attribution.evidence]
        if len(_identities) >= _IDENTITIES:
            _identities.clear()
        known = _identities[id(attribution)] = (attribution, repr((*unknown, *items)))
    return known[1]


def _particulars(details: Details) -> tuple[object, ...]:
    """Collect what tells events of one call apart.

    Never `arguments`: a digest of what a process wrote or sent would confirm a guess at it.
    """
    parts: tuple[object, ...] = (details.returned, details.build_id, details.action)
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


_NOTHING_PARTICULAR = repr(_particulars(NO_DETAILS))


def _call(event: Event) -> str:
    key = (id(event.kind), id(event.type), event.function, event.policy)
    known = _calls.get(key)
    if known is None:
        if len(_calls) >= _CALLS:
            _calls.clear()
        known = _calls[key] = repr((event.kind.value, event.type.value, event.function, event.policy))
    return known


def process_digest(event: Event) -> bytes:
    """Digest of the process image of an event and its identity: the part that its events share."""
    process = event.process
    attribution = process.attribution or NO_IDENTITY
    image = (event.node, process.exec_id, process.pid, process.arguments)
    return _digest(f"{image!r}{_identity(attribution)}", b"")


def event_digest(event: Event, process: bytes, tid: int) -> bytes:
    """Digest of an event; `process` is its `process_digest`, `tid` its thread: dear to ask for, and known by then."""
    details = event.details
    particulars = _NOTHING_PARTICULAR if details is NO_DETAILS else repr(_particulars(details))
    return _digest(f"{_call(event)}{tid},{event.time_ns}{particulars}", process)


def finding_digest(finding: Finding, event: bytes | None = None) -> bytes:
    """Digest of a finding: its event, its rule, and of a summary what it sums up. `event` is its event's, if known."""
    if event is None:
        event = event_digest(finding.event, process_digest(finding.event), finding.event.tid)
    return digest(("finding", finding.rule.name, finding.version, finding.suppressed, finding.until_ns), event)
