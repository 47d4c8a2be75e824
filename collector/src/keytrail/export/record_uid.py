"""The uid of a record: the same event or finding has the same one again, so that a backend can drop repeats.

Events and findings come in, digests go out. It is made of what the record is about, never of when or by which collector
it was made. Knows no format.
"""

from hashlib import blake2b

from keytrail.domain.event import NO_DETAILS, Details, Event
from keytrail.domain.finding import Finding
from keytrail.domain.identity import NO_IDENTITY, Attribution

_BLANK = blake2b(digest_size=16)
"""Copied for each digest: making one anew costs half as much again, in reading its arguments."""
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
    made = _BLANK.copy()
    made.update(key + text.encode())
    return made.digest()


def _identity(attribution: Attribution) -> str:
    known = _identities.get(id(attribution))
    if known is None:
        unknown = [] if attribution.unknown is None else [(attribution.unknown.value,)]
        items = [(item.kind.value, item.name, item.identity_id, item.mapping) for item in attribution.evidence]
        if len(_identities) >= _IDENTITIES:
            _identities.clear()
        known = _identities[id(attribution)] = (attribution, repr((*unknown, *items)))
    return known[1]


def _particulars(details: Details) -> str:
    """Collect what tells events of one call apart: the repr of a tuple, which takes a third of the time this way.

    Never `arguments`: a digest of what a process wrote or sent would confirm a guess at it.
    """
    text = f"({details.returned!r}, {details.build_id!r}, {details.action!r}"
    if (n := details.network) is not None:
        text = (
            f"{text}, {n.family!r}, {n.protocol!r}, {n.local_address!r}, {n.local_port!r}, {n.peer_address!r},"
            f" {n.peer_port!r}, {n.cookie!r}"
        )
    if (f := details.file) is not None:
        text = f"{text}, 'file', {f.path!r}, {f.access!r}, {f.mode!r}, {f.target!r}"
    if (p := details.payload) is not None:
        text = (
            f"{text}, 'payload', {p.size!r}, {p.protocol!r}, {p.server_name!r}, {p.http_method!r}, {p.http_host!r},"
            f" {p.dns_name!r}, {p.credential!r}"
        )
    if (o := details.operation) is not None:
        text = (
            f"{text}, 'operation', {o.name!r}, {o.target!r}, {o.target_pid!r}, {o.type!r}, {o.ids!r},"
            f" {o.capabilities!r}, {o.flags!r}"
        )
    if (x := details.exit) is not None:
        text = f"{text}, 'exit', {x.code!r}, {x.signal!r}, {x.duration_ns!r}"
    return f"{text})"


_NOTHING_PARTICULAR = _particulars(NO_DETAILS)


def call_text(event: Event) -> str:
    """What events of one kind from one hook share; to be kept by whoever digests many of them."""
    return repr((event.kind.value, event.type.value, event.function, event.policy))


def process_digest(event: Event) -> bytes:
    """Digest of the process image of an event and its identity: the part that its events share."""
    process = event.process
    image = f"({event.node!r}, {process.exec_id!r}, {process.pid!r}, {process.arguments!r})"
    return _digest(f"{image}{_identity(process.attribution or NO_IDENTITY)}", b"")


def event_digest(event: Event, process: bytes, tid: int, call: str) -> bytes:
    """Digest of an event. `process` is its `process_digest`, `call` its `call_text`, `tid` its thread: all are dear."""
    details = event.details
    particulars = _NOTHING_PARTICULAR if details is NO_DETAILS else _particulars(details)
    return _digest(f"{call}{tid},{event.time_ns}{particulars}", process)


def finding_digest(finding: Finding, event: bytes | None = None) -> bytes:
    """Digest of a finding: its event, its rule, and of a summary what it sums up. `event` is its event's, if known."""
    if event is None:
        about = finding.event
        event = event_digest(about, process_digest(about), about.tid, call_text(about))
    return digest(("finding", finding.rule.name, finding.version, finding.suppressed, finding.until_ns), event)
