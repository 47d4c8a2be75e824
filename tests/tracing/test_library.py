"""The shipped TracingPolicies: what each promises, and which recording of a real agent shows that its hooks load."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from keytrail.domain.errors import ManifestError
from keytrail.proto.tetragon.events_pb2 import GetEventsResponse
from keytrail.tracing import Policy, check, sensors, warnings_of
from keytrail.tracing.inspection import actions_in, hooks_in
from keytrail.tracing.policy import load_policies
from keytrail.tracing.schema import newer_fields
from support.recordings import CORPUS, messages

NAMES = sorted(sensors())

LOADED = "sensors"
"""The recording whose policies are kept as they were loaded; all its hooks were enabled, some never fired."""
PROVEN = {
    ("bpf", "bpf_check"): "policy-library",
    ("bpf", "security_bpf_map_alloc"): "policy-library",
    ("bpf", "security_file_permission"): LOADED,
    ("credential-files", "security_file_permission"): "kubernetes",
    ("data-monitor", "tcp_sendmsg"): LOADED,
    ("dns", "udp_sendmsg"): LOADED,
    ("dns", "udpv6_sendmsg"): LOADED,
    ("egress", "tcp_connect"): "reference-policies",
    ("file-capabilities", "security_inode_setxattr"): LOADED,
    ("file-capabilities-syscalls", "sys_fsetxattr"): LOADED,
    ("file-capabilities-syscalls", "sys_lsetxattr"): LOADED,
    ("file-capabilities-syscalls", "sys_setxattr"): LOADED,
    ("file-deletion", "security_path_truncate"): LOADED,
    ("file-deletion", "security_path_unlink"): LOADED,
    ("file-modes", "chmod_common"): "policy-library",
    ("kernel-modules", "do_init_module"): LOADED,
    ("kernel-modules", "free_module"): "policy-library",
    ("kernel-modules", "security_kernel_module_request"): LOADED,
    ("kernel-modules", "security_kernel_read_file"): LOADED,
    ("listeners", "inet_csk_listen_start"): LOADED,
    ("mounts", "security_move_mount"): LOADED,
    ("mounts", "security_sb_mount"): LOADED,
    ("mounts", "sys_pivot_root"): LOADED,
    ("namespaces", "sys_setns"): LOADED,
    ("namespaces", "sys_unshare"): LOADED,
    ("persistence-files", "security_file_permission"): LOADED,
    ("persistence-renames", "security_path_link"): LOADED,
    ("persistence-renames", "security_path_rename"): LOADED,
    ("persistence-renames", "security_path_symlink"): LOADED,
    ("privilege-raise", "create_user_ns"): "policy-library",
    ("privilege-raise", "security_capset"): "policy-library",
    ("process-environ", "security_file_permission"): LOADED,
    ("process-memory", "security_file_permission"): LOADED,
    ("process-memory", "security_ptrace_access_check"): LOADED,
    ("process-names", "sys_prctl"): LOADED,
    ("runtime-sockets", "security_socket_connect"): LOADED,
    ("set-id-root", "__sys_setgid"): LOADED,
    ("set-id-root", "__sys_setresuid"): LOADED,
    ("set-id-root", "__sys_setreuid"): LOADED,
    ("set-id-root", "__sys_setuid"): LOADED,
    ("sshd", "inet_csk_accept"): LOADED,
    ("sshd", "tcp_close"): "policy-library",
    ("tcp-connect", "tcp_close"): "policy-library",
    ("tcp-connect", "tcp_connect"): "policy-library",
    ("timestamps", "security_inode_setattr"): LOADED,
    ("tls-server-name", "sys_sendto"): LOADED,
    ("tls-server-name", "sys_write"): LOADED,
    ("tls-server-name-by-port", "tcp_sendmsg"): LOADED,
}
"""Policy and hook -> the recording in which a real agent had that hook loaded with those arguments."""

ARRIVES_AS = {
    "sock": "sock_arg",
    "file": "file_arg",
    "path": "path_arg",
    "int": "int_arg",
    "uint32": "uint_arg",
    "bpf_attr": "bpf_attr_arg",
    "bpf_map": "bpf_map_arg",
    "module": "module_arg",
    "cred": "process_credentials_arg",
    "cap_effective": "cap_effective_arg",
    "cap_inheritable": "cap_inheritable_arg",
    "cap_permitted": "cap_permitted_arg",
}
"""Type in a policy -> field of the event's argument; `nop` arrives as nothing."""


def hooks_of(policy: Policy) -> dict[str, Mapping[str, Any]]:
    """The policy's kprobes by function."""
    return {str(hook["call"]): hook for kind, _, hook in hooks_in(policy.data) if kind == "kprobes"}


@cache
def loaded_hooks() -> list[Mapping[str, Any]]:
    """The kprobes of the recorded policies."""
    documents = yaml.safe_load_all((CORPUS / LOADED / "policies.yaml").read_text())
    return [hook for document in documents for hook in document["spec"]["kprobes"]]


def kprobes(recording: str, function: str = "") -> Iterator[Any]:
    """The recorded kprobe events, of one function or all."""
    for raw in messages(recording):
        event = GetEventsResponse.FromString(raw)
        if event.HasField("process_kprobe") and function in ("", event.process_kprobe.function_name):
            yield event.process_kprobe


def shape(hook: Mapping[str, Any]) -> tuple[Any, ...]:
    """What the agent's program reads: arguments, data and return value, without labels."""
    parts = [
        tuple(
            (arg["index"], arg["type"], arg.get("resolve", ""), arg.get("sizeArgIndex", 0))
            for arg in hook.get(name, [])
        )
        for name in ("args", "data")
    ]
    return (hook["call"], hook.get("syscall", True), hook.get("return", False), *parts)


@pytest.mark.parametrize("name", NAMES)
def test_policy_would_load_and_only_observes(name: str) -> None:
    """Nothing in a shipped policy is refused, ignored or more than observing."""
    path = sensors()[name].path
    text = path.read_text("utf-8")
    assert check(text, str(path), observe_only=True) == []
    assert warnings_of(text, str(path)) == []
    assert [action for _, action in actions_in(sensors()[name].data) if action != "Post"] == []


def test_every_hook_is_proven_or_said_not_to_be() -> None:
    """Each hook of the library is either in the table above or named as never loaded in its policy's annotation."""
    unproven = {(policy.name, hook) for policy in sensors().values() for hook in policy.unproven}
    hooks = {(policy.name, hook) for policy in sensors().values() for hook in hooks_of(policy)}
    assert hooks == PROVEN.keys() | unproven
    assert not PROVEN.keys() & unproven


@pytest.mark.parametrize(("name", "call"), [key for key, recording in PROVEN.items() if recording == LOADED])
def test_hook_has_the_shape_that_a_real_agent_loaded(name: str, call: str) -> None:
    """A recorded policy, loaded and enabled, has this hook with these arguments, data and return."""
    hook = hooks_of(sensors()[name])[call]
    recorded = [shape(one) for one in loaded_hooks() if one["call"] == call]
    # A shorter list is proven too: the agent reads each argument by itself.
    assert any(shape(hook)[:3] == one[:3] and set(shape(hook)[3]) <= set(one[3]) for one in recorded)
    assert any(set(shape(hook)[4]) <= set(one[4]) for one in recorded)


@pytest.mark.parametrize(("name", "call"), [key for key, recording in PROVEN.items() if recording != LOADED])
def test_hook_has_the_arguments_of_recorded_events(name: str, call: str) -> None:
    """A recorded event of this function has exactly the arguments that the library asks for."""
    hook = hooks_of(sensors()[name])[call]
    wanted = [ARRIVES_AS[arg["type"]] for arg in hook.get("args", []) if arg["type"] != "nop"]
    events = kprobes(PROVEN[name, call], call)
    assert any([arg.WhichOneof("arg") for arg in event.args] == wanted for event in events)


def test_loader_was_recorded() -> None:
    """The one policy without hooks made events on a real agent."""
    assert sensors()["library-load"].hooks == ("loader",)
    assert any(GetEventsResponse.FromString(raw).HasField("process_loader") for raw in messages("policy-library"))


@pytest.mark.parametrize("name", NAMES)
def test_kernel_and_agent_are_new_enough_for_what_is_used(name: str) -> None:
    """Two filters in a selector and rate limits need 5.3, resolving needs 5.4, new fields an agent after 1.4."""
    policy = sensors()[name]
    kernel = tuple(int(part) for part in policy.kernel.split("."))
    for _, _, hook in hooks_in(policy.data):
        for selector in hook.get("selectors", []):
            filters = len(selector.get("matchArgs", [])) + len(selector.get("matchData", []))
            assert filters <= 1 or kernel >= (5, 3)
            assert "rateLimit" not in str(selector) or kernel >= (5, 3)
        assert not any("resolve" in arg for arg in [*hook.get("args", []), *hook.get("data", [])]) or kernel >= (5, 4)
    assert policy.agent == "1.7" or not newer_fields(policy.data)


@pytest.mark.parametrize("name", NAMES)
def test_policy_names_no_processor_architecture(name: str) -> None:
    """System calls are written without an architecture's prefix."""
    assert not [call for call in hooks_of(sensors()[name]) if call.startswith(("__x64_", "__arm64_", "__ia32_"))]


@pytest.mark.parametrize("name", NAMES)
def test_no_policy_feeds_on_what_carries_its_events_away(name: str) -> None:
    """Whatever is reported for each TCP send is limited to programs, or leaves out the agent."""
    hook = hooks_of(sensors()[name]).get("tcp_sendmsg")
    if hook is not None:
        assert all(selector.get("matchBinaries") for selector in hook["selectors"])


def test_set_id_root_picks_the_calls_that_matter_from_a_recording() -> None:
    """Of 89 recorded set*id calls its selectors leave those of a caller who was not root asking for root."""
    hooks = hooks_of(sensors()["set-id-root"])
    calls = [event for event in kprobes("sensors") if event.function_name in hooks]
    picked = [event for event in calls if _selected(hooks[event.function_name], event)]
    granted = {event.process.binary for event in picked if getattr(event, "return").int_arg == 0}
    refused = {event.process.binary for event in picked if getattr(event, "return").int_arg == -1}
    assert (len(calls), len(picked)) == (89, 20)
    assert granted == {"/tmp/.pyc-cache", "/usr/bin/sudo", "/usr/bin/su", "/usr/lib/systemd/systemd"}
    assert refused == {"/usr/sbin/sshd", "/usr/bin/python3"}


def _selected(hook: Mapping[str, Any], event: Any) -> bool:
    """Whether one of the hook's selectors (Equal on an argument, NotEqual on a data entry) takes the event."""
    return any(
        event.args[selector["matchArgs"][0]["index"]].int_arg == int(selector["matchArgs"][0]["values"][0])
        and event.data[selector["matchData"][0]["args"][0]].int_arg != int(selector["matchData"][0]["values"][0])
        for selector in hook["selectors"]
    )


@pytest.mark.parametrize(
    ("recording", "policy", "path"),
    [
        (
            "kubernetes",
            "credential-files",
            "/run/secrets/kubernetes.io/serviceaccount/..2026_11_22_02_00_00.123456789/token",
        ),
        ("policy-library", "credential-files", "/etc/shadow"),
        ("sensors", "persistence-files", "/etc/cron.d/.hidden"),
        ("sensors", "process-environ", "/proc/10/environ"),
    ],
)
def test_file_policies_cover_recorded_accesses(recording: str, policy: str, path: str) -> None:
    """Files that a real agent reported are among the prefixes or suffixes of the policy that is meant for them."""
    assert any(event.args[0].file_arg.path == path for event in kprobes(recording, "security_file_permission"))
    hook = hooks_of(sensors()[policy])["security_file_permission"]
    filters = [entry for selector in hook["selectors"] for entry in selector["matchArgs"]]
    assert any(
        path.startswith(value) if entry["operator"] == "Prefix" else path.endswith(value)
        for entry in filters
        for value in entry["values"]
        if entry["operator"] in ("Prefix", "Postfix")
    )


def test_rate_limits_would_hide_a_token_behind_its_certificate() -> None:
    """Why credential-files has no rate limit: the agent compares 40 bytes, which these two recorded paths share."""
    folder = "/run/secrets/kubernetes.io/serviceaccount/..2026_11_22_02_00_00.123456789"
    assert f"{folder}/ca.crt"[:40] == f"{folder}/token"[:40]
    assert "rateLimit" not in sensors()["credential-files"].path.read_text("utf-8").partition("spec:")[2]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: listeners\n", "name: listener\n", "expected name, label keytrail.io/sensor and file"),
        ("provides: listen", "provides: lisen", "unknown event kind 'lisen', did you mean listen?"),
        ("cost: low", "cost: lots", "unknown value"),
        ('kernel: "4.19"', 'kernel: "new"', "expected a release"),
        ("# Cost:", "# Price:", "expected a comment at the head with a part `Cost:`"),
        ("cost: low\n", "cost: low\n    keytrail.io/parameters: '[]'\n", "expected a YAML mapping"),
        ("cost: low\n", "cost: low\n    keytrail.io/parameters: '{a: {}}'\n", "a: expected type, description and at"),
        (
            "cost: low\n",
            "cost: low\n    keytrail.io/parameters: '{a: {type: port, description: b, at: [x]}}'\n",
            "a: unknown type 'port', did you mean ports?",
        ),
        (
            "cost: low\n",
            "cost: low\n    keytrail.io/parameters: '{a: {type: ports, description: b, at: [spec.x]}}'\n",
            "a: expected places that hold lists",
        ),
    ],
)
def test_damaged_library_is_refused_with_its_reason(tmp_path: Path, old: str, new: str, message: str) -> None:
    """A policy of the library that does not say of itself what it must is named, with the reason."""
    text = sensors()["listeners"].path.read_text("utf-8")
    assert old in text
    (tmp_path / "listeners.yaml").write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(ManifestError, match=r"listeners\.yaml") as caught:
        load_policies(tmp_path)
    assert any(message in problem.message for problem in caught.value.problems)
