"""Hooks on modules, BPF, privileges, other processes, mounts, namespaces and signals: arguments in, `Details` out.

Functions come without `security_`. All text that may leave the process goes through `redact`.
"""

from signal import Signals

from keytrail.decode.arguments import (
    Arguments,
    capability_names,
    enum_name,
    first,
    numbers,
    of_type,
    paths,
    signed,
    text_at,
    texts,
)
from keytrail.decode.processes import Redact
from keytrail.decode.readers_file import access_of, pid_below_proc
from keytrail.domain.event import Details, FileAccess, Operation
from keytrail.proto.tetragon import bpf_pb2

SET_IDS = tuple(
    prefix + name
    for prefix in ("__sys_", "")
    for name in ("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid")
)

MODULE = {
    "kernel_module_request": "request",
    "module/module_request": "request",
    "kernel_read_file": "read",
    "do_init_module": "load",
    "init_module": "load",
    "finit_module": "load",
    "module/module_load": "load",
    "free_module": "unload",
    "delete_module": "unload",
    "module/module_free": "unload",
}

TRACE = {
    "ptrace": "ptrace",
    "ptrace_access_check": "access",
    "process_vm_readv": "read_memory",
    "process_vm_writev": "write_memory",
}
_PTRACE = {0: "traceme", 4: "write_memory", 5: "write_memory", 6: "write_memory", 16: "attach", 0x4206: "attach"}
"""Requests of ptrace that a rule asks about (include/uapi/linux/ptrace.h); 0x4206 is PTRACE_SEIZE."""
_PTRACE_MODE_ATTACH = 2

MOUNT = {
    "mount": "mount",
    "sb_mount": "mount",
    "move_mount": "move_mount",
    "umount": "umount",
    "sb_umount": "umount",
    "pivot_root": "pivot_root",
    "sb_pivotroot": "pivot_root",
    "open_tree": "open_tree",
}
_CAPABILITY_BITS = 64


def module(name: str, args: Arguments, redact: Redact) -> Details:
    """Read a kernel module, or the file that one is read from."""
    operation = MODULE[name]
    named = [redact(path)[0] for path in paths(args)]
    names = [found.name for found in of_type(args, "module_arg")]
    if operation == "request" or name.startswith("module/"):  # elsewhere the text is the module's parameters
        names += texts(args)
    accessed = FileAccess(named[0], "read") if named else None
    target = redact(names[0])[0] if names else first(named, "")
    return Details(operation=Operation(operation, target), file=accessed)


def bpf(name: str, args: Arguments, redact: Redact) -> Details:
    """Read a BPF program, map, perf event, command or pinned object."""
    accessed = None
    if named := paths(args) or texts(args):
        path = redact(named[0])[0]
        accessed = FileAccess(path, access_of(name, numbers(args)))
        return Details(operation=Operation("pin_access", path), file=accessed)
    operation, target, type_ = "command", "", ""
    for program in of_type(args, "bpf_attr_arg", "bpf_prog_arg"):
        operation = "load" if name in ("bpf_check", "bpf_prog_load") else "use"
        target, type_ = program.ProgName, program.ProgType
    for used in of_type(args, "bpf_map_arg"):
        operation = "map_use" if name == "bpf_map" else "map_create"
        target, type_ = used.MapName, used.MapType
    for perf in of_type(args, "perf_event_arg"):
        operation, target, type_ = "perf_event", perf.KprobeFunc, perf.Type
    for command in of_type(args, "bpf_cmd_arg"):
        type_ = enum_name(bpf_pb2.BpfCmd, command)
    return Details(operation=Operation(operation, redact(target)[0], type=type_))


def set_ids(name: str, args: Arguments, _redact: Redact) -> Details:
    """Read a set*id call: the ids asked for, in order; `Details.returned` tells whether it was granted."""
    return Details(operation=Operation(name.removeprefix("__sys_"), ids=tuple(numbers(args))))


def capabilities(name: str, args: Arguments, _redact: Redact) -> Details:
    """Read capabilities asked for or committed, as names; a new user namespace has none."""
    ids: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    for sent in of_type(args, "process_credentials_arg"):
        ids = (sent.uid.value, sent.gid.value, sent.euid.value, sent.egid.value)
        names = capability_names(sent.caps.effective)
    for mask in of_type(args, "cap_effective_arg"):
        names = _mask_names(mask)
    return Details(operation=Operation(name, ids=ids, capabilities=names))


def _mask_names(mask: str) -> tuple[str, ...]:
    try:
        bits = int(mask, 16)
    except ValueError:
        return ()
    return capability_names(number for number in range(_CAPABILITY_BITS) if bits >> number & 1)


def trace(name: str, args: Arguments, redact: Redact) -> Details:
    """Read a reach into another process: which one, and how."""
    ints = numbers(args)
    if named := paths(args) or (texts(args) if name not in TRACE else []):  # /proc/PID/mem
        path = redact(named[0])[0]
        access = access_of(name, ints)
        operation = "write_memory" if access == "write" else "read_memory"
        return Details(operation=Operation(operation, path, pid_below_proc(path) or 0), file=FileAccess(path, access))
    one, other = (*ints, 0, 0)[:2]
    if name == "ptrace":  # request, pid
        operation, pid_, flags = _PTRACE.get(one, "ptrace"), signed(other), one
    elif name == "ptrace_access_check":  # pid, mode
        operation, pid_, flags = "attach" if other & _PTRACE_MODE_ATTACH else "access", one, other
    else:  # process_vm_*: pid, numbers of vectors
        operation, pid_, flags = TRACE.get(name, name), one, 0
    comm = redact(first(texts(args), ""))[0]
    return Details(operation=Operation(operation, comm, pid_, flags=flags))


def mount(name: str, args: Arguments, redact: Redact) -> Details:
    """Read a mount: where, of which type, with which flags.

    By position, for what the agent cannot read (a null pointer, or anything behind an empty string) is an `error_arg`
    and still takes its place. mount has source, target, type, flags; the others have their target first.
    """
    operation = MOUNT[name]
    target = named[-1] if (named := paths(args)) else text_at(args, 1 if operation == "mount" else 0)
    type_ = text_at(args, 2) if operation == "mount" else ""
    flags = first(of_type(args, "size_arg", "long_arg", "uint_arg"), 0)
    return Details(operation=Operation(operation, redact(target)[0], type=redact(type_)[0], flags=flags))


def namespace(name: str, args: Arguments, _redact: Redact) -> Details:
    """Read a joining (setns) or leaving (unshare) of namespaces; `flags` are CLONE_NEW* bits."""
    return Details(operation=Operation(name, flags=first(numbers(args)[-1:], 0)))


def kill(_name: str, args: Arguments, _redact: Redact) -> Details:
    """Read a signal sent: which, and to whom (0 is the own group, negative a group). `flags` is the signal's number."""
    ints = numbers(args)
    signal = first(ints[-1:], 0)
    target = signed(ints[0]) if len(ints) > 1 else 0
    return Details(operation=Operation(_signal_name(signal), target_pid=target, flags=signal))


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:  # 0, which only asks whether the process is there, and real-time signals
        return f"SIG{number}"
