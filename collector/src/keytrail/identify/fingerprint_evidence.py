"""Fingerprints of a process's variables in, evidence out: whose value each holds, and whether it belongs there.

The one comparison of what decode made with what the operator published. Out flow names of Secrets and identities, never
a fingerprint. Used by `matcher`.
"""

from collections.abc import Iterator
from dataclasses import replace

from keytrail.domain.declared import Declared, SecretKey
from keytrail.domain.fingerprint import Book
from keytrail.domain.identity import Evidence, EvidenceKind, Strength
from keytrail.domain.process import Process
from keytrail.identify.mapping_rules import MappingRules


def fingerprint_evidence(process: Process, book: Book, rules: MappingRules) -> Iterator[Evidence]:
    """What equal values prove. Of copies of a Secret the one counts that the pod is given, if there is one."""
    pod, placement = process.pod, process.placement
    # Without the Pod's spec nobody can say what it is given.
    declared = None if pod is None or placement is None else placement.declared
    for variable, digest in process.fingerprints:
        secrets = book.secrets_with(digest)
        given = [one for one in secrets if pod is not None and _gives(declared, pod.namespace, one)]
        for secret in given or secrets:
            found = rules.of_secret(secret) or [Evidence(EvidenceKind.FINGERPRINT, variable, secret.identity_id)]
            for item in found:
                yield replace(
                    item,
                    kind=EvidenceKind.FINGERPRINT,
                    name=variable,
                    strength=Strength.VERIFIED,
                    secret=secret,
                    outside_secret=declared is not None and not given,
                )


def _gives(declared: Declared | None, namespace: str, secret: SecretKey) -> bool:
    return declared is not None and namespace == secret.namespace and secret.name in declared.secrets_of_pod
