"""What of all rules can run: the shipped ones and those in the API server, tuned by the library, each checked once.

In flow rules and the library; out flows a `Rulebook` with a verdict for each rule. Checking a condition takes
milliseconds and there are hundreds, so verdicts of what did not change are taken over from the book before. Pure.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from keytrail.detect.rule_check import AGENT_FEATURES, RuleError, check_rule
from keytrail.domain.policy_library import PolicyLibrary, PolicyLibrarySpec, RuleTuning
from keytrail.domain.rules import DetectionRule
from keytrail.domain.shape import Fault, suggestion


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one rule."""

    rule: DetectionRule
    """As it was given, without its tuning."""
    tuning: RuleTuning | None
    enabled: bool
    faults: tuple[Fault, ...] = ()
    """Why it cannot run, tuned as it is; not judged for one that is not enabled."""
    untuned_faults: tuple[Fault, ...] = ()
    """Why it cannot run even as it was given."""

    @property
    def sensors(self) -> tuple[str, ...]:
        """TracingPolicies of the library that it needs; options of the agent are none."""
        return tuple(name for name in self.rule.spec.requires if name not in AGENT_FEATURES)


@dataclass(frozen=True, slots=True)
class Rulebook:
    """Verdicts by the rule's name, and what tunings name that no rule has."""

    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Why a tuning fits no rule, by the name in it."""

    @property
    def enabled(self) -> int:
        """Rules that run."""
        return sum(one.enabled and not one.faults for one in self.verdicts.values())

    @property
    def failing(self) -> dict[str, str]:
        """Rules that were to run and cannot, and why."""
        found = {
            name: "; ".join(f"{fault.field}: {fault.message}" for fault in one.faults)
            for name, one in self.verdicts.items()
            if one.enabled and one.faults
        }
        return {**found, **self.unknown}

    @property
    def required(self) -> dict[str, tuple[str, ...]]:
        """Sensors that rules need, each with their names.

        Those of a rule that cannot run are among them: collectors keep its last good version in force.
        """
        found: dict[str, list[str]] = {}
        for name, one in self.verdicts.items():
            for sensor in one.sensors if one.enabled else ():
                found.setdefault(sensor, []).append(name)
        return {sensor: tuple(names) for sensor, names in found.items()}


def rulebook(
    rules: Iterable[DetectionRule],
    library: PolicyLibrary | None,
    sensors: Collection[str],
    before: Rulebook,
) -> Rulebook:
    """Judge all rules; of two with one name the last counts. `sensors` are the names that `requires` may use."""
    spec = PolicyLibrarySpec() if library is None else library.spec
    tuning = {one.name: one for one in spec.rules.tune}
    given = {rule.name: rule for rule in rules}
    verdicts = {}
    for name, rule in sorted(given.items()):
        tuned = tuning.get(name)
        enabled = rule.spec.maturity in spec.rules.maturity
        if tuned is not None and tuned.enabled is not None:
            enabled = tuned.enabled
        known = before.verdicts.get(name)
        if known is None or (known.rule, known.tuning, known.enabled) != (rule, tuned, enabled):
            known = _judged(rule, tuned, sensors, enabled=enabled)
        verdicts[name] = known
    unknown = {
        name: f"spec.rules.tune: there is no rule {name!r}, {suggestion(name, list(given))}"
        for name in tuning
        if name not in given
    }
    return Rulebook(MappingProxyType(verdicts), unknown)


def _judged(rule: DetectionRule, tuning: RuleTuning | None, sensors: Collection[str], *, enabled: bool) -> Verdict:
    untuned = _faults(rule, None, sensors)
    faults = _faults(rule, tuning, sensors) if enabled and tuning is not None else untuned
    return Verdict(rule, tuning, enabled, faults, untuned)


def _faults(rule: DetectionRule, tuning: RuleTuning | None, sensors: Collection[str]) -> tuple[Fault, ...]:
    try:
        check_rule(rule, sensors=sensors, tuning=tuning)
    except RuleError as error:
        return tuple(error.faults)
    return ()
