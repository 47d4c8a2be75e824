"""An event made of plain data, by the names that conditions use: for the tests that rules carry.

A mapping such as `{process: {binary: /bin/sh}}` comes in, an `Event` that answers every field of the environment goes
out, or a Fault for a name that there is not. Fields that follow from others cannot be given. Knows no rule.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Final

from keytrail.domain.declared import SecretKey
from keytrail.domain.event import (
    Credentials,
    Details,
    Event,
    EventKind,
    EventType,
    Exit,
    FileAccess,
    HookArgument,
    Network,
    Operation,
    Payload,
)
from keytrail.domain.identity import Attribution, Evidence, EvidenceKind, Strength, Unknown
from keytrail.domain.peer import Peer, PeerKind
from keytrail.domain.placement import Partial, Placement
from keytrail.domain.process import Container, Pod, Process
from keytrail.domain.resources import Allowed
from keytrail.domain.shape import Fault, FieldPath, described, read, suggestion

_BASE_NS: Final = 1_790_000_000_000_000_000
_PROCESS: Final = (
    *("binary", "arguments", "cwd", "pid", "uid", "auid", "exec_id", "parent_exec_id", "container_id"),
    *("flags", "in_init_tree", "argument_credentials", "environment", "partial", "claimed_pod"),
)
_CONTAINER: Final = {"container": "name", "container_id": "id", "image": "image", "privileged": "privileged"}
_POD: Final = (
    *("namespace", "name", "uid", "workload", "workload_kind", "service_account", "labels"),
    *("host_network", "exec_commands", "maybe_exec_probe"),
)
_EVENT: Final = ("kind", "type", "function", "policy", "node", "tid", "returned", "action", "tags", "build_id", "at")
_IDENTITY: Final = {
    "id": "identity_id",
    "kind": "identity_kind",
    "provider": "provider",
    "owner": "owner",
    "mapping": "mapping",
    "mapped": "mapped",
    "strength": "strength",
    "evidence": "kind",
    "name": "name",
    "secret": "secret",
    "undeclared": "undeclared",
    "outside_secret": "outside_secret",
}
"""Name in conditions to attribute of the evidence."""
_ALLOWED: Final = "allowed"
"""As in a mapping: what `violations` follows from."""
_ARGUMENT: Final = ("index", "label", "type", "int", "text")
_PARTS: Final[dict[str, tuple[type, dict[str, object]]]] = {
    "network": (Network, {}),
    "file": (FileAccess, {"path": "", "access": ""}),
    "payload": (Payload, {}),
    "operation": (Operation, {"name": ""}),
    "exit": (Exit, {}),
    "credentials": (Credentials, {"uid": 0, "gid": 0, "euid": 0, "egid": 0}),
    "peer": (Peer, {"kind": PeerKind.UNKNOWN}),
}
_NAMES: Final = (
    "event",
    "process",
    "parent",
    "ancestors",
    "pod",
    *_PARTS,
    "identity",
    "identities",
    "attribution",
    "args",
)


class MadeEvent(Event):
    """An event with fixed parts."""

    __slots__ = ("_ancestors", "_arguments", "_credentials", "_details", "_peer")

    def __init__(  # noqa: PLR0917 - one caller, below
        self,
        head: Mapping[str, Any],
        process: Process,
        ancestors: tuple[Process, ...],
        details: Details,
        credentials: Credentials | None,
        arguments: tuple[HookArgument, ...],
        peer: Peer | None,
    ) -> None:
        super().__init__(
            EventKind(head["kind"]),
            EventType(head.get("type", "kprobe")),
            process,
            time_ns=_BASE_NS + int(head.get("at", 0) * 1_000_000_000),
            function=head.get("function", ""),
            node=head.get("node", "node-1"),
            parent=ancestors[0] if ancestors else None,
            policy=head.get("policy", ""),
            tid=head.get("tid", process.pid),
        )
        self._ancestors = ancestors
        self._details = details
        self._credentials = credentials
        self._arguments = arguments
        self._peer = peer

    @property
    def details(self) -> Details:
        """What the kind adds."""
        return self._details

    @property
    def credentials(self) -> Credentials | None:
        """Ids and capabilities at exec."""
        return self._credentials

    @property
    def arguments(self) -> tuple[HookArgument, ...]:
        """The hook's arguments."""
        return self._arguments

    @property
    def peer(self) -> Peer | None:
        """The other end."""
        return self._peer

    def ancestors(self) -> Iterator[Process]:
        """Parent first."""
        return iter(self._ancestors)


class MadeEventError(Exception):
    """The data describes no event; `fault` says where."""

    def __init__(self, path: FieldPath, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(path, message)


def made_event(data: Mapping[str, Any], default_kind: EventKind) -> MadeEvent:
    """Make an event. Raises MadeEventError."""
    _known(data, _NAMES, ())
    head = {"kind": default_kind, **_mapping(data, "event", _EVENT)}
    _known({head["kind"]: None}, tuple(EventKind), ("event", "kind"))
    if "type" in head:
        _known({head["type"]: None}, tuple(EventType), ("event", "type"))
    elif head["kind"] in {"exec", "exit"}:
        head["type"] = head["kind"]
    process = _process(_mapping(data, "process", (*_PROCESS, "preexisting")), _pod(data))
    above = list(data.get("ancestors", ()))
    if "parent" in data:
        above.insert(0, data["parent"])
    elif not above and process.parent_exec_id:
        above = [{"exec_id": process.parent_exec_id}]
    ancestors = tuple(
        _process(_checked(one, _PROCESS, ("ancestors", index)), None, 1000 + index) for index, one in enumerate(above)
    )
    process.attribution = _attribution(data)
    parts = {name: _part(data, name, *shape) for name, shape in _PARTS.items() if name in data}
    credentials, peer = parts.pop("credentials", None), parts.pop("peer", None)
    if peer is not None:
        peer = replace(peer, kind=PeerKind(peer.kind))
    details = Details(
        **parts,
        returned=head.get("returned"),
        action=head.get("action", ""),
        tags=tuple(head.get("tags", ())),
        build_id=head.get("build_id", ""),
    )
    arguments = tuple(_argument(one, index) for index, one in enumerate(data.get("args", ())))
    return MadeEvent(head, process, ancestors, details, credentials, arguments, peer)


def _process(given: Mapping[str, Any], pod: Pod | None, pid: int = 100) -> Process:
    values = {"pid": pid, "exec_id": f"process-{given.get('pid', pid)}", **given}
    values["argument_credentials"] = tuple(values.get("argument_credentials", ()))
    values["environment"] = tuple(values["environment"]) if "environment" in values else None
    if values.pop("preexisting", False):
        values["flags"] = f"procFS {values.get('flags', '')}".strip()
    partial, claimed = values.pop("partial", ""), values.pop("claimed_pod", "")
    made = Process(values.pop("exec_id"), pod=pod, **values)
    if partial or claimed:
        made.placement = Placement(Partial(partial) if partial else None, claimed=claimed)
    return made


def _pod(data: Mapping[str, Any]) -> Pod | None:
    if "pod" not in data:
        return None
    given = _mapping(data, "pod", (*_POD, *_CONTAINER))
    container = Container(**{_CONTAINER[name]: value for name, value in given.items() if name in _CONTAINER})
    return Pod(
        **{"namespace": "", "name": "", **{name: _frozen(given[name]) for name in _POD if name in given}},
        container=container,
    )


def _attribution(data: Mapping[str, Any]) -> Attribution | None:
    unknown = _mapping(data, "attribution", ("unknown",)).get("unknown")
    if unknown is not None:
        return Attribution(unknown=Unknown(unknown))
    given = ([data["identity"]] if "identity" in data else []) + list(data.get("identities", ()))
    if not given:
        return None
    return Attribution(tuple(_evidence(_checked(one, (*_IDENTITY, _ALLOWED), ("identity",))) for one in given))


def _evidence(given: Mapping[str, Any]) -> Evidence:
    values: dict[str, Any] = {"kind": "env", "name": "", "identity_id": "", "strength": "observed"}
    values |= {_IDENTITY[name]: value for name, value in given.items() if name != _ALLOWED}
    if _ALLOWED in given:
        allowed, faults = read(Allowed, given[_ALLOWED])
        if allowed is None:
            raise MadeEventError(("identity", _ALLOWED, *faults[0].path), faults[0].message)
        values[_ALLOWED] = (allowed,)
    if "secret" in values:
        values["secret"] = SecretKey(*str(values["secret"]).split("/", 2))
    return Evidence(**values | {"kind": EvidenceKind(values["kind"]), "strength": Strength[values["strength"].upper()]})


def _part(data: Mapping[str, Any], name: str, type_: type, defaults: Mapping[str, object]) -> Any:
    given = _mapping(data, name, tuple(field.name for field in fields(type_)))
    return type_(**{**defaults, **{key: _frozen(value) for key, value in given.items()}})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _argument(data: object, index: int) -> HookArgument:
    given = _checked(data, _ARGUMENT, ("args", index))
    value = given.get("int", given.get("text", ""))
    type_ = given.get("type", "int" if "int" in given else "string")
    return HookArgument(given.get("index", index), given.get("label", ""), type_, value)


def _mapping(data: Mapping[str, Any], name: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    return _checked(data.get(name, {}), known, (name,))


def _checked(data: object, known: tuple[str, ...], path: FieldPath) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise MadeEventError(path, f"expected a mapping, found {described(data)}")
    _known(data, known, path)
    return data


def _known(data: Mapping[str, Any], known: tuple[str, ...], path: FieldPath) -> None:
    for name in data:
        if name not in known:
            inside = not path and name in _EVENT  # of the parts of an event, `event` is the one whose name is left out
            near = f"did you mean event.{name}?" if inside else suggestion(str(name), [str(one) for one in known])
            raise MadeEventError((*path, str(name)), f"unknown field, {near}")
