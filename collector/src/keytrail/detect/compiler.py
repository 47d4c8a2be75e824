"""Rules of manifests in, those that are to run out as code, beside all that is wrong with the others.

The whole way: which rules run (maturity and the PolicyLibrary's tuning), checked one by one (`rule_check`), as code
(`program`). Needs the CEL engine, and much memory for a moment. Knows no file and no event; next is `engine`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from keytrail.detect.compiled import CompiledRules, RunningRule
from keytrail.detect.program import generate
from keytrail.detect.rule_check import RuleError, check_rule
from keytrail.domain.policy_library import PolicyLibrary, PolicyLibrarySpec, RuleTuning
from keytrail.domain.rules import DetectionRule, Maturity
from keytrail.domain.shape import Fault, suggestion


def compile_rules(
    rules: Iterable[DetectionRule],
    library: PolicyLibrary | None = None,
    *,
    sensors: Collection[str] | None = None,
    maturities: Collection[Maturity] | None = None,
    earlier: Iterable[RunningRule] = (),
) -> CompiledRules:
    """Compile the rules that run. A wrong one is in `refused`; its version among the `earlier` ones stays in force.

    `maturities` decides instead of the library which rules run; None: the library's, by default the stable ones.
    """
    spec = PolicyLibrarySpec() if library is None else library.spec
    tuning = {one.name: one for one in spec.rules.tune}
    given = {rule.name: rule for rule in rules}
    wanted = frozenset(spec.rules.maturity if maturities is None else maturities)
    good = {one.name: one.rule for one in earlier}
    checked, refused = [], _unknown_tuning(tuning, given)
    for name, rule in given.items():
        tuned = tuning.get(name)
        if not _enabled(rule, tuned, wanted):
            continue
        try:
            checked.append(check_rule(rule, sensors=sensors, tuning=tuned))
        except RuleError as error:
            refused[name] = error.faults
            if name in good:
                checked.append(check_rule(good[name]))
    return replace(generate(checked), refused=refused)


def _enabled(rule: DetectionRule, tuning: RuleTuning | None, wanted: Collection[Maturity]) -> bool:
    if tuning is not None and tuning.enabled is not None:
        return tuning.enabled
    return rule.spec.maturity in wanted


def _unknown_tuning(tuning: Mapping[str, RuleTuning], given: Mapping[str, DetectionRule]) -> dict[str, list[Fault]]:
    return {
        name: [Fault(("spec", "rules", "tune"), f"there is no rule {name!r}, {suggestion(name, list(given))}")]
        for name in tuning
        if name not in given
    }
