"""The tests that rules carry: each test's events through the rule alone, expected against found.

Rules come in, one result for each test goes out. A test runs in an engine of its own, so that neither another rule nor
an earlier test can help it. For `keytrail rules test` and for our own tests.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from keytrail.detect.compiler import compile_rules
from keytrail.detect.engine import Engine
from keytrail.detect.made_event import MadeEventError, made_event
from keytrail.domain.finding import Finding
from keytrail.domain.rules import DetectionRule, Maturity, RuleTest
from keytrail.domain.shape import FieldPath


@dataclass(frozen=True, slots=True)
class RuleTestResult:
    """One test of one rule."""

    rule: str
    test: str
    passed: bool
    message: str
    """What was found, or why the test could not run."""
    path: FieldPath
    """Where the test stands in the manifest."""
    finding: Finding | None = None
    """The first that was found."""


def run_rule_tests(rules: Iterable[DetectionRule]) -> list[RuleTestResult]:
    """Run every test of every rule, in order."""
    return [result for rule in rules for result in _results(rule)]


def _results(rule: DetectionRule) -> Iterator[RuleTestResult]:
    compiled = compile_rules([rule], maturities=tuple(Maturity))
    for index, test in enumerate(rule.spec.tests):
        path: FieldPath = ("spec", "tests", index)
        engine = Engine(compiled)  # made anew for each test: thresholds and sequences remember
        if faults := engine.refused.get(rule.name):
            yield RuleTestResult(rule.name, test.name, passed=False, message=faults[0].message, path=path)
            continue
        try:
            found = _run(engine, rule, test)
        except MadeEventError as error:
            message = f"{error.fault.field}: {error.fault.message}"
            yield RuleTestResult(rule.name, test.name, passed=False, message=message, path=path)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            yield RuleTestResult(
                rule.name, test.name, passed=False, message=f"the event cannot be made: {error}", path=path
            )
        else:
            yield _judged(rule, test, found, engine.failures[rule.name], path)


def _run(engine: Engine, rule: DetectionRule, test: RuleTest) -> list[Finding]:
    given: Iterable[Any] = test.events or (test.event,)
    found: list[Finding] = []
    for one in given:
        if not isinstance(one, Mapping):
            raise MadeEventError((), "expected a mapping for each event")
        event = made_event(one, rule.spec.events[0])
        if event.kind not in engine.kinds:
            raise MadeEventError(("event", "kind"), f"the rule does not look at {event.kind} events")
        found += engine.detect(event)
    return found


def _judged(
    rule: DetectionRule, test: RuleTest, found: list[Finding], failures: int, path: FieldPath
) -> RuleTestResult:
    passed = bool(found) == test.match and not failures
    if failures:
        message = "the condition ended in an error"
    elif found:
        message = found[0].message
    else:
        message = "no finding"
    return RuleTestResult(rule.name, test.name, passed, message, path, next(iter(found), None))
