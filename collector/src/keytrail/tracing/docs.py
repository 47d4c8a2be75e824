"""The shipped library and recordings of a real agent in, docs/policies.md out.

`python -m keytrail.tracing.docs docs/policies.md tests/corpus/recordings` renews the page; a test fails when it is
stale. Sample lines are what `keytrail replay` prints for a recorded event of the same hook, not written by hand.
"""

import contextlib
import functools
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from keytrail.cli import main
from keytrail.tracing.policy import Policy, sensors


class Sample(NamedTuple):
    """Which recorded event shows what a policy gives: the first whose line holds all the texts."""

    recording: str
    texts: tuple[str, ...]


SAMPLES: Mapping[str, Sample] = {
    "bpf": Sample("policy-library", ("kprobe:bpf_check",)),
    "credential-files": Sample("kubernetes", ("kprobe:security_file_permission", "/token", '"read"')),
    "data-monitor": Sample("sensors", ("kprobe:tcp_sendmsg", "/usr/bin/curl", '"dport":80')),
    "dns": Sample("sensors", ("kprobe:udp_sendmsg", '"dport":53')),
    "egress": Sample("kubernetes", ("kprobe:tcp_connect", '"daddr":"127.0.66.6"')),
    "file-capabilities": Sample("sensors", ("kprobe:security_inode_setxattr",)),
    "file-capabilities-syscalls": Sample("sensors", ("kprobe:fsetxattr",)),
    "file-deletion": Sample("sensors", ("kprobe:security_path_unlink", "/var/log/")),
    "file-modes": Sample("policy-library", ("kprobe:chmod_common", "u+s", '"chmod"')),
    "kernel-modules": Sample("sensors", ("kprobe:security_kernel_read_file",)),
    "library-load": Sample("policy-library", ('"kind":"library"', ".so")),
    "listeners": Sample("sensors", ("kprobe:inet_csk_listen_start",)),
    "mounted-secrets": Sample("kubernetes", ("kprobe:security_file_permission", "/etc/stripe/..20", '"read"')),
    "mounts": Sample("sensors", ("kprobe:security_sb_mount", "/usr/bin/mount")),
    "namespaces": Sample("sensors", ("kprobe:unshare",)),
    "persistence-files": Sample("sensors", ("kprobe:security_file_permission", '"write"', "/etc/")),
    "persistence-renames": Sample("sensors", ("kprobe:security_path_rename", '"path":"/etc/')),
    "privilege-raise": Sample("policy-library", ("kprobe:security_capset",)),
    "process-environ": Sample("sensors", ("kprobe:security_file_permission", "/proc/10/environ")),
    "process-memory": Sample("sensors", ("kprobe:security_ptrace_access_check",)),
    "process-names": Sample("sensors", ("kprobe:prctl", "/usr/bin/perl")),
    "runtime-sockets": Sample("sensors", ("kprobe:security_socket_connect", "/usr/bin/docker")),
    "set-id-root": Sample("sensors", ("kprobe:__sys_setuid", '"/tmp/')),
    "sshd": Sample("policy-library", ("kprobe:inet_csk_accept",)),
    "tcp-connect": Sample("policy-library", ("kprobe:tcp_connect",)),
    "timestamps": Sample("sensors", ("kprobe:security_inode_setattr", "/usr/bin/touch")),
    "tls-server-name": Sample("sensors", ("kprobe:sendto",)),
    "tls-server-name-by-port": Sample("sensors", ("kprobe:tcp_sendmsg", '"dport":443')),
}

_COSTS = {
    "low": "few events on a quiet node",
    "medium": "as many events as the workload does of it",
    "high": "many events, or large ones: choose where it runs",
}

_HEAD = """\
# TracingPolicies

<!-- Made by `python -m keytrail.tracing.docs`; do not edit. -->

What the shipped library makes Tetragon look for. Each policy only observes, and each is a plain manifest: load it with
`keytrail policies load`, `kubectl apply` or `tetra tracingpolicy add`. A rule names the policies that it needs.

- **Rate limits.** The agent takes two calls for repeats when their thread and the first 40 bytes of each argument are
  equal. A limit therefore does nothing for sockets (each connection has a port of its own) and blinds where paths
  share a long beginning. The library has two, each explained in its section: {limited}. Rendering adds
  one only to hooks without paths and texts.
- **File policies share a hook.** security_file_permission runs on every read and write of the node, once for each
  loaded policy that uses it: {shared}. Their comparison stays in the kernel.
- **Binaries** are compared by the path that the kernel resolved, inside the process's own mount namespace: a container
  can hold any program under any path. The library excludes by path only where events would feed on themselves.
- **Never loaded by a recorded agent.** Every hook was loaded by a real Tetragon 1.7 on a 6.1 kernel with the arguments
  that it has here, except: {unproven}. Nor were these: a rate limit, IPv6 and IPv4-mapped ranges, a list
  of more than 8 paths (the agent's source keeps them in a trie without that limit), an arm64 kernel.

| policy | events | cost | kernel | Tetragon | parameters |
| --- | --- | --- | --- | --- | --- |
{rows}
"""


def page(policies: Mapping[str, Policy], recordings: Path) -> str:
    """Return the whole page."""
    lines = replayed(recordings)
    shared = ", ".join(name for name, policy in policies.items() if "security_file_permission" in policy.hooks)
    unproven = ", ".join(f"{hook} ({name})" for name, policy in policies.items() for hook in policy.unproven)
    limited = ", ".join(name for name, policy in policies.items() if "rateLimit" in str(policy.data["spec"]))
    head = _HEAD.format(shared=shared, limited=limited, unproven=unproven, rows="\n".join(map(_row, policies.values())))
    return head + "".join(_section(policy, lines) for policy in policies.values())


def replayed(recordings: Path) -> dict[str, list[str]]:
    """Return what `keytrail replay` prints of each recording that a sample is taken from."""
    return {name: _replay(name, recordings) for name in sorted({sample.recording for sample in SAMPLES.values()})}


@functools.cache
def _replay(name: str, recordings: Path) -> list[str]:
    # The demo's recordings are part of the package, where replay finds them by name.
    given = recordings / name
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        main(["replay", str(given) if (given / "grpc.pb.zst").exists() else name, "--output", "json"])
    return printed.getvalue().splitlines()


def _row(policy: Policy) -> str:
    kinds = ", ".join(policy.provides)
    names = ", ".join(policy.parameters) or "-"
    return f"| [{policy.name}](#{policy.name}) | {kinds} | {policy.cost} | {policy.kernel} | {policy.agent} | {names} |"


def _section(policy: Policy, lines: Mapping[str, list[str]]) -> str:
    parts = [
        f"\n## {policy.name}\n\n{policy.title}\n",
        f"**What you see:** {policy.notes['What you see']}\n",
        f"**Load it:** `{policy.notes['Load it']}`\n",
        f"**Look it up** (Loki): `{query(policy)}`\n",
        _sample(policy, lines),
        f"**Cost:** {policy.cost} ({_COSTS[policy.cost]}). {_sentence(policy.notes['Cost'])}\n",
        f"**Kernel:** {policy.notes['Kernel']} **Tetragon:** {policy.agent} or newer.\n",
        f"**Hooks:** {', '.join(f'`{hook}`' for hook in policy.hooks)}\n",
    ]
    if policy.unproven:
        never = ", ".join(f"`{hook}`" for hook in policy.unproven)
        parts.append(f"Never loaded by a recorded agent in this form: {never}.\n")
    if policy.parameters:
        parts.append(_parameters(policy))
    return "\n".join(parts)


def query(policy: Policy) -> str:
    """Return a LogQL query for its events. The operator's objects carry a hash behind the policy's name."""
    kinds = "|".join(policy.provides)
    return (
        f'{{service_name="keytrail"}} | keytrail_event_kind=~"{kinds}"'
        f' | keytrail_event_policy=~"(keytrail-)?{policy.name}(-[0-9a-f]{{10}})?"'
    )


def _sample(policy: Policy, lines: Mapping[str, list[str]]) -> str:
    sample = SAMPLES[policy.name]
    found = next(line for line in lines[sample.recording] if all(text in line for text in sample.texts))
    return f"**A line of it** (recording `{sample.recording}`):\n\n```json\n{found}\n```\n"


def _parameters(policy: Policy) -> str:
    rows = []
    for one in policy.parameters.values():
        default = ", ".join(f"`{item}`" for item in one.default) or "none"
        needed = " Required." if one.required else ""
        rows.append(f"| `{one.name}` | list of {one.type} | {one.description}{needed} | {default} |")
    return "| parameter | type | meaning | default |\n| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(sensors(), Path(sys.argv[2])), "utf-8")
