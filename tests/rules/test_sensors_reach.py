"""What rules look for and what the sensors they name report: a path that no sensor lets through is never found."""

from collections.abc import Iterator, Mapping
from typing import Any

from keytrail.decode.hooks import plain_function
from keytrail.decode.readers_file import ACCESS
from keytrail.domain.event import Event
from keytrail.domain.rules import DetectionRule
from keytrail.tracing import sensors
from keytrail.tracing.inspection import hooks_in
from rules.report import attributed, shipped_rules

FILES = {"file", "path", "dentry"}
ONE_FUNCTION_FOR_ALL = {
    "file_permission": {"read", "write", "exec", "open"},
    "inode_setattr": {"chmod", "chown", "times"},
}
FEATURES = {"ancestors", "environment", "process-credentials"}


def hooks_of(rule: DetectionRule) -> Iterator[Mapping[str, Any]]:
    """Hooks of the sensors that a rule names."""
    for name in set(rule.spec.requires) - FEATURES:
        yield from (hook for _, _, hook in hooks_in(sensors()[name].data))


def accesses(hook: Mapping[str, Any]) -> set[str]:
    """What a hook's events can say was done to a file."""
    function = plain_function(hook["call"]).removeprefix("security_")
    return ONE_FUNCTION_FOR_ALL.get(function, {ACCESS.get(function, "")})


def reports(hook: Mapping[str, Any], file: Mapping[str, Any]) -> bool:
    """Whether an event about the file passes what some selector of the hook says of paths."""
    paths = [str(file[name]) for name in ("path", "target") if name in file]
    paths += [one.rpartition("/")[0] for one in paths]  # hooks on directories get the folder and the name apart
    selectors = hook.get("selectors", [])
    return not selectors or any(
        all(_passes(one, hook, paths) for one in selector.get("matchArgs", [])) for selector in selectors
    )


def _passes(found: Mapping[str, Any], hook: Mapping[str, Any], paths: list[str]) -> bool:
    named = (hook["args"][at] for at in found.get("args", []))
    argument = next(named, None) or next(arg for arg in hook["args"] if arg["index"] == found["index"])
    if argument["type"] not in FILES:
        return True
    if argument["type"] == "dentry":  # its path lacks what its file system is mounted on
        paths = [path[at:] for path in paths for at, sign in enumerate(path) if sign == "/"]
    compare = {"Prefix": str.startswith, "Postfix": str.endswith}[found["operator"]]
    return any(compare(path, value) for path in paths for value in found["values"])


def given(rule: DetectionRule) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Files in the events of the rule's own tests that are to be found."""
    for test in rule.spec.tests:
        for event in test.events or (test.event,):
            if test.match and "file" in event and event.get("event", {}).get("kind", "file") == "file":
                yield test.name, event["file"]


def test_sensors_of_a_rule_report_what_it_finds() -> None:
    """For each file that a rule's tests say is found, a sensor that the rule names would have sent the event."""
    of_files = [rule for rule in shipped_rules() if any(hooks_of(rule)) and any(given(rule))]
    assert len(of_files) >= 25
    unseen = [
        (rule.name, test, file["path"])
        for rule in of_files
        for hooks in [list(hooks_of(rule))]
        for test, file in given(rule)
        if not any(file.get("access", "read") in accesses(hook) and reports(hook, file) for hook in hooks)
    ]
    assert unseen == []


def selected(policy: str, event: Event) -> bool:
    """Whether the one hook of a policy would have sent a recorded event of its function, by its own selectors."""
    ((_, _, hook),) = hooks_in(sensors()[policy].data)
    values = [argument.value for argument in event.arguments]
    return any(all(_holds(one, values) for one in selector["matchArgs"]) for selector in hook["selectors"])


def _holds(found: Mapping[str, Any], values: list[Any]) -> bool:
    value = values[found["index"]]
    match found["operator"]:
        case "Equal":
            return str(value) in found["values"]
        case "Mask":
            return any(value & int(mask) for mask in found["values"])
    return any(value.startswith(beginning) for beginning in found["values"])


def test_process_names_picks_the_pretender() -> None:
    """Of the recorded prctl calls only those leave the kernel that name a kernel thread or, itself, a service."""
    calls = [event for _, event in attributed("sensors") if event.function == "prctl"]
    picked = {(event.process.name, event.arguments[1].value) for event in calls if selected("process-names", event)}
    assert len(calls) > 80
    assert picked == {("perl", "[kworker/u4:2]"), ("systemd", "systemd")}


def test_file_modes_picks_bits_that_matter() -> None:
    """Of the recorded chmod calls those are left that set a SUID bit or make a file in /tmp or /dev/shm executable."""
    calls = [event for _, event in attributed("policy-library") if event.function == "chmod_common"]
    picked = [event.details.file for event in calls if selected("file-modes", event)]
    assert len(calls) > 30
    assert {(file.path, file.mode) for file in picked if file} == {
        ("/dev/shm/x.sh", 0o755),
        ("/tmp/suid-id", 0o777),
        ("/tmp/suid-id", 0o4777),
    }
