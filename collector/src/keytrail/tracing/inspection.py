"""A TracingPolicy manifest in; what an agent would refuse of it, and what it would ignore, out.

The agent says what is wrong with a policy only when it loads it, on each node by itself, and a TracingPolicy has no
status: this says it before, with file, line, field and the nearest valid name. First the shape (`schema`), then what
only the agent's source says (`hooks`, `matching`).
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from keytrail.domain.errors import Problem
from keytrail.domain.shape import FieldPath, described, quoted, suggestion
from keytrail.manifests import POLICY_API_VERSION, POLICY_KINDS
from keytrail.tracing.hooks import HOOK_LISTS, check_hook
from keytrail.tracing.report import Report
from keytrail.tracing.schema import shape_faults
from keytrail.yaml_documents import Document, parse_documents

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MAX_NAME = 253
_OPTIONS = ("disable-kprobe-multi", "disable-uprobe-multi", "policy-mode")
_MODES = ("enforce", "monitor")
_OBSERVING = ("Post", "NoPost", "TrackSock", "UntrackSock")
"""Actions that touch neither the observed process nor the network (GetUrl and DnsLookup make the agent call out)."""


def check(text: str, path: str, *, observe_only: bool = False) -> list[Problem]:
    """Return everything that keeps the policies of a text from loading as they stand; none when they would load.

    `observe_only` also refuses whatever would change what a process does, as the shipped library must not.
    """
    return gathered(inspect(document, observe_only=observe_only).document.problems for document in _given(text, path))


def warnings_of(text: str, path: str) -> list[Problem]:
    """Return what an agent accepts and then ignores, and what only some kernels can do."""
    return gathered(inspect(document).warnings for document in _given(text, path))


def inspect(document: Document, *, observe_only: bool = False) -> Report:
    """Judge one document. A wrong shape is all that is said of it: the rest could not be understood."""
    report = Report(document)
    if document.problems or not _is_policy(report):
        return report
    for fault in shape_faults(document.data):
        document.add_fault(fault)
    if not document.problems:
        _check_name(report)
        _check_spec(report)
        if observe_only:
            _check_observing(report)
    return report


def actions_in(data: Mapping[str, Any]) -> Iterator[tuple[FieldPath, str]]:
    """Yield every action of every selector, with its path."""
    for kind, number, hook in hooks_in(data):
        for index, selector in enumerate(hook.get("selectors", [])):
            for name in ("matchActions", "matchReturnActions"):
                for position, action in enumerate(selector.get(name, [])):
                    path = ("spec", kind, number, "selectors", index, name, position, "action")
                    yield path, action["action"]


def hooks_in(data: Mapping[str, Any]) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """Yield every hook of a policy: the list it stands in, its number there, and what it says."""
    for kind in HOOK_LISTS:
        for number, hook in enumerate(data["spec"].get(kind, [])):
            yield kind, number, hook


def _given(text: str, path: str) -> list[Document]:
    documents = [one for one in parse_documents(text, path) if one.problems or one.data is not None]
    if not documents:
        documents = [Document(path, 0)]
        documents[0].add((), "expected a TracingPolicy, found nothing")
    return documents


def gathered(found: Iterable[list[Problem]]) -> list[Problem]:
    """Put the problems of several documents of one file into the order of their lines."""
    return sorted((problem for problems in found for problem in problems), key=lambda problem: problem.line)


def _is_policy(report: Report) -> bool:
    data = report.data
    if not isinstance(data, dict):
        report.wrong((), f"expected a manifest with apiVersion and kind, found {described(data)}")
        return False
    if data.get("kind") not in POLICY_KINDS:
        kind = data.get("kind")
        near = suggestion(kind if isinstance(kind, str) else "", POLICY_KINDS)
        report.wrong(("kind",), f"unknown kind {quoted(kind) if isinstance(kind, str) else described(kind)}, {near}")
    if data.get("apiVersion") != POLICY_API_VERSION:
        report.wrong(("apiVersion",), f"expected {POLICY_API_VERSION}, found {described(data.get('apiVersion'))}")
    return not report.document.problems


def _check_name(report: Report) -> None:
    metadata = report.data["metadata"]
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if not isinstance(name, str) or not name:
        report.wrong(("metadata", "name"), "is required")
    elif len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        rule = f"expected at most {_MAX_NAME} of a-z, 0-9, - and ., starting and ending with a letter or digit"
        report.wrong(("metadata", "name"), f"{rule}, found {quoted(name)}")
    if report.data["kind"] == "TracingPolicy" and namespace:
        report.wrong(("metadata", "namespace"), "a TracingPolicy has none: use TracingPolicyNamespaced")
    elif report.data["kind"] != "TracingPolicy":
        if not namespace:
            report.wrong(("metadata", "namespace"), "is required for a TracingPolicyNamespaced")
        if report.data["spec"].get("hostSelector") is not None:
            report.wrong(("spec", "hostSelector"), "a namespaced policy cannot select the host's processes")


def _check_spec(report: Report) -> None:
    spec = report.data["spec"]
    if not spec.get("loader") and not any(spec.get(kind) for kind in HOOK_LISTS):
        report.wrong(("spec",), f"watches nothing: expected one of {', '.join(HOOK_LISTS)}, loader")
    narrowed = [name for name in ("podSelector", "containerSelector", "hostSelector") if name in spec]
    if spec.get("loader") and (narrowed or report.data["kind"] != "TracingPolicy"):
        report.wrong(("spec", narrowed[0] if narrowed else "loader"), "the loader cannot be limited to some processes")
    lists = {entry["name"]: entry.get("type", "") for entry in spec.get("lists", [])}
    for kind, number, hook in hooks_in(report.data):
        check_hook(report, kind, hook, ("spec", kind, number), lists)
    options = _check_options(report)
    calls = Counter(hook["call"] for hook in spec.get("kprobes", []))
    for number, hook in enumerate(spec.get("kprobes", [])):
        if calls[hook["call"]] > 1 and options.get("disable-kprobe-multi", "") not in ("1", "true"):
            report.warn(
                ("spec", "kprobes", number, "call"),
                f"{hook['call']} is hooked {calls[hook['call']]} times: kernels with kprobe_multi (5.18) refuse that"
                " without the option disable-kprobe-multi",
            )


def _check_options(report: Report) -> dict[str, str]:
    options = {}
    for index, option in enumerate(report.data["spec"].get("options", [])):
        path, name, value = ("spec", "options", index), option["name"], option.get("value", "")
        options[name] = value
        if name not in _OPTIONS:
            report.warn((*path, "name"), f"unknown option {quoted(name)}, {suggestion(name, _OPTIONS)}")
        elif name == "policy-mode" and value not in _MODES:
            report.wrong((*path, "value"), f"unknown value {quoted(value)}, {suggestion(value, _MODES)}")
    return options


def _check_observing(report: Report) -> None:
    if report.data["spec"].get("enforcers"):
        report.wrong(("spec", "enforcers"), "enforces; shipped policies only observe")
    for path, action in actions_in(report.data):
        if action not in _OBSERVING:
            report.wrong(path, f"{action} does more than observe; shipped policies do not")
    for kind, number, hook in hooks_in(report.data):
        if hook.get("returnArgAction", "Post") not in _OBSERVING:
            report.wrong(("spec", kind, number, "returnArgAction"), "does more than observe; shipped policies do not")
