"""A hook's function and argument shape in, its kind and the reader of its details out.

The table is by kernel function, never by the name of a policy: users load policies of their own. What is not in it is
a `hook` event, whose function and arguments a rule can still use. The readers are in the modules `readers_*`.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from keytrail.decode import readers_file, readers_network, readers_system
from keytrail.decode.arguments import Arguments, of_type, payload, returned
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

Reader = Callable[[str, Arguments, Redact], Details]
"""From the function and what it was called with: the details that are the hook's own."""
Refine = Callable[[Any, Callable[[], Arguments]], EventKind]
"""From the message, and its arguments if they are needed."""
_NONE: Final[Mapping[EventKind, Reader]] = MappingProxyType({})


class Hook(NamedTuple):
    """What a function means: its kind, and how its details are read."""

    name: str
    """The function as readers know it: without `security_`, so that a kprobe and the LSM hook are one."""
    kind: EventKind
    read: Reader
    refine: Refine | None = None
    """For a function whose kind depends on its arguments."""
    read_as: Mapping[EventKind, Reader] = _NONE
    """Readers for the kinds that have one of their own."""
    reads_return: bool = False
    """Whether what the function returned stands before its arguments."""


def plain_function(name: str) -> str:
    """Return the function without the prefix by which an architecture names its system calls."""
    for prefix in _SYSCALL_PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def hook_for(function: str) -> Hook:
    """Look a function up, by its plain name or, for a tracepoint, `subsystem/event`."""
    return HOOKS.get(function.removeprefix("security_"), _OTHER)


def _sent_kind(_message: Any, args: Callable[[], Arguments]) -> EventKind:
    found = args()
    return EventKind.SEND if payload(found) or of_type(found, "string_arg") else EventKind.HOOK


def _accepted_kind(message: Any, _args: Callable[[], Arguments]) -> EventKind:
    """Only the returned socket is a connection: an accept that found nothing returns null, shown without a family."""
    value = returned(message)
    accepted = value is not None and value.sock_arg.family not in _NO_SOCKET
    return EventKind.ACCEPT if accepted else EventKind.HOOK


_OTHER = Hook("", EventKind.HOOK, readers_network.other)


def _sockets(enter: Callable[..., None]) -> None:
    net = readers_network
    enter(EventKind.CONNECT, net.connect, ("tcp_connect", "tcp_v4_connect", "tcp_v6_connect", "socket_connect"))
    enter(EventKind.CONNECT, net.connect, ("connect",))
    # The connection is the returned socket; the argument is the listening one.
    enter(EventKind.ACCEPT, net.other, ("inet_csk_accept",), _accepted_kind, reads_return=True)
    enter(EventKind.CLOSE, net.connect, ("tcp_close",))
    enter(EventKind.LISTEN, net.connect, ("inet_csk_listen_start",))
    enter(EventKind.SEND, net.send, ("tcp_sendmsg", "tcp_sendmsg_locked", "udp_sendmsg", "udpv6_sendmsg"))
    enter(EventKind.SEND, net.send, ("raw_sendmsg", "rawv6_sendmsg", "ip_send_skb"))
    enter(EventKind.SEND, net.send, ("sendto", "write", "sendmsg", "__sys_sendmsg", "__sys_sendto"), _sent_kind)


def _files(enter: Callable[..., None]) -> None:
    enter(EventKind.FILE, readers_file.file, readers_file.ACCESS)
    opens = [name for name, access in readers_file.ACCESS.items() if access == "open"]
    # The kernel shows pinned BPF objects and other processes' memory as files.
    instead = {EventKind.BPF: readers_system.bpf, EventKind.TRACE: readers_system.trace}
    enter(EventKind.FILE, readers_file.file, opens, readers_file.touched_kind, read_as=instead)
    enter(EventKind.FILE, readers_file.file, ("mmap_file",), readers_file.mapped_kind, read_as=instead)


def _system(enter: Callable[..., None]) -> None:
    read = readers_system
    enter(EventKind.MODULE, read.module, read.MODULE)
    instead = {EventKind.FILE: readers_file.file}
    enter(EventKind.MODULE, read.module, ("kernel_read_file",), readers_file.kernel_read_kind, read_as=instead)
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

    def enter(
        kind: EventKind, read: Reader, functions: Iterable[str], refine: Refine | None = None, **more: Any
    ) -> None:
        table.update({name: Hook(name, kind, read, refine, **more) for name in functions})

    for family in (_sockets, _files, _system):
        family(enter)
    return table


HOOKS = _table()
