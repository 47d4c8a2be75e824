"""A thousand mappings, a thousand nodes: the same answers as adding up everything anew, in bounded time."""

import random
from collections import Counter
from collections.abc import Iterator
from types import MappingProxyType

import pytest

from keytrail.domain.use import Use, use_of_identities
from keytrail_operator.actions import WriteStatus
from keytrail_operator.reconcile.claims import ambiguities, told
from keytrail_operator.reconcile.mapping_checks import Seen
from keytrail_operator.reconcile.mappings import Memory, reconcile
from keytrail_operator.reconcile.usage import Ledger, hour_of
from keytrail_operator.world import Collector
from support.operator_world import NOW, after, collector, env, mapped, world

IDS = ("a", "b", "c")
RULES = ("r1", "r2")
TIMES = ("2026-11-22T13:59:59Z", "2026-11-22T14:00:00Z", "2026-11-22T14:30:00Z")
WORKLOADS = ("n/Job/1", "n/Job/2", "m/Job/1")


def any_collector(draw: random.Random, node: str) -> Collector:
    """A node that says anything, perhaps long ago."""
    uses = [(id_, draw.choice(TIMES), tuple(draw.sample(WORKLOADS, draw.randrange(4)))) for id_ in IDS]
    findings = {name: draw.randrange(4) for name in RULES}
    return collector(
        node,
        uses=draw.sample(uses, draw.randrange(4)),
        findings={name: findings[name] for name in draw.sample(RULES, draw.randrange(3))},
        heard=NOW - draw.choice((0, 0, 90_000)),
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_ledger_says_what_adding_up_anew_would_say(seed: int) -> None:
    """Whatever nodes come, go, fall silent and say: totals equal those of a fresh computation; no use is taken back."""
    draw, ledger = random.Random(seed), Ledger()  # noqa: S311 - the same steps on every run
    for _ in range(30):
        step = [any_collector(draw, node) for node in draw.sample(["n1", "n2", "n3"], draw.randrange(4))]
        ledger.update({one.node: one for one in step}, NOW)
        heard = [(one.node, one.state) for one in step if one.heard == NOW and one.state is not None]
        fresh = use_of_identities(heard)
        found = Counter(dict.fromkeys(RULES, 0))
        for _, state in heard:
            found.update({rule.name: rule.findings24h for rule in state.rules})
        for id_ in IDS:
            expected = fresh.get(id_, Use())
            assert ledger.workloads(id_) == len(expected.workloads)
            assert ledger.last_used(id_) >= hour_of(expected.last_used)
            assert bool(ledger.last_used(id_)) == bool(expected.last_used)
        assert {name: ledger.findings(name) for name in RULES} == found


def test_a_heartbeat_that_says_nothing_new_costs_nothing_per_identity() -> None:
    """A later minute of the same hour leaves all totals untouched, however many identities the node names."""
    uses = [(f"id-{number}", "2026-11-22T14:10:00Z", ("n/Deployment/a",)) for number in range(100)]
    collectors = {f"n{number}": collector(f"n{number}", uses=uses) for number in range(100)}
    ledger = Ledger()
    assert ledger.update(collectors, NOW) == 100
    assert ledger.update(collectors, NOW) == 0
    # Whoever touches a total now fails.
    ledger._workloads = MappingProxyType(ledger._workloads)  # type: ignore[assignment] # read-only on purpose
    later = [(id_, "2026-11-22T14:20:00Z", given) for id_, _, given in uses]
    assert ledger.update({**collectors, "n7": collector("n7", uses=later)}, NOW) == 1
    assert ledger.workloads("id-5") == 1


def many(count: int) -> Iterator[object]:
    """Mappings, some of which are in each other's way."""
    draw = random.Random(3)  # noqa: S311 - the same mappings on every run
    for number in range(count):
        variables = [f"K{draw.randrange(count * 4)}" for _ in range(4)]
        yield mapped(f"m{number:04}", priority=draw.randrange(3), **env(*variables))
    for number in range(count // 20):
        yield mapped(f"p{number:04}", evidence={"env": [{"pattern": f"K{number}[0-9]"}]})


def test_a_thousand_mappings_are_compared_as_pairs_would_be() -> None:
    """The index finds exactly what comparing each with each finds; a thousand that claim the same share one claim."""
    mappings = list(many(150))
    found = ambiguities(mappings)  # type: ignore[arg-type] # as `mapped` makes them
    expected = {one.uid for one in mappings for other in mappings if one is not other and _clash(one, other)}  # type: ignore[attr-defined] # as above
    assert set(found) == expected
    assert expected
    same = [mapped(f"m{number:04}", **env("K")) for number in range(1000)]
    shared = ambiguities(same)
    assert len({id(claim) for claims in shared.values() for claim in claims}) == 1
    assert len(shared) == 1000
    assert "and 996 more" in told(shared[same[5].uid], same[5])


def _clash(one: object, other: object) -> bool:
    if one.value.spec.priority != other.value.spec.priority:  # type: ignore[attr-defined] # as `mapped` makes them
        return False
    names, theirs = (
        {item.name for item in each.value.spec.evidence.env if item.name}  # type: ignore[attr-defined] # as above
        for each in (one, other)
    )
    patterns, others = (
        [item.pattern for item in each.value.spec.evidence.env if item.pattern]  # type: ignore[attr-defined] # as above
        for each in (one, other)
    )
    return bool(names & theirs) or _any(patterns, theirs) or _any(others, names)


def _any(patterns: list[str], names: set[str]) -> bool:
    # K12[0-9] means K120 to K129.
    return any(name[:-1] == pattern.removesuffix("[0-9]") for pattern in patterns for name in names)


def test_a_run_over_a_thousand_mappings_settles() -> None:
    """All statuses at first, none the second time."""
    at = world(collector("a"), mappings=tuple(many(1000)))
    memory = Memory()
    first = reconcile(at, memory, NOW, Seen()).actions
    assert sum(isinstance(one, WriteStatus) for one in first) == 1050
    assert reconcile(after(at, first), memory, NOW + 1, Seen()).actions == []
