"""`keytrail rules`: check, test, list, explain."""

import json
import shlex
from pathlib import Path

import pytest

from keytrail.manifests import builtin_folder
from keytrail.tracing import sensors
from support.commands import keytrail

RULE = """apiVersion: keytrail.io/v1alpha1
kind: DetectionRule
metadata: {name: shell}
spec:
  title: "Shell \\u202e"
  description: "A shell.\\e[31m"
  severity: high
  maturity: sandbox
  mitre: [{tactic: TA0002, technique: T1059.004}]
  events: [exec]
  requires: [tcp-connect]
  parameters: {shells: [sh, bash]}
  condition: process.name in params.shells
  message: "{process.name} started"
  tests:
    - {name: a shell, event: {process: {binary: /bin/sh}}, match: true}
    - {name: no shell, event: {process: {binary: /bin/ls}}, match: false}
"""
LIBRARY = """apiVersion: keytrail.io/v1alpha1
kind: PolicyLibrary
metadata: {name: default}
spec:
  rules:
    tune:
      - {name: shell, enabled: true, severity: low, parameters: {shells: [fish]}}
      - {name: shell-in-container, enabled: false}
      - {name: setuid-program, enabled: true}
"""
CONDITION = "condition: process.name in params.shells"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEYTRAIL_SETTINGS", raising=False)


def write(folder: Path, old: str = "", new: str = "", name: str = "rule.yaml") -> Path:
    """Write the rule with one change."""
    assert old in RULE
    file = folder / name
    file.write_text(RULE.replace(old, new, 1) if old else RULE)
    return file


def listed(*options: str | Path) -> dict[str, list[str]]:
    """Rows of `rules list` by name."""
    ran = keytrail("rules", "list", *options)
    assert ran.code == 0, ran.err
    heading, *rows = ran.out.splitlines()
    assert heading.split() == ["NAME", "SEVERITY", "MATURITY", "ENABLED", "MITRE", "SENSORS", "EVENTS"]
    return {row.split()[0]: row.split()[1:] for row in rows}


def test_check_of_the_shipped_library() -> None:
    """Without a path the shipped rules are checked, sensors included: all can run."""
    ran = keytrail("rules", "check")
    count = len(list((builtin_folder() / "rules").glob("*.yaml")))
    assert (ran.code, ran.out) == (0, f"{count} rules can run, 0 problems\n")


@pytest.mark.parametrize(
    ("condition", "place"),
    [
        ("condition: process.nam in params.shells", "13:21"),
        ("condition: 'process.nam in params.shells'", "13:22"),
        ("condition: >-\n    process.uid == 0\n    && process.nam in\n      params.shells", "15:15"),
        ("condition: |\n    process.uid == 0 &&\n      process.nam == 'condition'", "15:14"),
        ("condition: \"process.cwd == '\\u0041' || process.nam == process.cwd\"", "13"),
    ],
)
def test_problem_has_its_place_in_the_file(tmp_path: Path, condition: str, place: str) -> None:
    """Line and column are those of the file, however YAML folds the text; an escaped text keeps the place within it."""
    file = write(tmp_path, CONDITION, condition)
    ran = keytrail("rules", "check", file)
    first, summary = ran.out.splitlines()
    assert (ran.code, summary) == (2, "0 rules can run, 1 problem")
    column = "" if ":" in place else "column 30: "
    assert first == f"{file}:{place}: spec.condition: {column}Process has no field 'nam', did you mean name?"


def test_check_tells_problems_of_every_kind(tmp_path: Path) -> None:
    """Message, key, sensor and event kind: each with its place and the nearest name, and a name that is given twice."""
    write(tmp_path, "{process.name} started", "{process.nam} started", "a.yaml")
    write(tmp_path, "requires: [tcp-connect]", "requires: [tcp-conect, environmnt]", "b.yaml")
    write(tmp_path, "[exec]", "[exce]", "c.yaml")
    one, two = write(tmp_path, name="d.yaml"), write(tmp_path, name="e.yaml")
    ran = keytrail("rules", "check", *sorted(tmp_path.iterdir()))
    assert ran.code == 2
    assert ran.out.splitlines() == [
        f"{tmp_path}/a.yaml:14:21: spec.message: Process has no field 'nam', did you mean name?",
        f"{tmp_path}/b.yaml:11: spec.requires[0]: unknown sensor 'tcp-conect', did you mean tcp-connect?",
        f"{tmp_path}/b.yaml:11: spec.requires[1]: unknown sensor 'environmnt', did you mean environment?",
        f"{tmp_path}/c.yaml:10: spec.events[0]: unknown value 'exce', did you mean exec?",
        f"{two}:1: metadata.name: 'shell' is given twice, first at {one}:1",
        "1 rule can run, 5 problems",
    ]


def test_place_in_a_line_of_many_fields(tmp_path: Path) -> None:
    """In a List on few lines the column is that of the right condition; an item of a list keeps its own column."""
    spec = (
        "{title: A, description: B, severity: low, maturity: stable, events: [exec], message: m, "
        "condition: 'true', exceptions: [{name: a, condition: 'true'}, {name: b, condition: 'pod.nam == \"\"'}], "
        "suppress: {by: [pod.uidd], window: 1m}}"
    )
    head = "apiVersion: keytrail.io/v1alpha1, kind: DetectionRule, metadata: {name: a}"
    file = tmp_path / "list.yaml"
    file.write_text(f"apiVersion: v1\nkind: List\nitems:\n  - {{{head},\n     spec: {spec}}}\n")
    column = file.read_text().splitlines()[4].index(".nam ") + 1
    first, second, _ = keytrail("rules", "check", file).out.splitlines()
    where = "items[0].spec"
    assert first == f"{file}:5:{column}: {where}.exceptions[1].condition: Pod has no field 'nam', did you mean name?"
    assert second == f"{file}:5: {where}.suppress.by[0]: column 4: Pod has no field 'uidd', did you mean uid?"


def test_check_of_what_is_not_there(tmp_path: Path) -> None:
    """A missing file and a folder without rules are problems, not successes; names are escaped."""
    ran = keytrail("rules", "check", tmp_path, tmp_path / "no\x1b.yaml")
    assert ran.code == 2
    assert "expected rules: there is no DetectionRule" in ran.out
    assert "no\\x1b.yaml: cannot be read" in ran.out


def test_tests_of_the_shipped_library_pass() -> None:
    """Every test that a shipped rule carries passes, and every rule has one."""
    ran = keytrail("rules", "test")
    assert ran.code == 0, ran.out
    assert ran.out.endswith(" passed, 0 failed\n")
    assert ran.out.count("\n") == 1


def test_failing_tests_are_a_table(tmp_path: Path) -> None:
    """A test that fails is shown with its line, what was expected and what was found; a rule without one is named."""
    file = write(tmp_path, "match: false", "match: true")
    bare = write(tmp_path, name="untested.yaml")
    bare.write_text(RULE.partition("  tests:")[0].replace("name: shell", "name: bare"))
    ran = keytrail("rules", "test", tmp_path)
    untested, heading, row, summary = ran.out.splitlines()
    assert ran.code == 1
    assert untested == f"{bare}:1: bare has no test"
    assert heading.split() == ["RULE", "TEST", "EXPECTED", "FOUND", "FILE"]
    (line,) = (at for at, text in enumerate(file.read_text().splitlines(), 1) if "no shell" in text)
    assert row.split("  ") == ["shell", "no shell", "a finding", "no finding", f"{file}:{line}"]
    assert summary == "1 passed, 1 failed"


def test_wrong_rule_fails_the_tests_of_the_others_not(tmp_path: Path) -> None:
    """A rule that cannot run is told and gives exit code 2; the tests of the others are run all the same."""
    write(tmp_path)
    wrong = write(tmp_path, CONDITION, "condition: process.nam == ''", "wrong.yaml")
    ran = keytrail("rules", "test", tmp_path)
    assert ran.code == 2
    problem, summary = ran.out.splitlines()
    assert problem.startswith(f"{wrong}:13:21: spec.condition: ")
    assert summary == "2 passed, 0 failed"


def test_list_shows_what_runs(tmp_path: Path) -> None:
    """Of the shipped rules the stable ones run; the user's tuning and own rules count."""
    write(tmp_path)
    (tmp_path / "library.yaml").write_text(LIBRARY)
    rows = listed("--config", tmp_path)
    assert rows.pop("shell") == ["low", "sandbox", "yes", "T1059.004", "tcp-connect", "exec"]
    assert rows.pop("shell-in-container")[1:3] == ["stable", "no"]
    assert rows.pop("setuid-program")[1:3] == ["incubating", "yes"]
    assert {(row[1] == "stable", row[2]) for row in rows.values()} == {(True, "yes"), (False, "no")}


def test_list_of_all() -> None:
    """`--rules all` switches every shipped rule on."""
    assert {row[2] for row in listed("--rules", "all").values()} == {"yes"}


def test_list_of_a_folder_in_place_of_the_library(tmp_path: Path) -> None:
    """`--rules DIR` lists the rules of that folder alone, all of which run."""
    write(tmp_path)
    assert listed("--rules", tmp_path) == {"shell": ["high", "sandbox", "yes", "T1059.004", "tcp-connect", "exec"]}


def test_list_refuses_a_wrong_tuning(tmp_path: Path) -> None:
    """A PolicyLibrary that names no rule ends the command with exit code 2 and the nearest name."""
    (tmp_path / "library.yaml").write_text(LIBRARY.replace("name: shell,", "name: shel,"))
    rules = tmp_path / "rules"
    rules.mkdir()
    write(rules)
    ran = keytrail("rules", "list", "--rules", rules, "--config", tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert "did you mean shell?" in ran.err


def test_explain_says_everything() -> None:
    """Meaning, tuning with the parameters' values, exceptions, needs with a line that works, and a real finding."""
    ran = keytrail("rules", "explain", "sudoers-written")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    for heading in ("What it means", "What it needs", "A finding"):
        assert heading in lines
    assert any(line.startswith("How to tune it") for line in lines)
    assert "        - name: sudoers-written" in lines
    load = next(line for line in lines if line.startswith("  keytrail policies load "))
    assert set(shlex.split(load)[3:]) <= set(sensors())
    found = json.loads(lines[lines.index("A finding") + 1])
    assert (found["rule"], found["event"]["kind"]) == ("sudoers-written", "file")


def test_explain_of_an_agent_feature() -> None:
    """A rule that needs an option of the agent says which."""
    ran = keytrail("rules", "explain", "setuid-program")
    assert "process-credentials: the agent's option --enable-process-cred" in ran.out
    assert "policies load" not in ran.out


def test_explain_shows_the_users_own_rule_as_tuned(tmp_path: Path) -> None:
    """Values are those in force; text of the manifest is escaped; without a test that matches there is no sample."""
    write(tmp_path)
    (tmp_path / "library.yaml").write_text(LIBRARY)
    ran = keytrail("rules", "explain", "shell", "--rules", tmp_path, "--config", tmp_path)
    assert ran.out.startswith("shell: Shell \\u202e\n  severity low, maturity sandbox\n")
    assert "A shell.\\x1b[31m" in ran.out
    assert "shells: [fish]" in ran.out
    assert "Each event is a finding." in ran.out
    assert "\nA finding\n" not in ran.out


def test_explain_of_an_unknown_or_wrong_rule(tmp_path: Path) -> None:
    """The nearest name is offered, else where to find them; a rule that cannot run says why."""
    write(tmp_path, CONDITION, "condition: process.nam == ''")
    near = keytrail("rules", "explain", "shel", "--rules", tmp_path)
    assert (near.code, near.err) == (2, "keytrail: there is no rule 'shel', did you mean shell?\n")
    far = keytrail("rules", "explain", "qqqq\x1b", "--rules", tmp_path)
    assert far.err == "keytrail: there is no rule 'qqqq\\x1b', `keytrail rules list` names them\n"
    wrong = keytrail("rules", "explain", "shell", "--rules", tmp_path)
    assert (wrong.code, "did you mean name?" in wrong.err) == (2, True)


@pytest.mark.parametrize("action", ["check", "test", "list", "explain"])
def test_help_has_an_example(action: str) -> None:
    """Each action's help ends with a line to type."""
    ran = keytrail("rules", action, "--help")
    assert ran.code == 0
    assert f"example:\n  keytrail rules {action}" in ran.out
