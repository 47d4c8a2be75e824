"""Plain data in, a typed object or everything that is wrong with it out.

In flows what a YAML file or the API server's JSON became: dicts, lists and scalars. Out flows a frozen dataclass, or a
list of faults, each with its path. A shape is a dataclass whose fields are `Annotated[type, Doc(...)]`: the class is
the one description of a resource or of the settings, from which parsing, schemas and documentation follow. Rules that
look at more than one field stand in the class variable `RULES`.

Bad data never raises: it comes from users, and one wrong object must not hide the others' faults. Values are quoted
sparingly, since a credential pasted into the wrong field must not travel on inside an error message.

Knows no YAML, no files and no lines: `keytrail.manifests` finds the line that belongs to a path.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any, ClassVar, Protocol, TypeVar

import re2

FieldPath = tuple[str | int, ...]
"""Field names and list indexes from the top, as the data spells them."""

_LONGEST_QUOTE = 24
_UNKNOWN_SHOWN = 20
_LARGEST_SHOWN = 10**20
_MISSING = dataclasses.MISSING


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with the data."""

    path: FieldPath
    message: str
    """What was expected and what was found."""
    wants_text: bool = False
    """Text was expected and something else found: in YAML, quotes are probably missing."""

    @property
    def field(self) -> str:
        """The path as people write it, `spec.evidence.env[0].name`."""
        return dotted(self.path)


@dataclass(frozen=True, slots=True)
class Format:
    """A check of a text that no pattern can express."""

    name: str
    """As schemas call it."""
    expected: str
    """What such a text is, for messages."""
    reject: Callable[[str], str]
    """Why a text is none; empty when it is one."""
    cel: str = ""
    """The same check as the API server runs it: CEL that is true when `{text}` is one."""
    cel_message: str = ""
    """CEL for what to say when `{text}` is none; empty for `expected`."""


@dataclass(frozen=True, slots=True, eq=False)  # hashed by identity: `Annotated` is hashed, an example may be a dict
class Doc:
    """What a field means and which values it takes. Bounds on text and numbers hold for the items of a list."""

    description: str
    example: object
    """As written in a manifest."""
    _: KW_ONLY
    unit: str = ""
    min_length: int = 1
    """Characters. Text that is given must say something, unless 0 is put here."""
    max_length: int | None = None
    min_items: int = 0
    max_items: int | None = None
    key: str = ""
    """Field that tells the items of a list apart: no two may have the same."""
    minimum: float | None = None
    maximum: float | None = None
    pattern: str = ""
    """RE2, matched against the whole text. The API server's schema patterns are RE2 too, so both judge alike."""
    expected: str = ""
    """The pattern in words."""
    format: Format | None = None
    immutable: bool = False
    """May not change once the object exists."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds between the fields of a shape. Fields are named as in the data."""

    exactly_one_of: tuple[str, ...] = ()
    at_least_one_of: tuple[str, ...] = ()
    at_most_one_of: tuple[str, ...] = ()
    ignored: frozenset[str] = frozenset()
    """Allowed in the data and not read, such as what the API server adds to an object."""
    checks: tuple[Callable[[Any], Iterable[Fault]], ...] = ()
    """Run on the finished object, once all of its fields could be read; their paths start at it."""
    naming: Callable[[str], str] | None = None
    """From Python's field name to the data's; Kubernetes' camelCase when left out."""


class Shape(Protocol):
    """Any dataclass whose fields carry a `Doc`."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


ShapeT = TypeVar("ShapeT", bound=Shape)


@dataclass(frozen=True, slots=True)
class ShapeField:
    """One declared field."""

    attribute: str
    name: str
    type: Any
    doc: Doc
    default: Any
    """`dataclasses.MISSING` when the field is required."""


def camel_case(name: str) -> str:
    """`service_accounts` -> `serviceAccounts`."""
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def rules_of(cls: type) -> Rules:
    """Return the rules declared by a shape, or none at all."""
    rules = getattr(cls, "RULES", None)
    return rules if isinstance(rules, Rules) else Rules()


@functools.cache
def fields_of(cls: type) -> tuple[ShapeField, ...]:
    """Return what a shape declares, in order. Fields without a `Doc` are Python's own business and left out."""
    hints = typing.get_type_hints(cls, include_extras=True)
    naming = rules_of(cls).naming or camel_case
    found = []
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        doc = next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Doc)), None)
        if doc is not None:
            default = field.default if field.default_factory is _MISSING else field.default_factory()
            found.append(ShapeField(field.name, naming(field.name), typing.get_args(hint)[0], doc, default))
    return tuple(found)


def read(cls: type[ShapeT], data: object, path: FieldPath = ()) -> tuple[ShapeT | None, list[Fault]]:
    """Return the object, or None and everything that is wrong with the data."""
    values, faults = read_fields(cls, data, path)
    if faults:
        return None, faults
    made = cls(**values)
    faults = check(made, path)
    return (None if faults else made), faults


def check(made: Shape, path: FieldPath = ()) -> list[Fault]:
    """Run the rules of a shape that look at a whole object."""
    rules = rules_of(type(made))
    return [dataclasses.replace(fault, path=path + fault.path) for rule in rules.checks for fault in rule(made)]


def read_fields(cls: type, data: object, path: FieldPath = ()) -> tuple[dict[str, Any], list[Fault]]:
    """Return the values that the data gives, by Python's field names, and everything that is wrong with them."""
    if not isinstance(data, Mapping):
        return {}, [Fault(path, f"expected a mapping, found {described(data)}")]
    # A null is an absent field, as it is to the API server.
    given = {str(key): value for key, value in data.items() if value is not None}
    faults = _unknown(cls, given, path) + _counted(cls, given, path)
    values = {}
    for field in fields_of(cls):
        if field.name in given:
            values[field.attribute] = _value(field.type, field.doc, given[field.name], (*path, field.name), faults)
        elif field.default is _MISSING:
            example = f", for example {field.doc.example}" if isinstance(field.doc.example, str | int) else ""
            faults.append(Fault((*path, field.name), f"is required{example}"))
    return values, faults


def _unknown(cls: type, given: Mapping[str, object], path: FieldPath) -> list[Fault]:
    known = [field.name for field in fields_of(cls)]
    unknown = [name for name in given if name not in known and name not in rules_of(cls).ignored]
    faults = [Fault((*path, name), f"unknown field, {suggestion(name, known)}") for name in unknown[:_UNKNOWN_SHOWN]]
    if len(unknown) > _UNKNOWN_SHOWN:
        faults.append(Fault(path, f"{len(unknown) - _UNKNOWN_SHOWN} more unknown fields"))
    return faults


def _counted(cls: type, given: Mapping[str, object], path: FieldPath) -> list[Fault]:
    rules, faults = rules_of(cls), []
    for words, names, lowest in (("exactly", rules.exactly_one_of, 1), ("at most", rules.at_most_one_of, 0)):
        found = [name for name in names if name in given]
        if names and not lowest <= len(found) <= 1:
            shown = " and ".join(found) or "none"
            faults.append(Fault(path, f"expected {words} one of {', '.join(names)}, found {shown}"))
    if rules.at_least_one_of and not any(given.get(name) for name in rules.at_least_one_of):
        faults.append(Fault(path, f"expected at least one of {', '.join(rules.at_least_one_of)}, found none"))
    return faults


def _value(type_: Any, doc: Doc, data: object, path: FieldPath, faults: list[Fault]) -> Any:  # noqa: PLR0911 - one return for each type
    """Read one value; append what is wrong with it. The value is meaningless when something was appended."""
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin in (types.UnionType, typing.Union):
        inner = next(argument for argument in arguments if argument is not types.NoneType)
        return _value(inner, doc, data, path, faults)
    if origin is tuple:
        return _items(arguments[0], doc, data, path, faults)
    if origin is not None:
        return _entries(arguments[1], doc, data, path, faults)
    if type_ is object:
        return data
    if isinstance(type_, type) and dataclasses.is_dataclass(type_):
        made, found = read(type_, data, path)
        faults.extend(found)
        return made
    if issubclass(type_, Enum):
        return _member(type_, data, path, faults)
    textual = issubclass(type_, str | PurePath)
    message = _text_fault(doc, data) if textual else _number_fault(type_, doc, data)
    if message:
        faults.append(Fault(path, message, wants_text=textual and not isinstance(data, str)))
        return None
    return type_(data)


def _items(type_: Any, doc: Doc, data: object, path: FieldPath, faults: list[Fault]) -> tuple[Any, ...]:
    if not isinstance(data, Sequence) or isinstance(data, str | bytes):
        faults.append(Fault(path, f"expected a list, found {described(data)}"))
        return ()
    if len(data) < doc.min_items:
        faults.append(Fault(path, f"expected at least {doc.min_items} in the list or no list, found {len(data)}"))
    if doc.max_items is not None and len(data) > doc.max_items:
        faults.append(Fault(path, f"expected at most {doc.max_items} items, found {len(data)}"))
        return ()
    faults += _repeated(doc.key, data, path) if doc.key else ()
    return tuple(_value(type_, doc, item, (*path, index), faults) for index, item in enumerate(data))


def _repeated(key: str, items: Sequence[object], path: FieldPath) -> Iterator[Fault]:
    seen = set()
    for index, item in enumerate(items):
        value = item.get(key) if isinstance(item, Mapping) else None
        if isinstance(value, str) and value in seen:
            yield Fault((*path, index, key), f"{quoted(value)} is given twice")
        elif isinstance(value, str):
            seen.add(value)


def _entries(type_: Any, doc: Doc, data: object, path: FieldPath, faults: list[Fault]) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        faults.append(Fault(path, f"expected a mapping, found {described(data)}"))
        return {}
    if doc.max_items is not None and len(data) > doc.max_items:
        faults.append(Fault(path, f"expected at most {doc.max_items} entries, found {len(data)}"))
        return {}
    return {str(key): _value(type_, doc, value, (*path, str(key)), faults) for key, value in data.items()}


def _member(type_: type[Enum], data: object, path: FieldPath, faults: list[Fault]) -> Enum | None:
    known = {str(member.value): member for member in type_}
    if isinstance(data, str) and data in known:
        return known[data]
    found = quoted(data) if isinstance(data, str) else described(data)
    hint = suggestion(data if isinstance(data, str) else "", list(known))
    faults.append(Fault(path, f"unknown value {found}, {hint}", wants_text=not isinstance(data, str)))
    return None


def _text_fault(doc: Doc, data: object) -> str:
    expected = doc.expected or (doc.format.expected if doc.format else "text")
    if not isinstance(data, str):
        return f"expected {expected}, found {described(data)}"
    if len(data) < doc.min_length:
        return f"expected {expected}, found {'nothing' if not data else f'only {len(data)} characters'}"
    if doc.max_length is not None and len(data) > doc.max_length:
        return f"expected at most {doc.max_length} characters, found {len(data)}"
    if not data.isascii() and any("\ud800" <= char <= "\udfff" for char in data):
        return f"expected {expected}, found half of a surrogate pair, which no encoding can carry"
    if doc.pattern and not re2.fullmatch(doc.pattern, data):
        return f"expected {expected}, found {quoted(data)}"
    reason = doc.format.reject(data) if doc.format and data else ""
    return f"expected {expected}, found {quoted(data)}: {reason}" if reason else ""


def _number_fault(type_: type, doc: Doc, data: object) -> str:
    if type_ is bool:
        return "" if isinstance(data, bool) else f"expected true or false, found {described(data)}"
    expected = "a whole number" if type_ is int else "a number"
    if doc.unit:
        expected += f" of {doc.unit}"
    if doc.minimum is not None and doc.maximum is not None:
        expected += f" from {doc.minimum} to {doc.maximum}"
    # bool is a kind of int to Python, not to anybody who writes a port.
    fits = isinstance(data, int | float) and not isinstance(data, bool) and (type_ is float or isinstance(data, int))
    if fits and isinstance(data, int | float):
        low = -math.inf if doc.minimum is None else doc.minimum
        high = math.inf if doc.maximum is None else doc.maximum
        fits = low <= data <= high and not (isinstance(data, float) and math.isinf(data))
    return "" if fits else f"expected {expected}, found {described(data)}"


def suggestion(name: str, known: Sequence[str]) -> str:
    """Say which valid name was probably meant, or all of them when none is near."""
    import difflib  # 0.2 MB for a slip of somebody's hand

    folded = {valid.lower(): valid for valid in known}
    near = difflib.get_close_matches(name[:64].lower(), folded, n=1)
    return f"did you mean {folded[near[0]]}?" if near else f"expected one of {', '.join(known)}"


def described(data: object) -> str:
    """Say what kind of value this is, with the value where it is short and plain."""
    if isinstance(data, bool):
        return f"the boolean {str(data).lower()}"
    if isinstance(data, int | float):
        # Python refuses to print integers of thousands of digits.
        return f"the number {data}" if not abs(data) >= _LARGEST_SHOWN else "a very large number"
    if isinstance(data, str):
        return f"text {quoted(data)}"
    if isinstance(data, Mapping | list | tuple):
        return "a mapping" if isinstance(data, Mapping) else "a list"
    return "nothing" if data is None else f"a {type(data).__name__}"


def quoted(text: str) -> str:
    """Quote text for a message: escaped, without what follows an equals sign, and only the start of what is long."""
    shown, equals, _ = text.partition("=")
    if len(shown) > _LONGEST_QUOTE:
        return f"{shown[:8] + '…'!r} ({len(text)} characters)"
    return repr(shown + "=…" if equals else shown)


def dotted(path: FieldPath) -> str:
    """Write a path as people do: `spec.evidence.env[0].name`; keys that are no plain names are quoted."""
    parts = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif step.replace("_", "a").isalnum() and len(step) <= _LONGEST_QUOTE and step.isascii():
            parts.append(f".{step}")
        else:
            parts.append(f"[{quoted(step)}]")
    return "".join(parts).removeprefix(".")


def _reject_pattern(text: str) -> str:
    options = re2.Options()
    options.log_errors = False  # RE2 writes to standard error by default
    try:
        re2.compile(text, options=options)
    except re2.error as error:
        # RE2 gives bytes, `what is wrong: the place`, and the place may be the whole expression.
        reason, _, place = b"".join(error.args).decode("utf-8", "replace").partition(": ")
        return f"{reason} {quoted(place)}" if place else reason
    return ""


# Go's regular expressions, which CEL takes, have RE2's syntax; one that is none is an error of `matches`.
RE2_EXPRESSION = Format(
    "re2", "a regular expression in RE2's syntax", _reject_pattern, "''.matches({text}) in [true, false]"
)
