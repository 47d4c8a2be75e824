"""The arguments of a hook in, plain values out.

Everything that a kprobe, LSM, tracepoint, uprobe or usdt event carries comes as a list of `KprobeArgument`; here is
what all readers of them share. Must not know what a hook means.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from keytrail.domain.event import Details, HookArgument, Network
from keytrail.proto.tetragon import capabilities_pb2
from keytrail.proto.tetragon import tetragon_pb2 as pb

Arguments = Sequence[tuple[str, Any]]
"""Type and value of each argument in order; an empty type for one newer than our declarations."""

_READ_FAILED = (
    b"CharBufErrorENOMEM",
    b"CharBufErrorBufTooLarge",
    b"CharBufErrorPageFault",
    b"CharBufErrorUnknown",
)
"""What the agent puts in place of a buffer that its BPF program could not read."""

NUMBERS = ("int_arg", "uint_arg", "size_arg", "long_arg")
_CAPABILITY_SETS = ("kernel_cap_t_arg", "cap_inheritable_arg", "cap_permitted_arg", "cap_effective_arg")
_SCALARS = frozenset((*NUMBERS, *_CAPABILITY_SETS, "string_arg", "bytes_arg", "bpf_cmd_arg"))
PATHS = ("file_arg", "path_arg", "linux_binprm_arg")
_NO_ADDRESS = "invalid IP"
_ACTION = "KPROBE_ACTION_"
_TELLING = ("path", "daddr", "addr", "name", "ProgName", "MapName", "KprobeFunc", "Message")

T = TypeVar("T")


def enum_name(enum: Any, value: int) -> str:
    """Name of an enum's value; the number as text for one that is newer than our declarations."""
    found = enum.DESCRIPTOR.values_by_number.get(value)
    return str(value) if found is None else str(found.name)


def capability_names(values: Iterable[int]) -> tuple[str, ...]:
    """Names of capability numbers, all in the kernel's spelling (the agent's table lacks one prefix)."""
    return _capability_names(tuple(values))


@lru_cache(maxsize=256)  # a node's containers have a handful of sets between them
def _capability_names(values: tuple[int, ...]) -> tuple[str, ...]:
    return tuple("CAP_" + enum_name(capabilities_pb2.CapabilitiesType, value).removeprefix("CAP_") for value in values)


def read_args(message: Any, *, returned_first: bool = False) -> Arguments:
    """Read the arguments of a hook once: each access to one makes a new object of the protobuf library."""
    value = returned(message) if returned_first else None
    found: list[tuple[str, Any]] = []
    for arg in message.args if value is None else (value, *message.args):
        which = arg.WhichOneof("arg")
        found.append(("", None) if which is None else (which, getattr(arg, which)))
    return found


def of_type(args: Arguments, *types: str) -> list[Any]:
    """Values of the arguments of these types, in order."""
    return [value for which, value in args if which in types]


def first(values: Sequence[T], default: T) -> T:
    """First value, or the default."""
    return values[0] if values else default


def numbers(args: Arguments) -> list[int]:
    """Integer arguments in order, of whatever width."""
    return of_type(args, *NUMBERS)


def signed(value: int) -> int:
    """Return the number that a system call meant: tracepoints hand over its registers unsigned."""
    if value >= 1 << 63:
        return value - (1 << 64)
    return value - (1 << 32) if 1 << 31 <= value < 1 << 32 else value


def texts(args: Arguments) -> list[str]:
    """Text arguments in order."""
    return of_type(args, "string_arg")


def text_at(args: Arguments, position: int) -> str:
    """Text of one argument; empty when it is none: of what the agent cannot read it sends an `error_arg` instead."""
    found = of_type(args[position : position + 1], "string_arg")
    return str(found[0]) if found else ""


def paths(args: Arguments) -> list[str]:
    """Paths of file, path, dentry and binprm arguments in order; `/` comes from the agent as an empty path."""
    return [value.path or "/" for value in of_type(args, *PATHS)]


def sorted_out(args: Arguments) -> tuple[list[int], list[str], list[str]]:
    """Numbers, paths and texts as the three functions above give them, in one pass: file events are many."""
    ints: list[int] = []
    named: list[str] = []
    words: list[str] = []
    for which, value in args:
        if which in NUMBERS:
            ints.append(value)
        elif which in PATHS:
            named.append(value.path or "/")
        elif which == "string_arg":
            words.append(value)
    return ints, named, words


def payload(args: Arguments) -> bytes:
    """First captured buffer; empty when there is none or the agent could not read it."""
    for which, value in args:
        if which == "bytes_arg":
            data: bytes = value
        elif which == "truncated_bytes_arg":
            data = value.bytes_arg
        else:
            continue
        return b"" if data.startswith(_READ_FAILED) else data
    return b""


def socket(args: Arguments) -> Network | None:
    """First socket argument, its two ends as the hook's process sees them: the kernel's source is the local end."""
    for which, value in args:
        if which == "sock_arg":
            return network(value)
    return None


def network(sock: pb.KprobeSock) -> Network:
    """Both ends of a socket."""
    local, peer = sock.saddr, sock.daddr
    return Network(
        sock.family,
        sock.protocol,
        "" if local == _NO_ADDRESS else local,
        sock.sport,
        "" if peer == _NO_ADDRESS else peer,
        sock.dport,
        sock.cookie,
    )


def address(text: str) -> str:
    """Return an address; empty for what the agent writes where a family has none."""
    return "" if text == _NO_ADDRESS else text


def returned(message: Any) -> pb.KprobeArgument | None:
    """What the hooked function returned; None when the policy did not ask, and for other than kprobes."""
    if not _has_return(message.__class__) or not message.HasField("return"):
        return None
    found: pb.KprobeArgument = getattr(message, "return")
    return found


@lru_cache(maxsize=16)  # a descriptor is made anew each time that it is asked for
def _has_return(type_: Any) -> bool:
    return "return" in type_.DESCRIPTOR.fields_by_name


def completed(own: Details, message: Any) -> Details:
    """Add to what a reader read of a hook what every hook event may carry: rules ask for it apart, outputs for all."""
    value = returned(message)
    action, text, tags = _action(message, value), message.message, tuple(message.tags)
    if value is None and not (action or text or tags):  # most hooks that post and no more: 1 us saved
        return own
    return Details(
        own.network,
        own.file,
        own.payload,
        own.operation,
        returned=None if value is None else _number(value),
        action=action,
        message=text,
        tags=tags,
    )


def returned_number(message: Any) -> int | None:
    """What the hooked function returned, as a number."""
    value = returned(message)
    return None if value is None else _number(value)


def action_name(message: Any) -> str:
    """What the policy made the agent do beyond posting; empty for nearly every event."""
    return _action(message, returned(message))


def _number(value: pb.KprobeArgument) -> int | None:
    which = value.WhichOneof("arg")
    return int(getattr(value, which)) if which in NUMBERS else None


def _action(message: Any, value: pb.KprobeArgument | None) -> str:
    action = message.action
    if value is not None and action <= pb.KPROBE_ACTION_POST:
        action = message.return_action
    return "" if action <= pb.KPROBE_ACTION_POST else enum_name(pb.KprobeAction, action).removeprefix(_ACTION)


def hook_arguments(args: Iterable[pb.KprobeArgument]) -> tuple[HookArgument, ...]:
    """Every argument for rules to test. Structures come as their most telling text (path, address, name)."""
    found = []
    for index, arg in enumerate(args):
        which = arg.WhichOneof("arg")
        if which is not None:  # None for a type newer than our declarations
            found.append(HookArgument(index, arg.label, which.removesuffix("_arg"), _plain(which, getattr(arg, which))))
    return tuple(found)


def _plain(which: str, value: Any) -> int | str | bytes:
    if which in _SCALARS:
        return value  # type: ignore[no-any-return] # the oneof's name says which scalar it is
    if which == "truncated_bytes_arg":
        return bytes(value.bytes_arg)
    if which == "syscall_id":
        return int(value.id)
    for name in _TELLING:
        if hasattr(value, name):
            return str(getattr(value, name))
    return ""
