"""A hook's function and argument shape in, its kind and the reader of its details out.

The table is by kernel function, never by the name of a policy: users load policies of their own. What is not in it is
a `hook` event, whose function and arguments a rule can still use. The readers are in the modules `readers_*`.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from keytrail.decode import readers_file, readers_network, readers_system
from keytrail.decode.arguments import of_type, payload, read_args, returned
from keytrail.decode.processes import Redact
from keytrail.domain.event import Details, EventKind

_SYSCALL_PREFIXES = (
    "__x64_sys_",
    "__x32_compat_sys_",
    "__ia32_sys_",
    "__ia32_compat_sys_",
    "__arm64_sys_",
    "__arm64_compat_sys_",
    "__s390x_sys_",
    "__s390_sys_",
    "__riscv_sys_",
    "__se_sys_",
    "__do_sys_",
    "sys_",
)
"""How the architectures name a system call's entry; the agent reports the name it hooked."""

_NO_SOCKET = ("", "AF_UNSPEC")

Reader = Callable[[str, Any, Redact], Details]
Refine = Callable[[Any], EventKind]


class Hook(NamedTuple):
    """What a function means: its kind, and how its details are read."""

    name: str
    """The function as readers know it: without `security_`, so that a kprobe and the LSM hook are one."""
    kind: EventKind
    read: Reader
    refine: Refine | None = None
    """For a function whose kind depends on its arguments."""


def plain_function(name: str) -> str:
    """Return the function without the prefix by which an architecture names its system calls."""
    for prefix in _SYSCALL_PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def hook_for(function: str) -> Hook:
    """Look a function up, by its plain name or, for a tracepoint, `subsystem/event`."""
    return HOOKS.get(function.removeprefix("security_"), _OTHER)


def _sent_kind(message: Any) -> EventKind:
    args = read_args(message)
    return EventKind.SEND if payload(args) or of_type(args, "string_arg") else EventKind.HOOK


def _accepted_kind(message: Any) -> EventKind:
    """Only the returned socket is a connection: an accept that found nothing returns null, shown without a family."""
    value = returned(message)
    accepted = value is not None and value.sock_arg.family not in _NO_SOCKET
    return EventKind.ACCEPT if accepted else EventKind.HOOK


def _touched(name: str, message: Any, redact: Redact) -> Details:
    """Read what the kernel shows as a file: a pinned BPF object, another process's memory, or a file indeed."""
    kind = readers_file.touched_kind(message)
    read = {EventKind.BPF: readers_system.bpf, EventKind.TRACE: readers_system.trace}.get(kind, readers_file.file)
    return read(name, message, redact)


def _kernel_read(name: str, message: Any, redact: Redact) -> Details:
    module = readers_file.kernel_read_kind(message) is EventKind.MODULE
    return (readers_system.module if module else readers_file.file)(name, message, redact)


_OTHER = Hook("", EventKind.HOOK, readers_network.other)


def _sockets(enter: Callable[..., None]) -> None:
    net = readers_network
    enter(EventKind.CONNECT, net.connect, ("tcp_connect", "tcp_v4_connect", "tcp_v6_connect", "socket_connect"))
    enter(EventKind.CONNECT, net.connect, ("connect",))
    enter(EventKind.ACCEPT, net.accept, ("inet_csk_accept",), _accepted_kind)
    enter(EventKind.CLOSE, net.connect, ("tcp_close",))
    enter(EventKind.LISTEN, net.connect, ("inet_csk_listen_start",))
    enter(EventKind.SEND, net.send, ("tcp_sendmsg", "tcp_sendmsg_locked", "udp_sendmsg", "udpv6_sendmsg"))
    enter(EventKind.SEND, net.send, ("raw_sendmsg", "rawv6_sendmsg", "ip_send_skb"))
    enter(EventKind.SEND, net.send, ("sendto", "write", "sendmsg", "__sys_sendmsg", "__sys_sendto"), _sent_kind)


def _files(enter: Callable[..., None]) -> None:
    enter(EventKind.FILE, readers_file.file, readers_file.ACCESS)
    opens = [name for name, access in readers_file.ACCESS.items() if access == "open"]
    enter(EventKind.FILE, _touched, opens, readers_file.touched_kind)
    enter(EventKind.FILE, _touched, ("mmap_file",), readers_file.mapped_kind)


def _system(enter: Callable[..., None]) -> None:
    read = readers_system
    enter(EventKind.MODULE, read.module, read.MODULE)
    enter(EventKind.MODULE, _kernel_read, ("kernel_read_file",), readers_file.kernel_read_kind)
    enter(EventKind.BPF, read.bpf, ("bpf_check", "bpf", "bpf_map_alloc", "bpf_map_create", "bpf_prog", "bpf_map"))
    enter(EventKind.BPF, read.bpf, ("bpf_prog_load", "perf_event_alloc"))
    enter(EventKind.PRIVILEGE, read.set_ids, read.SET_IDS)
    enter(EventKind.PRIVILEGE, read.capabilities, ("capset", "commit_creds", "create_user_ns"))
    enter(EventKind.TRACE, read.trace, read.TRACE)
    enter(EventKind.MOUNT, read.mount, read.MOUNT)
    enter(EventKind.NAMESPACE, read.namespace, ("setns", "unshare"))
    enter(EventKind.KILL, read.kill, ("kill", "tgkill", "tkill", "task_kill"))
    enter(EventKind.KILL, read.kill, [f"syscalls/sys_enter_{call}" for call in ("kill", "tgkill", "tkill")])


def _table() -> dict[str, Hook]:
    table: dict[str, Hook] = {}

    def enter(kind: EventKind, read: Reader, functions: Iterable[str], refine: Refine | None = None) -> None:
        table.update({name: Hook(name, kind, read, refine) for name in functions})

    for family in (_sockets, _files, _system):
        family(enter)
    return table


HOOKS = _table()
