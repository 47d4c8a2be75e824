"""What is wrong with the API server's resources beyond their shape: in each of them, and between them.

In flow the resources that are to be in force together; out flow faults by object, for `keytrail.kube.config_watch`,
which keeps an object's last good version instead. A folder is judged by `keytrail.ruleset`, as a whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from keytrail.configuration import given_manifests
from keytrail.detect.rule_check import RuleError, check_rule
from keytrail.domain.errors import UsageError
from keytrail.domain.objects import ObjectName, Resource, name_of
from keytrail.domain.policy_library import PolicyLibrary, RuleTuning
from keytrail.domain.rules import DetectionRule
from keytrail.domain.shape import Fault, FieldPath, suggestion
from keytrail.ruleset import given_rules
from keytrail.settings import Settings
from keytrail.tracing import sensors

_TUNE: Final[FieldPath] = ("spec", "rules", "tune")


def judge(settings: Settings, resources: Sequence[Resource]) -> Mapping[ObjectName, Sequence[Fault]]:
    """Return the faults of rules that cannot run, and of a library that tunes a rule wrongly or names one unknown."""
    found: dict[ObjectName, Sequence[Fault]] = {
        name_of(one): faults for one in resources if isinstance(one, DetectionRule) and (faults := _faults(one))
    }
    good = [one for one in resources if name_of(one) not in found]
    for one in good:
        if isinstance(one, PolicyLibrary) and (faults := list(_tuning(settings, good, one))):
            found[name_of(one)] = faults
    return found


def _tuning(settings: Settings, resources: Sequence[Resource], library: PolicyLibrary) -> Iterator[Fault]:
    try:
        given = given_rules(settings, given_manifests(settings).overlaid(resources))
    except UsageError:  # the folder's own matter, and told of there
        return
    rules = {rule.name: rule for rule in given}
    for index, tuning in enumerate(library.spec.rules.tune):
        rule = rules.get(tuning.name)
        if rule is None:
            yield Fault((*_TUNE, index, "name"), f"there is no such rule, {suggestion(tuning.name, list(rules))}")
        elif tuning.enabled is not False:  # of one that is off nothing can be wrong
            for fault in _faults(rule, tuning):
                of_rule = fault.path[:2] != _TUNE[:2]
                said = f"{rule.name}: {fault.field}: {fault.message}" if of_rule else fault.message
                yield Fault((*_TUNE, index), said)


def _faults(rule: DetectionRule, tuning: RuleTuning | None = None) -> Sequence[Fault]:
    try:
        check_rule(rule, sensors=sensors(), tuning=tuning)
    except RuleError as error:
        return error.faults
    return ()
