"""Hosts that a process asked for by name in; out which of the identities that it carries it thereby used.

A host alone ties nobody to an identity: only of a process that also carries the credential is it evidence. The evidence
that it is carried then proves its use, and still names the variable or file; the host stands beside it. Must not know
an event.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from keytrail.domain.identity import Evidence, EvidenceKind, Strength
from keytrail.identify.mapping_rules import MappingRules

_NAMES_ONLY: Final = frozenset({EvidenceKind.ARGV, EvidenceKind.SERVER_NAME})
"""A word of a command line names an identity, and so does a host: neither is the credential."""


def with_use(evidence: Iterable[Evidence], hosts: Iterable[str], namespace: str, rules: MappingRules) -> list[Evidence]:
    """Return the evidence, that of used identities as strong as use is, and the hosts among it."""
    found = list(evidence)
    for host in hosts:
        for owner in rules.of_host(host, namespace):
            for place, item in enumerate(found):
                if _carries(item, owner):
                    found[place] = replace(item, strength=Strength.USED)
                    found.append(replace(found[place], kind=EvidenceKind.SERVER_NAME, name=host, undeclared=False))
    return found


def _carries(item: Evidence, owner: Evidence) -> bool:
    """Whether it shows the identity itself that a mapping's host takes, or one of a provider's.

    A Secret that the Pod's spec gives the container this process need not have taken: any of its processes may ask for
    the host. A ServiceAccount is the whole Pod's: who asks the API server, or the cloud whose role it has, acts as it.
    """
    if item.kind in _NAMES_ONLY or not item.mapped:
        return False
    if item.kind is EvidenceKind.SECRET and item.strength is Strength.DECLARED:
        return False
    return item.mapping == owner.mapping if owner.mapping else item.provider == owner.provider != ""
