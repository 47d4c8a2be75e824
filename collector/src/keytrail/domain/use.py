"""What all nodes together say of identities: CollectorStates in, totals out.

Used by the command line, which wants exact figures once; the operator keeps the same totals up to date as nodes report
(`keytrail_operator.reconcile.usage`). Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from keytrail.domain.collector_status import CollectorState


@dataclass(frozen=True, slots=True)
class Use:
    """The use of one identity."""

    last_used: str = ""
    """When, as Kubernetes writes times; empty: never, as far as anybody knows."""
    workloads: tuple[str, ...] = ()
    """As namespace/kind/name, sorted."""
    nodes: tuple[str, ...] = ()
    """Where it was used."""


def use_of_identities(states: Iterable[tuple[str, CollectorState]]) -> dict[str, Use]:
    """Return the use of each identity, of the states of nodes by their names."""
    last: dict[str, str] = {}
    workloads: dict[str, set[str]] = {}
    nodes: dict[str, list[str]] = {}
    for node, state in states:
        for one in state.identities:
            last[one.id] = max(last.get(one.id, ""), one.last_used)
            workloads.setdefault(one.id, set()).update(one.workloads)
            nodes.setdefault(one.id, []).append(node)
    return {id_: Use(last[id_], tuple(sorted(workloads[id_])), tuple(sorted(nodes[id_]))) for id_ in last}
