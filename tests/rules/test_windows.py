"""The shipped rules, window by window of every labelled recording, against what a good detector says of each."""

import json
from pathlib import Path

import pytest

from keytrail.domain.rules import Maturity, Severity
from rules.report import OUTSIDE, expected_kinds, library_findings, shipped_rules, summary, verdict, windows_of
from support.commands import keytrail, replay
from support.recordings import folder

LABELLED = ("policy-library", "kubernetes", "kubernetes-late", "sensors", "seed-demo", "burst")


@pytest.mark.parametrize("recording", LABELLED)
def test_every_window_gets_what_it_deserves(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Malicious: medium or above with the default rules; notable: something with all; benign: nothing above low."""
    stable, everything = library_findings(recording, stable=True), library_findings(recording)
    kinds, wrong = expected_kinds(recording), []
    with capsys.disabled():
        for name, _, _ in windows_of(recording):
            kind = kinds.get(name, "")
            print(f"{recording:<16} {name:<28} {kind:<10} {summary(stable[name]) or '-'}"[:180])  # noqa: T201 - the table
            if fault := verdict(kind, stable[name], everything[name]):
                wrong.append(f"{name}: {fault}: {summary(stable[name])}")
    assert wrong == []


@pytest.mark.parametrize("recording", ["burst", "seed-demo"])
def test_ordinary_recordings_are_silent(recording: str) -> None:
    """A burst of two thousand harmless processes, and two curls with keys: nothing above low, in or between windows."""
    found = library_findings(recording, stable=True)
    loud = [finding for name in found for finding in found[name] if finding.severity.rank > Severity.LOW.rank]
    assert [(finding.rule.name, finding.message) for finding in loud] == []
    assert OUTSIDE not in found or all(finding.severity.rank <= Severity.LOW.rank for finding in found[OUTSIDE])


def test_library_is_large_enough_and_quiet_by_default() -> None:
    """At least 45 rules, at least 25 of them stable, and each with positive and negative tests of its own."""
    rules = shipped_rules()
    assert len(rules) >= 45
    assert sum(rule.spec.maturity is Maturity.STABLE for rule in rules) >= 25
    lacking = [rule.name for rule in rules if {test.match for test in rule.spec.tests} != {True, False}]
    assert lacking == []


def test_replay_prints_findings_by_time_with_stable_keys(tmp_path: Path) -> None:
    """`replay --output findings` writes the contract's objects, earliest first, and they add up in the accounting."""
    summary_file = tmp_path / "summary.json"
    ran = replay("policy-library", "--output", "findings", "--summary", summary_file)
    found = ran.records
    assert found
    assert [record["ts"] for record in found] == sorted(record["ts"] for record in found)
    order = [
        "ts",
        "rule",
        "title",
        "severity",
        "maturity",
        "message",
        "uid",
        "event",
        "process",
        "identity",
        "credential",
    ]
    for record in found:
        assert [key for key in record if key in order] == [key for key in order if key in record]
        assert {"ts", "rule", "title", "severity", "maturity", "message", "uid", "event"} <= set(record)
        assert record["maturity"] == "stable"
    assert len({record["uid"] for record in found}) == len(found)
    records = json.loads(summary_file.read_text())["records"]
    assert records["exported"] == len(found)
    held_back = sum(records["suppressed"].values())
    assert records["made"] == records["exported"] + held_back
    assert replay("policy-library", "--output", "findings").out == ran.out


def test_rules_of_the_users_folder_come_on_top(tmp_path: Path) -> None:
    """A rule in `--config` runs beside the shipped ones; PolicyLibrary/default switches one off and raises another."""
    (tmp_path / "mine.yaml").write_text(
        "apiVersion: keytrail.io/v1alpha1\nkind: DetectionRule\nmetadata: {name: curl-used}\n"
        "spec:\n  title: curl was used\n  description: An example.\n  severity: low\n  maturity: stable\n"
        "  events: [exec]\n  condition: process.name == 'curl'\n  message: '{process.name} ran'\n"
        "---\napiVersion: keytrail.io/v1alpha1\nkind: PolicyLibrary\nmetadata: {name: default}\n"
        "spec: {rules: {tune: [{name: shadow-file-read, enabled: false}, {name: sudo-refused, severity: critical}]}}\n"
    )
    severities = {
        record["rule"]: record["severity"]
        for record in replay("policy-library", "--output", "findings", "--config", tmp_path).records
    }
    assert severities["curl-used"] == "low"
    assert "shadow-file-read" not in severities
    assert severities["sudo-refused"] == "critical"


def test_wrong_rule_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """A misspelt field of a condition ends the command with file, place and the nearest name."""
    (tmp_path / "wrong.yaml").write_text(
        "apiVersion: keytrail.io/v1alpha1\nkind: DetectionRule\nmetadata: {name: wrong}\n"
        "spec:\n  title: t\n  description: d\n  severity: low\n  maturity: stable\n"
        "  events: [exec]\n  condition: process.nmae == 'curl'\n  message: m\n"
    )
    ran = keytrail("replay", folder("seed-demo"), "--output", "findings", "--config", tmp_path)
    assert ran.code == 2
    assert "wrong.yaml:10" in ran.err
    assert "name" in ran.err
