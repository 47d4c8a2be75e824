"""What an agent refuses of a policy, said before it is loaded: file, line, field and what was expected."""

import copy
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from keytrail.tracing import check, warnings_of
from keytrail.tracing.inspection import inspect
from keytrail.yaml_documents import Document
from support.recordings import CORPUS

RECORDED = (CORPUS / "sensors" / "policies.yaml").read_text()
LOADED = list(yaml.safe_load_all(RECORDED))
HEAD = "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {name: a}\nspec:\n  kprobes:\n"
SOCK = "[{index: 0, type: sock}]"


def hook(text: str) -> str:
    """A policy with one hook on a kernel function, given as YAML flow."""
    return f"{HEAD}  - {{call: f, syscall: false, {text}}}\n"


def selecting(args: str, selector: str, more: str = "") -> str:
    """A policy with one hook and one selector."""
    return hook(f"args: {args}, {more}selectors: [{{{selector}}}]")


def compared(type_: str, operator: str, values: str) -> str:
    """A policy that compares its only argument."""
    return selecting(
        f"[{{index: 0, type: {type_}}}]", f"matchArgs: [{{index: 0, operator: {operator}, values: {values}}}]"
    )


def test_policies_that_a_real_agent_loaded_pass() -> None:
    """All seventeen recorded policies, forty-one hooks, load as far as this can tell, without a warning."""
    assert check(RECORDED, "policies.yaml", observe_only=True) == []
    assert warnings_of(RECORDED, "policies.yaml") == []


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        (HEAD + "  - {call: tcp_connect}\n", "call", "no system call (sys_…): write `syscall: false`"),
        (HEAD + "  - {call: sys_read, syscall: false}\n", "call", "write `syscall: true`"),
        (HEAD + '  - {call: "list:x"}\n', "call", "unknown list"),
        (HEAD + "  - {call: sys_a, args: [{index: 1, type: int, resolve: x}]}\n", "args[0].resolve", "system calls"),
        (hook("args: [{index: 5, type: int}]"), "args[0].index", "expected 0 to 4, found 5"),
        (hook("args: [{index: 0, source: current_task}]"), "args[0].source", "only entries of data"),
        (hook("data: [{index: 0, resolve: a}]"), "data[0].source", "expected one of current_task, pt_regs"),
        (hook("data: [{index: 0, source: current_task}]"), "data[0].resolve", "is required"),
        (hook("return: true"), "returnArg", "is required with `return: true`"),
        (hook("returnArgAction: Pots"), "returnArgAction", "did you mean Post?"),
        (hook("args: [{index: 1, type: char_buf}]"), "args[0].sizeArgIndex", "is required for char_buf"),
        (hook("args: [{index: 1, type: char_buf, sizeArgIndex: 2}]"), "args[0].sizeArgIndex", "2 is the buffer itself"),
        (hook("args: [{index: 1, type: char_buf, sizeArgIndex: 6}]"), "args[0].sizeArgIndex", "expected 1 to 5"),
        (
            hook("args: [{index: 1, type: char_buf, sizeArgIndex: 3, maxData: true, returnCopy: true}]"),
            "args[0].maxData",
            "not together with returnCopy",
        ),
        (
            compared("sockaddr", "DPort", '["53"]'),
            "selectors[0].matchArgs[0].operator",
            "has one end, called the source",
        ),
        (
            compared("file", "SubString", "[x]"),
            "selectors[0].matchArgs[0].operator",
            "SubString cannot be asked of file",
        ),
        (compared("sock", "Equal", "[x]"), "selectors[0].matchArgs[0].operator", "Equal cannot be asked of sock"),
        (compared("int", "Prefix", "[x]"), "selectors[0].matchArgs[0].operator", "Prefix cannot be asked of int"),
        (compared("file", "Mask", '["1"]'), "selectors[0].matchArgs[0].operator", "Mask cannot be asked of file"),
        (compared("cred", "Equal", '["1"]'), "selectors[0].matchArgs[0].operator", "only one of none"),
        (compared("int", "Equal", '["1","2","3","4","5"]'), "selectors[0].matchArgs[0].values", "at most 4 values"),
        (compared("int", "Equal", "[one]"), "selectors[0].matchArgs[0].values[0]", "a whole number, found 'one'"),
        (compared("int", "InRange", '["1:2:3"]'), "selectors[0].matchArgs[0].values[0]", "or a range 1:9"),
        (compared("int", "Equal", "[]"), "selectors[0].matchArgs[0].values", "at least one value"),
        (compared("sock", "DPort", '["70000"]'), "selectors[0].matchArgs[0].values[0]", "a port or a range"),
        (compared("sock", "NotDAddr", "[10.0.0]"), "selectors[0].matchArgs[0].values[0]", "an IP address or range"),
        (compared("path", "Prefix", f"[/{'a' * 256}]"), "selectors[0].matchArgs[0].values[0]", "at most 256 bytes"),
        (compared("path", "Postfix", f"[/{'a' * 127}]"), "selectors[0].matchArgs[0].values[0]", "at most 127 bytes"),
        (
            selecting(SOCK, 'matchArgs: [{index: 1, operator: DPort, values: ["1"]}]'),
            "selectors[0].matchArgs[0]",
            "index 1 is none of the hook's 1",
        ),
        (
            selecting(SOCK, 'matchArgs: [{args: [1], operator: DPort, values: ["1"]}]'),
            "selectors[0].matchArgs[0]",
            "args [1] is none of the hook's 1",
        ),
        (
            selecting(SOCK, 'matchReturnArgs: [{index: 0, operator: Equal, values: ["0"]}]'),
            "selectors[0].matchReturnArgs",
            "the hook has no returnArg",
        ),
        (
            selecting(SOCK, "matchActions: [{action: Post, rateLimit: 5x}]"),
            "selectors[0].matchActions[0].rateLimit",
            "a time such as 30s, 5m or 1h",
        ),
        (
            selecting(SOCK, "matchActions: [{action: NoPost, rateLimit: 5m}]"),
            "selectors[0].matchActions[0].rateLimit",
            "only Post has a rate limit",
        ),
        (
            selecting(SOCK, "matchActions: [{action: Post, rateLimit: 5m, rateLimitScope: node}]"),
            "selectors[0].matchActions[0].rateLimitScope",
            "expected one of thread, process, global",
        ),
        (
            selecting(SOCK, "matchActions: [{action: Post}, {action: Post}, {action: Post}, {action: Post}]"),
            "selectors[0].matchActions",
            "at most 3 actions",
        ),
        (
            selecting(SOCK, "matchActions: [{action: Sigkil}]"),
            "selectors[0].matchActions[0].action",
            "did you mean Sigkill?",
        ),
        (
            selecting(SOCK, "matchBinaries: [{operator: In, values: [/a]}, {operator: In, values: [/b]}]"),
            "selectors[0].matchBinaries",
            "at most 1 item, found 2",
        ),
        (
            selecting(SOCK, "matchBinaries: [{operator: In, values: [curl]}]"),
            "selectors[0].matchBinaries[0].values[0]",
            "expected an absolute path",
        ),
        (
            selecting(SOCK, "matchBinaries: [{operator: Prefix, values: [/a], followChildren: true}]"),
            "selectors[0].matchBinaries[0].followChildren",
            "only In and NotIn",
        ),
        (
            selecting(SOCK, "matchNamespaces: [{namespace: Pid, operator: In, values: [host]}]"),
            "selectors[0].matchNamespaces[0].values[0]",
            "expected host_ns or",
        ),
        (
            selecting(SOCK, "matchPIDs: [{operator: In, values: [1, 2, 3, 4, 5]}]"),
            "selectors[0].matchPIDs[0].values",
            "at most 4 pids",
        ),
    ],
)
def test_hook_that_an_agent_refuses_is_refused(text: str, field: str, message: str) -> None:
    """Each limit of the agent that no schema holds is said with its line and field."""
    (problem,) = check(text, "a.yaml")
    assert (problem.path, problem.line) == ("a.yaml", 6)
    assert problem.field == f"spec.kprobes[0].{field}"
    assert message in problem.message


def test_counts_are_limited_together() -> None:
    """Five argument slots hold arguments and data, five filters matchArgs and matchData, five selectors a hook."""
    entries = ", ".join(["{index: 0, type: int}"] * 4)
    data = ", ".join(["{index: 0, type: int, source: current_task, resolve: cred.uid.val}"] * 2)
    (many,) = check(hook(f"args: [{entries}], data: [{data}]"), "a")
    assert many.message == "expected at most 5 in args and data together, found 4 and 2"
    filters = ", ".join(['{index: 0, operator: DPort, values: ["1"]}'] * 6)
    (filtered,) = check(selecting(SOCK, f"matchArgs: [{filters}]"), "a")
    assert filtered.message == "expected at most 5 in matchArgs and matchData together, found 6"
    (selected,) = check(hook("selectors: [{}, {}, {}, {}, {}, {}]"), "a")
    assert selected.message == "expected at most 5 selectors, found 6"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (compared("iov_iter", "Prefix", "[x]"), "is accepted and ignored on iov_iter: everything will match"),
        (hook(f"message: {'a' * 257}"), "longer than 256 characters"),
        (hook("returnArg: {index: 0, type: int}"), "is ignored without `return: true`"),
        (HEAD + "  - {call: __x64_sys_read}\n", "write sys_read, the agent puts the prefix before it"),
        (HEAD + "  - {call: f, syscall: false}\n  options: [{name: polcy-mode}]\n", "did you mean policy-mode?"),
        (
            selecting(SOCK, "matchActions: [{action: FollowFD, argFd: 0, argName: 1}]"),
            "FollowFD is deprecated and gone from agents after 1.7",
        ),
        (
            HEAD.replace("kprobes", "uprobes") + "  - {path: /a, symbols: [main], args: [{index: 0, type: string}]}\n",
            "kernels without sleepable uprobes refuse text arguments",
        ),
    ],
)
def test_what_an_agent_ignores_is_a_warning(text: str, message: str) -> None:
    """A policy that loads and then does less than it says is no problem, but is told of."""
    assert check(text, "a.yaml") == []
    (warning,) = warnings_of(text, "a.yaml")
    assert message in warning.message


def test_function_hooked_twice_is_a_warning_unless_the_option_is_set() -> None:
    """Kernels with kprobe_multi refuse one function twice in a policy; the option that avoids it silences this."""
    twice = HEAD + "  - {call: f, syscall: false}\n  - {call: f, syscall: false}\n"
    assert [warning.line for warning in warnings_of(twice, "a")] == [6, 7]
    assert warnings_of(twice + '  options: [{name: disable-kprobe-multi, value: "1"}]\n', "a") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a.yaml: expected a TracingPolicy, found nothing"),
        ("[]", "a.yaml:1: expected a manifest with apiVersion and kind, found a list"),
        ("a: [", "a.yaml:1: not YAML"),
        (
            "kind: TracingPolcy\napiVersion: cilium.io/v1alpha1\n",
            "a.yaml:1: kind: unknown kind 'TracingPolcy', did you",
        ),
        ("kind: TracingPolicy\napiVersion: v1\n", "a.yaml:2: apiVersion: expected cilium.io/v1alpha1, found text 'v1'"),
        (HEAD.replace("name: a", "name: A_b") + "  - {call: sys_a}\n", "a.yaml:3: metadata.name: expected at most 253"),
        (HEAD.replace("name: a", "") + "  - {call: sys_a}\n", "a.yaml:3: metadata.name: is required"),
        (
            HEAD.replace("a}", "a, namespace: b}") + "  - {call: sys_a}\n",
            "a.yaml:3: metadata.namespace: a TracingPolicy",
        ),
        (HEAD.replace("  kprobes:", "  lists: []"), "a.yaml:4: spec: watches nothing"),
        (
            HEAD.replace("Policy", "PolicyNamespaced") + "  - {call: sys_a}\n",
            "a.yaml:3: metadata.namespace: is required",
        ),
        (
            HEAD.replace("  kprobes:", "  loader: true\n  podSelector: {matchLabels: {a: b}}"),
            "a.yaml:6: spec.podSelector: the loader cannot be limited to some processes",
        ),
    ],
)
def test_manifest_that_is_no_policy_is_refused(text: str, expected: str) -> None:
    """What is no policy at all is said on its own line."""
    (problem,) = check(text, "a.yaml")
    assert str(problem).startswith(expected)


@pytest.mark.parametrize("action", ["Sigkill", "Signal", "Override", "NotifyEnforcer", "Set", "GetUrl", "DnsLookup"])
def test_action_that_does_more_than_observe_is_refused_on_demand(action: str) -> None:
    """Every action that touches a process or calls out is refused where only observing is allowed."""
    text = selecting(SOCK, f"matchActions: [{{action: {action}}}]")
    assert check(text, "a") == []
    (problem,) = check(text, "a", observe_only=True)
    assert problem.message == f"{action} does more than observe; shipped policies do not"


def test_null_is_an_absent_field() -> None:
    """A field without a value is no field, as it is to the agent."""
    assert check(HEAD + "  - call: f\n    syscall: false\n    args:\n    selectors:\n", "a") == []


def test_problems_of_all_documents_are_given() -> None:
    """Several policies in one file are each judged, in the order of their lines."""
    bad = HEAD + "  - {call: f}\n"
    assert [problem.line for problem in check(f"{bad}---\n{bad}", "a")] == [6, 13]


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A recorded policy in which one value, anywhere, has become something else."""
    data = copy.deepcopy(draw(st.sampled_from(LOADED)))
    junk = st.one_of(st.none(), st.booleans(), st.integers(-3, 70_000), st.text(max_size=5), st.just([]), st.just({}))
    here: Any = data
    for _ in range(draw(st.integers(1, 8))):
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        if not isinstance(here[key], dict | list) or draw(st.integers(0, 5)) == 0:
            here[key] = draw(junk)
            break
        here = here[key]
    return data


@given(damaged())
@settings(max_examples=300)
def test_damaged_policy_is_judged_and_never_a_crash(data: Any) -> None:
    """Whatever stands in place of a value, judging ends with an answer."""
    inspect(Document("a", 1, data), observe_only=True)
