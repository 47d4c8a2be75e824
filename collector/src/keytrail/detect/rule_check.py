"""One DetectionRule in, everything that is needed to run it out, or all that is wrong with it.

Checks what a shape cannot: conditions, exceptions, the message's fields, the keys of suppression, thresholds and
sequences, the sensors. Applies the tuning of a PolicyLibrary first, so that what runs is what was checked. Knows no
file: `library` finds the lines. Next: `program`, which makes code of it.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from keytrail.detect import environment, message
from keytrail.detect.analysis import Analysis, analyse
from keytrail.detect.conditions import Condition, RefusedError, check_condition
from keytrail.detect.declarations import Constants
from keytrail.domain.event import EventKind
from keytrail.domain.policy_library import RuleTuning
from keytrail.domain.rules import DetectionRule, DetectionRuleSpec
from keytrail.domain.shape import Fault, FieldPath, described, suggestion

AGENT_FEATURES: Final = ("ancestors", "environment", "process-credentials")
"""What `requires` may name beside the library's TracingPolicies: options of the agent."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A condition that was checked and found bounded."""

    condition: Condition
    analysis: Analysis


@dataclass(frozen=True, slots=True)
class Step:
    """One condition of a rule, and the kinds of event it looks at. A rule without a sequence has one."""

    kinds: tuple[EventKind, ...]
    condition: Expression
    exceptions: tuple[Expression, ...] = ()

    @property
    def sees_preexisting(self) -> bool:
        """Whether it asks for processes that ran before the agent did."""
        return any(("process", "preexisting") in one.analysis.fields for one in (self.condition, *self.exceptions))


@dataclass(frozen=True, slots=True)
class CheckedRule:
    """A rule that can run."""

    rule: DetectionRule
    """With its tuning applied."""
    steps: tuple[Step, ...]
    """Those of the sequence, and last the rule's own condition."""
    message: tuple[str | Expression, ...]
    suppress_by: tuple[Expression, ...]
    count_by: tuple[Expression, ...]
    distinct: Expression | None
    version: str
    """Short digest of what decides a finding: the same for the same behaviour."""

    @property
    def name(self) -> str:
        """What records call the rule."""
        return self.rule.name


class RuleError(Exception):
    """A rule that cannot run; `faults` says why, their paths from the manifest's top."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(f"{fault.field}: {fault.message}" for fault in faults))
        self.faults = faults


def check_rule(
    rule: DetectionRule, *, sensors: Collection[str] | None = None, tuning: RuleTuning | None = None
) -> CheckedRule:
    """Check a rule. `sensors` are the names of the library's policies; None: not judged. Raises RuleError."""
    checker = _Checker(rule, tuning)
    checked = checker.check(sensors)
    if checker.faults:
        raise RuleError(checker.faults)
    return checked


def tuned(rule: DetectionRule, tuning: RuleTuning) -> DetectionRule:
    """Apply a tuning: severity, parameters, exceptions."""
    spec = replace(
        rule.spec,
        severity=tuning.severity or rule.spec.severity,
        parameters={**rule.spec.parameters, **tuning.parameters},
        exceptions=(*rule.spec.exceptions, *tuning.exceptions),
    )
    return replace(rule, spec=spec)


class _Constants(dict[str, Any]):
    """Constants that are compared as they are written: to Python 1, 1.0 and True are equal."""

    def __hash__(self) -> int:  # type: ignore[override] # nobody changes one
        return hash(repr(self))

    def __eq__(self, other: object) -> bool:
        return repr(self) == repr(other)


def constants_of(parameters: Any) -> Constants:
    """Values of parameters as conditions see them."""
    return _Constants((name, tuple(value) if isinstance(value, list) else value) for name, value in parameters.items())


_NO_CONSTANTS: Final = constants_of({})


class _Checker:
    def __init__(self, rule: DetectionRule, tuning: RuleTuning | None) -> None:
        self.faults: list[Fault] = []
        self._given = rule
        self._tuning = tuning
        if tuning is not None:
            self.faults += _tuning_faults(rule.spec, tuning)
        # With a parameter of the wrong type every condition would be refused again for that alone.
        self._rule = tuned(rule, tuning) if tuning is not None and not self.faults else rule
        self._constants = constants_of(self._rule.spec.parameters)

    def check(self, sensors: Collection[str] | None) -> CheckedRule:
        spec = self._rule.spec
        exceptions = [
            self._condition(one.condition, ("spec", "exceptions", index, "condition"))
            for index, one in enumerate(spec.exceptions)
        ]
        last = Step(spec.events, self._condition(spec.condition, ("spec", "condition")), tuple(exceptions))
        if sensors is not None:
            known = [*AGENT_FEATURES, *sorted(sensors)]
            for index, sensor in enumerate(spec.requires):
                if sensor not in known:
                    hint = suggestion(sensor, known)
                    self.faults.append(Fault(("spec", "requires", index), f"unknown sensor {sensor!r}, {hint}"))
        threshold, distinct = spec.threshold, None
        if threshold and threshold.distinct:
            distinct = self._key(threshold.distinct, ("spec", "threshold", "distinct"))
        return CheckedRule(
            self._rule,
            (*self._sequence(spec), last),
            tuple(self._message(spec.message)),
            tuple(self._keys(spec.suppress.by, ("spec", "suppress", "by"))) if spec.suppress else (),
            tuple(self._keys(threshold.by, ("spec", "threshold", "by"))) if threshold else (),
            distinct,
            _version(spec),
        )

    def _sequence(self, spec: DetectionRuleSpec) -> Iterator[Step]:
        for index, step in enumerate(spec.sequence.steps if spec.sequence else ()):
            path = ("spec", "sequence", "steps", index, "condition")
            yield Step(step.events, self._condition(step.condition, path))

    def _condition(self, text: str, path: FieldPath) -> Expression:
        return self._expression(text, path, self._constants)

    def _expression(
        self, text: str, path: FieldPath, constants: Constants, *, wants: str = "bool", shift: int = 0
    ) -> Expression:
        try:
            return _analysed(text, constants, wants)
        except RefusedError as error:
            for refusal in error.refusals:
                line = f"line {refusal.line}, " if "\n" in text else ""
                self.faults.append(Fault(path, f"{line}column {refusal.column + shift}: {refusal.message}"))
        return _NEVER

    def _message(self, template: str) -> Iterator[str | Expression]:
        path = ("spec", "message")
        found, faults = message.parts(template)
        self.faults += [Fault(path, fault.message) for fault in faults]
        for part in found:
            yield self._key(part.text, path, shift=part.column - 1) if part.is_field else part.text

    def _keys(self, names: tuple[str, ...], path: FieldPath) -> Iterator[Expression]:
        for index, name in enumerate(names):
            yield self._key(name, (*path, index))

    def _key(self, name: str, path: FieldPath, *, shift: int = 0) -> Expression:
        """Check a field that stands alone: one of a single object, and one that may leave the process."""
        head, dot, rest = name.partition(".")
        variable = environment.variable(head)
        column = f"column {shift + 1}: " if shift else ""
        if not dot or not rest.isidentifier():
            self.faults.append(Fault(path, f"{column}expected a field such as process.name, found {name!r}"))
            return _NEVER
        if variable is not None and variable.many:
            self.faults.append(Fault(path, f"{column}{head} is a list: it can be tested, but not shown or compared"))
            return _NEVER
        constants = self._constants if variable is None else _NO_CONSTANTS  # then `process.name` is one of all rules
        return self._expression(name, path, constants, wants="", shift=shift)


def _tuning_faults(spec: DetectionRuleSpec, tuning: RuleTuning) -> Iterator[Fault]:
    known = list(spec.parameters)
    for name, value in tuning.parameters.items():
        path = ("spec", "parameters", name)
        if name not in spec.parameters:
            hint = suggestion(name, known) if known else "the rule has none"
            yield Fault(path, f"unknown parameter, {hint}")
        elif (
            _type(value) not in {_type(spec.parameters[name]), "list"}
            or _type(spec.parameters[name])[:4] != _type(value)[:4]
        ):
            yield Fault(path, f"expected {_type(spec.parameters[name])}, as in the rule, found {described(value)}")


def _type(value: object) -> str:
    """`list of text`; an empty list is one of anything."""
    names = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
    if isinstance(value, list):
        return f"list of {names[type(value[0])]}" if value else "list"
    return names[type(value)]


def _version(spec: DetectionRuleSpec) -> str:
    decides = (
        spec.events,
        sorted(spec.parameters.items()),
        spec.condition,
        spec.exceptions,
        spec.threshold,
        spec.sequence,
    )
    return blake2b(repr(decides).encode(), digest_size=4).hexdigest()


# A rule is checked when it is read, when it is tuned and when it is compiled; fields come again in nearly all of them.
@lru_cache(maxsize=1_024)
def _analysed(text: str, constants: Constants, wants: str) -> Expression:
    condition = check_condition(text, constants, wants=wants)
    return Expression(condition, analyse(condition))


_NEVER: Final = _analysed("false", _NO_CONSTANTS, "bool")
"""In place of what could not be checked, so that the rest of the rule is still looked at."""
