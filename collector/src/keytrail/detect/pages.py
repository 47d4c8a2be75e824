"""Rules in, what people read of them out: docs/rules.md, a snippet to tune a rule with, a sample of its findings.

`python -m keytrail.detect.pages docs/rules.md docs/attack-navigator-layer.json` renews page and layer; a test fails
when they are stale. Samples are not written by hand: a rule's own test goes through the engine. Text of a manifest is
escaped, for a user's rule may be shown too: it may make code spans, but neither links nor markup. How a finding is
written is `keytrail.export`'s and is handed in, since stages do not know each other; the commands do both.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from keytrail.commands.terminal import printable
from keytrail.detect.attack_layer import attack_layer
from keytrail.detect.library import load_rules
from keytrail.detect.rule_check import AGENT_FEATURES
from keytrail.detect.rule_tests import run_rule_tests
from keytrail.domain.errors import ManifestError
from keytrail.domain.event import EventKind
from keytrail.domain.finding import Finding
from keytrail.domain.rules import DetectionRule, Maturity, Mitre
from keytrail.manifests import builtin_folder

AGENT_FLAGS: Final = dict(
    zip(
        AGENT_FEATURES, ("enable-ancestors", "enable-process-environment-variables", "enable-process-cred"), strict=True
    )
)
"""The agent's option behind each feature that a rule may require."""

_ACTIVE: Final = re.compile(r"(?<!`)`[^`]+`(?!`)|[\\`*_\[\]<>|~&$]")
"""A code span, left as it is, or a character that CommonMark or GitHub would act on."""
_BARE: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_NOT_TEXT: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""Words that kubectl's YAML does not take as text."""
_ATTACK: Final = "https://attack.mitre.org"

_HEAD: Final = """\
# Detection rules

<!-- Made by `python -m keytrail.detect.pages`; do not edit. -->

{count} rules are shipped. The {stable} stable ones run by default; `--rules all` runs the others too, and so does
`maturity: [stable, incubating]` in the PolicyLibrary. `keytrail rules list` shows what runs with your settings,
`keytrail rules explain NAME` one of the sections below. How to write a rule stands in
[rule-language.md](rule-language.md), what the sensors are in [policies.md](policies.md).
[attack-navigator-layer.json](attack-navigator-layer.json) is a layer for the
[ATT&CK Navigator](https://mitre-attack.github.io/attack-navigator/).

**To tune a rule**, put a PolicyLibrary like that of its section into the folder that `--config` names, or into the
cluster. There is one, named `default`; its `tune` has an item for each rule. The values are the rule's own: keep what
you change, for what you leave out follows the next release. `enabled: false` switches a rule off. An exception is a
condition; where it holds the rule is silent.

| rule | severity | maturity | ATT&CK | sensors |
| --- | --- | --- | --- | --- |
{rows}
"""


def page(rules: Sequence[DetectionRule], line: Callable[[Finding], str]) -> str:
    """Return the whole page; `line` writes a finding."""
    stable = sum(rule.spec.maturity is Maturity.STABLE for rule in rules)
    head = _HEAD.format(count=len(rules), stable=stable, rows="\n".join(map(_row, rules)))
    return head + "".join("\n".join(_section(rule, line)) for rule in rules)


def sample(rule: DetectionRule) -> Finding | None:
    """The finding of the rule's first positive test that passes; None without one."""
    results = zip(rule.spec.tests, run_rule_tests([rule]), strict=True)
    return next((result.finding for test, result in results if test.match and result.passed), None)


def snippet(rule: DetectionRule) -> str:
    """A PolicyLibrary that tunes the rule: everything that can be set, with the rule's own values."""
    lines = [
        "apiVersion: keytrail.io/v1alpha1",
        "kind: PolicyLibrary",
        "metadata: {name: default}",
        "spec:",
        "  rules:",
        "    tune:",
        f"      - name: {_scalar(rule.name)}",
        "        enabled: true",
        f"        severity: {rule.spec.severity}",
    ]
    if rule.spec.parameters:
        lines.append("        parameters:")
        lines += [f"          {_scalar(name)}: {_value(value)}" for name, value in rule.spec.parameters.items()]
    lines += [
        "        exceptions:",
        "          - name: known-program",
        "            condition: process.binary == '/opt/example/bin/agent'",
    ]
    return "\n".join(lines)


def kinds(rule: DetectionRule) -> list[EventKind]:
    """Every kind of event that the rule looks at, those of its sequence included."""
    steps = rule.spec.sequence.steps if rule.spec.sequence else ()
    return list(
        dict.fromkeys(kind for events in (rule.spec.events, *(step.events for step in steps)) for kind in events)
    )


def over_time(rule: DetectionRule) -> list[str]:
    """A sentence for each way in which events before or after matter."""
    threshold, sequence, suppress = rule.spec.threshold, rule.spec.sequence, rule.spec.suppress
    found = []
    if threshold:
        what = f"values of {threshold.distinct}" if threshold.distinct else "events"
        found.append(
            f"Takes {threshold.count} {what} with the same {', '.join(threshold.by)} within {threshold.window}."
        )
    if sequence:
        before = "; ".join(" or ".join(step.events) for step in sequence.steps)
        found.append(f"Takes earlier events ({before}) of the same {sequence.by} within {sequence.within}.")
    if suppress:
        found.append(f"Repeats with the same {', '.join(suppress.by)} within {suppress.window} are only counted.")
    return found


def load_line(rule: DetectionRule) -> str:
    """The command that loads what the rule requires. Empty when there is nothing to load."""
    names = [sensor for sensor in rule.spec.requires if sensor not in AGENT_FLAGS]
    return " ".join(["keytrail policies load", *names]) if names else ""


def _value(value: object) -> str:
    return f"[{', '.join(map(_scalar, value))}]" if isinstance(value, list) else _scalar(value)


def _scalar(value: object) -> str:
    """A YAML scalar that kubectl reads as what it is: JSON, unless a plain word is as safe."""
    if isinstance(value, str) and _BARE.fullmatch(value) and value.lower() not in _NOT_TEXT:
        return value
    return json.dumps(value)


# -- the page's parts


def _row(rule: DetectionRule) -> str:
    spec = rule.spec
    techniques = ", ".join(dict.fromkeys(one.technique for one in spec.mitre)) or "-"
    sensors = ", ".join(map(_sensor, spec.requires)) or "-"
    return f"| {_link(rule.name)} | {spec.severity} | {spec.maturity} | {techniques} | {sensors} |"


def _section(rule: DetectionRule, line: Callable[[Finding], str]) -> Iterator[str]:
    spec = rule.spec
    default = "runs by default" if spec.maturity is Maturity.STABLE else "does not run by default"
    yield f"\n## {rule.name}\n\n**{text(spec.title)}**\n"
    yield (
        " ".join([f"Severity {spec.severity}, maturity {spec.maturity} ({default}).", *map(text, over_time(rule))])
        + "\n"
    )
    yield f"**What it means:** {text(spec.description)}\n"
    if spec.mitre:
        yield f"**ATT&CK:** {', '.join(map(_attack, spec.mitre))}\n"
    yield f"**Needs:** {_needs(rule)}\n"
    yield f"**Tune it** ([condition and tests](../policies/rules/{rule.name}.yaml)):\n"
    yield fenced("yaml", snippet(rule))
    if spec.exceptions:
        yield "Silent already where:\n"
        yield "\n".join(f"- {code(one.name)}: {code(one.condition)}" for one in spec.exceptions) + "\n"
    finding = sample(rule)
    if finding is not None:
        yield f"**A finding:** {code(finding.message)}\n"
        yield fenced("json", line(finding))
    if spec.references:
        yield f"**Read on:** {', '.join(map(_address, spec.references))}\n"


def _needs(rule: DetectionRule) -> str:
    parts = [f"{', '.join(map(code, kinds(rule)))} events"]
    policies = [sensor for sensor in rule.spec.requires if sensor not in AGENT_FLAGS]
    if policies:
        parts.append(f"{', '.join(map(_sensor, policies))}: {code(load_line(rule))}")
    parts += [
        f"the agent's option {code(f'--{AGENT_FLAGS[feature]}')} (`keytrail doctor` looks at the agent's options)"
        for feature in rule.spec.requires
        if feature in AGENT_FLAGS
    ]
    return "; ".join(parts)


def _sensor(name: str) -> str:
    return name if name in AGENT_FLAGS else f"[{name}](policies.md#{name})"


def _link(name: str) -> str:
    # GitHub's anchors have no dots.
    return f"[{name}](#{name.replace('.', '')})"


def _attack(place: Mitre) -> str:
    tactic = f"[{place.tactic}]({_ATTACK}/tactics/{place.tactic}/)"
    return f"{tactic} [{place.technique}]({_ATTACK}/techniques/{place.technique.replace('.', '/')}/)"


def _address(address: str) -> str:
    return f"<{printable(address).replace('<', '%3C').replace('>', '%3E')}>"


# -- Markdown


def text(given: str) -> str:
    """Text for one paragraph or cell, not at its start; of its markup only code spans stay."""
    line = printable(" ".join(given.split()))
    return _ACTIVE.sub(lambda found: found[0] if len(found[0]) > 1 else f"\\{found[0]}", line)


def code(given: str) -> str:
    """A code span of anything."""
    line = printable(" ".join(given.split()))
    ticks = "`" * (_longest_run(line) + 1)
    return f"{ticks} {line} {ticks}" if "`" in line or not line else f"{ticks}{line}{ticks}"


def fenced(language: str, given: str) -> str:
    """A code block of anything."""
    ticks = "`" * max(3, _longest_run(given) + 1)
    return f"{ticks}{language}\n{printable(given, lines=True)}\n{ticks}\n"


def _longest_run(given: str) -> int:
    return max(map(len, re.findall("`+", given)), default=0)


def main(page_path: Path, layer_path: Path) -> None:
    """Write page and layer of the shipped rules. Raises ManifestError when one of them is wrong."""
    from keytrail.export.finding_line import finding_line

    rules, problems = load_rules(builtin_folder() / "rules")
    if problems:
        raise ManifestError(list(problems))
    page_path.write_text(page(rules, finding_line), "utf-8")
    layer_path.write_text(attack_layer(rules), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
