"""The engine: what rules remember between events, what is refused at load, and that nothing is lost in silence."""

import gc
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest

from keytrail.detect import Engine
from keytrail.detect.compiled import load
from keytrail.detect.made_event import made_event
from keytrail.detect.program import generate
from keytrail.detect.rule_check import check_rule
from keytrail.detect.state import Sequencer
from keytrail.domain.event import Event, EventKind
from keytrail.domain.finding import Finding
from keytrail.domain.policy_library import PolicyLibrary
from keytrail.domain.rules import DetectionRule, Maturity
from keytrail.domain.shape import read

SPEC: dict[str, Any] = {
    "title": "t",
    "description": "d",
    "severity": "high",
    "maturity": "stable",
    "events": ["exec"],
    "condition": 'process.name == "sh"',
    "message": "{process.name} {process.arguments}",
}
SUPPRESS = {"by": ["process.binary"], "window": "1m"}


def rule(name: str = "r", **changes: Any) -> DetectionRule:
    """A rule; `changes` replace fields of its spec."""
    made, faults = read(DetectionRule, {"metadata": {"name": name}, "spec": {**SPEC, **changes}})
    assert made is not None, faults
    return made


def library(**rules: Any) -> PolicyLibrary:
    """A PolicyLibrary with `spec.rules`."""
    made, faults = read(PolicyLibrary, {"metadata": {"name": "default"}, "spec": {"rules": rules}})
    assert made is not None, faults
    return made


def event(at: float = 0.0, kind: str = "exec", binary: str = "/bin/sh", **parts: Any) -> Event:
    """An event at a second."""
    head = {"kind": kind, "at": at}
    process = {"binary": binary, **parts.pop("process", {})}
    return made_event({"event": head, "process": process, **parts}, EventKind.EXEC)


def run(engine: Engine, events: Sequence[Event]) -> list[Finding]:
    """All findings of events, in order."""
    return [finding for one in events for finding in engine.detect(one)]


def test_a_finding_shows_quoted_text_and_keeps_no_event() -> None:
    """Text of a process stays inside its quotes, hook arguments are gone, and the event itself is let go."""
    engine = Engine.load([rule()])
    made = event(process={"arguments": 'a "b"\n\x1b[31m \u202e'}, args=[{"text": "secret payload"}])
    (finding,) = engine.detect(made)
    assert finding.message == r'sh "a \"b\"\n\x1b[31m \u202e"'
    assert finding.message.isascii()
    assert finding.event.arguments == ()
    reached: list[object] = [finding]
    seen: set[int] = set()
    while reached:
        one = reached.pop()
        assert one is not made
        assert one != "secret payload"
        if id(one) not in seen and not isinstance(one, type | ModuleType):
            seen.add(id(one))
            reached += gc.get_referents(one)


def test_repeats_are_counted_and_summarised() -> None:
    """Within the window repeats are silent; after it one summary says how many; another key is a finding of its own."""
    engine = Engine.load([rule(suppress=SUPPRESS)])
    found = run(engine, [event(0), event(1), event(2, binary="/usr/bin/sh"), event(59)])
    assert [(finding.event.process.binary, finding.suppressed) for finding in found] == [
        ("/bin/sh", 0),
        ("/usr/bin/sh", 0),
    ]
    assert engine.suppressed["r"] == 2
    (summary,) = engine.detect(event(60, kind="exit"))
    assert (summary.suppressed, summary.event.time_ns, summary.time_ns - summary.event.time_ns) == (
        2,
        found[0].time_ns,
        60 * 10**9,
    )
    assert run(engine, [event(61)])[0].suppressed == 0


def test_flush_gives_what_is_still_open() -> None:
    """At the end of the stream each repeat is in a summary."""
    engine = Engine.load([rule(suppress=SUPPRESS)])
    run(engine, [event(0), event(1), event(2)])
    assert [finding.suppressed for finding in engine.flush()] == [2]
    assert engine.flush() == []


def test_budget() -> None:
    """A rule that floods is held to its budget; the rest is counted and summarised when the minute is over."""
    engine = Engine.load([rule()], budget=3)
    found = run(engine, [event(second) for second in range(10)])
    assert len(found) == 3
    assert engine.over_budget["r"] == 7
    later = run(engine, [event(61)])
    assert [finding.suppressed for finding in later] == [7, 0]


def test_suppression_memory_is_bounded() -> None:
    """A process that changes its name with every exec ends old windows early, each with its summary, and is counted."""
    engine = Engine.load([rule(condition="true", suppress=SUPPRESS)], budget=10**6)
    found = run(engine, [event(0, binary="/first"), event(0, binary="/first")])
    found += run(engine, [event(0.001, binary=f"/{number}") for number in range(5000)])
    assert engine.evicted["r"] == 5001 - 4096
    assert [finding.suppressed for finding in found if finding.suppressed] == [1]


def test_threshold_counts_events_within_the_window() -> None:
    """Three within ten seconds make a finding, three over twenty do not; afterwards counting starts anew."""
    engine = Engine.load([rule(threshold={"count": 3, "window": "10s", "by": ["process.binary"]})])
    assert run(engine, [event(0), event(9), event(18)]) == []
    (finding,) = run(engine, [event(18.5)])
    assert finding.count == 3
    assert run(engine, [event(19), event(19)]) == []


def test_threshold_counts_distinct_values() -> None:
    """A port scan is many ports of one process, not many connections to one port."""
    scan = rule(
        events=["connect"],
        condition="network.peer_port > 0",
        threshold={"count": 5, "window": "1m", "by": ["process.exec_id"], "distinct": "network.peer_port"},
    )
    engine = Engine.load([scan])

    def connection(port: int, pid: int) -> Event:
        return event(kind="connect", process={"pid": pid}, network={"peer_address": "10.0.0.1", "peer_port": port})

    assert run(engine, [connection(443, 7) for _ in range(20)]) == []
    assert run(engine, [connection(port, port) for port in range(1, 20)]) == []
    assert len(run(engine, [connection(port, 7) for port in range(1, 5)])) == 1


@pytest.mark.parametrize(
    ("by", "first", "second", "found"),
    [
        ("tree", {"process": {"pid": 10}, "parent": {"pid": 9}}, {"process": {"pid": 11}, "parent": {"pid": 9}}, True),
        ("tree", {"process": {"pid": 10}, "parent": {"pid": 9}}, {"process": {"pid": 9}, "parent": {"pid": 1}}, True),
        ("tree", {"process": {"pid": 10}, "parent": {"pid": 1}}, {"process": {"pid": 11}, "parent": {"pid": 1}}, False),
        ("process", {"process": {"pid": 10}}, {"process": {"pid": 10}}, True),
        (
            "process",
            {"process": {"pid": 10}, "parent": {"pid": 9}},
            {"process": {"pid": 11}, "parent": {"pid": 9}},
            False,
        ),
        ("pod", {"process": {"pid": 10}, "pod": {"uid": "u"}}, {"process": {"pid": 11}, "pod": {"uid": "u"}}, True),
        ("pod", {"process": {"pid": 10}, "pod": {"uid": "u"}}, {"process": {"pid": 11}, "pod": {"uid": "v"}}, False),
        (
            "pod",
            {"process": {"pid": 10}, "pod": {"namespace": "a", "name": "web-0"}},
            {"process": {"pid": 11}, "pod": {"namespace": "b", "name": "web-0"}},
            False,
        ),
        ("pod", {"process": {"pid": 10}}, {"process": {"pid": 11}}, False),
    ],
)
def test_sequence_scope(by: str, first: dict[str, Any], second: dict[str, Any], found: bool) -> None:
    """A secret read and then a connection: of one tree, process or pod; PID 1 ties nothing together."""
    engine = Engine.load([sequence(by=by)])
    read_it = event(0, kind="file", file={"path": "/etc/shadow"}, **first)
    connect = event(5, kind="connect", network={"peer_port": 80}, **second)
    findings = run(engine, [read_it, connect])
    assert bool(findings) is found
    assert [[step.details.file.path for step in one.steps if step.details.file] for one in findings] == (
        [["/etc/shadow"]] if found else []
    )


def sequence(*, condition: str = "network.peer_port > 0", **changes: Any) -> DetectionRule:
    """A rule of two steps."""
    steps = [{"events": ["file"], "condition": 'file.path == "/etc/shadow"'}]
    given = {"within": "30s", "steps": steps, **changes}
    return rule("sequence", events=["connect"], condition=condition, sequence=given)


def test_what_began_too_long_ago_is_not_kept() -> None:
    """A sequence that can no longer end is forgotten by the next event that could be a later step."""
    memory, begun = Sequencer(10, 2), event()
    for number, now_ns in enumerate((0, 5)):
        assert memory.advance(0, (), (f"p{number}",), begun, now_ns) is None
    assert memory.waits(10)
    assert memory.waits(15)
    assert memory.advance(1, ("p0",), (), begun, 15) is None
    assert not memory.waits(16)
    assert memory.advance(1, ("p1",), (), begun, 16) is None
    assert memory.evicted == 0


@pytest.mark.parametrize("begun", [True, False])
def test_a_later_step_is_asked_only_when_one_before_it_came(begun: bool) -> None:
    """What nothing can follow from is not tested; a condition that can fail is, and its failure counted."""
    given = [sequence(), sequence(condition="1 / network.peer_port > 1")]
    failed: list[int] = []
    kept = dict.fromkeys(range(4), "a step")  # of one that began too long ago, when `waits` says no
    rules = generate([check_rule(one) for one in given])
    code = load(rules, lambda slot, _: failed.append(slot), lambda _: begun, kept)
    slots = {(slot.rule, slot.step): at for at, slot in enumerate(code.slots)}
    connect = event(0, kind="connect", network={"peer_port": 0})
    assert code.detect[EventKind.CONNECT](event(0, kind="connect", network={"peer_port": 80})) == (
        (slots[0, 1],) if begun else ()
    )
    assert code.detect[EventKind.CONNECT](connect) == ()
    assert failed == [slots[1, 1]]


def test_sequence_ends() -> None:
    """Too late is no sequence, and one that was found is over."""
    engine = Engine.load([sequence()])
    read_it = event(0, kind="file", file={"path": "/etc/shadow"})
    assert run(engine, [read_it, event(31, kind="connect", network={"peer_port": 80})]) == []
    again = [
        event(40, kind="file", file={"path": "/etc/shadow"}),
        *(event(41, kind="connect", network={"peer_port": 80}) for _ in range(2)),
    ]
    assert len(run(engine, again)) == 1


def test_clock_set_back() -> None:
    """A time far in the future, as of a damaged event, does not silence rules for ever."""
    engine = Engine.load([rule(suppress=SUPPRESS)])
    run(engine, [event(0), event(1), event(10**9)])
    found = run(engine, [event(2)])
    assert [finding.suppressed for finding in found] == [0]


def test_preexisting_processes_are_silent_unless_asked_for() -> None:
    """What ran before the agent is seen only by a rule that mentions it."""
    old = event(process={"preexisting": True})
    assert run(Engine.load([rule()]), [old]) == []
    asks = rule(condition='process.name == "sh" && (process.preexisting || true)')
    assert len(run(Engine.load([asks]), [old])) == 1


def test_a_rule_that_fails_is_counted_and_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Errors of one rule are counted, reported once, and never keep another from its finding."""
    engine = Engine.load([rule("bad", condition="10 / process.uid > 3"), rule("good")])
    found = run(engine, [event(), event(1)])
    assert [finding.rule.name for finding in found] == ["good", "good"]
    assert engine.failures == {"bad": 2}
    assert [record.getMessage() for record in caplog.records] == [
        "rule bad has no answer for an event (divide by zero); from now on this is only counted"
    ]


def test_an_exception_that_fails_excepts_nothing() -> None:
    """A label that a pod does not have makes no exception of it, and is counted; another one still may."""
    exceptions = ['pod.labels["team"] == "lab"', 'process.binary == "/bin/sh"']
    listed = [{"name": f"e{at}", "condition": one} for at, one in enumerate(exceptions)]
    engine = Engine.load([rule(condition="true", exceptions=listed)])
    pod = {"namespace": "shop", "name": "web-0"}
    given = [event(0, binary="/bin/x", pod=pod), event(1, pod=pod), event(2, pod={**pod, "labels": {"team": "lab"}})]
    assert [len(engine.detect(one)) for one in given] == [1, 0, 0]
    assert engine.failures == {"r": 2}


def test_a_rule_fails_until_its_last_failure_is_old_or_it_is_mended() -> None:
    """What somebody should look at ends by itself, and with another version of the rule; the count goes on."""
    failing, mended = (rule("bad", condition=f"10 / process.uid > {number}") for number in (3, 4))
    first = Engine.load([failing, rule("good")])
    run(first, [event(0), event(60)])
    at_ns = event(60).time_ns
    assert (first.failing(at_ns), first.failing(at_ns + 1)) == (("bad",), ())
    same = Engine.load([failing], previous=first)
    assert (same.failing(at_ns), same.failures["bad"]) == (("bad",), 2)
    other = Engine.load([mended], previous=same)
    assert (other.failing(at_ns), other.failures["bad"]) == ((), 2)


def test_exceptions_and_tuning() -> None:
    """The library's tuning changes severity and parameters, adds exceptions, and switches rules on and off."""
    shells = rule(condition="process.name in params.shells", parameters={"shells": ["sh"]})
    tuned = library(
        tune=[
            {
                "name": "r",
                "severity": "low",
                "parameters": {"shells": ["zsh"]},
                "exceptions": [{"name": "lab", "condition": 'pod.namespace == "lab"'}],
            },
            {"name": "off", "enabled": False},
            {"name": "on", "enabled": True},
        ]
    )
    engine = Engine.load(
        [shells, rule("off"), rule("on", maturity="sandbox"), rule("sandbox", maturity="sandbox")], tuned
    )
    assert [one.name for one in engine.rules] == ["r", "on"]
    found = run(engine, [event(binary="/bin/zsh"), event(binary="/bin/zsh", pod={"namespace": "lab"})])
    assert [(finding.rule.name, finding.severity) for finding in found] == [("r", "low")]


def test_maturities() -> None:
    """Only stable rules run by default; all of them when asked for."""
    rules = [rule("a"), rule("b", maturity="incubating")]
    assert [one.name for one in Engine.load(rules).rules] == ["a"]
    assert [one.name for one in Engine.load(rules, maturities=tuple(Maturity)).rules] == ["a", "b"]


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        ({"name": "rr"}, "there is no rule 'rr', did you mean r?"),
        ({"name": "r", "parameters": {"shell": ["a"]}}, "unknown parameter, did you mean shells?"),
        ({"name": "r", "parameters": {"shells": [1]}}, "expected list of text, as in the rule, found a list"),
        ({"name": "r", "parameters": {"shells": "sh"}}, "expected list of text, as in the rule, found text 'sh'"),
        ({"name": "r", "parameters": {"on": 1}}, "expected true or false, as in the rule, found the number 1"),
    ],
)
def test_wrong_tuning_is_refused(tuning: dict[str, Any], message: str) -> None:
    """Tuning that fits no rule or no parameter is named with the nearest name."""
    shells = rule(condition="process.name in params.shells && params.on", parameters={"shells": ["sh"], "on": True})
    refused = Engine.load([shells], library(tune=[tuning])).refused
    assert [fault.message for fault in refused[tuning["name"]]] == [message]


def test_the_last_good_version_stays_in_force() -> None:
    """A rule that became wrong is reported, and runs as it was; its open windows survive a reload."""
    first = Engine.load([rule(suppress=SUPPRESS)])
    run(first, [event(0), event(1)])
    second = Engine.load([rule(condition="process.nam == 1", suppress=SUPPRESS), rule("new")], previous=first)
    assert [one.name for one in second.rules] == ["r", "new"]
    (fault,) = second.refused["r"]
    assert fault.field == "spec.condition"
    assert fault.message == "column 8: Process has no field 'nam', did you mean name?"
    assert [finding.rule.name for finding in run(second, [event(2)])] == ["new"]
    assert [finding.suppressed for finding in second.flush()] == [2]


def test_a_rule_that_went_away_leaves_its_summary() -> None:
    """Removing a rule loses no count: its open windows are summarised at the next event."""
    first = Engine.load([rule(suppress=SUPPRESS)])
    run(first, [event(0), event(1)])
    second = Engine.load([rule("other", condition="false")], previous=first)
    assert [(finding.rule.name, finding.suppressed) for finding in run(second, [event(2)])] == [("r", 1)]


def test_an_engine_that_was_loaded_apart_goes_on_where_another_stopped() -> None:
    """Counts and begun sequences of rules that did not change go on; what the others held back is told."""
    thrice = rule("thrice", threshold={"count": 3, "window": "1m", "by": ["process.binary"]})
    first = Engine.load([rule("gone", suppress=SUPPRESS), thrice, sequence()])
    second = Engine.load([thrice, sequence()])
    run(first, [event(0), event(1), event(1, kind="file", file={"path": "/etc/shadow"})])
    second.continue_from(first)
    found = run(second, [event(2), event(3, kind="connect", network={"peer_port": 80})])
    assert [(one.rule.name, one.suppressed) for one in found] == [("gone", 1), ("thrice", 0), ("sequence", 0)]
    assert second.suppressed == {"gone": 1}


def test_kinds() -> None:
    """The engine tells which events its rules need."""
    engine = Engine.load([rule(requires=["process-credentials"]), sequence()], sensors=["tcp-connect"])
    assert engine.kinds == {EventKind.EXEC, EventKind.CONNECT, EventKind.FILE}
