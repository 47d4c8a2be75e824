"""docs/rules.md and the ATT&CK layer: made from the shipped rules, not stale, and safe whatever a manifest says."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keytrail.detect import Engine
from keytrail.detect.attack_layer import SCORES, attack_layer
from keytrail.detect.library import load_rules
from keytrail.detect.pages import code, fenced, kinds, load_line, over_time, page, sample, snippet, text
from keytrail.domain.policy_library import PolicyLibrary
from keytrail.domain.rules import DetectionRule, Maturity, Mitre, Severity
from keytrail.domain.shape import read
from keytrail.export.finding_line import finding_line
from keytrail.yaml_documents import parse_documents

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "rules.md"
LAYER = ROOT / "docs" / "attack-navigator-layer.json"
ACTIVE = "\\`*_[]<>|~&$"


pytestmark = pytest.mark.xdist_group("pages")  # the samples are made once


@pytest.fixture(scope="module")
def rules() -> tuple[DetectionRule, ...]:
    """The shipped rules."""
    return load_rules(ROOT / "policies" / "rules")[0]


@pytest.fixture(scope="module")
def whole(rules: tuple[DetectionRule, ...]) -> str:
    """The page as the generator writes it."""
    return page(rules, finding_line)


@pytest.fixture
def rule(rules: tuple[DetectionRule, ...]) -> DetectionRule:
    """One of them."""
    return next(one for one in rules if one.name == "shell-in-container")


def changed(rule: DetectionRule, **changes: object) -> DetectionRule:
    """The rule with other values in its spec."""
    return replace(rule, spec=replace(rule.spec, **changes))


def library(written: str) -> PolicyLibrary:
    """Read a snippet as the collector reads manifests."""
    (document,) = parse_documents(written, "snippet")
    found, faults = read(PolicyLibrary, document.data, ())
    assert not faults
    assert not document.problems
    assert found is not None
    return found


def test_page_and_layer_are_not_stale(rules: tuple[DetectionRule, ...], whole: str) -> None:
    """`python -m keytrail.detect.pages docs/rules.md docs/attack-navigator-layer.json` would change nothing."""
    assert PAGE.read_text("utf-8") == whole
    assert LAYER.read_text("utf-8") == attack_layer(rules)


def test_links_of_the_page_lead_somewhere(rules: tuple[DetectionRule, ...], whole: str) -> None:
    """Every link within the repository has its file and, where it names one, its heading."""
    written = re.sub(r"```.*?```", "", whole, flags=re.DOTALL)
    links = set(re.findall(r"\]\((?!https:)([^)#]*)(?:#([^)]*))?\)", written))
    assert {anchor for file, anchor in links if not file} == {rule.name for rule in rules}
    for file, anchor in links:
        target = PAGE.parent / file if file else PAGE
        assert target.is_file()
        assert not anchor or not file or f"\n## {anchor}\n" in target.read_text("utf-8"), (file, anchor)


def test_snippets_tune_their_rule(rules: tuple[DetectionRule, ...]) -> None:
    """Each snippet is a manifest that the engine takes as it is, with the rule's own values and a further exception."""
    for rule in rules:
        given_library = library(snippet(rule))
        (tuning,) = given_library.spec.rules.tune
        assert (tuning.name, tuning.severity, tuning.parameters) == (
            rule.name,
            rule.spec.severity,
            rule.spec.parameters,
        )
        engine = Engine.load([rule], given_library)
        assert engine.refused == {}
        assert len(engine.rules[0].rule.spec.exceptions) == len(rule.spec.exceptions) + 1


@pytest.mark.parametrize(
    "value",
    ["yes", "n", "on", "null", "~", "1e3", "0x1", "12:30:00", "", " ", "a: b", "#", "'", '"', "\\d+", "\x1b", "é"],
)
def test_parameters_stay_text(rule: DetectionRule, value: str) -> None:
    """A text that YAML would take as something else comes back from the snippet as it was."""
    parameters: dict[str, object] = {"shells": [value], "evidence": value, "y": 1, "no": True}
    (tuning,) = library(snippet(changed(rule, parameters=parameters))).spec.rules.tune
    assert tuning.parameters == parameters


def test_sample_is_the_finding_of_the_first_test_that_matches(rule: DetectionRule) -> None:
    """A sample comes out of the engine, the same each time; a rule whose tests find nothing has none."""
    finding = sample(rule)
    assert finding is not None
    assert finding.event.process.binary == "/usr/bin/bash"
    assert finding_line(finding) == finding_line(sample(rule) or finding)
    silent = tuple(test for test in rule.spec.tests if not test.match)
    assert sample(changed(rule, tests=silent)) is None
    assert sample(changed(rule, condition="false")) is None


def test_every_stable_rule_has_a_sample(rules: tuple[DetectionRule, ...], whole: str) -> None:
    """What runs by default shows on the page what it would say."""
    sections = whole.split("\n## ")[1:]
    shown = {section.split("\n")[0] for section in sections if "**A finding:**" in section}
    assert {rule.name for rule in rules if rule.spec.maturity is Maturity.STABLE} <= shown


def test_what_a_rule_needs(rules: tuple[DetectionRule, ...]) -> None:
    """Kinds of a sequence's steps count; the agent's own features are not loaded as policies."""
    found = {rule.name: rule for rule in rules}
    sequence = found["credential-file-then-connection"]
    assert kinds(sequence) == ["connect", "file"]
    assert "Takes earlier events (file) of the same command within 10s." in over_time(sequence)
    both = changed(sequence, requires=("environment", "tcp-connect", "sshd"))
    assert load_line(both) == "keytrail policies load tcp-connect sshd"
    assert load_line(changed(sequence, requires=("environment",))) == ""


@pytest.mark.parametrize(
    ("given_text", "written"),
    [
        ("as `kubectl exec` does", "as `kubectl exec` does"),
        ("a\n\n# b\n---\n- c", "a # b --- - c"),
        ("<img src=x>", "\\<img src=x\\>"),
        ("[a](javascript:b)", "\\[a\\](javascript:b)"),
        ("*a* _b_ ~~c~~ $d$ &lt;", "\\*a\\* \\_b\\_ \\~\\~c\\~\\~ \\$d\\$ \\&lt;"),
        ("a | b \\", "a \\| b \\\\"),
        ("one ` tick <b>", "one \\` tick \\<b\\>"),
        ("``a`<b>`", "\\`\\`a`<b>`"),
        ("`a``<b>`", "\\`a\\`\\`\\<b\\>\\`"),
        ("\x1b[31m\u202e", "\\\\x1b\\[31m\\\\u202e"),
    ],
)
def test_text_of_a_manifest_is_inert(given_text: str, written: str) -> None:
    """Markup, links, HTML, table cells and control characters become characters; code spans stay."""
    assert text(given_text) == written


@given(st.text(alphabet=[*ACTIVE, "a", " ", "\n", "#", "-", "\x07"], max_size=40))
def test_no_active_character_is_left(given_text: str) -> None:
    """Whatever a text holds: one line, and outside code spans each active character is escaped."""
    written = text(given_text)
    assert "\n" not in written
    assert "\x07" not in written
    # A code span has single ticks at both ends, none escaped and none beside another.
    rest = re.sub(r"\\[^a\s#-]", "", re.sub(r"(?<![\\`])((?:\\\\)*)`[^`]+`(?!`)", r"\1", written))
    assert not set(rest) & set(ACTIVE) - {"\\"}


@given(st.text(alphabet="`a \n", max_size=30))
def test_code_cannot_be_left(given_text: str) -> None:
    """No run of ticks inside is as long as those around: neither a code span nor a code block ends early."""
    span = code(given_text)
    ticks = re.match("`+", span)
    assert ticks is not None
    inside = span[len(ticks[0]) : -len(ticks[0])]
    assert ticks[0] not in re.findall("`+", inside)
    block = fenced("json", given_text).split("\n")
    assert not any(line.lstrip().startswith(block[0].removesuffix("json")) for line in block[1:-2])


def test_hostile_rule_stays_in_its_section(rule: DetectionRule) -> None:
    """Title, description, exceptions, addresses and parameters add neither heading, nor HTML, nor link to the page."""
    evil = "x](http://e.example)<script>\n## y\n```\n| z"
    bad = changed(
        rule,
        title=evil,
        description=evil,
        message="found ```",
        references=("https://e.example/<script>",),
        parameters={"shells": ["```", *rule.spec.parameters["shells"]], "evidence": ["env", evil]},  # type: ignore[misc] # a list, as in the manifest
        exceptions=(replace(rule.spec.exceptions[0], condition="false ||\n\n## y ```\n<script>"),),
        tests=(),
    )
    written = page([bad], finding_line)
    outside = re.sub(r"^(````*)yaml\n.*?^\1$", "", written, flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"^#+ .*", outside, re.MULTILINE) == ["# Detection rules", "## shell-in-container"]
    assert re.findall(r"(?<!\\)\]\(http://e", outside) == []
    spans = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", re.sub(r"\\.", "", outside))
    assert "<script" not in spans


def test_layer_scores_the_most_proven_rule(rule: DetectionRule) -> None:
    """A technique has the highest score of its rules in each tactic; an unknown tactic is left to the Navigator."""
    places = (Mitre(tactic="TA0002", technique="T1609"), Mitre(tactic="TA9999", technique="T1059.004"))
    weak = replace(changed(rule, mitre=places, maturity=Maturity.SANDBOX), metadata=replace(rule.metadata, name="weak"))
    layer = json.loads(attack_layer([weak, changed(rule, mitre=places[:1])]))
    assert layer["techniques"] == [
        {"techniqueID": "T1059.004", "score": 1, "comment": "weak (sandbox)"},
        {
            "techniqueID": "T1609",
            "tactic": "execution",
            "score": 3,
            "comment": "shell-in-container (stable), weak (sandbox)",
        },
    ]
    assert layer["versions"]["layer"] == "4.5"
    assert layer["domain"] == "enterprise-attack"


def test_layer_holds_every_technique(rules: tuple[DetectionRule, ...]) -> None:
    """Each technique of a shipped rule is there, in a tactic that ATT&CK has, with a score of the gradient."""
    layer = json.loads(attack_layer(rules))
    assert {one["techniqueID"] for one in layer["techniques"]} == {
        place.technique for rule in rules for place in rule.spec.mitre
    }
    assert all("tactic" in one for one in layer["techniques"])
    assert {one["score"] for one in layer["techniques"]} <= set(SCORES.values())
    assert len(layer["gradient"]["colors"]) == len(SCORES)


def test_severity_of_a_snippet_is_the_rules_own(rule: DetectionRule) -> None:
    """A rule of another severity has another snippet."""
    (tuning,) = library(snippet(changed(rule, severity=Severity.INFO, parameters={}))).spec.rules.tune
    assert (tuning.severity, tuning.parameters, tuning.enabled) == (Severity.INFO, {}, True)
