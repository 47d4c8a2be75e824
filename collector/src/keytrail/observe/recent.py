"""What the last 24 hours had: which identities were used, by which workloads, and what each rule found.

In flow events and findings as they are handed over; out flow figures for the node's CollectorStatus, whenever it is
written. One thread records, any may ask. Bounded, and in memory: a new process begins with nothing.

A process uses an identity with everything that it does while it is seen to carry the credential. What a Pod's spec
merely declares is not used, and what only looks like a credential is no identity.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from keytrail.domain.event import Event
from keytrail.domain.finding import Finding
from keytrail.domain.identity import Attribution, Strength
from keytrail.domain.process import Pod
from keytrail.observe.snapshot import IdentityPart, RecentPart

_HOUR_NS: Final = 3_600_000_000_000
_WINDOW_HOURS: Final = 24
_MOST_USES: Final = 2_048
"""Pairs of identity and workload. Ids that come of a variable's name are a workload's to choose: they go first."""
_MOST_CARRIED: Final = 4_096
_MOST_RULES: Final = 1_024
_MOST_HOURS: Final = 2 * _WINDOW_HOURS
"""Of one rule: a clock that jumps must not make hours without end."""


class _Use:
    """One identity in the hands of one workload."""

    __slots__ = ("last_ns", "mapped")

    def __init__(self, *, mapped: bool) -> None:
        self.last_ns = 0
        self.mapped = mapped
        """A user's mapping named it."""


class RecentUse:
    """Figures of one collector. `event` and `findings` are for the deciding thread."""

    def __init__(self) -> None:
        self._uses: dict[tuple[str, str], _Use] = {}
        """By identity and workload."""
        self._carried: dict[tuple[int, int], tuple[Attribution, Pod | None, tuple[_Use, ...]]] = {}
        """What an event updates, by the ids of attribution and pod, which most processes of a workload share."""
        self._found: dict[str, dict[int, int]] = {}
        """Rule -> hour since the epoch -> findings."""

    def event(self, event: Event) -> None:
        """Take note of an event of a process that was attributed."""
        process = event.process
        attribution = process.attribution
        if attribution is None or not attribution.evidence:
            return
        pod = process.pod
        key = id(attribution), id(pod)
        known = self._carried.get(key)
        if known is None:  # objects that are kept here keep their ids to themselves
            known = attribution, pod, self._enter(attribution, pod)
            if len(self._carried) >= _MOST_CARRIED:
                self._carried.clear()
            self._carried[key] = known
        time_ns = event.time_ns
        for use in known[2]:
            if time_ns > use.last_ns:  # noqa: PLR1730 - `max` is a call, for every event
                use.last_ns = time_ns

    def findings(self, findings: Iterable[Finding]) -> None:
        """Take note of findings. Summaries of repeats are none of their own."""
        for finding in findings:
            if not finding.suppressed:
                self._count(finding.rule.name, finding.time_ns // _HOUR_NS)

    def part(self, now_ns: int) -> RecentPart:
        """Return the figures of the 24 hours before a moment."""
        return RecentPart(self._identities(now_ns), self._by_rule(now_ns))

    def _identities(self, now_ns: int) -> tuple[IdentityPart, ...]:
        since = now_ns - _WINDOW_HOURS * _HOUR_NS
        found: dict[str, list[tuple[int, str]]] = {}
        for (identity, workload), use in self._uses.copy().items():
            if use.last_ns > since:
                found.setdefault(identity, []).append((use.last_ns, workload))
        used = (
            IdentityPart(identity, max(uses)[0], tuple(name for _, name in sorted(uses, reverse=True) if name))
            for identity, uses in found.items()
        )
        return tuple(sorted(used, key=lambda one: (-one.last_ns, one.id)))

    def _by_rule(self, now_ns: int) -> Mapping[str, int]:
        since = now_ns // _HOUR_NS - _WINDOW_HOURS
        totals = {
            rule: sum(count for hour, count in hours.copy().items() if hour > since)
            for rule, hours in self._found.copy().items()
        }
        return {rule: count for rule, count in totals.items() if count}

    # -- the deciding thread

    def _enter(self, attribution: Attribution, pod: Pod | None) -> tuple[_Use, ...]:
        workload = "" if pod is None or not pod.workload else f"{pod.namespace}/{pod.workload_kind}/{pod.workload}"
        carried = {
            item.identity_id: bool(item.mapping)
            for item in attribution.evidence
            if item.mapped and item.strength >= Strength.OBSERVED
        }
        return tuple(self._use(identity, workload, mapped=mapped) for identity, mapped in carried.items())

    def _use(self, identity: str, workload: str, *, mapped: bool) -> _Use:
        key = identity, workload
        found = self._uses.get(key)
        if found is None:
            if len(self._uses) >= _MOST_USES:
                least = min(self._uses, key=lambda one: (self._uses[one].mapped, self._uses[one].last_ns))
                del self._uses[least]
                self._carried.clear()  # some of them may go on with what is no longer there
            found = self._uses[key] = _Use(mapped=mapped)
        return found

    def _count(self, rule: str, hour: int) -> None:
        hours = self._found.get(rule)
        if hours is None:
            if len(self._found) >= _MOST_RULES:
                return
            hours = self._found[rule] = {}
        if hour not in hours and len(hours) >= _MOST_HOURS:
            del hours[min(hours)]
        hours[hour] = hours.get(hour, 0) + 1
