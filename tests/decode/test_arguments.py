"""Arguments of hooks as plain values."""

import pytest

from keytrail.decode import arguments
from keytrail.domain.event import HookArgument
from keytrail.proto.tetragon import tetragon_pb2 as pb
from support.recordings import STREAMS, decoded_once


def arg(**value: object) -> pb.KprobeArgument:
    """Make one argument."""
    return pb.KprobeArgument(**value)  # type: ignore[arg-type] # the oneof's fields by name


@pytest.mark.parametrize(
    ("sent", "type_", "value"),
    [
        (arg(int_arg=-1), "int", -1),
        (arg(uint_arg=4_294_967_295), "uint", 4_294_967_295),
        (arg(size_arg=(1 << 64) - 1), "size", (1 << 64) - 1),
        (arg(long_arg=-(1 << 63)), "long", -(1 << 63)),
        (arg(string_arg="x\x1b"), "string", "x\x1b"),
        (arg(bytes_arg=b"\0\xff"), "bytes", b"\0\xff"),
        (arg(truncated_bytes_arg={"bytes_arg": b"ab", "orig_size": 9}), "truncated_bytes", b"ab"),
        (arg(file_arg={"path": "/etc/shadow"}), "file", "/etc/shadow"),
        (arg(path_arg={"path": "/tmp"}), "path", "/tmp"),
        (arg(linux_binprm_arg={"path": "/bin/x"}), "linux_binprm", "/bin/x"),
        (arg(sock_arg={"saddr": "10.0.0.1", "daddr": "10.0.0.2"}), "sock", "10.0.0.2"),
        (arg(skb_arg={"daddr": "10.0.0.2"}), "skb", "10.0.0.2"),
        (arg(sockaddr_arg={"addr": "::1"}), "sockaddr", "::1"),
        (arg(sockaddrun_arg={"path": "@abstract"}), "sockaddrun", "@abstract"),
        (arg(net_dev_arg={"name": "eth0"}), "net_dev", "eth0"),
        (arg(module_arg={"name": "dummy"}), "module", "dummy"),
        (arg(capability_arg={"name": "CAP_SYS_ADMIN"}), "capability", "CAP_SYS_ADMIN"),
        (arg(bpf_attr_arg={"ProgName": "p"}), "bpf_attr", "p"),
        (arg(bpf_prog_arg={"ProgName": "p"}), "bpf_prog", "p"),
        (arg(bpf_map_arg={"MapName": "m"}), "bpf_map", "m"),
        (arg(perf_event_arg={"KprobeFunc": "f"}), "perf_event", "f"),
        (arg(bpf_cmd_arg=5), "bpf_cmd", 5),
        (arg(syscall_id={"id": 59, "abi": "x64"}), "syscall_id", 59),
        (arg(error_arg={"Message": "Bad address"}), "error", "Bad address"),
        (arg(cap_effective_arg="00ff"), "cap_effective", "00ff"),
        (arg(user_ns_arg={}), "user_ns", ""),
        (arg(process_credentials_arg={}), "process_credentials", ""),
    ],
)
def test_each_type_has_a_plain_value(sent: pb.KprobeArgument, type_: str, value: int | str | bytes) -> None:
    """Scalars are themselves, structures their most telling text, and the label is the policy's."""
    sent.label = "l"
    assert arguments.hook_arguments([sent]) == (HookArgument(0, "l", type_, value),)


def test_every_type_that_is_declared_is_covered() -> None:
    """No member of the oneof is left to chance."""
    for field in pb.KprobeArgument.DESCRIPTOR.oneofs_by_name["arg"].fields:
        sent = pb.KprobeArgument()
        if field.message_type is not None:
            getattr(sent, field.name).SetInParent()
        else:
            setattr(sent, field.name, field.default_value)
        (found,) = arguments.hook_arguments([sent])
        assert found.type == field.name.removesuffix("_arg")
        assert isinstance(found.value, int | str | bytes)


def test_an_argument_of_a_newer_type_keeps_its_place() -> None:
    """What cannot be read is left out, and those behind it keep their index."""
    found = arguments.hook_arguments([pb.KprobeArgument(), arg(int_arg=3)])
    assert [(argument.index, argument.value) for argument in found] == [(1, 3)]


@pytest.mark.parametrize(
    ("register", "number"),
    [(0, 0), (71, 71), ((1 << 64) - 1, -1), ((1 << 32) - 1, -1), (-5, -5), ((1 << 31) - 1, (1 << 31) - 1)],
)
def test_signed(register: int, number: int) -> None:
    """A register of 32 or 64 bits gives the number that the call meant: kill(-1) is everybody."""
    assert arguments.signed(register) == number


def read(args: list[pb.KprobeArgument]) -> arguments.Arguments:
    """As readers see them."""
    return arguments.read_args(pb.ProcessKprobe(args=args))


@pytest.mark.parametrize("error", ["ENOMEM", "BufTooLarge", "PageFault", "Unknown"])
def test_a_buffer_that_could_not_be_read_is_none(error: str) -> None:
    """The agent's error text is not what the process sent."""
    assert arguments.payload(read([arg(bytes_arg=b"CharBufError" + error.encode())])) == b""
    assert arguments.payload(read([arg(int_arg=1)])) == b""
    assert arguments.payload(read([arg(truncated_bytes_arg={"bytes_arg": b"ab"})])) == b"ab"


def test_the_root_directory_is_an_empty_path() -> None:
    """The agent writes `/` as no path at all."""
    assert arguments.paths(read([arg(path_arg={}), arg(file_arg={"path": "/a"})])) == ["/", "/a"]


def test_values_are_not_in_representations() -> None:
    """Text and bytes of hooks do not get into a log by way of a representation."""
    shown = repr(arguments.hook_arguments([arg(string_arg="sk-secret"), arg(bytes_arg=b"sk-secret")]))
    assert "secret" not in shown


def test_data_follows_the_arguments() -> None:
    """What a policy reads beside the arguments (ids before the call) is there under its label."""
    calls = [e for e in decoded_once("sensors") if e.function == "__sys_setuid"]
    assert calls
    for event in calls:
        labels = [argument.label for argument in event.arguments]
        assert labels[0] == "uid"
        assert "uid_before" in labels


def test_every_recorded_argument_is_there() -> None:
    """As many arguments as the agent sent, each of a type and a place."""
    for name in STREAMS:
        for event in decoded_once(name):
            assert [argument.index for argument in event.arguments] == list(range(len(event.arguments)))
