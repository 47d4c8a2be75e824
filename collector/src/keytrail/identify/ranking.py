"""Evidence in, the same strongest first out: the order of the identity model, and its only place."""

from collections.abc import Iterable
from typing import Any, Final

from keytrail.domain.identity import Attribution, Evidence, EvidenceKind, Unknown

_KIND_ORDER: Final = {
    kind: rank
    for rank, kind in enumerate(
        (EvidenceKind.ENV, EvidenceKind.FILE, EvidenceKind.ARGV, EvidenceKind.SECRET, EvidenceKind.SERVICE_ACCOUNT)
    )
}


def ranked(evidence: Iterable[Evidence], unknown: Unknown | None = None) -> Attribution:
    """An attribution by this evidence, each piece once."""
    pieces = list(dict.fromkeys(evidence))
    cluster_wide = any(item.mapping and "/" not in item.mapping for item in pieces)
    named = {item.provider for item in pieces if item.kind is EvidenceKind.ARGV}
    pieces.sort(key=lambda item: _rank(item, named, cluster_wide=cluster_wide))
    return Attribution(tuple(pieces), unknown)


def _rank(item: Evidence, named: set[str], *, cluster_wide: bool) -> tuple[Any, ...]:
    """Sort key, best first.

    `named` are the providers on the command line: of several keys in an environment, `curl https://api.stripe.com`
    tells which one is meant. `cluster_wide`: a user's cluster-wide mapping is among the evidence.
    """
    return (
        not item.mapped,
        cluster_wide and "/" in item.mapping,  # a tenant can never rename a cluster identity
        -item.strength,
        _KIND_ORDER.get(item.kind, len(_KIND_ORDER)),
        not item.mapping,
        not item.undeclared,  # set for this process, where the others are what every process of the container has
        not item.names_secret,  # many pods have a variable of this name, but one Secret
        -item.priority,
        not item.provider or item.provider not in named,
        not item.provider,  # a key's own shape says more than the header that it came in
        item.secret is None,
        item.identity_id,
        item.name,
    )
