"""The shapes of DetectionRule and PolicyLibrary: what they take, and what they refuse."""

# ruff: noqa: E501 - tables, read row by row

import copy
from typing import Any

import pytest

from keytrail.domain.policy_library import LibraryMode, PolicyLibrary
from keytrail.domain.resources import KINDS
from keytrail.domain.rules import DetectionRule, Maturity, SequenceScope, Severity, duration_ns
from keytrail.domain.shape import read
from support.custom_resources import manifest_of

RULE = manifest_of("DetectionRule") | {"metadata": {"name": "scan"}, "status": {}}
LIBRARY: dict[str, Any] = {
    "metadata": {"name": "default"},
    "spec": {
        "mode": "listed",
        "policies": [{"name": "egress", "parameters": {"clusterCIDRs": "auto"}, "namespaces": {"exclude": ["kube-system"]}, "rateLimit": "1m"}],
        "rules": {"maturity": ["stable", "sandbox"], "tune": [{"name": "scan", "enabled": False, "severity": "low", "parameters": {"limit": 4}}]},
    },
}  # fmt: skip


def faults(cls: type, data: dict[str, Any], path: str, value: object) -> list[str]:
    """What is wrong after one change."""
    changed = copy.deepcopy(data)
    *steps, last = path.split(".")
    target: Any = changed
    for step in steps:
        target = target[int(step)] if isinstance(target, list) else target[step]
    target[int(last) if isinstance(target, list) else last] = value
    return [f"{fault.field}: {fault.message}" for fault in read(cls, changed)[1]]


def test_rule() -> None:
    """A rule with everything is read whole."""
    rule, wrong = read(DetectionRule, RULE)
    assert wrong == []
    assert rule is not None
    assert (rule.name, rule.spec.severity, rule.spec.maturity) == ("scan", Severity.HIGH, Maturity.STABLE)
    assert rule.spec.threshold is not None
    assert duration_ns(rule.spec.threshold.window) == 60 * 10**9
    assert Severity.LOW.rank < Severity.CRITICAL.rank


def test_library() -> None:
    """A library with everything is read whole, and an empty one means the defaults."""
    library, wrong = read(PolicyLibrary, LIBRARY)
    assert wrong == []
    assert library is not None
    assert library.spec.policies[0].namespaces is not None
    empty, _ = read(PolicyLibrary, {"metadata": {"name": "default"}})
    assert empty is not None
    assert (empty.spec.mode, empty.spec.rules.maturity) == (LibraryMode.REQUIRED, (Maturity.STABLE,))


def test_sequence() -> None:
    """A sequence is by process tree unless it says otherwise, and not together with a threshold."""
    sequence = {"steps": [{"events": ["file"], "condition": "true"}], "within": "30s"}
    assert faults(DetectionRule, RULE, "spec.sequence", sequence) == [
        "spec: expected at most one of threshold, sequence, found threshold and sequence"
    ]
    changed = copy.deepcopy(RULE)
    del changed["spec"]["threshold"]
    changed["spec"]["sequence"] = sequence
    rule, _ = read(DetectionRule, changed)
    assert rule is not None
    assert rule.spec.sequence is not None
    assert rule.spec.sequence.by is SequenceScope.TREE


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("spec.severity", "hihg", "unknown value 'hihg', did you mean high?"),
        ("spec.events", [], "expected at least 1 in the list"),
        ("spec.events.0", "conect", "did you mean connect?"),
        ("spec.mitre.0.technique", "1046", "expected an id such as T1059"),
        ("spec.parameters.names", ["a", 1], "expected items of one type"),
        ("spec.parameters.names", {"a": 1}, "expected text, a number, true, false or a list of these"),
        ("spec.parameters.names", ["a"] * 1025, "expected at most 1024 items"),
        ("spec.parameters.limit", 2**63, "expected a whole number of 64 bits"),
        ("spec.parameters.ratio", float("nan"), "expected a finite number"),
        ("spec.parameters.Names", 1, "expected a name of lower-case letters"),
        ("spec.suppress.window", "10min", "expected a time such as 10m or 30s"),
        ("spec.suppress.window", "25h", "a day at most"),
        ("spec.suppress.by", ["pod"], "expected a field of the event such as pod.uid"),
        ("spec.threshold.count", 1, "from 2 to 10000"),
        ("spec.exceptions", [{"name": "a", "condition": "true"}] * 2, "'a' is given twice"),
        ("spec.tests.0.events", [{}], "expected exactly one of event, events"),
        ("spec.references.0", "javascript:alert(1)", "expected an address that begins with https://"),
        ("spec.message", "a\nb", "expected text without control characters"),
    ],
)
def test_wrong_rule(path: str, value: object, message: str) -> None:
    """Each bound is kept, and the one problem says which."""
    (found,) = faults(DetectionRule, RULE, path, value)
    assert message in found


def test_wrong_library() -> None:
    """There is one library, and it tunes each rule once."""
    assert faults(PolicyLibrary, LIBRARY, "metadata.name", "other") == [
        "metadata.name: there is one PolicyLibrary, named default: found 'other'"
    ]
    assert faults(PolicyLibrary, LIBRARY, "spec.rules.tune", [{"name": "a"}, {"name": "a"}]) == [
        "spec.rules.tune[1].name: 'a' is given twice"
    ]


def test_kinds() -> None:
    """Both kinds are known to whoever reads manifests."""
    assert {DetectionRule, PolicyLibrary} <= set(KINDS.values())
