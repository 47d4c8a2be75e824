"""What a shipped policy lets its user choose: declarations and given values in, checked values at their places out.

A policy declares its parameters in the annotation `keytrail.io/parameters`, a YAML mapping from name to

    type: networks | ports | paths | suffixes     what each item of the list is
    description: ...
    at: [spec.kprobes[0].selectors[0].matchArgs[0].values]    every place that takes the list
    required: true                                 a policy that means nothing without the user's own values

The default is what stands at those places, so that the file loads as it is, with kubectl or tetra too. A place may end
in `[N:]`: the first N items of the list there stay.
"""

import copy
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keytrail.domain.errors import Problem
from keytrail.domain.shape import FieldPath, described, dotted, quoted, suggestion
from keytrail.tracing.matching import is_network, is_ports
from keytrail.yaml_documents import Document, parse_documents

ANNOTATION = "keytrail.io/parameters"
MAX_ITEMS = 256
"""Above any honest list of ranges, ports or programs; each item is an entry of a BPF map on every node."""
_MAX_PATH, _MAX_SUFFIX = 255, 127
_STEP = re.compile(r"\.?([A-Za-z]+)|\[(\d+)\]|\[(\d+):\]$")


@dataclass(frozen=True, slots=True)
class Kind:
    """What the items of a parameter's list are."""

    expected: str
    accepts: Callable[[str], bool]


KINDS: Mapping[str, Kind] = {
    "networks": Kind("an IP address or range, such as 10.96.0.0/12", is_network),
    "ports": Kind("a port or a range of ports, such as 8000:8100", is_ports),
    "paths": Kind(
        "an absolute path", lambda text: text.startswith("/") and len(text.encode()) <= _MAX_PATH and "\0" not in text
    ),
    "suffixes": Kind(
        "the end of a path, from a /", lambda text: text.startswith("/") and len(text.encode()) <= _MAX_SUFFIX
    ),
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One thing that a user may set."""

    name: str
    type: str
    description: str
    at: tuple[FieldPath, ...]
    """Places of the list; the last step of one is negative when items before it stay: -1 - N."""
    default: tuple[str, ...]
    required: bool = False


def declared(document: Document) -> dict[str, Parameter]:
    """Read a policy's declarations; a wrong one becomes a problem of the document."""
    annotations = document.data["metadata"].get("annotations") or {}
    text = annotations.get(ANNOTATION)
    found: dict[str, Parameter] = {}
    if text is None:
        return found
    where: FieldPath = ("metadata", "annotations", ANNOTATION)
    for name, entry in _entries(document, text, where).items():
        problem = _declaration_problem(entry)
        places = () if problem else tuple(parse_place(place) for place in entry["at"])
        defaults = [] if problem else [_items_at(document.data, place) for place in places]
        if not problem and (None in defaults or any(default != defaults[0] for default in defaults)):
            problem = "expected places that hold lists, the same everywhere"
        if problem:
            document.add(where, f"{name}: {problem}")
        else:
            default = tuple(defaults[0] or ())
            found[name] = Parameter(
                name, entry["type"], entry["description"], places, default, entry.get("required", False)
            )
    return found


def _entries(document: Document, text: object, where: FieldPath) -> dict[str, Any]:
    inner = parse_documents(text, document.path) if isinstance(text, str) else []
    if len(inner) != 1 or inner[0].problems or not isinstance(inner[0].data, dict):
        document.add(where, "expected a YAML mapping from names to parameters")
        return {}
    return dict(inner[0].data)


def _declaration_problem(entry: object) -> str:
    if not isinstance(entry, dict) or not {"type", "description", "at"} <= entry.keys():
        return "expected type, description and at"
    if entry["type"] not in KINDS:
        return f"unknown type {quoted(str(entry['type']))}, {suggestion(str(entry['type']), list(KINDS))}"
    unknown = entry.keys() - {"type", "description", "at", "required"}
    if unknown:
        return f"unknown field {quoted(min(unknown))}"
    return "" if isinstance(entry["at"], list) and entry["at"] else "expected at least one place"


def parse_place(text: str) -> FieldPath:
    """`spec.kprobes[0].values[2:]` -> ("spec", "kprobes", 0, "values", -3)."""
    steps: list[str | int] = []
    for name, index, start in _STEP.findall(text):
        steps.append(name or (int(index) if index else -1 - int(start)))
    return tuple(steps)


def _split(place: FieldPath) -> tuple[FieldPath, int]:
    """Return the path of the list, and how many of its first items stay."""
    last = place[-1]
    return (place[:-1], -1 - last) if isinstance(last, int) and last < 0 else (place, 0)


def _at(data: Any, path: FieldPath) -> Any:
    for step in path:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _items_at(data: Any, place: FieldPath) -> list[str] | None:
    path, kept = _split(place)
    found = _at(data, path)
    return found[kept:] if isinstance(found, list) else None


def given_problems(
    name: str, parameters: Mapping[str, Parameter], given: Mapping[str, object], origin: str
) -> list[Problem]:
    """Say what is wrong with the values that a user gives for the policy `name`; `origin` is where they stand."""
    problems = []
    for key, value in given.items():
        if key not in parameters:
            hint = suggestion(key, list(parameters)) if parameters else f"{name} has none"
            problems.append(Problem(origin, 0, dotted(("parameters", key)), f"unknown parameter, {hint}"))
        else:
            problems += [
                Problem(origin, 0, dotted(("parameters", *path)), message)
                for path, message in _value_problems(parameters[key], value)
            ]
    for parameter in parameters.values():
        if parameter.required and parameter.name not in given:
            message = f"is required: {parameter.description}"
            problems.append(Problem(origin, 0, dotted(("parameters", parameter.name)), message))
    return problems


def _value_problems(parameter: Parameter, value: object) -> list[tuple[FieldPath, str]]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return [
            ((parameter.name,), f"expected a list, each {KINDS[parameter.type].expected}, found {described(value)}")
        ]
    if not value or len(value) > MAX_ITEMS:
        return [((parameter.name,), f"expected 1 to {MAX_ITEMS} items, found {len(value)}")]
    kind = KINDS[parameter.type]
    return [
        ((parameter.name, index), f"expected {kind.expected}, found {described(item)}")
        for index, item in enumerate(value)
        if not kind.accepts(_text(item))
    ]


def _text(item: object) -> str:
    """Take a port written as a number for the text that the resource wants."""
    return str(item) if isinstance(item, str | int) and not isinstance(item, bool) else ""


def _items(parameter: Parameter, value: Sequence[object]) -> list[str]:
    """Return the items as the resource wants them; an IPv4 range twice.

    A dual-stack socket shows an IPv4 peer as ::ffff:a.b.c.d, which the agent looks up among the IPv6 ranges.
    """
    items = [_text(item) for item in value]
    if parameter.type != "networks":
        return items
    networks = [ipaddress.ip_network(item, strict=False) for item in items]
    mapped = [f"::ffff:{one.network_address}/{96 + one.prefixlen}" for one in networks if one.version == 4]  # noqa: PLR2004 - the protocol's number
    return [str(one) for one in networks] + mapped


def placed(
    data: Mapping[str, Any], parameters: Mapping[str, Parameter], given: Mapping[str, Sequence[object]]
) -> dict[str, Any]:
    """Return a copy of the manifest with checked values at their places."""
    made: dict[str, Any] = copy.deepcopy(dict(data))
    for name, value in given.items():
        for place in parameters[name].at:
            path, kept = _split(place)
            _at(made, path)[kept:] = _items(parameters[name], value)
    return made
