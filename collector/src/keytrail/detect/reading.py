"""What the sources of the environment's fields call: domain objects in, values that are never None out.

Absent parts are stood in for by empty objects, so that a condition needs no case for them and a field of theirs has its
type's default. Knows no rule. Everything here runs once an event at most, and only when a rule reaches it.
"""

import itertools
from typing import Final

from keytrail.domain.allowed import violations
from keytrail.domain.event import Credentials, Event, Exit, FileAccess, Network, Operation, Payload
from keytrail.domain.identity import NO_IDENTITY, Evidence, EvidenceKind
from keytrail.domain.peer import Peer, PeerKind
from keytrail.domain.process import Pod, Process

NO_PROCESS: Final = Process("")
NO_POD: Final = Pod("", "")
NO_NETWORK: Final = Network()
NO_FILE: Final = FileAccess("", "")
NO_PAYLOAD: Final = Payload()
NO_OPERATION: Final = Operation("")
NO_EXIT: Final = Exit()
NO_CREDENTIALS: Final = Credentials(0, 0, 0, 0)
NO_PEER: Final = Peer(PeerKind.UNKNOWN)
NO_EVIDENCE: Final = Evidence(EvidenceKind.ENV, "", "")
_ANCESTORS: Final = 32
_EVIDENCE: Final = 64
_ARGUMENT: Final = 65_536


def ancestors(event: Event) -> tuple[Process, ...]:
    """Parent first; capped, as a fork bomb could make them thousands deep."""
    return tuple(itertools.islice(event.ancestors(), _ANCESTORS))


def primary(event: Event) -> Evidence:
    """The evidence that names the primary identity."""
    attribution = event.process.attribution
    return NO_EVIDENCE if attribution is None or not attribution.evidence else attribution.evidence[0]


def evidence(event: Event) -> tuple[Evidence, ...]:
    """All evidence, capped: a process may have thousands of variables."""
    attribution = event.process.attribution
    return () if attribution is None else attribution.evidence[:_EVIDENCE]


def unexpected(found: Evidence, event: Event) -> tuple[str, ...]:
    """What the event has against the expected use of an identity."""
    return violations(found.allowed, event) if found.allowed else ()


def secret(found: Evidence) -> str:
    """The Secret's key that evidence comes from."""
    key = found.secret
    return "" if key is None else f"{key.namespace}/{key.name}/{key.key}".rstrip("/")


def partial(process: Process) -> str:
    """What is not known of the process's place."""
    placement = process.placement
    return "" if placement is None or placement.partial is None else placement.partial.value


def claimed_pod(process: Process) -> str:
    """The pod that the process's container id leads to, whether or not it is believed."""
    if process.pod is not None:
        return f"{process.pod.namespace}/{process.pod.name}"
    return "" if process.placement is None else process.placement.claimed


def peer_kind(peer: Peer) -> str:
    """What has the address, where that is known."""
    return "" if peer.kind is PeerKind.UNKNOWN else peer.kind.value


def number(value: int | str | bytes) -> int:
    """A hook argument's number within 64 bits: a size or register may be unsigned."""
    if not isinstance(value, int):
        return 0
    return (value + 2**63) % 2**64 - 2**63


def plain_text(value: int | str | bytes) -> str:
    """A hook argument's text, capped."""
    if isinstance(value, bytes):
        return value[:_ARGUMENT].decode("utf-8", "replace")
    return value[:_ARGUMENT] if isinstance(value, str) else ""


NAMES: Final[dict[str, object]] = {
    "NO_PROCESS": NO_PROCESS,
    "NO_POD": NO_POD,
    "NO_NETWORK": NO_NETWORK,
    "NO_FILE": NO_FILE,
    "NO_PAYLOAD": NO_PAYLOAD,
    "NO_OPERATION": NO_OPERATION,
    "NO_EXIT": NO_EXIT,
    "NO_CREDENTIALS": NO_CREDENTIALS,
    "NO_IDENTITY": NO_IDENTITY,
    "NO_PEER": NO_PEER,
    "ancestors": ancestors,
    "primary": primary,
    "evidence": evidence,
    "unexpected": unexpected,
    "secret": secret,
    "partial": partial,
    "claimed_pod": claimed_pod,
    "number": number,
    "peer_kind": peer_kind,
    "plain_text": plain_text,
}
"""For the sources of the environment's fields."""
