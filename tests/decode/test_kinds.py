"""Kinds of events: by hook function and argument shape, as the contract lists them."""

from typing import Any

import pytest

from keytrail.decode.decoder import Decoder
from keytrail.decode.details import DecodedEvent
from keytrail.decode.hooks import HOOKS, plain_function
from keytrail.decode.readers_file import file
from keytrail.decode.readers_system import trace
from keytrail.decode.redact import Redactor
from keytrail.domain.drop import Drop
from keytrail.domain.event import Details, EventKind, EventType, FileAccess
from keytrail.proto.tetragon import events_pb2
from keytrail.proto.tetragon import tetragon_pb2 as pb
from support.recordings import STREAMS, decoded_once, in_window, messages


def details(path: str, function: str = "file_open", mode: int | None = None) -> Details:
    """What is read of an access."""
    args: list[tuple[str, Any]] = [("path_arg", pb.KprobePath(path=path))]
    return file(function, args if mode is None else [*args, ("int_arg", mode)], Redactor().redact)


@pytest.mark.parametrize(
    ("path", "pid"),
    [("/proc/12/environ", 12), ("/proc/1234567890/mem", 1_234_567_890), ("/proc/12345678901/mem", None)]
    + [(path, None) for path in ("/proc/self/environ", "/proc//x", "/proc/\uff11/x", "/proc/1x/y", "/procs/1/x")],
)
def test_a_file_below_proc_tells_whose_it_is(path: str, pid: int | None) -> None:
    """Only a number of plain digits is a process."""
    operation = details(path).operation
    assert (None if operation is None else operation.target_pid) == pid


@pytest.mark.parametrize(("pid", "told"), [("71", 71), ("12345678901", 0), ("9" * 5_000, 0)])
def test_memory_of_a_process_that_cannot_be(pid: str, told: int) -> None:
    """Where no procfs is mounted a file below /proc has any name: no number comes out that is not a process's."""
    args = [("path_arg", pb.KprobePath(path=f"/proc/{pid}/mem")), ("int_arg", 4)]
    operation = trace("file_permission", args, Redactor().redact).operation
    assert operation is not None
    assert operation.target_pid == told


def test_accesses_share_what_only_a_path_tells() -> None:
    """The same done to the same file is one object, redacted; what was done, or a mode, makes another."""
    secret = f"/tmp/ghp_{'a1B2c3D4e5F6' * 3}"
    assert details(secret).file == FileAccess("/tmp/[redacted]", "open")
    assert details("/etc/passwd") is details("/etc/passwd")
    assert details("/etc/passwd", "path_truncate").file == FileAccess("/etc/passwd", "truncate")
    assert details("/etc/passwd", "chmod_common", 0o4755).file == FileAccess("/etc/passwd", "chmod", 0o4755)


RECORDED = """
exec  exec
exit  exit
library  loader
throttle  throttle
send  kprobe __sys_sendmsg int string size
privilege  kprobe __sys_setfsuid int
privilege  kprobe __sys_setgid int
privilege  kprobe __sys_setregid int int
privilege  kprobe __sys_setresgid int int int
privilege  kprobe __sys_setresuid int int int
privilege  kprobe __sys_setreuid int int
privilege  kprobe __sys_setuid int
module  kprobe __x64_sys_finit_module int string int
file  kprobe __x64_sys_fsetxattr int string
module  kprobe __x64_sys_init_module size string
file  kprobe __x64_sys_lsetxattr string string
mount  kprobe __x64_sys_mount error error error size
mount  kprobe __x64_sys_mount error string error size
mount  kprobe __x64_sys_mount string string error size
mount  kprobe __x64_sys_mount string string string size
file  kprobe __x64_sys_openat int string int
hook  kprobe __x64_sys_prctl int string
trace  kprobe __x64_sys_process_vm_readv int size size
trace  kprobe __x64_sys_ptrace size size
send  kprobe __x64_sys_sendto int bytes size
namespace  kprobe __x64_sys_setns int int
file  kprobe __x64_sys_setxattr string string bytes int
namespace  kprobe __x64_sys_unshare int
send  kprobe __x64_sys_write int bytes size
bpf  kprobe bpf_check bpf_attr
file  kprobe chmod_common path uint
file  kprobe chown_common path int int
privilege  kprobe commit_creds process_credentials
privilege  kprobe create_user_ns
module  kprobe do_init_module module
module  kprobe free_module module
hook  kprobe icmp_rcv skb
accept  kprobe inet_csk_accept sock
listen  kprobe inet_csk_listen_start sock
send  kprobe ip_send_skb skb
send  kprobe raw_sendmsg sock
bpf  kprobe security_bpf bpf_cmd
bpf  kprobe security_bpf_map_alloc bpf_map
bpf  kprobe security_bpf_prog bpf_prog
hook  kprobe security_bprm_check linux_binprm
hook  kprobe security_bprm_creds_from_file linux_binprm file
privilege  kprobe security_capset process_credentials cap_effective cap_inheritable cap_permitted
file  kprobe security_file_permission file int
file  kprobe security_inode_setattr path uint long long
file  kprobe security_inode_setxattr path string size
module  kprobe security_kernel_module_request string
module  kprobe security_kernel_read_file file int
file  kprobe security_path_link path path path
file  kprobe security_path_rename path path path path
file  kprobe security_path_symlink path path string
file  kprobe security_path_truncate path
file  kprobe security_path_unlink path path
trace  kprobe security_ptrace_access_check int string uint
mount  kprobe security_sb_mount error path error size
mount  kprobe security_sb_mount string path error size
mount  kprobe security_sb_mount string path string size
connect  kprobe security_socket_connect sock sockaddr
connect  kprobe security_socket_connect sockaddrun int
hook  kprobe sk_free sock
close  kprobe tcp_close sock
connect  kprobe tcp_connect sock
send  kprobe tcp_sendmsg sock bytes size
send  kprobe tcp_sendmsg sock int
hook  kprobe tcp_set_state sock int
send  kprobe udp_sendmsg sock bytes sockaddr size
send  kprobe udp_sendmsg sock int
file  kprobe vfs_utimes path error
file  kprobe vfs_utimes path long
hook  lsm bprm_check_security linux_binprm
file  lsm file_open file
module  tracepoint module/module_load uint
hook  tracepoint raw_syscalls/sys_exit long long
kill  tracepoint syscalls/sys_enter_kill size size
hook  uprobe getaddrinfo size
"""
"""Every message of the recordings by type, function and types of arguments, with its kind by the contract."""


TOLD_APART = ((EventKind.TRACE, "security_file_permission"), (EventKind.HOOK, "inet_csk_accept"))
"""/proc/PID/mem is no file, and an accept that returned no socket accepted nothing."""


def _shape(raw: bytes) -> str:
    message = events_pb2.GetEventsResponse.FromString(raw)
    which = message.WhichOneof("event")
    assert which is not None
    inner = getattr(message, which)
    function = getattr(inner, "function_name", "")
    if which == "process_tracepoint":
        function = f"{inner.subsys}/{inner.event}"
    elif which == "process_uprobe":
        function = inner.symbol
    arguments = [(arg.WhichOneof("arg") or "").removesuffix("_arg") for arg in getattr(inner, "args", ())]
    return " ".join(word for word in (which.removeprefix("process_"), function, *arguments) if word)


def test_every_recorded_shape_has_the_kind_of_the_contract() -> None:
    """Each type, function and argument shape of the recordings has one kind, but for two told apart by values."""
    expected = dict(reversed(line.split("  ")) for line in RECORDED.strip().splitlines())
    found: dict[str, set[str]] = {}
    for name in STREAMS:
        for raw, event in zip(messages(name), decoded_once(name), strict=True):
            if (event.kind, event.function) not in TOLD_APART:
                found.setdefault(_shape(raw), set()).add(event.kind)
    assert {shape: sorted(kinds) for shape, kinds in found.items()} == {
        shape: [kind] for shape, kind in expected.items()
    }


@pytest.mark.parametrize(
    ("protocol", "connected", "named", "peer"),
    [
        ("UDP", ("192.0.2.1", 53), ("AF_INET", "203.0.113.9", 4444), ("203.0.113.9", 4444)),
        ("UDP", ("192.0.2.1", 53), ("AF_UNSPEC", "invalid IP", 0), ("192.0.2.1", 53)),
        ("UDP", ("0.0.0.0", 0), ("AF_INET", "203.0.113.9", 4444), ("203.0.113.9", 4444)),  # noqa: S104 - what the agent says
        ("TCP", ("192.0.2.1", 443), ("AF_INET", "203.0.113.9", 4444), ("192.0.2.1", 443)),
    ],
    ids=["connected-and-named", "connected", "named", "tcp"],
)
def test_a_datagram_goes_to_the_address_that_the_call_names(
    protocol: str, connected: tuple[str, int], named: tuple[str, str, int], peer: tuple[str, int]
) -> None:
    """A UDP socket that is connected to an expected place still sends to another when it is told so (`sendto`)."""
    sock = {"family": "AF_INET", "protocol": f"IPPROTO_{protocol}", "daddr": connected[0], "dport": connected[1]}
    to = dict(zip(("family", "addr", "port"), named, strict=True))
    args = [pb.KprobeArgument(sock_arg=sock), pb.KprobeArgument(sockaddr_arg=to)]
    kprobe = pb.ProcessKprobe(function_name="udp_sendmsg", args=args)
    event = Decoder(Redactor().redact).decode(events_pb2.GetEventsResponse(process_kprobe=kprobe).SerializeToString())
    assert isinstance(event, DecodedEvent)
    assert event.network is not None
    assert (event.network.peer_address, event.network.peer_port) == peer


def kind_of(function: str, *args: pb.KprobeArgument, returned: pb.KprobeArgument | None = None) -> EventKind:
    """Kind of a kprobe made up for a test."""
    kprobe = pb.ProcessKprobe(function_name=function, args=args)
    if returned is not None:
        getattr(kprobe, "return").CopyFrom(returned)
    return _kind(events_pb2.GetEventsResponse(process_kprobe=kprobe))


def _kind(message: events_pb2.GetEventsResponse) -> EventKind:
    event = Decoder(lambda text, _program="": (text, ())).decode(message.SerializeToString())
    assert not isinstance(event, Drop)
    return event.kind


def arg(**value: object) -> pb.KprobeArgument:
    """Make one argument."""
    return pb.KprobeArgument(**value)


def on_file(path: str) -> pb.KprobeArgument:
    """Make a file argument."""
    return arg(file_arg=pb.KprobeFile(path=path))


BUFFER = arg(bytes_arg=b"x")
SOCK = arg(sock_arg=pb.KprobeSock(family="AF_INET"))


@pytest.mark.parametrize(
    "prefix", ["__x64_sys_", "__arm64_sys_", "__ia32_sys_", "__ia32_compat_sys_", "__arm64_compat_sys_", "sys_"]
)
@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("mount", "mount"),
        ("unshare", "namespace"),
        ("openat", "file"),
        ("ptrace", "trace"),
        ("setuid", "privilege"),
        ("kill", "kill"),
        ("prctl", "hook"),
    ],
)
def test_system_calls_of_each_architecture(prefix: str, call: str, kind: str) -> None:
    """The prefix by which an architecture names its system calls makes no difference, and is not in the function."""
    assert kind_of(prefix + call) == kind
    assert plain_function(prefix + call) == call


@pytest.mark.parametrize(
    ("function", "args", "kind"),
    [
        ("__x64_sys_write", (arg(int_arg=3), arg(size_arg=9)), "hook"),
        ("__x64_sys_write", (arg(int_arg=3), BUFFER, arg(size_arg=9)), "send"),
        ("__x64_sys_sendto", (arg(int_arg=3), arg(bytes_arg=b"CharBufErrorPageFault")), "hook"),
        ("security_file_permission", (on_file("/sys/fs/bpf/maps/one"), arg(int_arg=2)), "bpf"),
        ("security_file_permission", (on_file("/sys/fs/bpfilter"), arg(int_arg=2)), "file"),
        ("security_file_permission", (on_file("/proc/71/mem"), arg(int_arg=4)), "trace"),
        ("security_file_permission", (on_file("/proc/71/task/72/mem"), arg(int_arg=4)), "trace"),
        ("security_file_permission", (on_file("/proc/\uff11/mem"), arg(int_arg=4)), "file"),
        ("security_file_permission", (on_file("/proc/71/environ"), arg(int_arg=4)), "file"),
        ("security_file_permission", (on_file("/home/u/proc/71/mem"), arg(int_arg=4)), "file"),
        ("security_mmap_file", (on_file("/usr/lib/x86_64-linux-gnu/libssl.so.3"), arg(uint_arg=5)), "library"),
        ("security_mmap_file", (on_file("/usr/lib/python3/_ssl.cpython-311.so"), arg(uint_arg=5)), "library"),
        ("security_mmap_file", (on_file("/srv/notes.source"), arg(uint_arg=1)), "file"),
        ("security_kernel_read_file", (on_file("/lib/firmware/a.bin"), arg(int_arg=1)), "file"),
        ("security_kernel_read_file", (on_file("/tmp/a.ko"), arg(int_arg=2)), "module"),
        ("inet_csk_accept", (SOCK,), "hook"),
        ("security_perf_event_alloc", (arg(perf_event_arg=pb.KprobePerfEvent(Type="KPROBE")),), "bpf"),
        ("security_task_kill", (arg(int_arg=9),), "kill"),
        ("udpv6_sendmsg", (SOCK,), "send"),
        ("tcp_set_state", (SOCK, arg(int_arg=1)), "hook"),
    ],
)
def test_arguments_decide(function: str, args: tuple[pb.KprobeArgument, ...], kind: str) -> None:
    """Where the contract says so, it is the arguments that make the kind."""
    assert kind_of(function, *args) == kind


def test_accept_is_the_return_of_inet_csk_accept() -> None:
    """Only the returned socket is a connection: the argument is the listener, and nothing was accepted yet."""
    assert kind_of("inet_csk_accept", SOCK, returned=SOCK) is EventKind.ACCEPT


def test_lsm_hooks_are_their_kprobes() -> None:
    """The LSM hook and the security_ function around it are one place of the kernel."""
    for name, hook in HOOKS.items():
        assert kind_of(f"security_{name}") == kind_of(name) or "/" in name, hook
    lsm = pb.ProcessLsm(function_name="file_open", args=[on_file("/proc/9/mem")])
    assert _kind(events_pb2.GetEventsResponse(process_lsm=lsm)) is EventKind.TRACE


def test_user_space_symbols_are_not_kernel_functions() -> None:
    """A uprobe or usdt named like a kernel function is a plain hook, neither taking nor giving the real one's kind."""
    decoder = Decoder(lambda text, _program="": (text, ()))
    kernel = pb.ProcessKprobe(function_name="tcp_connect", args=[SOCK])
    symbol = pb.ProcessUprobe(path="/usr/bin/x", symbol="tcp_connect", args=[SOCK])
    probe = pb.ProcessUsdt(provider="module", name="module_load")
    messages_ = [
        events_pb2.GetEventsResponse(process_uprobe=symbol),
        events_pb2.GetEventsResponse(process_kprobe=kernel),
        events_pb2.GetEventsResponse(process_uprobe=symbol),
        events_pb2.GetEventsResponse(process_usdt=probe),
    ]
    kinds = []
    for message in messages_:
        event = decoder.decode(message.SerializeToString())
        assert not isinstance(event, Drop)
        kinds.append((event.type, event.kind, event.function))
    assert kinds == [
        (EventType.UPROBE, EventKind.HOOK, "tcp_connect"),
        (EventType.KPROBE, EventKind.CONNECT, "tcp_connect"),
        (EventType.UPROBE, EventKind.HOOK, "tcp_connect"),
        (EventType.USDT, EventKind.HOOK, "module:module_load"),
    ]


def test_a_hook_without_words_keeps_function_and_arguments() -> None:
    """What fits no kind is still usable by a rule: prctl with its option and the name, by index and label."""
    event = next(event for event in in_window("sensors", "prctl-kworker") if event.function == "prctl")
    assert [(found.index, found.label, found.type) for found in event.arguments] == [
        (0, "option", "int"),
        (1, "name", "string"),
    ]
    assert event.arguments[0].value == 15
