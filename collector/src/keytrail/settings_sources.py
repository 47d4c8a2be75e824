"""Where settings come from and how they are shown: file, environment and flags, in rising precedence.

In flow the values of the flags that were given, the environment and perhaps a YAML file; out flows `Settings`, or a
SettingsError with every problem and where it came from. The same declarations make the documented example file and
what `keytrail config show` prints. Where records are sent is not here: OpenTelemetry's own OTEL_ variables say that,
as everywhere. Knows no flag parser; next comes `keytrail.app`.
"""

import json
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from keytrail.domain.errors import SettingsError
from keytrail.domain.shape import ShapeField, check, fields_of, read_fields, suggestion
from keytrail.settings import Settings
from keytrail.yaml_documents import read_documents

PREFIX = "KEYTRAIL_"
FILE_VARIABLE = "KEYTRAIL_SETTINGS"
# Read where they are used: by the sender, since other exporters' settings stand beside it, and by the test suite.
_NOT_SETTINGS = frozenset({FILE_VARIABLE, "KEYTRAIL_OTLP_HEADERS_FILE", "KEYTRAIL_REQUIRE_CLUSTER"})
# The kubelet gives every Pod such variables for each Service of its namespace; one called keytrail is likely.
_SERVICE_LINK = re.compile(r"KEYTRAIL_(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)?)")
_MASK = "[masked]"

_FLAGS = {
    "agent_address": "--agent",
    "event_kinds": "--kind",
    "namespaces": "--namespace",
    "pods": "--pod",
    "binaries": "--binary",
    "redact_patterns": "--redact-pattern",
}
_FIELDS: dict[str, ShapeField] = {one.name: one for one in fields_of(Settings)}


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def flag_of(name: str) -> str:
    """Return the flag of a setting; one that may be repeated is in the singular."""
    return _FLAGS.get(name, "--" + name.replace("_", "-"))


def load_settings(argv_values: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None) -> Settings:
    """Return the settings in force; raise SettingsError with everything that is wrong with them.

    `argv_values` are flags by field name, None for one that was not given; text and typed values are both fine.
    `file` is that of `--settings`, which outranks KEYTRAIL_SETTINGS.
    """
    if file is None and environ.get(FILE_VARIABLE):
        file = Path(environ[FILE_VARIABLE])
    gathered = _Gathered()
    if file is not None:
        gathered.take_file(file)
    variables = {
        variable.removeprefix(PREFIX).lower(): text
        for variable, text in environ.items()
        if variable.startswith(PREFIX) and variable not in _NOT_SETTINGS and not _SERVICE_LINK.fullmatch(variable)
    }
    # As OpenTelemetry has it for its variables, an empty one is as good as none.
    gathered.take({name: text for name, text in variables.items() if text}, "environment", variable_of)
    gathered.take({name: value for name, value in argv_values.items() if value is not None}, "flag", flag_of)
    return gathered.settings()


class _Gathered:
    """What the origins gave so far: a later one outranks an earlier one, and even an outranked value must be right."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._origins: dict[str, str] = {}
        self._problems: list[str] = []

    def take_file(self, file: Path) -> None:
        """Take the settings of a YAML file."""
        documents = read_documents(file)
        for document in documents[1:]:
            document.add((), "expected one YAML document")
        for document in documents:
            if isinstance(document.data, dict) and {"apiVersion", "kind"} <= document.data.keys():
                document.add((), "this is a manifest, and no settings: --config takes the folder that it is in")
            if document.data is not None and not document.problems:
                values, faults = read_fields(Settings, document.data)
                for fault in faults:
                    document.add_fault(fault)
                self._values.update(values)
                self._origins.update({name: f"file {file}:{document.line_of((name,))}" for name in values})
            self._problems += map(str, document.in_order())

    def take(self, given: Mapping[str, object], origin: str, spell: Callable[[str], str]) -> None:
        """Take settings that an origin gives one by one, most of them as text."""
        known = {name: _from_text(_FIELDS[name], value) for name, value in given.items() if name in _FIELDS}
        values, faults = read_fields(Settings, known)
        self._problems += [f"{spell(str(fault.path[0]))}: {fault.message}" for fault in faults]
        for name in given:
            if name not in _FIELDS:
                near = suggestion(spell(name), list(map(spell, _FIELDS)))
                self._problems.append(f"{spell(name)}: unknown setting, {near}")
        self._values.update(values)
        self._origins.update({name: f"{origin} {spell(name)}" for name in values})

    def settings(self) -> Settings:
        """Return the settings, once nothing is wrong with them."""
        if not self._problems:
            made = Settings(**self._values, origins=types.MappingProxyType(self._origins))
            for fault in check(made):
                kind, _, place = self._origins[fault.field].partition(" ")
                where = f"{place}: {fault.field}" if kind == "file" else place
                self._problems.append(f"{where}: {fault.message}")
            if not self._problems:
                return made
        raise SettingsError("\n".join(self._problems))


def _inner(type_: Any) -> Any:
    """Return the type of a field without `| None`."""
    return typing.get_args(type_)[0] if isinstance(type_, types.UnionType) else type_


def _from_text(field_: ShapeField, value: object) -> object:
    """Turn what a variable or flag gives into what a file would; what cannot be turned is refused later."""
    type_ = _inner(field_.type)
    if typing.get_origin(type_) is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        # An expression may hold commas of its own: one variable or flag, one expression.
        split = field_.doc.format is None
        return [part for item in items for part in (map(str.strip, str(item).split(",")) if split else [str(item)])]
    if isinstance(value, Path):
        return str(value)
    if not isinstance(value, str):
        return value
    if type_ is bool:
        return _WORDS.get(value.lower(), value)
    try:
        return type_(value) if type_ in {int, float} else value
    except ValueError:
        return value


_WORDS = {**dict.fromkeys(("true", "1", "yes", "on"), True), **dict.fromkeys(("false", "0", "no", "off"), False)}


def show(settings: Settings, environ: Mapping[str, str], export: Iterable[tuple[str, str, str]] = ()) -> str:
    """Return every setting in force and where it came from, as YAML that is a settings file again.

    `export` are the effective settings of the OTLP exporter: name, value, origin. Variables of OpenTelemetry that it
    leaves out are shown as they stand in the environment. Both may be given raw: whatever may hold a secret is masked.
    """
    rows = [(f"{name}: {_yaml(name, settings)}", settings.origins.get(name, "default")) for name in _FIELDS]
    exported = list(export)
    named = {name for name, _, _ in exported}
    exported += [
        (name, environ[name], "environment")
        for name in sorted(environ)
        if name.startswith("OTEL_") and name not in named
    ]
    width = max(len(row) for row, _ in rows)
    lines = [f"{row:<{width}}  # {origin}" for row, origin in rows]
    lines += ["", "# OpenTelemetry:"] if exported else []
    own = settings.redact_patterns
    lines += [f"# {name} = {json.dumps(masked(name, value, own))}  ({origin})" for name, value, origin in exported]
    return "\n".join(lines) + "\n"


def masked(name: str, value: str, own: Iterable[str] = ()) -> str:
    """Return a value that may be shown: of headers only the names, of a URL no user-info, of a secret nothing.

    `own` are the user's expressions for further secrets.
    """
    from keytrail.decode.redact import MARK, Redactor  # its patterns take 0.1 s to compile, and few commands show this

    words = name.upper().replace("-", "_")
    if "HEADERS" in words:
        pairs = (part.partition("=") for part in value.split(","))
        return ",".join(f"{key.strip()}={_MASK}" if equals else _MASK for key, equals, _ in pairs)
    if "-----BEGIN" in value or re.search("PASSWORD|TOKEN|SECRET|API_KEY|AUTHORIZATION", words):
        return _MASK
    return Redactor(own).redact(re.sub(r"://[^/?#]*@", f"://{_MASK}@", value))[0].replace(MARK, _MASK)


def _yaml(name: str, settings: Settings) -> str:
    return masked(name, json.dumps(getattr(settings, name), default=str))


def example_settings() -> str:
    """Return a settings file with every setting, its meaning and its default, all commented out."""
    blocks = ["# Settings of the Keytrail collector. Rising precedence: this file, environment variables, flags.\n"]
    defaults = Settings()
    for name, one in _FIELDS.items():
        values = ", ".join(_values_of(one.type))
        facts = {
            "Unit": one.doc.unit,
            "Values": values,
            "Example": json.dumps(one.doc.example),
            "Variable": variable_of(name),
        }
        texts = (one.doc.description, " ".join(f"{what}: {fact}." for what, fact in facts.items() if fact))
        comments = "\n".join(textwrap.indent(textwrap.fill(text, 110), "# ") for text in texts)
        blocks.append(f"{comments}\n#{name}: {_yaml(name, defaults)}\n")
    return "\n".join(blocks)


def _values_of(type_: Any) -> list[str]:
    arguments = [_inner(type_), *typing.get_args(type_)]
    enums = [one for one in arguments if isinstance(one, type) and issubclass(one, Enum)]
    return [str(member.value) for one in enums for member in one]
