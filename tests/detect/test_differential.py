"""The generated code against the CEL engine: the same answer, or an error in both, for generated expressions and events."""

# ruff: noqa: E501 - tables, read row by row

from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from detect.oracle import compiled, engine_answer
from keytrail.detect.analysis import analyse
from keytrail.detect.conditions import RefusedError, check_condition
from keytrail.detect.made_event import MadeEvent, made_event
from keytrail.detect.rule_check import Expression
from keytrail.domain.event import EventKind

CONSTANTS: dict[str, Any] = {"words": ("sh", "bash", ""), "none": (), "limit": 3, "ratio": 0.5, "on": True, "name": "sh", "numbers": (1, -7, 2**63 - 1)}  # fmt: skip
TEXTS = ("", "sh", "bash", "/bin/sh", "/tmp/ä\U0001f600", "10.0.0.1", "::ffff:10.1.2.3", "a b", "SH", "..", "/")
NUMBERS = (0, 1, -1, 2, 3, 7, -7, 443, 2**63 - 1, -(2**63), 4_294_967_295)

literals = st.sampled_from(TEXTS).map(lambda text: '"' + text.replace("\\", "\\\\") + '"')
numbers = st.sampled_from(NUMBERS).map(str)
PATTERNS = ("sh$", "^/tmp", "[0-9]+", ".", "^$", r"\\bsh\\b", "(?i)SH", "ä")


def _joined(operators: tuple[str, ...], side: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(side, st.sampled_from(operators), side).map(lambda parts: f"({' '.join(parts)})")


text_leaves = literals | st.sampled_from(
    ["process.name", "process.binary", "process.arguments", "parent.name", "pod.namespace", "file.path", "file.name", "network.peer_address", "event.function", "params.name", "identity.id", "operation.target", "event.kind"]
)  # fmt: skip
number_leaves = numbers | st.sampled_from(
    ["process.uid", "process.pid", "network.peer_port", "event.returned", "file.mode", "exit.code", "credentials.euid", "params.limit", "params.numbers[1]", "operation.ids[0]", "size(process.environment)"]
)  # fmt: skip


def _text(inner: Any) -> st.SearchStrategy[str]:
    text, number, flag, texts = inner
    return st.one_of(
        text_leaves,
        st.tuples(text, text).map("({0[0]} + {0[1]})".format),
        text.map("{}.lowerAscii()".format),
        text.map("basename({})".format),
        text.map("dirname({})".format),
        st.tuples(flag, text, text).map("({0[0]} ? {0[1]} : {0[2]})".format),
        st.tuples(texts, number).map("{0[0]}[{0[1]}]".format),
        literals.map("pod.labels[{}]".format),
    )


def _number(inner: Any) -> st.SearchStrategy[str]:
    text, number, flag, texts = inner
    return st.one_of(
        number_leaves,
        _joined(("+", "-", "*", "/", "%"), number),
        number.map("(-({}))".format),
        text.map("size({})".format),
        texts.map("{}.size()".format),
        st.tuples(flag, number, number).map("({0[0]} ? {0[1]} : {0[2]})".format),
        st.tuples(literals, number).map("{{{0[0]}: {0[1]}}}.sh".format),
    )


def _texts(inner: Any) -> st.SearchStrategy[str]:
    text, _, flag, texts = inner
    return st.one_of(
        st.sampled_from(
            ["params.words", "params.none", "process.environment", "pod.exec_commands", "operation.capabilities"]
        ),
        st.lists(text, min_size=1, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.tuples(texts, texts).map("({0[0]} + {0[1]})".format),
        st.tuples(texts, text).map("{0[0]}.map(t, t + {0[1]})".format),
        texts.map('{}.filter(t, t != "sh")'.format),
        st.tuples(texts, flag).map("{0[0]}.filter(t, {0[1]})".format),
        st.just("ancestors.map(a, a.name)"),
        st.just("pod.labels.map(k, pod.labels[k])"),
    )


def _flag(inner: Any) -> st.SearchStrategy[str]:
    text, number, flag, texts = inner
    return st.one_of(
        st.sampled_from(["true", "false", "process.in_init_tree", "has(pod.name)", "has(event.returned)", "has(file.mode)", "has(exit.code)", "has(credentials.uid)", "has(process.uid)", "has(pod.labels.app)", "has(parent.name)", "has(process.environment)", "params.on", "has(identity.id)", "process.preexisting"]),
        _joined(("&&", "||"), flag),
        _joined(("&&", "||"), flag),
        flag.map("!({})".format),
        _joined(("==", "!=", "<", "<=", ">", ">="), number),
        _joined(("==", "!=", "<", "<=", ">", ">="), text),
        _joined(("==", "!="), texts),
        st.tuples(text, texts).map("({0[0]} in {0[1]})".format),
        st.tuples(number, st.sampled_from(["params.numbers", "[0, 1, 443]", "operation.ids"])).map("({0[0]} in {0[1]})".format),
        literals.map("({} in pod.labels)".format),
        st.tuples(text, st.sampled_from(["contains", "startsWith", "endsWith"]), text).map("{0[0]}.{0[1]}({0[2]})".format),
        st.tuples(text, st.sampled_from(PATTERNS)).map('{0[0]}.matches("{0[1]}")'.format),
        text.map('glob({}, "/tmp/**")'.format),
        text.map('cidr({}, "10.0.0.0/8")'.format),
        text.map('in_cidrs({}, ["10.0.0.0/8", "fd00::/8"])'.format),
        text.map("(entropy({}) > params.ratio)".format),
        text.map("(entropy({}) / (1.5 - params.ratio * 3.0) > -2.5)".format),
        st.tuples(texts, st.sampled_from(["all", "exists", "exists_one"]), flag).map("{0[0]}.{0[1]}(t, t == process.name || {0[2]})".format),
        st.tuples(st.sampled_from(["all", "exists", "exists_one"]), number).map("params.numbers.{0[0]}(n, {0[1]} / (n - 1) > n + 1)".format),
        st.tuples(st.sampled_from(["all", "exists"]), flag).map("ancestors.{0[0]}(a, a.uid == 0 && {0[1]})".format),
        st.just('args.exists(a, a.index == 1 && a.text.contains("x") || a.int > 5)'),
        st.just("identities.exists(i, !i.mapped)"),
        st.sampled_from(["workload", "binary", "destination"]).map('("{}" in identity.violations)'.format),
        st.just('identities.exists(i, "destination-unverified" in i.violations || "binary" in i.violations)'),
        st.just("params.words.exists(w, process.arguments.matches(w))"),
        st.tuples(flag, flag, flag).map("({0[0]} ? {0[1]} : {0[2]})".format),
    )  # fmt: skip


def _deeper(inner: Any) -> Any:
    return _text(inner), _number(inner), _flag(inner), _texts(inner)


SHALLOW = (text_leaves, number_leaves, st.sampled_from(["true", "false", "has(pod.name)", "1 / process.uid > 0"]), st.just("params.words"))  # fmt: skip
conditions = _deeper(_deeper(_deeper(SHALLOW)))[2]

ALLOWED = (
    {"binaries": ["/bin/*"]},
    {"workloads": [{"namespace": "sh", "kind": "Deployment", "name": "web"}]},
    {"destinations": [{"cidr": "10.0.0.0/8", "ports": [443]}]},
    {"destinations": [{"host": "*.example"}], "binaries": ["/tmp/**"]},
)
texts_given = st.sampled_from(TEXTS)
processes = st.fixed_dictionaries(
    {},
    optional={
        "binary": texts_given,
        "arguments": texts_given,
        "uid": st.sampled_from([0, 1, 1000]),
        "in_init_tree": st.booleans(),
        "preexisting": st.booleans(),
        "environment": st.lists(texts_given, max_size=3),
    },
)
events = st.fixed_dictionaries(
    {"process": processes},
    optional={
        "event": st.fixed_dictionaries({}, optional={"returned": st.sampled_from(NUMBERS), "function": texts_given}),
        "ancestors": st.lists(processes.map(lambda data: {k: v for k, v in data.items() if k != "preexisting"}), max_size=3),
        "pod": st.fixed_dictionaries({"name": texts_given}, optional={"namespace": texts_given, "labels": st.just({"app": "sh", "": "x"})}),
        "network": st.fixed_dictionaries({"peer_address": texts_given, "peer_port": st.sampled_from([0, 443])}, optional={"family": st.just("AF_INET")}),
        "file": st.fixed_dictionaries({"path": texts_given, "access": st.just("chmod")}, optional={"mode": st.sampled_from([0, 0o4755])}),
        "operation": st.fixed_dictionaries({"name": texts_given, "ids": st.lists(st.sampled_from([0, -1]), max_size=2)}),
        "exit": st.fixed_dictionaries({"code": st.sampled_from([0, 3]), "signal": st.sampled_from(["", "SIGKILL"])}),
        "credentials": st.fixed_dictionaries({"uid": st.just(0), "euid": st.sampled_from([0, 5]), "inode_links": st.sampled_from([-1, 0, 1])}),
        "identity": st.fixed_dictionaries({"id": texts_given}, optional={"mapped": st.booleans(), "allowed": st.sampled_from(ALLOWED)}),
        "args": st.lists(st.fixed_dictionaries({}, optional={"text": texts_given, "int": st.sampled_from(NUMBERS)}), max_size=2),
    },
)  # fmt: skip


def expression(text: str) -> Expression:
    """A condition, checked."""
    condition = check_condition(text, CONSTANTS)
    return Expression(condition, analyse(condition))


def agree(text: str, event: MadeEvent) -> None:
    """Assert that both give one answer."""
    checked = expression(text)
    assert compiled(checked)(event) == engine_answer(checked, event), text


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(conditions, events, st.sampled_from([EventKind.EXEC, EventKind.CONNECT]))
@example("0 == exit.code", {"process": {}, "exit": {"code": 3, "signal": "SIGKILL"}}, EventKind.EXEC)
def test_generated_code_and_engine_agree(text: str, data: dict[str, Any], kind: EventKind) -> None:
    """Any expression that the language accepts has one answer, compiled and in Google's engine, errors included."""
    try:
        checked = expression(text)
    except RefusedError as refused:
        reasons = {one.message.partition(":")[0] for one in refused.refusals}
    else:
        reasons = set()
    if reasons:  # only its size may be against a generated expression
        assert reasons == {"unbounded work"}
        return
    event = made_event(data, kind)
    assert compiled(checked)(event) == engine_answer(checked, event)


@pytest.mark.parametrize(
    "text",
    [
        "1 / 0 == 1 || true",
        "true || 1 / 0 == 1",
        "1 / 0 == 1 && false",
        "1 / 0 == 1 && true",
        "false || 1 / 0 == 1",
        "[0, 1].all(n, 1 / n == 1 && false)",
        "[0, 1].all(n, 1 / n == 1)",
        "[0, 1].exists(n, 1 / n == 1)",
        "[0, 2].exists(n, 1 / n == 1)",
        "[0, 1].exists_one(n, 1 / n == 1)",
        "[0, 1].map(n, 1 / n).size() == 2",
        "[0, 1].filter(n, 1 / n == 1) == [1]",
        "[1, 2, 3].map(n, n > 1, n * 2) == [4, 6]",
        "-7 / 2 == -3 && -7 % 2 == -1 && 7 / -2 == -3 && 7 % -2 == 1",
        "-9223372036854775808 / -1 == 0",
        "-9223372036854775808 % -1 == 0",
        "-(-9223372036854775808) == 0",
        "9223372036854775807 + 1 > 0",
        "9223372036854775807 * 2 > 0",
        "-9223372036854775807 - 2 > 0",
        "1.0 / 0.0 > 1.0e308",
        "-1.0 / 0.0 < 0.0",
        "0.0 / 0.0 == 0.0 / 0.0",
        "[1, 2][2] == 1",
        "[1, 2][-1] == 1",
        '{"a": 1}["b"] == 1',
        '{"a": 1, "b": 1 / 0}.a == 1 || true',
        'has({"a": 1}.a) && !has({"a": 1}.b)',
        '"ÄA".lowerAscii() == "Äa"',
        'size("ä\U0001f600") == 2',
        '"a\\n".matches("a$")',
        '"\u0661".matches("[0-9]")',
        '"\U0001f600" > "\uffff"',
        "(1 / process.uid > 0) ? true : false",
        "false ? 1 / 0 == 1 : true",
        '[["sh"], ["bash"]].exists(l, l.exists(t, t == "bash"))',
        "true == (1 < 2)",
        "false < true",
        "[true] == [1 == 1]",
        'process.name in ["sh", "bash"] == false',
    ],
)
def test_corner(text: str) -> None:
    """The places where Python and CEL differ: absorbed errors, overflow, truncation, order, regular expressions."""
    agree(text, made_event({"process": {"uid": 0, "binary": "/bin/sh"}}, EventKind.EXEC))
