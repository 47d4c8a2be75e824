"""What `expectations.json` of recording `policy-library` says to see in each window, and what in the records shows it.

The statements are the recording's own, word for word, so that a test can tell when one is missing here. Words of the
recording (paths, addresses, accounts) stand here because this is about the recording; no rule knows them.
"""

# ruff: noqa: E501 - a table, read row by row

import re

from rules.pointing import Find, Pointer, Record, event, events_of, finding, never, quiet

OPENAI = "openai_api_key-present"
SEND, CONNECT, READ = "kprobe:tcp_sendmsg", "kprobe:tcp_connect", "kprobe:security_file_permission"
IDENTITY = ("identity.type", "identity.key")


def _outlived_its_file(records: list[Record]) -> list[Pointer]:
    """The file is removed by rm between start and end of the process that runs it."""
    lines = [one for one in records if one.form == "event"]
    start, end = (
        next(at for at, one in enumerate(lines) if one.name == name and one.fields["binary"] == "/tmp/gone")
        for name in ("process_exec", "exit")
    )
    removed = [
        one for one in lines[start:end] if (one.fields["binary"], one.fields["args"]) == ("/usr/bin/rm", "/tmp/gone")
    ]
    assert removed
    return [Pointer(lines[start], ("binary",)), Pointer(removed[0], ("args",)), Pointer(lines[end], ("exit.code",))]


def _sessions_end(records: list[Record]) -> list[Pointer]:
    """Each session that was opened has an end, by its peer."""
    opened, closed = (
        {
            (one.fields["network.peer_address"], one.fields["network.peer_port"]): one
            for one in records
            if one.name == rule
        }
        for rule in ("sshd-session-opened", "sshd-session-closed")
    )
    assert len(opened) >= 2
    assert opened.keys() == closed.keys()
    return [Pointer(one, ("network.peer_address", "network.peer_port")) for one in (*opened.values(), *closed.values())]


def _forked_connects(records: list[Record]) -> list[Pointer]:
    """Who connects never called exec, and has the binary and identity of who did."""
    (started,) = events_of(records, "process_exec")
    connects = events_of(records, CONNECT)
    assert connects
    for one in connects:
        assert one.fields["pid"] != started.fields["pid"]
        for name in ("binary", "args", "identity"):
            assert one.fields[name] == started.fields[name]
    return [Pointer(one, ("pid", "binary", "identity")) for one in (started, *connects)]


def _thread_connects(records: list[Record]) -> list[Pointer]:
    """The connection is the process's, made by another thread of it."""
    (started,), (connect,) = events_of(records, "process_exec"), events_of(records, CONNECT)
    assert connect.fields["pid"] == started.fields["pid"]
    assert connect.thread != connect.fields["pid"]
    assert started.thread == started.fields["pid"]
    return [Pointer(one, ("pid", "binary")) for one in (started, connect)]


def _eight_shells(records: list[Record]) -> list[Pointer]:
    """From curl up, parent by parent, eight of them are shells."""
    started = {one.fields["pid"]: one for one in events_of(records, "process_exec")}
    above: list[Record] = []
    pid = next(one.fields["parent.pid"] for one in started.values() if one.fields["binary"] == "/usr/bin/curl")
    while pid in started:
        above.append(started[pid])
        pid = started[pid].fields["parent.pid"]
    shells = [one for one in above if one.fields["binary"].endswith("/sh")]
    assert len(shells) >= 8
    return [Pointer(one, ("pid", "binary", "parent.pid")) for one in shells]


def _adopted_before_exec(records: list[Record]) -> list[Pointer]:
    """The shell that made it had ended, so the parent at its exec is process 1, and no longer the shell."""
    lines = [one for one in records if one.form == "event"]
    shell = next(one for one in lines if one.name == "process_exec" and one.fields["binary"] == "/usr/bin/sh")
    at = next(
        at for at, one in enumerate(lines) if one.name == "process_exec" and one.fields["binary"] == "/usr/bin/id"
    )
    ended = next(one for one in lines[:at] if one.name == "exit" and one.fields["pid"] == shell.fields["pid"])
    assert lines[at].fields["parent.pid"] == 1
    return [Pointer(ended, ("pid", "exit.code")), Pointer(lines[at], ("parent.pid", "parent.binary"))]


def _nothing_was_run(records: list[Record]) -> list[Pointer]:
    assert events_of(records, "process_exec") == []
    return []


WHAT_TO_SEE: dict[str, dict[str, list[Find]]] = {
    "env-openai-curl": {
        "env OPENAI_API_KEY observed; the identity is listed": [
            event("process_exec", {"binary": "/usr/bin/curl", "identity.key": "OPENAI_API_KEY"}),
            event(CONNECT, {"identity.id": OPENAI, "identity.provider": "openai"}),
        ]
    },
    "env-closedai-curl": {
        "unmapped credential CLOSEDAI_API_KEY listed (info at most)": [
            event("process_exec", {"identity.key": "CLOSEDAI_API_KEY", "identity.mapped": False}),
            finding("unmapped-credential", {"severity": "info", "credential.name": "CLOSEDAI_API_KEY"}),
            quiet("info"),
        ]
    },
    "argv-token-curl": {
        "credential on a command line, three shapes": [
            finding("credential-on-command-line", {"process.arguments": re.compile(r"Authorization: Bearer \[redacted\]")}),
            finding("credential-on-command-line", {"process.arguments": re.compile(r"x-api-key: \[redacted\]")}),
            finding("credential-on-command-line", {"process.arguments": re.compile(r"-u user:\[redacted\]")}),
        ]
    },
    "env-openai-python": {
        "env OPENAI_API_KEY observed by python3": [
            event("process_exec", {"binary": "/usr/bin/python3", "identity.key": "OPENAI_API_KEY"})
        ]
    },
    "env-key-inherited": {
        # What was recorded is ANTHROPIC_API_KEY, and the shell exports it by its own command: there it is in the
        # arguments, in the environments of its children only.
        "env OPENAI_API_KEY in the shell and both children; the connection carries it": [
            event("process_exec", {"binary": "/usr/bin/bash", "identity.type": "argv", "identity.name": "ANTHROPIC_API_KEY"}),
            event("process_exec", {"binary": "/usr/bin/ls", "identity.type": "env", "identity.key": "ANTHROPIC_API_KEY"}),
            event("process_exec", {"binary": "/usr/bin/curl", "identity.type": "env", "identity.key": "ANTHROPIC_API_KEY"}),
            event(CONNECT, {"binary": "/usr/bin/curl", "identity.key": "ANTHROPIC_API_KEY"}),
        ]
    },
    "shell-from-python": {
        "a script interpreter started a shell on the host": [
            finding("shell-from-interpreter", {"process.binary": "/bin/sh", "message": re.compile("python3 started")}),
            event("process_exec", {"binary": "/bin/sh", "parent.binary": "/usr/bin/python3", "pod.name": None}),
        ]
    },
    "shell-from-http-server": {
        "a network service started a shell": [
            finding("shell-as-service-account", {"severity": "medium", "process.binary": "/bin/sh", "process.uid": 65534})
        ]
    },
    "exec-from-tmp": {
        "execution from /tmp, from /dev/shm, of a hidden file": [
            finding("exec-from-temp-folder", {"process.binary": "/tmp/payload"}),
            finding("exec-from-temp-folder", {"process.binary": "/dev/shm/x.sh"}),
            finding("exec-of-hidden-file", {"process.binary": "/tmp/.hidden-payload"}),
        ]
    },
    "memfd-exec": {"execution from memory": [finding("exec-from-memory", {"process.binary": "/dev/fd/3"})]},
    "exec-deleted-binary": {
        "execution from /tmp; the binary is deleted while it runs": [
            finding("exec-from-temp-folder", {"process.binary": "/tmp/gone"}),
            _outlived_its_file,
        ]
    },
    "sudo": {"sudo used, twice": [finding("sudo-used", {"process.binary": "/usr/bin/sudo"}, least=2)]},
    "sudo-denied": {
        "sudo refused: if it can be told from the exit status, medium; else the use of sudo": [
            event("exit", {"binary": "/usr/bin/sudo", "exit.code": 1}),
            finding("sudo-refused", {"severity": "medium", "process.binary": "/usr/bin/sudo"}),
        ]
    },
    "su": {
        "SUID execution of su; privilege change": [
            finding("setuid-program", {"process.binary": "/usr/bin/su", "process.euid": 0}),
            event("kprobe:__sys_setuid", {"binary": "/usr/bin/su", "operation.ids": [0], "operation.returned": 0}),
        ]
    },
    "passwd-suid": {
        "SUID execution of passwd; access to /etc/shadow by passwd and chpasswd is theirs to make": [
            finding("setuid-program", {"process.binary": "/usr/bin/passwd", "process.euid": 0}),
            event(READ, {"binary": "/usr/bin/passwd", "file.path": "/etc/shadow", "file.access": "read"}),
            event(READ, {"binary": "/usr/sbin/chpasswd", "file.path": "/etc/shadow", "file.access": "read"}),
            never(finding("shadow-file-read")),
            quiet("low"),
        ]
    },
    "useradd": {
        "account created and deleted": [
            finding("account-changed", {"process.binary": "/usr/sbin/useradd"}),
            finding("account-changed", {"process.binary": "/usr/sbin/userdel"}),
        ]
    },
    "setuid-root-syscall": {
        "setuid and setgid system calls to root; alice's failed call is no success": [
            event("kprobe:__sys_setuid", {"operation.ids": [0], "operation.returned": 0}),
            event("kprobe:__sys_setgid", {"operation.ids": [0], "operation.returned": 0}),
            event("kprobe:__sys_setuid", {"operation.ids": [0], "operation.returned": -1}),
            finding("set-id-root-refused", {"process.uid": 1000}),
            never(finding("root-by-set-id")),
        ]
    },
    "modprobe": {
        "kernel module loaded, removed, requested": [
            finding("kernel-module-loaded-by-program", {"severity": "medium"}),
            event("kprobe:do_init_module", {"operation.name": "load", "operation.target": "dummy"}),
            finding("kernel-module-removed", {"process.binary": "/usr/sbin/rmmod"}),
            event("kprobe:security_kernel_module_request", {"operation.name": "request", "operation.target": "rtnl-link-dummy"}),
        ]
    },
    "bpftool": {
        "BPF program loaded, map created, pinned": [
            finding("bpf-program-loaded", {"process.binary": "/usr/sbin/bpftool"}),
            event("kprobe:security_bpf_map_alloc", {"operation.name": "map_create", "operation.target": "tvm_map"}),
            event("process_exec", {"args": re.compile("^prog load .* /sys/fs/bpf/")}),
            event("kprobe:security_bpf_prog", {"args": re.compile("^prog show pinned /sys/fs/bpf/"), "operation.target": "tvm_filter"}),
        ]
    },
    "ssh-localhost": {"sshd connection accepted and closed, twice": [_sessions_end]},
    "ping": {
        "raw sockets of ping are ping's": [
            event("kprobe:raw_sendmsg", {"binary": "/usr/bin/ping", "network.protocol": "IPPROTO_ICMP"}),
            never(event("kprobe:raw_sendmsg", {"binary": re.compile("^(?!/usr/bin/ping$)")})),
        ]
    },
    "reverse-shell-devtcp": {
        "a shell with its input and output on a socket": [
            finding("reverse-shell-command", {"process.arguments": re.compile(">& /dev/tcp/.* 0>&1")}),
            event(SEND, {"binary": "/usr/bin/bash", "args": "-i", "network.dport": 4444}),
        ]
    },
    "reverse-shell-nc": {
        "pipe, shell and nc to a listener": [
            event("process_exec", {"binary": "/usr/bin/mkfifo", "args": "/tmp/f"}),
            finding("reverse-shell-command", {"process.arguments": re.compile("mkfifo .* sh -i .* nc ")}),
            finding("shell-joined-to-network-tool", {"network.peer_port": 4445}),
            event("kprobe:inet_csk_listen_start", {"binary": "/usr/bin/nc", "network.sport": 4445}),
        ]
    },
    "read-shadow": {
        "/etc/shadow read by cat": [finding("shadow-file-read", {"process.binary": "/usr/bin/cat", "file.path": "/etc/shadow"})]
    },
    "chmod": {
        "set-user-id bit put on a file": [
            finding("set-user-id-bit-set", {"process.arguments": re.compile("^u[+]s ")}),
            event("kprobe:chmod_common", {"file.path": "/tmp/suid-id", "file.mode": 0o4777}),
        ]
    },
    "ipv6-connect": {
        "IPv6 and IPv4-mapped addresses read right": [
            event(CONNECT, {"network.daddr": "::1", "network.dport": 8001, "network.family": "AF_INET6"}),
            event(CONNECT, {"network.daddr": "::ffff:127.0.0.1", "network.dport": 8000}),
        ]
    },
    "connect-refused": {
        "a refused connection is a connect": [
            event(CONNECT, {"network.daddr": "127.0.0.1", "network.dport": 9}),
            event("exit", {"binary": "/usr/bin/curl", "exit.code": 7}),
        ]
    },
    "connect-unreachable": {
        "egress outside the cluster attempted (192.0.2.10, 2001:db8::10)": [
            finding("egress-outside-cluster", {"network.peer_address": "192.0.2.10"}),
            finding("egress-outside-cluster", {"network.peer_address": "2001:db8::10"}),
        ]
    },
    "udp": {
        "UDP sends with addresses": [
            event("kprobe:ip_send_skb", {"network.protocol": "IPPROTO_UDP", "network.daddr": "127.0.0.1", "network.dport": re.compile("^[1-9]")})
        ]
    },
    "dns-lookup": {
        # The recorded hook on getaddrinfo has a pointer for its only argument: the names are where programs were told them.
        "names looked up are kept": [
            event("hook", {"function": "getaddrinfo", "binary": "/usr/bin/getent", "args": "ahosts localhost"}),
            event("hook", {"function": "getaddrinfo", "args": re.compile("http://no-such-host.invalid/$")}),
        ]
    },
    "library-load": {
        "library loaded from /tmp; LD_PRELOAD": [
            finding("library-from-unusual-place", {"file.path": "/tmp/libtvm.so", "process.binary": "/usr/bin/python3"}),
            finding("library-from-unusual-place", {"file.path": "/tmp/libtvm.so", "process.binary": "/usr/bin/ls"}),
            finding("preload-in-environment", {"process.binary": "/usr/bin/ls"}),
        ]
    },
    "tcp-listen": {
        "listeners opened, one on all addresses": [
            finding("listener-opened", {"network.local_port": 4600}),
            finding("listener-opened", {"network.local_port": 4601, "message": re.compile(" on :::4601 ")}),
            event("kprobe:inet_csk_listen_start", {"network.saddr": "::", "network.sport": 4601}),
        ]
    },
    "exit-codes": {
        "0, 1, 3, 127, 255": [
            event("exit", {"binary": "/usr/bin/sh", "args": f'-c "exit {code}"', "exit.code": code}) for code in (0, 1, 3, 127, 255)
        ]
    },
    "signals": {
        "the five signals by name": [
            event("exit", {"args": f'-c "kill -{name} $$"', "exit.signal": f"SIG{name}", "exit.code": None})
            for name in ("KILL", "TERM", "SEGV", "ABRT", "PIPE")
        ]
    },
    "userns": {
        "user namespace created by an ordinary user": [
            finding("user-namespace-by-user", {"process.uid": 1000}),
            event("kprobe:create_user_ns", {"binary": "/usr/bin/unshare", "operation.name": "create_user_ns"}),
        ]
    },
    "containerish": {"all namespaces unshared": [finding("namespaces-unshared", {"process.arguments": re.compile("^-mpinufC ")})]},
    "capset": {"capabilities raised": [finding("capabilities-raised", {"process.binary": "/usr/bin/setpriv"})]},
    "ptrace": {
        "strace attaches to another process": [
            finding("process-attached", {"severity": "medium", "process.binary": "/usr/bin/strace"}),
        ]
    },
    "canary-kill": {
        "the policy's Sigkill is told as the action": [
            finding("enforcement-acted", {"message": re.compile("SIGKILL at security_file_permission")}),
            event("exit", {"binary": "/usr/bin/cat", "exit.signal": "SIGKILL"}),
        ]
    },
    "fork-no-exec": {"the grandchild's connect has the identity and binary of its ancestor's exec": [_forked_connects]},
    "thread-connect": {"process id and thread id are told apart": [_thread_connects]},
    "deep-ancestry": {
        "env OPENAI_API_KEY; eight shells among the ancestors; no alert for nested shells of a script": [
            event("process_exec", {"binary": "/usr/bin/curl", "identity.key": "OPENAI_API_KEY"}),
            _eight_shells,
            quiet("low"),
        ]
    },
    "orphan": {"parent is the one at exec time": [_adopted_before_exec]},
    "persistence": {
        "cron file and authorized_keys written": [
            event("process_exec", {"binary": "/usr/bin/tee", "args": "/etc/cron.d/tvm"}),
            finding("authorized-keys-written", {"file.path": "/root/.ssh/authorized_keys", "file.access": "write"}),
        ]
    },
    "mount": {"mount on the host": [finding("mount-by-hand", {"process.arguments": "-t tmpfs none /mnt"})]},
    "systemd-unit": {
        "transient unit runs a shell": [
            finding("transient-unit-run", {"process.binary": "/usr/bin/systemd-run"}),
            event("process_exec", {"binary": "/usr/bin/sh", "parent.binary": re.compile("/systemd$")}),
        ]
    },
    "container-cgroup": {
        "a docker-like cgroup name alone is no pod; container id kept as claimed": [
            never(event("*", {"pod.name": re.compile("^(?!None$)")})),
            finding("container-without-runtime", {"message": re.compile("claims container 0123456789abcd")}),
        ]
    },
    "idle": {"nothing": [quiet("info"), never(finding("*")), _nothing_was_run]},
}  # fmt: skip
