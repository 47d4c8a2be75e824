"""A TracingPolicy's YAML comes in, what the fake needs of it goes out, or an error as the agent words them.

The agent reads strictly: a key twice, an unknown field or kind, a name that Kubernetes would refuse is an error and
nothing is loaded. The schema here ends where only a kernel could tell whether a value is right (hooks, operators).
"""

import re
from dataclasses import dataclass
from typing import Any, Final

import yaml

API_VERSION: Final = "cilium.io/v1alpha1"
KINDS: Final = ("TracingPolicy", "TracingPolicyNamespaced")

_DNS_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_MAX: Final = 253

_Schema = dict[str, Any]
"""Field -> schema of its object, or of each object of its list; None is anything."""


def _fields(names: str, **nested: _Schema) -> _Schema:
    return dict.fromkeys(names.split()) | nested


_METADATA = _fields(
    "name generateName namespace selfLink uid resourceVersion generation creationTimestamp deletionTimestamp"
    " deletionGracePeriodSeconds labels annotations ownerReferences finalizers managedFields"
)
_ARG = _fields("index type label resolve source sizeArgIndex returnCopy maxData btfType overwriteType")
_SELECTOR = _fields(
    "matchPIDs matchArgs matchData matchReturnArgs matchBinaries matchParentBinaries matchNamespaces"
    " matchNamespaceChanges matchCapabilities matchCapabilityChanges matchActions matchReturnActions macros"
)
_HOOK = _fields("message tags", args=_ARG, selectors=_SELECTOR)
_CALL = _HOOK | _fields("call syscall return returnArgAction ignore", data=_ARG, returnArg=_ARG)
_SPEC = _fields(
    "loader lists enforcers selectorsMacros podSelector containerSelector hostSelector",
    kprobes=_CALL,
    fentries=_CALL,
    tracepoints=_HOOK | _fields("subsystem event raw"),
    uprobes=_HOOK | _fields("path symbols offsets addrs refCtrOffsets btfPath return", data=_ARG, returnArg=_ARG),
    usdts=_HOOK | _fields("path provider name btfPath"),
    lsmhooks=_HOOK | _fields("hook"),
    options=_fields("name value"),
)
_POLICY = _fields("apiVersion kind", metadata=_METADATA, spec=_SPEC)

_SENSORS: Final = {
    "kprobes": "generic_kprobe",
    "fentries": "generic_fentry",
    "tracepoints": "generic_tracepoint",
    "uprobes": "generic_uprobe",
    "usdts": "generic_usdt",
    "lsmhooks": "generic_lsm",
    "loader": "__loader__",
}
_ENFORCING: Final = frozenset({"Sigkill", "Signal", "Override", "NotifyEnforcer", "Set"})


class PolicyError(Exception):
    """The agent refuses; its text travels to the client as status UNKNOWN."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a loaded policy shows of itself in ListTracingPolicies."""

    namespace: str
    name: str
    sensors: tuple[str, ...]
    hooks: int
    selects_pods: bool
    enforces: bool
    monitor: bool
    """Option `policy-mode: monitor`: actions are counted, not carried out."""


def parse_policy(text: str) -> Policy:
    """Read one policy. Raises PolicyError."""
    try:
        document = yaml.load(text, Loader=_StrictLoader)  # noqa: S506  # a SafeLoader underneath
    except yaml.YAMLError as error:
        raise PolicyError(f"failed to unmarshal policy: {error}") from error
    if not isinstance(document, dict):
        raise PolicyError("failed to unmarshal policy: not an object")
    kind = document.get("kind")
    if kind not in KINDS or document.get("apiVersion") != API_VERSION:
        raise PolicyError(f"could not find validator for: {document.get('apiVersion')}, Kind={kind}")
    _check_fields(document, _POLICY, "")
    metadata, spec = document.get("metadata") or {}, document.get("spec") or {}
    _check_metadata(metadata, kind)
    return Policy(
        namespace=str(metadata["namespace"]) if kind == KINDS[1] else "",
        name=str(metadata["name"]),
        sensors=tuple(sensor for part, sensor in _SENSORS.items() if spec.get(part)),
        hooks=sum(len(part) for name in _SENSORS if isinstance(part := spec.get(name), list)),
        selects_pods=bool(kind == KINDS[1] or spec.get("podSelector")),
        enforces=bool(_ENFORCING & set(_actions(spec))),
        monitor={"name": "policy-mode", "value": "monitor"} in (spec.get("options") or []),
    )


def _check_fields(value: Any, schema: _Schema | None, path: str) -> None:
    if schema is None or value is None:
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check_fields(item, schema, f"{path}[{index}]")
        return
    if not isinstance(value, dict):
        raise PolicyError(f"validation failed: {path}: must be an object")
    for name, item in value.items():
        where = f"{path}.{name}" if path else str(name)
        if name not in schema:
            raise PolicyError(f'failed to unmarshal policy: unknown field "{where}"')
        _check_fields(item, schema[name], where)


def _check_metadata(metadata: dict[str, Any], kind: str) -> None:
    name = str(metadata.get("name") or "")
    if not name:
        raise PolicyError("validation failed: metadata.name: Required value: name or generateName is required")
    if len(name) > _NAME_MAX or not _DNS_SUBDOMAIN.fullmatch(name):
        raise PolicyError(f'validation failed: metadata.name: Invalid value: "{name}": not an RFC 1123 subdomain')
    if kind == KINDS[1] and not metadata.get("namespace"):
        raise PolicyError("validation failed: metadata.namespace: Required value")
    if kind == KINDS[0] and metadata.get("namespace"):
        raise PolicyError("validation failed: metadata.namespace: Forbidden: not allowed on this type")


def _actions(spec: dict[str, Any]) -> list[str]:
    """Name every action of every selector of every hook."""
    return [
        action.get("action", "")
        for part in _SENSORS
        if isinstance(hooks := spec.get(part), list)
        for hook in hooks
        for selector in hook.get("selectors") or []
        for action in [*(selector.get("matchActions") or []), *(selector.get("matchReturnActions") or [])]
    ]


class _StrictLoader(yaml.SafeLoader):
    """PyYAML keeps the last of several equal keys; the agent refuses them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'key "{key}" already set in map', key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
