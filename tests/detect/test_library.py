"""Rules from files: every wrong rule has its file, line, column and the nearest name; the others run."""

# ruff: noqa: E501 - tables, read row by row

from pathlib import Path

import pytest

from keytrail.detect.library import check, load_rules
from keytrail.detect.rule_tests import run_rule_tests

RULE = """apiVersion: keytrail.io/v1alpha1
kind: DetectionRule
metadata: {name: shell}
spec:
  title: Shell
  description: A shell.
  severity: high
  maturity: stable
  events: [exec]
  requires: [tcp-connect]
  parameters: {shells: [sh, bash], places: ["/tmp/**"], patterns: ["^a"]}
  condition: process.name in params.shells
  message: "{process.name} started"
  suppress: {by: [pod.uid], window: 10m}
  tests:
    - {name: a shell, event: {process: {binary: /bin/sh}}, match: true}
    - {name: no shell, event: {process: {binary: /bin/ls}}, match: false}
"""


def write(folder: Path, old: str = "", new: str = "") -> Path:
    """Write the rule with one change."""
    assert old in RULE
    (folder / "rule.yaml").write_text(RULE.replace(old, new, 1) if old else RULE)
    return folder


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "message"),
    [
        ("process.name in params.shells", "process.nam in params.shells", 12, "spec.condition", "column 8: Process has no field 'nam', did you mean name?"),
        ("process.name in params.shells", "proces.name in params.shells", 12, "spec.condition", "column 7: unknown name 'proces.name', did you mean process.name?"),
        ("process.name in params.shells", "process.name in params.shels", 12, "spec.condition", "column 23: unknown name 'params.shels', did you mean params.shells?"),
        ("process.name in params.shells", "process.name == process.uid", 12, "spec.condition", "column 14: == does not take (string, int): both sides must be of one type"),
        ("process.name in params.shells", "process.binary.glob('/tmp/*')", 12, "spec.condition", "column 20: glob is called as glob(text, ...), not as text.glob(...)"),
        ("process.name in params.shells", "basename(process.uid) == ''", 12, "spec.condition", "column 9: basename does not take (int): docs/rule-language.md says what it takes"),
        ("process.name in params.shells", "process.uid == 0 and process.pid == 1", 12, "spec.condition", "column 18: mismatched input 'and': write &&"),
        ("process.name in params.shells", "process.name in ('sh', 'bash')", 12, "spec.condition", "column 22: mismatched input ',': a list stands in [ ]"),
        ("process.name in params.shells", "process.name contains 'sh'", 12, "spec.condition", "column 14: mismatched input 'contains': write text.contains(part)"),
        ("process.name in params.shells", "process.name", 12, "spec.condition", "column 1: expected a condition, true or false; this is of type string"),
        ("process.name in params.shells", "process.name.startswith('a')", 12, "spec.condition", "column 24: unknown name 'startswith', did you mean startsWith?"),
        ("process.name in params.shells", "process.name.matches('(')", 12, "spec.condition", "column 21: matches is given what it cannot use: missing ): ("),
        ("process.name in params.shells", "process.name.matches(process.cwd)", 12, "spec.condition", "column 21: a pattern of matches must be known when the rule is loaded: a literal, a parameter, an item of one"),
        ("process.name in params.shells", "|\n    process.uid == 0 &&\n      process.nam == 'sh'", 12, "spec.condition", "line 2, column 10: Process has no field 'nam', did you mean name?"),
        ("process.name in params.shells", "process == parent", 12, "spec.condition", "column 9: objects cannot be compared: compare their fields"),
        ("process.name in params.shells", "ancestors.exists(a, ancestors.exists(b, ancestors.exists(c, c.uid == 0)))", 12, "spec.condition", "column 57: unbounded work: expected at most 2 macros in each other"),
        ("process.name in params.shells", "identities.exists(i, params.shells.exists(s, [0,1,2,3,4,5,6,7,8,9].map(x, x).size() > 0))", 12, "spec.condition", "column 71: unbounded work: expected at most 2 macros in each other"),
        ("tcp-connect", "tcp-conect", 10, "spec.requires[0]", "unknown sensor 'tcp-conect', did you mean tcp-connect?"),
        ("{process.name} started", "{process.nam} started", 13, "spec.message", "column 9: Process has no field 'nam', did you mean name?"),
        ("{process.name} started", "{args.text} started", 13, "spec.message", "column 2: args is a list: it can be tested, but not shown or compared"),
        ("{process.name} started", "{process.name started", 13, "spec.message", "column 1: a brace without its other half; write {{"),
        ("pod.uid", "pod.uidd", 14, "spec.suppress.by[0]", "column 4: Pod has no field 'uidd', did you mean uid?"),
        ("[exec]", "[exce]", 9, "spec.events[0]", "unknown value 'exce', did you mean exec?"),
    ],
)  # fmt: skip
def test_wrong_rule(  # noqa: PLR0917 - a table of five columns
    tmp_path: Path, old: str, new: str, line: int, field: str, message: str
) -> None:
    """Type errors, unknown fields, sensors and kinds, bad patterns and unbounded work are refused with their place."""
    (problem,) = check(write(tmp_path, old, new), sensors=["tcp-connect"])
    assert (problem.line, problem.field, problem.message) == (line, field, message)
    assert problem.path == str(tmp_path / "rule.yaml")


def test_an_assignment(tmp_path: Path) -> None:
    """Who compares with one =, as other languages do, is told of the other one."""
    first, *_ = check(write(tmp_path, "process.name in params.shells", "process.name = 'sh'"))
    assert first.message == "column 14: token recognition error at: '= ': to compare write =="


def test_other_rules_run(tmp_path: Path) -> None:
    """A wrong rule takes no other with it, and every one of its faults is told at once."""
    write(tmp_path)
    (tmp_path / "wrong.yaml").write_text(
        RULE.replace("name: shell", "name: wrong").replace("process.name", "process.nam")
    )
    rules, problems = load_rules(tmp_path)
    assert [rule.name for rule in rules] == ["shell"]
    assert [problem.field for problem in problems] == ["spec.condition", "spec.message"]


def test_twice_and_none(tmp_path: Path) -> None:
    """Two rules of one name are refused, and so is a folder in which there is none."""
    write(tmp_path)
    (tmp_path / "twice.yaml").write_text(RULE)
    assert [problem.message for problem in check(tmp_path)] == [
        f"DetectionRule 'shell' is given twice, first at {tmp_path}/rule.yaml:3"
    ]
    (tmp_path / "empty").mkdir()
    assert [problem.message for problem in check(tmp_path / "empty")] == ["expected rules: there is no DetectionRule"]
    assert "cannot be read" in check(tmp_path / "missing.yaml")[0].message


def test_rule_tests(tmp_path: Path) -> None:
    """A rule's own tests pass, fail, and say when their event is none."""
    rules, _ = load_rules(write(tmp_path))
    assert [(result.test, result.passed) for result in run_rule_tests(rules)] == [("a shell", True), ("no shell", True)]
    rules, _ = load_rules(write(tmp_path, "/bin/ls", "/bin/bash"))
    assert [(result.passed, result.message) for result in run_rule_tests(rules)] == [
        (True, "sh started"),
        (False, "bash started"),
    ]
    rules, _ = load_rules(write(tmp_path, "{binary: /bin/ls}", "{binry: /bin/ls}"))
    assert run_rule_tests(rules)[1].message == "process.binry: unknown field, did you mean binary?"
    rules, _ = load_rules(write(tmp_path, "{process: {binary: /bin/ls}}", "{kind: exec}"))
    assert run_rule_tests(rules)[1].message == "kind: unknown field, did you mean event.kind?"


def test_work_is_bounded(tmp_path: Path) -> None:
    """Too long, too deep, too many macros or too many steps is refused; what is just allowed still becomes code."""
    names = ", ".join(f"'n{number}'" for number in range(40))
    for condition, message in {
        "true" + " " * 8200: "expected at most 8192 characters",
        " || ".join(["process.uid == 0"] * 400): "unbounded work: expected at most 1000 parts",
        "(true ? " * 41 + "true" + " : false)" * 41: "unbounded work: expected at most 32 levels",
        f"identities.exists(i, identities.exists(j, i.id + j.id in [{names}]))": "steps, expected at most 100000",
    }.items():
        (problem,) = check(write(tmp_path, "process.name in params.shells", f'"{condition}"'))
        assert message in problem.message
    deep = "true"
    for _ in range(14):
        deep = f"(process.uid == 0 ? {deep} : !(false || true))"
    assert check(write(tmp_path, "process.name in params.shells", f'"{deep}"')) == ()
    assert all(result.test for result in run_rule_tests(load_rules(tmp_path)[0]))
