"""One hook of a policy in, what the agent refuses of it out, where the resource's schema says nothing.

Every limit here is the agent's own (1.7): its BPF programs have five argument slots, its loader checks names against
the kernel's types. `matching` judges the selectors; the shape has been checked before.
"""

from collections.abc import Mapping
from typing import Any

from keytrail.domain.shape import FieldPath, quoted, suggestion
from keytrail.tracing.matching import check_selectors
from keytrail.tracing.report import Report

HOOK_LISTS = ("kprobes", "fentries", "tracepoints", "uprobes", "usdts", "lsmhooks")
"""Where a policy's hooks stand in its spec."""
ACTIONS = ("Post", "NoPost", "Sigkill", "Signal", "Override", "NotifyEnforcer", "CleanupEnforcerNotification",
           "TrackSock", "UntrackSock", "GetUrl", "DnsLookup", "Set", "FollowFD", "UnfollowFD", "CopyFD")  # fmt: skip

MAX_VALUES = 5
"""Arguments and data of a hook together: the slots of an event."""
_LAST_INDEX = 4
"""Highest position of an argument: kprobes see five registers."""
_MAX_SELECTORS = 5
_MAX_MESSAGE = 256
_BUFFERS = ("char_buf", "char_iovec")
_SOURCES = ("current_task", "pt_regs")
_PREFIXES = ("__x64_", "__arm64_", "__ia32_", "__s390x_", "__riscv_")
"""What architectures put before `sys_`; the agent does so itself for `syscall: true`."""


def check_hook(report: Report, kind: str, hook: Mapping[str, Any], path: FieldPath, lists: Mapping[str, str]) -> None:
    """Judge one entry of `kprobes`, `uprobes`, ...; `lists` are the policy's own lists and their types."""
    if kind in ("kprobes", "fentries"):
        _check_call(report, hook, path, lists)
    if kind == "uprobes":
        _check_uprobe(report, hook, path)
    _check_values(report, hook, path, syscall=kind == "kprobes" and _is_syscall(hook, lists))
    _check_return(report, hook, path)
    if len(hook.get("message", "")) > _MAX_MESSAGE:
        report.warn((*path, "message"), f"longer than {_MAX_MESSAGE} characters: the agent cuts it there")
    selectors = hook.get("selectors", [])
    if len(selectors) > _MAX_SELECTORS:
        report.wrong((*path, "selectors"), f"expected at most {_MAX_SELECTORS} selectors, found {len(selectors)}")
    check_selectors(report, hook, path)


def _is_syscall(hook: Mapping[str, Any], lists: Mapping[str, str]) -> bool:
    """Whether the agent takes the call for a system call: so it does unless told otherwise."""
    if hook["call"].startswith("list:"):
        return "syscalls" in lists.get(hook["call"].removeprefix("list:"), "")
    return bool(hook.get("syscall", True))


def _check_call(report: Report, hook: Mapping[str, Any], path: FieldPath, lists: Mapping[str, str]) -> None:
    call = hook["call"]
    where = (*path, "call")
    if call.startswith("list:"):
        if call.removeprefix("list:") not in lists:
            near = suggestion(call.removeprefix("list:"), list(lists)) if lists else "the policy has no lists"
            report.wrong(where, f"unknown list {quoted(call)}: {near}")
        return
    plain = next((call.removeprefix(prefix) for prefix in _PREFIXES if call.startswith(prefix + "sys_")), call)
    if plain != call:
        report.warn(where, f"names one processor architecture: write {plain}, the agent puts the prefix before it")
    if hook.get("syscall", True) and not plain.startswith("sys_"):
        report.wrong(
            where, f"{quoted(call)} is no system call (sys_…): write `syscall: false`, the agent's default is true"
        )
    elif not hook.get("syscall", True) and call.startswith("sys_"):
        report.wrong(where, f"no kernel since 4.17 has a function {quoted(call)}: write `syscall: true`")


def _check_uprobe(report: Report, hook: Mapping[str, Any], path: FieldPath) -> None:
    if not any(hook.get(name) for name in ("symbols", "offsets", "addrs")):
        report.wrong(path, "expected at least one of symbols, offsets, addrs, found none")
    for index, arg in enumerate(hook.get("args", [])):
        if arg.get("type", "auto") == "string":
            report.warn(
                (*path, "args", index, "type"),
                "kernels without sleepable uprobes refuse text arguments (seen on 6.1: can't preload string)",
            )


def _check_values(report: Report, hook: Mapping[str, Any], path: FieldPath, *, syscall: bool) -> None:
    args, data = hook.get("args", []), hook.get("data", [])
    if len(args) + len(data) > MAX_VALUES:
        found = f"{len(args)} and {len(data)}" if data else str(len(args))
        report.wrong(path, f"expected at most {MAX_VALUES} in args and data together, found {found}")
    for index, arg in enumerate(args):
        where = (*path, "args", index)
        if arg["index"] > _LAST_INDEX:
            report.wrong((*where, "index"), f"expected 0 to {_LAST_INDEX}, found {arg['index']}")
        if arg.get("source"):
            report.wrong((*where, "source"), "only entries of data have a source")
        if arg.get("resolve") and syscall:
            report.wrong((*where, "resolve"), "not on system calls: the kernel has no types for their arguments")
        _check_buffer(report, arg, where)
    for index, arg in enumerate(data):
        where = (*path, "data", index)
        if arg.get("source") not in _SOURCES:
            report.wrong((*where, "source"), f"expected one of {', '.join(_SOURCES)}, found {arg.get('source')!r}")
        if not arg.get("resolve"):
            report.wrong((*where, "resolve"), "is required, for example cred.uid.val")


def _check_buffer(report: Report, arg: Mapping[str, Any], path: FieldPath) -> None:
    """Judge how long a captured buffer is."""
    size = arg.get("sizeArgIndex", 0)
    where = (*path, "sizeArgIndex")
    if size == arg["index"] + 1:
        report.wrong(where, f"{size} is the buffer itself: it counts from 1 (index counts from 0)")
    elif size > _LAST_INDEX + 1:
        report.wrong(where, f"expected 1 to {_LAST_INDEX + 1} (it counts from 1), found {size}")
    elif arg.get("type", "auto") in _BUFFERS and not size and not arg.get("returnCopy"):
        report.wrong(where, f"is required for {arg['type']}: the number of the argument that holds its size, from 1")
    if arg.get("maxData") and arg.get("returnCopy"):
        report.wrong((*path, "maxData"), "not together with returnCopy")


def _check_return(report: Report, hook: Mapping[str, Any], path: FieldPath) -> None:
    wanted, given = hook.get("return", False), hook.get("returnArg")
    if wanted and given is None:
        report.wrong((*path, "returnArg"), "is required with `return: true`")
    if given is not None and not wanted:
        report.warn((*path, "returnArg"), "is ignored without `return: true`")
    action = hook.get("returnArgAction")
    if action and action not in ACTIONS:
        report.wrong((*path, "returnArgAction"), f"unknown action {quoted(action)}, {suggestion(action, ACTIONS)}")
