"""The selectors of one hook in, what the agent refuses or silently ignores of them out.

Which operator fits which type is the agent's own table (1.7, pkg/selectors): numbers are compared in place, four
values at most; text, addresses and ports go through maps of any size; what has no comparison at all, such as the bytes
of an iov_iter, is accepted and not looked at, so that a filter turns into none.
"""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keytrail.domain.shape import FieldPath, quoted
from keytrail.tracing.report import Report

NUMBERS = frozenset({
    "int", "sint8", "int8", "uint8", "sint16", "int16", "uint16", "uint32", "sint32", "int32", "ulong", "uint64",
    "size_t", "long", "sint64", "int64", "syscall64",
})  # fmt: skip
TEXTS = frozenset({"string", "fd", "file", "filename", "path", "dentry", "char_buf", "linux_binprm", "data_loc",
                   "net_device", "sockaddr_un"})  # fmt: skip
SOCKETS = frozenset({"sock", "skb", "socket", "sockaddr"})
_CAPABILITIES = frozenset({"kernel_cap_t", "cap_inheritable", "cap_permitted", "cap_effective"})

_EQUALITY = frozenset({"Equal", "NotEqual"})
_SIZES = frozenset({"GreaterThan", "LessThan", "GT", "LT", "Mask"})
_RANGES = frozenset({"InRange", "NotInRange"})
_MAPS = frozenset({"InMap", "NotInMap"})
_PREFIXES, _POSTFIXES = frozenset({"Prefix", "NotPrefix"}), frozenset({"Postfix", "NotPostfix"})
_SUBSTRINGS, _SEARCHED = frozenset({"SubString", "SubStringIgnCase"}), frozenset({"string", "char_buf"})
"""Of any other type, `file` too, the agent takes the operator and leaves its values out."""
_PRIVILEGED = frozenset({"SPortPriv", "NotSportPriv", "DPortPriv", "NotDPortPriv"})
"""Take no values."""
_PORTS = frozenset({"SPort", "NotSPort", "DPort", "NotDPort"})
_ADDRESSES = frozenset({"SAddr", "NotSAddr", "DAddr", "NotDAddr"})
_OF_SOCKADDR = frozenset({"SAddr", "NotSAddr", "SPort", "NotSPort", "SPortPriv", "NotSportPriv", "Family"})
"""An address has one end only, and the agent calls it the source, the destination of a connect included."""
_OF_SOCKETS = _PRIVILEGED | _PORTS | _ADDRESSES | {"Protocol", "Family", "State"}
_FREE = frozenset({"CelExpr"})
"""Judged by nobody but the agent."""

_MAX_FILTERS = 5
_MAX_COMPARED = 4
_LONGEST = dict.fromkeys(_PREFIXES, 256) | dict.fromkeys(_POSTFIXES, 127) | dict.fromkeys(_SUBSTRINGS, 99)
"""Bytes of a text that is looked for."""
_MAX_PORT = 65_535
_MAX_ACTIONS = 3
_MAX_PIDS = _MAX_NAMESPACES = 4
_MAX_BINARY = 255
_SCOPES = ("thread", "process", "global")
_GONE = frozenset({"FollowFD", "UnfollowFD", "CopyFD"})
"""Deprecated in 1.7, removed behind it."""


def check_selectors(report: Report, hook: Mapping[str, Any], path: FieldPath) -> None:
    """Judge the selectors of a hook whose shape is right."""
    args, data = hook.get("args", []), hook.get("data", [])
    returned = [hook["returnArg"]] if hook.get("returnArg") else []
    for number, selector in enumerate(hook.get("selectors", [])):
        where = (*path, "selectors", number)
        count = len(selector.get("matchArgs", [])) + len(selector.get("matchData", []))
        if count > _MAX_FILTERS:
            report.wrong(where, f"expected at most {_MAX_FILTERS} in matchArgs and matchData together, found {count}")
        _check_filters(report, selector.get("matchArgs", []), args, (*where, "matchArgs"))
        _check_filters(report, selector.get("matchData", []), data, (*where, "matchData"), by_position=True)
        _check_filters(report, selector.get("matchReturnArgs", []), returned, (*where, "matchReturnArgs"))
        if selector.get("matchReturnArgs") and not returned:
            report.wrong((*where, "matchReturnArgs"), "the hook has no returnArg")
        for name in ("matchActions", "matchReturnActions"):
            _check_actions(report, selector.get(name, []), (*where, name))
        for name in ("matchBinaries", "matchParentBinaries"):
            for index, entry in enumerate(selector.get(name, [])):
                _check_binaries(report, entry, (*where, name, index))
        _check_process(report, selector, where)


def _check_filters(
    report: Report,
    filters: Sequence[Mapping[str, Any]],
    args: Sequence[Mapping[str, Any]],
    path: FieldPath,
    *,
    by_position: bool = False,
) -> None:
    for number, entry in enumerate(filters):
        where = (*path, number)
        found = _argument(entry, args, by_position=by_position)
        if found is not None:
            _check_filter(report, entry, found.get("type", "auto"), where)
        elif args:
            named = f"args {entry['args']}" if entry.get("args") else f"index {entry.get('index', 0)}"
            report.wrong(where, f"{named} is none of the hook's {len(args)} (`args` counts entries, `index` is theirs)")


def _argument(
    entry: Mapping[str, Any], args: Sequence[Mapping[str, Any]], *, by_position: bool
) -> Mapping[str, Any] | None:
    """Find the entry that a filter speaks of: `index` is the function's position, `args` that in the hook's list."""
    position = entry["args"][0] if entry.get("args") else entry.get("index", 0) if by_position else None
    if position is not None:
        return args[position] if position < len(args) else None
    return next((arg for arg in args if arg["index"] == entry.get("index", 0)), None)


def _check_filter(report: Report, entry: Mapping[str, Any], type_: str, path: FieldPath) -> None:
    operator, values = entry["operator"], entry.get("values", [])
    where = (*path, "operator")
    if type_ == "sockaddr" and operator in _OF_SOCKETS - _OF_SOCKADDR:
        report.wrong(where, f"a sockaddr has one end, called the source: expected one of {_listed(_OF_SOCKADDR)}")
    elif not _fits(operator, type_):
        if type_ in NUMBERS | TEXTS | SOCKETS | _CAPABILITIES or operator not in _PREFIXES | _POSTFIXES:
            report.wrong(where, f"{operator} cannot be asked of {type_}, only one of {_listed(_operators(type_))}")
        else:
            report.warn(where, f"is accepted and ignored on {type_}: everything will match")
    elif not values and operator not in _PRIVILEGED | {"CapabilitiesGained"}:
        report.wrong((*path, "values"), "expected at least one value")
    else:
        _check_values(report, operator, values, type_, (*path, "values"))


def _operators(type_: str) -> frozenset[str]:
    if type_ in NUMBERS:
        return _EQUALITY | _SIZES | _RANGES | _MAPS
    if type_ in TEXTS:
        file = {"FileType", "NotFileType"} if type_ in ("file", "path", "fd", "dentry") else set()
        found = _SUBSTRINGS if type_ in _SEARCHED else {"Family"} if type_ == "sockaddr_un" else set()
        return _EQUALITY | _PREFIXES | _POSTFIXES | file | found
    if type_ in SOCKETS:
        return _OF_SOCKADDR if type_ == "sockaddr" else _OF_SOCKETS
    return _EQUALITY | {"CapabilitiesGained"} if type_ in _CAPABILITIES else frozenset()


def _fits(operator: str, type_: str) -> bool:
    return type_ == "auto" or operator in _FREE or operator in _operators(type_)


def _listed(operators: frozenset[str]) -> str:
    return ", ".join(sorted(operators)) or "none"


def _check_values(report: Report, operator: str, values: Sequence[str], type_: str, path: FieldPath) -> None:
    compared = type_ not in TEXTS | SOCKETS and operator not in _MAPS | _FREE
    if compared and len(values) > _MAX_COMPARED:
        report.wrong(path, f"expected at most {_MAX_COMPARED} values, found {len(values)}: use InMap for more")
    reject = _rejecting(operator, type_)
    for index, value in enumerate(values):
        if reject is not None and (expected := reject(value)):
            report.wrong((*path, index), f"expected {expected}, found {quoted(value)}")


def _rejecting(operator: str, type_: str) -> Callable[[str], str] | None:
    """Return what says why a value of this operator is none."""
    if operator in _LONGEST:
        longest = _LONGEST[operator]
        return lambda text: f"at most {longest} bytes" if len(text.encode()) > longest else ""
    if operator in _ADDRESSES:
        return lambda text: "" if is_network(text) else "an IP address or range, such as 10.96.0.0/12"
    if operator in _PORTS:
        return lambda text: "" if is_ports(text) else "a port or a range of ports, such as 8000:8100"
    if type_ in NUMBERS and operator not in _FREE:
        ranged = operator in _RANGES | _MAPS
        return lambda text: "" if _is_number(text, ranged=ranged) else "a whole number" + " or a range 1:9" * ranged
    return None


def is_network(text: str) -> bool:
    """Whether the agent takes this for an address or range. Bits behind the mask are allowed, as in Go."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def is_ports(text: str) -> bool:
    """Whether this is a port, or two with a colon."""
    ends = text.split(":")
    return len(ends) <= 2 and all(end.isascii() and end.isdecimal() and int(end) <= _MAX_PORT for end in ends)  # noqa: PLR2004 - a range has two ends


def _is_number(text: str, *, ranged: bool) -> bool:
    ends = (
        text.split(":") if ranged and not text.startswith("list:") else [text.removeprefix("list:" if ranged else "")]
    )
    try:
        for end in ends:
            int(end, 0)
    except ValueError:
        return ranged and text.startswith("list:")
    return len(ends) <= 2  # noqa: PLR2004 - a range has two ends


def _check_actions(report: Report, actions: Sequence[Mapping[str, Any]], path: FieldPath) -> None:
    if len(actions) > _MAX_ACTIONS:
        report.wrong(path, f"expected at most {_MAX_ACTIONS} actions, found {len(actions)}")
    for index, action in enumerate(actions):
        where, name = (*path, index), action["action"]
        limit, scope = action.get("rateLimit"), action.get("rateLimitScope")
        if limit and name != "Post":
            report.wrong((*where, "rateLimit"), f"only Post has a rate limit, not {name}")
        elif limit and not is_rate_limit(limit):
            report.wrong((*where, "rateLimit"), f"expected a time such as 30s, 5m or 1h, found {quoted(limit)}")
        if scope and scope not in _SCOPES:
            report.wrong((*where, "rateLimitScope"), f"expected one of {', '.join(_SCOPES)}, found {quoted(scope)}")
        for stack in ("kernelStackTrace", "userStackTrace"):
            if action.get(stack) and name != "Post":
                report.wrong((*where, stack), f"only Post has stack traces, not {name}")
        if name in _GONE:
            report.warn((*where, "action"), f"{name} is deprecated and gone from agents after 1.7")


def is_rate_limit(text: str) -> bool:
    """Whether the agent can read this as a time: digits, then s, m, h or nothing (seconds)."""
    digits = text[:-1] if text[-1:] in tuple("smhSMH") else text
    return digits.isascii() and digits.isdecimal()


def _check_binaries(report: Report, entry: Mapping[str, Any], path: FieldPath) -> None:
    exact = entry["operator"] in ("In", "NotIn")
    if entry.get("followChildren") and not exact:
        report.wrong((*path, "followChildren"), f"only In and NotIn follow children, not {entry['operator']}")
    for index, value in enumerate(entry["values"]):
        where = (*path, "values", index)
        if len(value.encode()) > _MAX_BINARY:
            report.wrong(where, f"expected at most {_MAX_BINARY} bytes, found {len(value.encode())}")
        elif not value.startswith("/") and "Postfix" not in entry["operator"]:
            report.wrong(
                where, f"expected an absolute path, found {quoted(value)}: it is compared with the resolved one"
            )


def _check_process(report: Report, selector: Mapping[str, Any], path: FieldPath) -> None:
    """Judge what a selector says of the process: pids and namespaces."""
    for index, entry in enumerate(selector.get("matchPIDs", [])):
        if len(entry["values"]) > _MAX_PIDS:
            report.wrong((*path, "matchPIDs", index, "values"), f"expected at most {_MAX_PIDS} pids")
    for index, entry in enumerate(selector.get("matchNamespaces", [])):
        where = (*path, "matchNamespaces", index, "values")
        if len(entry["values"]) > _MAX_NAMESPACES:
            report.wrong(where, f"expected at most {_MAX_NAMESPACES} namespaces")
        for number, value in enumerate(entry["values"]):
            if value != "host_ns" and not (value.isascii() and value.isdecimal()):
                report.wrong((*where, number), f"expected host_ns or an inode's number, found {quoted(value)}")
    if len(selector.get("matchNamespaceChanges", [])) > 1:
        report.wrong((*path, "matchNamespaceChanges"), "expected at most 1 item")
