"""Messages changed field by field as a fuzzer decides: of the right form, with contents that no agent ever sent.

In: a protobuf message, and bytes as decisions. Out: the same message, changed in place. Without it nearly every change
of a byte would only break the framing of a message, and what lies behind parsing would never be reached.
"""

from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from fuzz.feed import Feed

TEXTS = (
    *("/proc/1/mem", "/proc/self/mem", "/proc/99999999999999999999/mem", "/sys/fs/bpf/x", "/usr/lib/libc.so.6", "/"),
    *(
        "tcp_sendmsg",
        "__x64_sys_write",
        "security_file_permission",
        "security_mmap_file",
        "bpf_check",
        "capset",
        "mount",
    ),
    *("ptrace", "kill", "setns", "inet_csk_accept", "security_kernel_read_file", "security_path_rename", "tcp_connect"),
    *("module/module_load", "AF_INET6", "AF_UNIX", "IPPROTO_TCP", "IPPROTO_UDP", "<enomem>", "<kernel>", "procFS"),
    *(
        "\u2028\u202e",
        "\x1b[31m",
        "\x00",
        "x" * 300,
        "ffffffffffffffff",
        "GET / HTTP/1.1\r\nHost: a.b\r\n\r\n",
        "=",
        "",
    ),
)
_NUMBERS = (0, 1, 53, 127, 128, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_MOST = 60
_DEEPEST = 12
_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (32, True),
    FieldDescriptor.CPPTYPE_INT64: (64, True),
    FieldDescriptor.CPPTYPE_UINT32: (32, False),
    FieldDescriptor.CPPTYPE_UINT64: (64, False),
    FieldDescriptor.CPPTYPE_ENUM: (32, True),
}


def change(message: Message, feed: Feed) -> None:
    """Change some fields, as many as the feed has decisions for."""
    for _ in range(_MOST):
        if not feed.left:
            return
        _change_one(message, feed)


def _change_one(message: Any, feed: Feed) -> None:
    for _ in range(_DEEPEST):
        field = _field(message, feed)
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            _set(message, field, feed)
            return
        how = feed.number()
        if how == 0:
            message.ClearField(field.name)
            return
        message = _inside(getattr(message, field.name), how) if field.is_repeated else getattr(message, field.name)
        message.SetInParent()


def _field(message: Any, feed: Feed) -> FieldDescriptor:
    """Choose among the fields that are there, or among all: most events have few of the many there could be."""
    choice, there = feed.number(), message.ListFields()
    if choice & 1 and there:
        chosen: FieldDescriptor = there[(choice >> 1) % len(there)][0]
        return chosen
    fields: Sequence[FieldDescriptor] = message.DESCRIPTOR.fields
    return fields[(choice >> 1) % len(fields)]


def _inside(items: Any, how: int) -> Any:
    return items[how % len(items)] if len(items) and how & 1 else items.add()


def _set(message: Any, field: FieldDescriptor, feed: Feed) -> None:
    if field.message_type is not None:  # a map of texts to texts
        getattr(message, field.name)[_text(feed)] = _text(feed)
    elif field.is_repeated:
        getattr(message, field.name).append(_value(field, feed))
    else:
        setattr(message, field.name, _value(field, feed))


def _value(field: FieldDescriptor, feed: Feed) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        text = _text(feed)
        return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
    if kind in _BITS:
        bits, signed = _BITS[kind]
        choice = feed.number()
        number = (_NUMBERS[choice] if choice < len(_NUMBERS) else feed.number(8)) % 2**bits
        return number - 2**bits if signed and number >= 2 ** (bits - 1) else number
    return bool(feed.number() & 1) if kind == FieldDescriptor.CPPTYPE_BOOL else float(feed.number())


def _text(feed: Feed) -> str:
    choice = feed.number()
    if choice < len(TEXTS):
        return TEXTS[choice]
    return feed.take(choice - len(TEXTS)).decode("utf-8", "replace")
