"""`keytrail rules`: check, test, list and explain detection rules, without an agent."""

import argparse
import re
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keytrail.commands.options import add_command, add_config, add_settings_file, read_settings
from keytrail.commands.terminal import printable, say, table
from keytrail.domain.errors import Problem, UsageError

if TYPE_CHECKING:
    from keytrail.detect.library import LoadedRule
    from keytrail.domain.policy_library import RuleTuning
    from keytrail.domain.rules import DetectionRule
    from keytrail.manifests import Manifests
    from keytrail.settings import Settings
    from keytrail.yaml_documents import Document

_WIDTH = 100
_IN_TEXT = re.compile(r"(?:line ([0-9]+), )?column ([0-9]+): ")


def add(commands: Any) -> None:
    """Declare the command and its actions."""
    parser = add_command(commands, "rules", "check, test, list and explain detection rules", "keytrail rules list")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    checking = add_command(
        actions, "check", "say what is wrong with rules, with file, line, column and the name that was probably meant",
        "keytrail rules check my-rules/",
    )  # fmt: skip
    testing = add_command(actions, "test", "run the tests that rules carry", "keytrail rules test my-rules/")
    for action, run in ((checking, run_check), (testing, run_test)):
        action.add_argument(
            "paths", nargs="*", metavar="PATH", help="file or folder of rules (default: the shipped library)"
        )
        action.set_defaults(run=run)
    listing = add_command(
        actions, "list", "list rules, and which of them run here", "keytrail rules list --config ./keytrail"
    )
    explaining = add_command(
        actions, "explain", "say what a rule means, how to tune it and what it needs, with a sample finding",
        "keytrail rules explain shell-in-container",
    )  # fmt: skip
    explaining.add_argument("name", metavar="NAME", help="name as `keytrail rules list` shows it")
    for action, run in ((listing, run_list), (explaining, run_explain)):
        add_config(action)
        add_settings_file(action)
        action.set_defaults(run=run)


# -- check and test


def run_check(args: argparse.Namespace) -> int:
    """Print every problem; exit code 2 when there is one."""
    from keytrail.tracing import sensors

    loaded, problems = _load(args.paths, sensors())
    for problem in problems:
        say(printable(_located(problem)))
    say(f"{_counted(len(loaded), 'rule')} can run, {_counted(len(problems), 'problem')}")
    return 2 if problems else 0


def run_test(args: argparse.Namespace) -> int:
    """Run every rule's own tests; exit code 1 when one fails, 2 when a rule is wrong."""
    from keytrail.detect.rule_tests import run_rule_tests

    loaded, problems = _load(args.paths, None)
    for problem in problems:
        say(printable(_located(problem)))
    places = {one.rule.name: one for one in loaded}
    for name, one in places.items():
        if not one.rule.spec.tests:
            say(f"{printable(f'{one.path}:{one.line}')}: {name} has no test")
    results = run_rule_tests(one.rule for one in loaded)
    failed = [result for result in results if not result.passed]
    rows = []
    for result in failed:
        one = places[result.rule]
        test = one.rule.spec.tests[int(result.path[-1])]
        expected = "a finding" if test.match else "no finding"
        document = _document(one.path, one.line)  # None only if the file was changed a moment ago
        line = one.line if document is None else document.line_of(result.path)
        rows.append((result.rule, test.name, expected, result.message, f"{one.path}:{line}"))
    if rows:
        table([tuple(map(printable, row)) for row in (("RULE", "TEST", "EXPECTED", "FOUND", "FILE"), *rows)])
    say(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    return 2 if problems else 1 if failed else 0


def _load(paths: Sequence[str], sensors: Collection[str] | None) -> tuple[list["LoadedRule"], list[Problem]]:
    from keytrail.detect.library import load_with_places
    from keytrail.manifests import builtin_folder

    loaded: dict[str, LoadedRule] = {}
    problems: list[Problem] = []
    for path in map(Path, paths or [str(builtin_folder() / "rules")]):
        found, more = load_with_places(path, sensors=sensors)
        problems += more
        for one in found:
            first = loaded.setdefault(one.rule.name, one)
            if first is not one:
                message = f"{one.rule.name!r} is given twice, first at {first.path}:{first.line}"
                problems.append(Problem(one.path, one.line, "metadata.name", message))
    return list(loaded.values()), problems


def _located(problem: Problem) -> str:
    """The problem at its place in the file, where it has one in a field's text that stands there without escapes."""
    from keytrail.domain.shape import dotted

    place = _IN_TEXT.match(problem.message)
    document = _document(problem.path, problem.line) if place is not None else None
    fields = [] if document is None else [field for field in document.lines if dotted(field) == problem.field]
    if place is None or document is None or not fields or not isinstance(fields[0][-1], str):
        return str(problem)
    given = document.data
    for step in fields[0]:
        given = given[step]
    lines = given.split("\n")
    row, column = int(place[1] or 1), int(place[2])
    before = "".join((*lines[: row - 1], lines[row - 1][: column - 1]))
    source = Path(problem.path).read_text("utf-8-sig").splitlines()[problem.line - 1 :]
    found = _place(source, fields[0][-1], given, len("".join(before.split())))
    if found is None:
        return str(problem)
    row, column = found
    return f"{problem.path}:{problem.line + row}:{column}: {problem.field}: {problem.message[place.end() :]}"


def _document(path: str, line: int) -> "Document | None":
    """What stands at a line of a YAML file."""
    from keytrail.yaml_documents import read_documents

    return next((one for one in reversed(read_documents(Path(path))) if one.line <= line), None)


def _place(source: Sequence[str], key: str, given: str, skipped: int) -> tuple[int, int] | None:
    """Row and 1-based column of a character in a field's text that has `skipped` others but blanks before it.

    YAML folds and indents a text, but keeps its other characters, unless some are written as escapes.
    """
    places = [(row, at, char) for row, line in enumerate(source) for at, char in enumerate(line) if not char.isspace()]
    written = "".join(char for _, _, char in places)
    wanted = "".join(given.split())
    found = re.search(f"{re.escape(key)}[\"']?:(?:[>|][-+0-9]*|[\"'])?({re.escape(wanted)})", written)
    if found is None:
        return None
    row, at, _ = places[found.start(1) + min(skipped, len(wanted) - 1)]
    return row, at + 1


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# -- list and explain


def run_list(args: argparse.Namespace) -> int:
    """Print the table; ENABLED and SEVERITY are what `keytrail collect` would go by with the same options."""
    from keytrail.configuration import given_manifests
    from keytrail.detect.pages import kinds
    from keytrail.ruleset import build_rules

    settings = read_settings(args)
    manifests = given_manifests(settings)
    running = {rule.name: rule.rule for rule in build_rules(settings, manifests).rules}
    rows = [("NAME", "SEVERITY", "MATURITY", "ENABLED", "MITRE", "SENSORS", "EVENTS")]
    for name, rule in sorted(_given_rules(settings, manifests).items()):
        spec = running.get(name, rule).spec
        techniques = ",".join(dict.fromkeys(one.technique for one in spec.mitre))
        enabled = "yes" if name in running else "no"
        sensors = ",".join(spec.requires)
        rows.append(
            (name, spec.severity, spec.maturity, enabled, techniques or "-", sensors or "-", ",".join(kinds(rule)))
        )
    table(rows)
    return 0


def run_explain(args: argparse.Namespace) -> int:
    """Print everything about one rule, as it is tuned here."""
    from keytrail.configuration import given_manifests

    settings = read_settings(args)
    manifests = given_manifests(settings)
    rule = _tuned(_named(args.name, _given_rules(settings, manifests)), manifests)
    spec = rule.spec
    say(f"{rule.name}: {printable(spec.title)}")
    say(f"  severity {spec.severity}, maturity {spec.maturity}")
    for place in spec.mitre:
        say(f"  ATT&CK {place.tactic} {place.technique}")
    say("\nWhat it means")
    _paragraph(spec.description)
    _explain_tuning(rule)
    _explain_needs(rule)
    _explain_finding(rule)
    if spec.references:
        say("\nRead on")
    for address in spec.references:
        say(f"  {printable(address)}")
    return 0


def _explain_tuning(rule: "DetectionRule") -> None:
    from keytrail.detect.pages import over_time, snippet

    say("\nHow to tune it: a manifest for --config DIR or the cluster, of which you keep what you change")
    say(textwrap.indent(printable(snippet(rule), lines=True), "  "))
    if rule.spec.exceptions:
        say("\nSilent where")
    for one in rule.spec.exceptions:
        _paragraph(f"{one.name}: {one.condition}")
    say("\nOver time")
    for sentence in over_time(rule) or ("Each event is a finding.",):
        _paragraph(sentence)


def _explain_needs(rule: "DetectionRule") -> None:
    from keytrail.detect.pages import AGENT_FLAGS, kinds, load_line
    from keytrail.tracing import sensors

    shipped = sensors()
    say("\nWhat it needs")
    say(f"  {', '.join(kinds(rule))} events")
    for sensor in rule.spec.requires:
        if sensor in AGENT_FLAGS:
            say(f"  {sensor}: the agent's option --{AGENT_FLAGS[sensor]}; see `keytrail doctor`")
        else:
            say(f"  {sensor}: {shipped[sensor].title}")
    line = load_line(rule)
    if line:
        say(f"  {printable(line)}")


def _explain_finding(rule: "DetectionRule") -> None:
    from keytrail.detect.pages import sample
    from keytrail.export.finding_line import finding_line

    finding = sample(rule)
    if finding is not None:
        say("\nA finding")
        say(f"  {finding_line(finding)}")


def _given_rules(settings: "Settings", manifests: "Manifests") -> dict[str, "DetectionRule"]:
    """Rules by name, whether they run or not; the user's own replace those of the same name."""
    from keytrail.configuration import rules_folder
    from keytrail.domain.rules import DetectionRule
    from keytrail.manifests import load_folder

    found = (*load_folder(rules_folder(settings)).resources, *manifests.resources)
    return {one.name: one for one in found if isinstance(one, DetectionRule)}


def _named(name: str, rules: dict[str, "DetectionRule"]) -> "DetectionRule":
    from keytrail.domain.shape import quoted, suggestion

    if name not in rules:
        hint = suggestion(name, list(rules))
        near = hint if hint.startswith("did you mean") else "`keytrail rules list` names them"
        raise UsageError(f"there is no rule {quoted(name)}, {near}")
    return rules[name]


def _tuned(rule: "DetectionRule", manifests: "Manifests") -> "DetectionRule":
    """The rule as the PolicyLibrary has it. Raises UsageError when it cannot run."""
    from keytrail.detect.rule_check import RuleError, check_rule
    from keytrail.domain.policy_library import PolicyLibrary
    from keytrail.tracing import sensors

    libraries = (one for one in manifests.resources if isinstance(one, PolicyLibrary))
    tuning: dict[str, RuleTuning] = {one.name: one for library in libraries for one in library.spec.rules.tune}
    try:
        return check_rule(rule, sensors=sensors(), tuning=tuning.get(rule.name)).rule
    except RuleError as error:
        raise UsageError(f"{rule.name}: {error}") from None


def _paragraph(given: str) -> None:
    text = printable(" ".join(given.split()))
    say(textwrap.fill(text, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False,
                      break_on_hyphens=False))  # fmt: skip
