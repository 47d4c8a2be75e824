"""What the rules on expected use say of the recorded cluster, with mappings for its three keys."""

from collections import defaultdict
from functools import cache

import pytest

from keytrail.decode.credential_patterns import looks_like_credential_name
from keytrail.detect import Engine
from keytrail.detect.rule_tests import run_rule_tests
from keytrail.domain.rules import DetectionRule, Maturity
from keytrail.identify.matcher import IdentityMatcher
from keytrail.manifests import load_builtin_identities
from rules.expected_use import EXPECTED, ONLY_PYTHON, mappings
from rules.report import UNLIMITED, shipped_rules, windows_of
from support.recordings import decoded

BINARY = "identity-unexpected-binary"
WORKLOAD = "identity-unexpected-workload"
DESTINATION = "identity-unexpected-destination"
UNVERIFIED = "identity-destination-unverified"
CLIENTS = ["/usr/bin/curl", "/usr/bin/python3*"]


def of_topic() -> tuple[DetectionRule, ...]:
    """The four rules."""
    found = tuple(rule for rule in shipped_rules() if rule.name in {BINARY, WORKLOAD, DESTINATION, UNVERIFIED})
    assert len(found) == 4
    return found


@cache
def found_in(recording: str, *, only_python: bool = False) -> dict[str, set[str]]:
    """Rules that speak, by window; the empty name is for all between windows."""
    expected = mappings(ONLY_PYTHON if only_python else EXPECTED)
    matcher = IdentityMatcher(expected, load_builtin_identities(), looks_like_credential=looks_like_credential_name)
    engine = Engine.load(of_topic(), maturities=tuple(Maturity), budget=UNLIMITED)
    spans = list(windows_of(recording))
    found: dict[str, set[str]] = defaultdict(set)
    for place, event in enumerate(decoded(recording)):
        if event.process.attribution is None:
            event.process.attribution = matcher.attribute(event.process)
        window = next((name for name, first, last in spans if first <= place <= last), "")
        found[window] |= {finding.rule.name for finding in engine.detect(event) if not finding.suppressed}
    assert not engine.failures
    return {window: rules for window, rules in found.items() if rules}


@pytest.mark.parametrize(
    ("window", "rules"),
    [
        ("stolen-key", {WORKLOAD, UNVERIFIED, DESTINATION}),
        ("trainer-evil", {DESTINATION, UNVERIFIED}),
        ("stripe-file-other-process", {DESTINATION, UNVERIFIED}),
        ("sa-token-read", {DESTINATION, UNVERIFIED}),
        ("chat-openai-curl", {UNVERIFIED}),
        ("chat-openai-python", {UNVERIFIED}),
        ("chat-db", {UNVERIFIED}),
        ("trainer-anthropic", {UNVERIFIED}),
        ("host-openai", {UNVERIFIED}),
        ("trainer-sidecar", set()),
        ("exec-probe", set()),
        ("debug-exec", set()),
    ],
)
def test_window_of_the_recorded_cluster(window: str, rules: set[str]) -> None:
    """A stolen key and a key taken elsewhere are told apart; expected use is at most unverified."""
    assert found_in("kubernetes").get(window, set()) == rules


def test_only_the_windows_of_misuse_are_loud() -> None:
    """No other window of the recording has a finding above info."""
    loud = {window for window, rules in found_in("kubernetes").items() if rules - {UNVERIFIED}}
    assert loud == {"stolen-key", "trainer-evil", "stripe-file-other-process", "sa-token-read"}


def test_program_that_is_not_expected() -> None:
    """With python alone allowed, each curl that carries the Stripe key and connects is named, and nothing else."""
    found = found_in("kubernetes", only_python=True)
    assert {window for window, rules in found.items() if rules == {BINARY}} == set(found)
    assert set(found) == {"checkout-stripe", "stolen-key", "stripe-file-other-process", "pending-pod"}


def test_without_mappings_nothing_is_judged() -> None:
    """Identities that only a provider's mapping names have no expectations: the rules are silent without yours."""
    assert found_in("policy-library") == {}


def test_own_tests_of_the_rules_hold() -> None:
    """Every rule has a case that it finds and one that it leaves alone, and all of its cases hold."""
    assert [one for one in run_rule_tests(of_topic()) if not one.passed] == []
    assert all({test.match for test in rule.spec.tests} == {True, False} for rule in of_topic())
