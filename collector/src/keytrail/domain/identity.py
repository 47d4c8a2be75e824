"""Machine identities: what was observed of one, how much it proves, and what follows for a process.

The rules of the identity model (which evidence names the primary identity) are in `keytrail.identify`.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

from keytrail.domain.declared import SecretKey

if TYPE_CHECKING:  # the shapes of resources know kinds of events, which know processes, which know this module
    from keytrail.domain.resources import Allowed


class Strength(IntEnum):
    """How much a piece of evidence proves; a higher one names the primary identity."""

    DECLARED = 1
    OBSERVED = 2
    VERIFIED = 3
    USED = 4

    def __str__(self) -> str:
        """The word that records carry."""
        return self.name.lower()


class EvidenceKind(StrEnum):
    """Where evidence comes from."""

    SECRET = "secret"  # noqa: S105 - the name of a kind of evidence
    SERVICE_ACCOUNT = "service_account"
    ENV = "env"
    ARGV = "argv"
    FILE = "file"
    FINGERPRINT = "fingerprint"
    SERVER_NAME = "server_name"


class Unknown(StrEnum):
    """Why one could not look. Not the same as having looked and found nothing."""

    NOT_CAPTURED = "not_captured"
    REDACTED_UPSTREAM = "redacted_upstream"
    PROCESS_GONE = "process_gone"
    FILTERED = "filtered"
    NOT_PERMITTED = "not_permitted"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One observation that ties a process to an identity. Holds names, never values."""

    kind: EvidenceKind
    name: str
    """The variable, the matched word of the command line, the file: what was seen, redacted."""
    identity_id: str
    strength: Strength = Strength.OBSERVED
    mapping: str = ""
    """`metadata.name` of the user's mapping, `namespace/name` when namespaced; empty when none named it."""
    provider: str = ""
    identity_kind: str = ""
    owner: str = ""
    priority: int = 0
    mapped: bool = True
    """False for a variable that looks like a credential and that neither a mapping nor a provider knows."""
    secret: SecretKey | None = None
    """The Secret's key that it comes from, as the Pod's spec says; the Secret itself is never read."""
    names_secret: bool = False
    """The mapping names the Secret, which says more than one that names the variable or the path."""
    undeclared: bool = False
    """A variable of a pod's process that neither the Pod's spec nor the container's image gave it."""
    outside_secret: bool = False
    """The value of a Secret's key, in a pod that is not given that Secret."""
    allowed: "tuple[Allowed, ...]" = ()
    """Expected use, as the mapping says it and others narrow it: all must hold. Empty: not judged."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """The answer for one process image: primary identity first, or why nobody could look."""

    evidence: tuple[Evidence, ...] = ()
    """Strongest first; `evidence[0]` names the primary identity."""
    unknown: Unknown | None = None
    """Set when the process could not be looked at and so no evidence is more than declared."""

    @property
    def primary(self) -> Evidence | None:
        """The evidence that names the primary identity, None when there is none."""
        return self.evidence[0] if self.evidence else None


NO_IDENTITY = Attribution()
