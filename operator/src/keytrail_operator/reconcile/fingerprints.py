"""The fingerprints of Secrets that mappings name, published with the cluster's key: what was read in, one Secret out.

The key is made once and renewed every month; for a week both count, so that processes that were started under the one
before are still known. What was read of a Secret are fingerprints, never values: `keytrail_operator.secret_reader`
makes them where it reads. Pure; randomness is a parameter.
"""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from keytrail.domain.declared import SecretKey
from keytrail.domain.fingerprint import KEY_BYTES, MOST_BYTES, Book, ClusterKey, write
from keytrail.kube.places import Kind
from keytrail_operator.actions import Action, Apply
from keytrail_operator.reconcile.conditions import timestamp
from keytrail_operator.world import Mapped, Owner

SECRETS: Final = Kind("secrets")
SECRET_NAME: Final = "keytrail-fingerprints"  # noqa: S105 - the name of an object
FILE_NAME: Final = "fingerprints.json"
RENEW_SECONDS: Final = 30 * 86_400.0
OVERLAP_SECONDS: Final = 7 * 86_400.0
_ROW_BYTES: Final = 80
"""Of one entry in the file, without its names and fingerprints."""
_DIGEST_TEXT: Final = 35

Place = tuple[str, str]
"""Namespace and name of a Secret."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was read of one Secret: names of its keys, and fingerprints of those values that get one."""

    keys: frozenset[str] = frozenset()
    digests: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict, repr=False)
    """By the Secret's key, one for each of the cluster's keys."""
    exists: bool = True


def renewed(keys: Sequence[ClusterKey], now: float, random: Callable[[int], bytes]) -> tuple[ClusterKey, ...]:
    """Return the cluster's keys that count now, the one in use first: made when there is none, renewed when it is old.

    A key from the future, by a clock that was wrong, is as good as any other.
    """
    current = sorted(keys, reverse=True)
    if not current or now - _made(current[0]) >= RENEW_SECONDS:
        current.insert(0, ClusterKey(timestamp(now), random(KEY_BYTES)))
    overlaps = now - _made(current[0]) < OVERLAP_SECONDS
    return tuple(current[: 1 + overlaps])


def named_secrets(mappings: Iterable[Mapped]) -> Mapping[Place, frozenset[str]]:
    """Return the Secrets that mappings name, and their keys; none of these: all of its keys."""
    found: dict[Place, set[str]] = {}
    whole: set[Place] = set()
    for one in mappings:
        given: Any = one.value
        for secret in () if given is None else given.spec.evidence.secrets:
            at = secret.namespace or one.namespace, secret.name
            found.setdefault(at, set()).update(secret.keys)
            whole |= set() if secret.keys else {at}
    return {at: frozenset() if at in whole else frozenset(keys) for at, keys in found.items()}


def book_of(
    keys: tuple[ClusterKey, ...], named: Mapping[Place, frozenset[str]], facts: Mapping[Place, Facts]
) -> tuple[Book, int]:
    """Return the book of what mappings name, and how many entries it has no room for."""
    rows: dict[SecretKey, tuple[bytes, ...]] = {}
    left_out, room = 0, MOST_BYTES - 1_000
    for at in sorted(named):
        known = facts.get(at)
        for key, digests in sorted(known.digests.items()) if known is not None else ():
            if named[at] and key not in named[at]:
                continue
            room -= _ROW_BYTES + len(at[0]) + len(at[1]) + len(key) + _DIGEST_TEXT * len(digests)
            if room < 0:
                left_out += 1
            else:
                rows[SecretKey(*at, key)] = digests
    return Book(keys, rows), left_out


def publish(book: Book, published: Book | None, namespace: str, owner: Owner | None) -> list[Action]:
    """Return what makes the cluster's Secret hold this book; nothing when it does."""
    if book == published:
        return []
    metadata: dict[str, Any] = {
        "name": SECRET_NAME,
        "namespace": namespace,
        "labels": {"app.kubernetes.io/managed-by": "keytrail-operator", "app.kubernetes.io/part-of": "keytrail"},
    }
    if owner is not None:
        metadata["ownerReferences"] = [owner.reference()]
    data = {FILE_NAME: base64.b64encode(write(book)).decode()}
    body = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": data}
    return [Apply(SECRETS, body)]


def _made(key: ClusterKey) -> float:
    try:
        return datetime.fromisoformat(key.created).timestamp()
    except ValueError:
        return 0.0  # of a file that somebody wrote: renewed at once
