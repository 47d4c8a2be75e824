"""What all collectors report of identities and rules, added up as they report: cheap for a thousand nodes.

In flow the collectors of each run; out flow totals by identity and rule, the same that adding up everything anew would
give. Only what a node says that it did not say before is touched: times count to the hour, so that a heartbeat of a
node that goes on as it did changes nothing. A ledger is changed in place, by the one reconciler that keeps it, and may
be lost: the next run begins with an empty one.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from keytrail.domain.collector_status import CollectorState
from keytrail_operator.world import Collector

FRESH_SECONDS: Final = 1_200.0
"""Two heartbeats: nobody knows how a node is doing that was silent for longer."""
_DAY_SECONDS: Final = 86_400.0
"""What a node says of the last 24 hours is worth nothing after as many."""
_HOUR_LENGTH: Final = len("2026-11-22T14")


def hour_of(time: str) -> str:
    """Return a time as Kubernetes writes them (UTC), to the hour."""
    return f"{time[:_HOUR_LENGTH]}:00:00Z" if len(time) >= _HOUR_LENGTH and time.endswith("Z") else ""


def is_fresh(collector: Collector, now: float) -> bool:
    """Whether what a collector says is of now."""
    return collector.state is not None and now - collector.heard <= FRESH_SECONDS


_NODES: Final = ""
"""Counted beside the workloads, none of which is called so."""
_Said = dict[str, tuple[str, tuple[str, ...]]]
"""Last use, to the hour, and workloads, by identity."""


class Ledger:
    """Totals over all nodes. `update` before asking."""

    def __init__(self) -> None:
        self._states: dict[str, CollectorState] = {}
        self._said: dict[str, _Said] = {}
        self._found: dict[str, dict[str, int]] = {}
        self._last: dict[str, str] = {}
        self._workloads: dict[str, Counter[str]] = {}
        """By identity, how many nodes speak of it, and on how many each workload used it."""
        self._findings: Counter[str] = Counter()

    def update(self, collectors: Mapping[str, Collector], now: float) -> int:
        """Take what the collectors say now; return how many nodes said something else than before."""
        current = {
            node: one.state
            for node, one in collectors.items()
            if one.state is not None and now - one.heard <= _DAY_SECONDS
        }
        changed = [node for node, state in current.items() if self._states.get(node) is not state]
        gone = self._states.keys() - current.keys()
        for node in (*changed, *gone):
            state = current.get(node)
            self._take_uses(node, {} if state is None else _uses(state))
            self._take_findings(node, {} if state is None else {one.name: one.findings24h for one in state.rules})
        self._states = current
        return len(changed) + len(gone)

    def last_used(self, identity: str) -> str:
        """When an identity was used last, to the hour; empty when nobody says so."""
        return self._last.get(identity, "")

    def workloads(self, identity: str) -> int:
        """How many workloads used an identity in the last 24 hours."""
        return max(0, len(self._workloads.get(identity, ())) - 1)

    def findings(self, rule: str) -> int:
        """How much a rule found in the last 24 hours."""
        return self._findings[rule]

    def _take_uses(self, node: str, said: _Said) -> None:
        before = self._said.pop(node, {})
        for identity in before.keys() | said.keys():
            old, new = before.get(identity), said.get(identity)
            if old == new:
                continue
            counts = self._workloads.setdefault(identity, Counter())
            if old is not None:
                counts.subtract((_NODES, *old[1]))
            if new is not None:
                counts.update((_NODES, *new[1]))
                self._last[identity] = max(self._last.get(identity, ""), new[0])
            for workload in () if old is None else (_NODES, *old[1]):
                if not counts[workload]:
                    del counts[workload]
            if not counts:  # no node speaks of it any more; the mapping's status remembers
                del self._workloads[identity], self._last[identity]
        if said:
            self._said[node] = said

    def _take_findings(self, node: str, found: dict[str, int]) -> None:
        before = self._found.pop(node, {})
        if before != found:
            self._findings.subtract(before)
            self._findings.update(found)
            for name in before:
                if not self._findings[name]:
                    del self._findings[name]
        if found:
            self._found[node] = found


def _uses(state: CollectorState) -> _Said:
    return {one.id: (hour_of(one.last_used), tuple(dict.fromkeys(one.workloads))) for one in state.identities}
