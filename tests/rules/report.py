"""What the shipped rules say about a recording, window by window.

    python tests/rules/report.py [--rules stable|all] [--only RULE] [--full] [--verdict] RECORDING...

Recordings come in; one line for each window goes out, with what was expected there and every rule that spoke, its
severity and how often. `findings_by_window` and `verdict` are what the tests of the rules use.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # as pytest's `pythonpath` does

from keytrail.decode.credential_patterns import looks_like_credential_name
from keytrail.decode.decoder import Decoder
from keytrail.decode.details import DecodedEvent
from keytrail.decode.redact import Redactor
from keytrail.detect import Engine
from keytrail.detect.compiled import CompiledRules
from keytrail.detect.compiler import compile_rules
from keytrail.detect.library import load_rules
from keytrail.domain.drop import Drop
from keytrail.domain.finding import Finding
from keytrail.domain.resources import ClusterIdentityMapping
from keytrail.domain.rules import DetectionRule, Maturity, Severity
from keytrail.identify.matcher import IdentityMatcher
from keytrail.manifests import load_builtin_identities
from keytrail.source.recording import recording_facts
from support.recordings import CORPUS, folder, labels, messages

RULES = Path(__file__).parent.parent.parent / "policies" / "rules"
OUTSIDE = "(between windows)"
UNLIMITED = 1_000_000


@cache
def shipped_rules() -> tuple[DetectionRule, ...]:
    """Every rule of the library that can run; fails when one cannot."""
    rules, problems = load_rules(RULES)
    if problems:
        raise ValueError("\n".join(str(problem) for problem in problems))
    return rules


@cache
def every_rule() -> CompiledRules:
    """All of them as code: compiled once, for an engine each."""
    return compile_rules(shipped_rules(), maturities=tuple(Maturity))


@cache
def providers() -> tuple[ClusterIdentityMapping, ...]:
    """The shipped providers: read once, as fifty files are."""
    return tuple(load_builtin_identities())


def attribute_each(
    recording: str, mappings: Iterable[ClusterIdentityMapping] = ()
) -> Iterator[tuple[int, DecodedEvent]]:
    """Events of a recording with their identities, each with its place in the stream."""
    decoder = Decoder(Redactor().redact)
    matcher = IdentityMatcher(mappings, providers(), looks_like_credential=looks_like_credential_name)
    if facts := recording_facts(folder(recording)):
        decoder.connect(facts)
        matcher.learn(facts)
    for place, raw in enumerate(messages(recording)):
        event = decoder.decode(raw)
        if isinstance(event, Drop):
            continue
        if event.process.attribution is None:
            event.process.attribution = matcher.attribute(event.process)
        yield place, event


@cache
def attributed(recording: str) -> tuple[tuple[int, DecodedEvent], ...]:
    """`attribute_each` without anybody's mappings, shared by tests that only look."""
    return tuple(attribute_each(recording))


def windows_of(recording: str) -> Iterator[tuple[str, int, int]]:
    """Name, first and last message of each window that the stream marks."""
    for window in labels(recording)["windows"]:
        if "stream_last" in window:
            yield window["name"], window["stream_first"], window["stream_last"]


def expected_kinds(recording: str) -> Mapping[str, str]:
    """What each window is: malicious, notable, benign or ordinary; empty where the recording does not say."""
    expectations = CORPUS / recording / "expectations.json"
    if expectations.is_file():
        return {window["name"]: window["kind"] for window in json.loads(expectations.read_text())["windows"]}
    return {window["name"]: window.get("kind", "") for window in labels(recording)["windows"]}


def findings_by_window(recording: str, rules: CompiledRules) -> dict[str, list[Finding]]:
    """Findings of each window, by the place in the stream of the event that made them."""
    # What the driver of a recording does in a minute is what a node sees in a day: the budget is not under test.
    engine = Engine(rules, budget=UNLIMITED)
    spans = list(windows_of(recording))
    found: dict[str, list[Finding]] = {name: [] for name in (OUTSIDE, *(name for name, _, _ in spans))}
    for place, event in attributed(recording):
        # A summary of repeats comes when its window is over, and says nothing about the events beside it.
        if made := [finding for finding in engine.detect(event) if not finding.suppressed]:
            name = next((name for name, first, last in spans if first <= place <= last), OUTSIDE)
            found[name] += made
    return found


@cache
def library_findings(recording: str, *, stable: bool = False) -> Mapping[str, list[Finding]]:
    """Findings of the whole library, or of its stable rules: rules are judged apart, so one run serves all tests."""
    if not stable:
        return findings_by_window(recording, every_rule())
    every = library_findings(recording).items()
    return {name: [one for one in found if one.rule.spec.maturity is Maturity.STABLE] for name, found in every}


def verdict(kind: str, stable: Iterable[Finding], everything: Iterable[Finding]) -> str:
    """What is wrong with a window's findings; empty when nothing is."""
    worst = max((finding.severity.rank for finding in stable), default=-1)
    if kind == "malicious" and worst < Severity.MEDIUM.rank:
        return "malicious, and no stable rule says medium or more"
    if kind == "notable" and not list(everything):
        return "notable, and no rule says anything"
    if kind == "notable" and worst > Severity.MEDIUM.rank:
        return "notable, and a stable rule says more than medium"
    if kind in {"benign", "ordinary"} and worst > Severity.LOW.rank:
        return f"{kind}, and a stable rule says more than low"
    return ""


def write(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")


def summary(findings: Iterable[Finding]) -> str:
    """Rules and how often, worst first."""
    counted = Counter((finding.severity.rank, finding.severity.value, finding.rule.name) for finding in findings)
    worst_first = sorted(counted.items(), reverse=True)
    return ", ".join(f"{severity} {rule} x{count}" for (_, severity, rule), count in worst_first)


def print_report(recording: str, options: argparse.Namespace) -> int:
    """Print one recording's table; return how many windows are not as they should be."""
    rules = [rule for rule in shipped_rules() if not options.only or rule.name in options.only]
    stable = findings_by_window(recording, compile_rules(rules))
    everything = findings_by_window(recording, compile_rules(rules, maturities=tuple(Maturity)))
    shown = stable if options.rules == "stable" else everything
    kinds, wrong = expected_kinds(recording), 0
    for name in (*(name for name, _, _ in windows_of(recording)), OUTSIDE):
        fault = verdict(kinds.get(name, ""), stable[name], everything[name])
        wrong += bool(fault)
        if fault or not options.verdict:
            said = f"[{fault}] {summary(shown[name])}" if fault else summary(shown[name])
            write(f"{recording:16} {name:28} {kinds.get(name, ''):10} {said}")
            for finding in shown[name] if options.full else ():
                write(f"    {finding.severity.value:8} {finding.rule.name}: {finding.message}"[:240])
    return wrong


def main() -> int:
    """Print what was asked for; exit code 1 when a window is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="+")
    parser.add_argument("--rules", choices=["stable", "all"], default="all")
    parser.add_argument("--only", action="append", default=[], help="this rule alone")
    parser.add_argument("--full", action="store_true", help="each finding's message")
    parser.add_argument("--verdict", action="store_true", help="only windows that are not as they should be")
    options = parser.parse_args()
    return int(sum(print_report(recording, options) for recording in options.recordings) > 0)


if __name__ == "__main__":
    sys.exit(main())
