"""What the generated functions rule out before they ask a condition: never what the CEL engine says holds, or fails."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detect.oracle import engine_answer
from keytrail.detect.compiled import Program, learn, load
from keytrail.detect.made_event import MadeEvent, made_event
from keytrail.detect.program import generate
from keytrail.detect.rule_check import CheckedRule, Step, check_rule
from keytrail.domain.event import Details, EventKind, FileAccess
from keytrail.domain.rules import DetectionRule
from keytrail.domain.shape import read

LEAVES = (
    *('process.name == "sh"', 'process.name in ["sh", "curl"]', 'process.binary.startsWith("/tmp/")'),
    *('process.binary.matches("^/tmp/")', "process.name in params.names", 'process.name != "sh"'),
    *('process.arguments.matches("(?i)key")', 'process.arguments.matches("-x|[|]")', 'process.arguments == ""'),
    *("params.words.exists(w, process.arguments.matches(w))", 'process.arguments.contains("-c")'),
    *('file.access in ["read", "open"]', 'file.path.matches("shadow")', 'file.name == "shadow"'),
    *('glob(file.path, "/etc/**")', "file.path != process.binary"),
    *('file.target != ""', 'event.function == "openat"', 'event.action == "SIGKILL"', 'event.kind == "file"'),
    *('event.kind in ["exec", "hook"]', 'operation.name == "mount"', "process.uid == 0", "has(pod.name)", "params.on"),
    *('process.container_id == ""', "process.in_init_tree", "process.truncated", 'process.partial == "forged"'),
    *("size(process.argument_credentials) > 0", 'pod.name.startsWith("p")', '"setuid" in credentials.raised'),
    *("has(identity.id)", "identity.mapped", 'identity.evidence == "env"', "process.name in params.nobody"),
    *("1 / process.uid == 1", 'args[1].text == "x"', "has(file.mode)", "true", "false"),
)  # fmt: skip
PARAMETERS: dict[str, Any] = {"names": ["sh"], "nobody": [], "words": ["key", "^-c"], "on": True}


def _deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map("({0[0]} {0[1]} {0[2]})".format),
        st.tuples(inner, inner).map("({0[0]} && {0[1]})".format),
        inner.map("!({})".format),
        st.tuples(inner, inner, inner).map("({0[0]} ? {0[1]} : {0[2]})".format),
    )


conditions = st.recursive(st.sampled_from(LEAVES), _deeper, max_leaves=6)
rules = st.lists(st.tuples(conditions, st.lists(conditions, max_size=2)), min_size=3, max_size=6)
events = st.fixed_dictionaries(
    {
        "process": st.fixed_dictionaries(
            {
                "binary": st.sampled_from(["/bin/sh", "/tmp/curl", "/usr/bin/id"]),
                "arguments": st.sampled_from(["", "-c x", "KEY", "a | key", "-x"]),
                "uid": st.sampled_from([0, 1]),
            },
            optional={
                "container_id": st.just("c"),
                "in_init_tree": st.booleans(),
                "flags": st.just("truncArgs"),
                "argument_credentials": st.just(["github-token"]),
                "partial": st.just("forged"),
            },
        ),
        "event": st.fixed_dictionaries(
            {"function": st.sampled_from(["openat", "mount"]), "action": st.sampled_from(["", "SIGKILL"])}
        ),
    },
    optional={
        "file": st.fixed_dictionaries(
            {"path": st.sampled_from(["/etc/shadow", "/x"]), "access": st.sampled_from(["read", "link"])},
            optional={"target": st.just("/y")},
        ),
        "operation": st.fixed_dictionaries({"name": st.sampled_from(["mount", "umount"])}),
        "pod": st.just({"name": "p", "namespace": "n"}),
        "identity": st.fixed_dictionaries(
            {"id": st.sampled_from(["", "i"]), "mapped": st.booleans(), "evidence": st.sampled_from(["env", "file"])}
        ),
        "credentials": st.fixed_dictionaries({"raised": st.sampled_from([[], ["setuid"]])}),
    },
)
KINDS = (EventKind.EXEC, EventKind.FILE, EventKind.HOOK)


def checked(condition: str, exceptions: list[str], number: int = 0) -> CheckedRule:
    """A rule that looks at three kinds of event, and at processes older than the agent too."""
    spec = {
        **dict.fromkeys(("title", "description", "message"), "t"),
        "severity": "low",
        "maturity": "stable",
        "events": list(map(str, KINDS)),
        "parameters": PARAMETERS,
        "condition": f"({condition}) && (process.preexisting || !process.preexisting)",
        "exceptions": [{"name": f"e{at}", "condition": one} for at, one in enumerate(exceptions)],
    }
    made, faults = read(DetectionRule, {"metadata": {"name": f"r{number}"}, "spec": spec})
    assert made is not None, faults
    return check_rule(made)


def expected(step: Step, event: MadeEvent) -> tuple[bool, int]:
    """What the engine makes of a condition and the exceptions after it, and how many of these end in an error."""
    holds, failures = engine_answer(step.condition, event), 0
    if holds is None:
        return False, 1
    for exception in step.exceptions if holds else ():
        excepted = engine_answer(exception, event)
        failures += excepted is None
        if excepted:
            return False, failures
    return holds, failures


def program(given_rules: list[CheckedRule]) -> tuple[Program, Counter[int]]:
    """Their code, and the slots that failed so far."""
    failures: Counter[int] = Counter()
    return load(generate(given_rules, waiting=False), lambda slot, _: failures.update([slot])), failures


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(rules, st.lists(st.tuples(events, st.sampled_from(KINDS)), min_size=2, max_size=6))
def test_nothing_that_holds_is_ruled_out(
    texts: list[tuple[str, list[str]]], data: list[tuple[dict[str, Any], EventKind]]
) -> None:
    """Hits and failures of all rules together are those of the CEL engine, for new subjects and for remembered ones."""
    made = [checked(condition, exceptions, at) for at, (condition, exceptions) in enumerate(texts)]
    code, failures = program(made)
    for one, kind in data * 2:
        event = made_event(one, kind)
        answers = [expected(rule.steps[0], event) for rule in made]
        failures.clear()
        assert sorted(code.detect[kind](event)) == [at for at, (holds, _) in enumerate(answers) if holds]
        assert dict(failures) == {at: failed for at, (_, failed) in enumerate(answers) if failed}


SEARCHES = (
    *('file.path.matches("shadow")', 'file.target.matches("^/y$")', 'file.path.matches("^/x$")'),
    *("params.words.exists(w, file.path.matches(w))", 'file.target.matches("^$")', 'glob(file.path, "/etc/**")'),
    *('file.access == "read"', 'process.name == "sh"', 'file.target != ""'),
)
searches = st.recursive(st.sampled_from(SEARCHES), _deeper, max_leaves=4)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(searches, st.lists(searches, max_size=1)), min_size=3, max_size=6))
def test_a_path_without_a_pattern_rules_out_only_what_cannot_hold(texts: list[tuple[str, list[str]]]) -> None:
    """Of rules that search paths those that hold are found, whichever of the two paths a pattern is in."""
    made = [checked(condition, exceptions, at) for at, (condition, exceptions) in enumerate(texts)]
    code, failures = program(made)
    for path in ("/etc/shadow", "/x", "/-c key", "/"):
        for target in ("", "/y", "/etc/shadow"):
            event = made_event({"file": {"path": path, "target": target, "access": "read"}}, EventKind.FILE)
            answers = [expected(rule.steps[0], event) for rule in made]
            assert sorted(code.detect[EventKind.FILE](event)) == [at for at, answer in enumerate(answers) if answer[0]]
    assert not failures


def test_paths_are_asked_for_all_patterns_at_once() -> None:
    """A new path in which no rule's pattern occurs costs one search, not one for each rule."""
    texts = [f'file.path.matches("/p{at}[.]key$") && process.uid == 0' for at in range(4)]
    source = generate([checked(text, [], at) for at, text in enumerate(texts)]).source
    function = next(text for text in source.split("\n\n") if text.startswith("def open_file_file("))
    assert "if v_file.path and words_" in function


def test_a_condition_for_another_kind_is_left_out() -> None:
    """In the function of a kind only the side of a condition is left that is about this kind."""
    source = generate(
        [checked('event.kind == "exec" ? process.name == "only-exec" : file.path == "only-file"', [])]
    ).source
    functions = {text.partition("(")[0]: text for text in source.split("\n\n") if text.startswith("def detect_")}
    assert "only-exec" in functions["def detect_exec"]
    assert "only-file" not in functions["def detect_exec"]
    assert "only-exec" not in functions["def detect_file"]


class Watched(MadeEvent):
    """A file event that counts how often its parts are asked for, and may fail to give them."""

    __slots__ = ("broken", "reads")
    broken: bool
    reads: int

    @property
    def details(self) -> Details:
        """As given."""
        self.reads += 1
        if self.broken:
            raise RuntimeError("broken")
        return Details(file=FileAccess("/etc/shadow", "read"))


def watched(binary: str, *, broken: bool = False) -> Watched:
    """An access of a program."""
    made = made_event({"process": {"binary": binary}}, EventKind.FILE)
    found = Watched.__new__(Watched)
    for cls in MadeEvent.__mro__[:2]:
        for name in cls.__slots__:
            setattr(found, name, getattr(made, name))
    found.broken, found.reads = broken, 0
    return found


def test_a_program_that_no_rule_is_about_costs_no_look_at_the_file() -> None:
    """What the program's name decides is decided without the rest of the event."""
    code, _ = program([checked(f'process.name == "p{at}" && file.path == "/etc/shadow"', [], at) for at in range(4)])
    detect = code.detect[EventKind.FILE]
    for _ in range(2):
        other = watched("/bin/other")
        assert (detect(other), other.reads) == ((), 0)
        named = watched("/bin/p2")
        assert (detect(named), named.reads > 0) == ((2,), True)


def test_a_part_that_cannot_be_read_fails_each_rule_by_itself() -> None:
    """An error while a subject is looked up rules nothing out: each rule that asks meets it, and is counted."""
    texts = ['file.path == "/etc/shadow"', 'file.access == "read"', 'process.name == "sh"']
    code, failures = program([checked(text, [], at) for at, text in enumerate(texts)])
    assert code.detect[EventKind.FILE](watched("/bin/sh", broken=True)) == (2,)
    assert failures == {0: 1, 1: 1}


@pytest.mark.parametrize("characters", [4, 513])
def test_what_is_remembered_is_bounded(characters: int) -> None:
    """However many programs and files there are, few are remembered, and none with a long name."""
    known: dict[Any, int] = {}
    for number in range(5_000):
        assert learn(known, (f"{number:04}".ljust(characters), True), number) == number
    assert len(known) == (5_000 % 1_024 or 1_024 if characters == 4 else 0)
