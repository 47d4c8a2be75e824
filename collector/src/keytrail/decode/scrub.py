"""A raw message in, the same message without secrets out: for recordings that leave the machine.

What stays is all that identities and rules need: names of variables (their values become a mark, or stay empty),
redacted command lines and paths, and of what was sent the names that were sent in clear (TLS, HTTP, DNS).
"""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from keytrail.decode.arguments import read_args
from keytrail.decode.hooks import hook_for, plain_function
from keytrail.decode.payloads import clear_part
from keytrail.decode.processes import Redact
from keytrail.decode.readers_network import send
from keytrail.decode.redact import MARK, whole_words
from keytrail.domain.event import Details, EventKind
from keytrail.proto.tetragon import events_pb2

_USER_SPACE = ("process_uprobe", "process_usdt")


def scrub(raw: bytes, redact: Redact) -> bytes | None:
    """Return the message without secrets; None when it cannot be read, for then nobody knows what is in it."""
    try:
        message = events_pb2.GetEventsResponse.FromString(raw)
    except DecodeError:
        return None
    which = message.WhichOneof("event")
    if which is None:
        return None
    inner: Any = getattr(message, which)
    # A newer agent's fields may hold anything.
    message.DiscardUnknownFields()
    if hasattr(inner, "process"):
        for process in (inner.process, inner.parent, *inner.ancestors):
            _process(process, redact)
    for name in ("path", "symbol", "cgroup"):
        if getattr(inner, name, ""):
            setattr(inner, name, redact(getattr(inner, name))[0])
    for frame in (*getattr(inner, "kernel_stack_trace", ()), *getattr(inner, "user_stack_trace", ())):
        _texts(frame, redact)  # the files that a program mapped
    if hasattr(inner, "args"):
        _hook(inner, redact, user_space=which in _USER_SPACE)
    return message.SerializeToString()


def _process(process: Any, redact: Redact) -> None:
    program = process.binary.rpartition("/")[2]
    for field, context in (("binary", ""), ("arguments", program), ("cwd", "")):
        text = getattr(process, field)
        if text:  # writing to a message that was not sent would make it one that was
            setattr(process, field, redact(whole_words(text, process.flags) if context else text, context)[0])
    if process.binary_properties.file.path:
        # The path is the binary's once more.
        process.binary_properties.file.ClearField("path")
    if process.HasField("pod"):
        # Annotations hold whole manifests, with whatever was written into them.
        process.pod.ClearField("pod_annotations")
    for variable in process.environment_variables:
        variable.Key = redact(variable.Key)[0]
        if variable.Value:
            variable.Value = MARK


def _hook(inner: Any, redact: Redact, *, user_space: bool) -> None:
    """Scrub the arguments of a hook.

    Whatever a process wrote goes, but for names sent in clear: nothing else of it is needed, and no pattern knows all
    secrets. Text of user-space functions is of that sort too.
    """
    function = plain_function(getattr(inner, "function_name", ""))
    sends = not user_space and hook_for(function).kind is EventKind.SEND
    clear = b""
    if sends:
        clear = _clear(send(function, read_args(inner), redact))
    returned = [getattr(inner, "return")] if "return" in inner.DESCRIPTOR.fields_by_name else []
    for argument in (*inner.args, *getattr(inner, "data", ()), *returned):
        _argument(argument, redact, clear or MARK.encode(), written=user_space or sends)


def _clear(sent: Details) -> bytes:
    clear = clear_part(sent.payload) if sent.payload is not None else b""
    if sent.payload is not None and sent.payload.protocol == "dns":
        over_tcp = sent.network is not None and sent.network.protocol == "IPPROTO_TCP"
        return len(clear).to_bytes(2, "big") + clear if over_tcp else clear
    return clear


def _argument(argument: Any, redact: Redact, instead: bytes, *, written: bool) -> None:
    which = argument.WhichOneof("arg")
    if which == "string_arg" and argument.string_arg:
        argument.string_arg = instead.decode("ascii", "replace") if written else redact(argument.string_arg)[0]
    elif which == "bytes_arg" and argument.bytes_arg:
        argument.bytes_arg = instead
    elif which == "truncated_bytes_arg":
        argument.truncated_bytes_arg.bytes_arg = instead
    elif which is not None and isinstance(value := getattr(argument, which), Message):
        _texts(value, redact)


def _texts(message: Message, redact: Redact) -> None:
    """Redact each text of a message: paths, names of modules, programs and devices, what an error says."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            setattr(message, field.name, redact(value)[0])
