"""YAML text in, plain data with the line of each field out: as kubectl reads it, and safe on text from anywhere.

Manifests, settings and TracingPolicies come through this one door. It knows nothing of what a document means.
"""

import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer

from keytrail.domain.errors import Problem
from keytrail.domain.shape import Fault, FieldPath, dotted, quoted

MAX_FILE_BYTES = 4 * 1024 * 1024
"""Far above the 1.5 MiB that an API server stores of one object."""
MAX_NODES = 200_000
"""Values of one file after its aliases are written out: ten nested aliases can stand for more than memory holds."""
MAX_DEPTH = 60
"""Nesting of one document; keeps the recursion, ours and PyYAML's, far from Python's limit."""

_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Resolves plain words as kubectl does, which is neither YAML 1.2 nor PyYAML.

    kubectl's parser (sigs.k8s.io/yaml, a fork of yaml.v2) takes y, n, yes, no, on and off as booleans and 1e3 as a
    number; it leaves dates and 12:30:00 as text. PyYAML differs in all of y, n, 1e3, dates and 12:30:00: a manifest
    would mean one thing here and another in a cluster.
    """


class _QuickLoader(Composer, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # one of the two
    """The same on libyaml's parser, if PyYAML was built with it: most of a start with all shipped rules is this.

    Composed in Python: libyaml's side of that recurses until the process has no stack left. What its parser refuses is
    read again by PyYAML's, whose words users see either way. It takes a little more, such as tabs inside of plain
    text, as does kubectl's, which is a translation of it.
    """

    def __init__(self, text: str) -> None:
        super(Composer, self).__init__(text)
        Composer.__init__(self)


_Loader.yaml_implicit_resolvers = _QuickLoader.yaml_implicit_resolvers = {}


_BOOL = r"y|Y|yes|Yes|YES|on|On|ON|true|True|TRUE|n|N|no|No|NO|off|Off|OFF|false|False|FALSE"
_INT = r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0o[0-7_]+|0[0-7_]*|[1-9][0-9_]*)"
_FLOAT = r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
# The first that matches decides, so that an integer is no float.
for _name, _regexp, _first in (
    ("bool", _BOOL, "yYnNtTfFoO"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", "<<", "<"),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_regexp})$"), list(_first))


class _UnfitError(Exception):
    """A file is none that an honest user would give: no file at all, far too large, or far too deep."""


@dataclass(slots=True)
class Document:
    """One YAML document as plain data, and where each of its fields stands."""

    path: str
    """The file, as the user named it."""
    line: int
    data: Any = None
    lines: dict[FieldPath, int] = field(default_factory=dict)
    words: dict[FieldPath, str] = field(default_factory=dict)
    """Unquoted words that YAML did not take as text, as written."""
    problems: list[Problem] = field(default_factory=list)
    nodes: int = 0
    """Values so far."""

    def add(self, path: FieldPath, message: str, line: int = 0) -> None:
        """Add a problem, on the line of the field or of the nearest field around it."""
        self.problems.append(Problem(self.path, line or self.line_of(path), dotted(path), message))

    def add_fault(self, fault: Fault) -> None:
        """Add what a shape found wrong."""
        word = self.words.get(fault.path)
        quotes = fault.wants_text and word is not None
        hint = f"; YAML does not take the unquoted word {word} as text, write {_in_quotes(word)}" if quotes else ""
        self.add(fault.path, fault.message + hint)

    def in_order(self) -> list[Problem]:
        """Return the problems from the top of the file to its end."""
        return sorted(self.problems, key=lambda problem: problem.line)

    def line_of(self, path: FieldPath) -> int:
        """Return the 1-based line of a field; that of what should have held it when it is missing."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return self.line


def _in_quotes(word: str | None) -> str:
    return f'"{word}"'


def read_documents(path: Path) -> list[Document]:
    """Return the documents of a YAML or JSON file; whatever is wrong with it stands in their `problems`.

    Empty documents have None as data.
    """
    try:
        text = _text(path)
    except (OSError, UnicodeDecodeError, _UnfitError) as error:
        return [_broken(str(path), error, "")]
    return parse_documents(text, str(path))


def parse_documents(text: str, path: str) -> list[Document]:
    """Return the documents of a text, as `read_documents` does; `path` is for messages."""
    documents: list[Document] = []
    nodes = 0
    try:
        for node in _composed(text):
            document = Document(path, node.start_mark.line + 1, nodes=nodes)
            documents.append(document)
            document.data = _plain(document, node, ())
            nodes = document.nodes
    except (yaml.YAMLError, RecursionError, _UnfitError) as error:
        documents.append(_broken(path, error, text))
    return documents


def _composed(text: str) -> Iterator[yaml.Node]:
    """Return the root of each document of a text; of those before an error, too, which is then raised."""
    with suppress(yaml.YAMLError, RecursionError):
        return iter(list(yaml.compose_all(text, _QuickLoader)))
    return iter(yaml.compose_all(text, _Loader))


def _text(path: Path) -> str:
    if not stat.S_ISREG(path.stat().st_mode):
        raise _UnfitError("expected a regular file")  # reading a pipe would wait for its writer
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise _UnfitError(f"expected at most {MAX_FILE_BYTES} bytes")
    text = content.decode("utf-8-sig")
    # JSON may be indented with tabs, YAML may not; inside a JSON string a bare tab is an error anyway.
    return text.replace("\t", " ") if path.suffix == ".json" else text


def _broken(path: str, error: Exception, text: str) -> Document:
    """Make a document out of the reason why there is none."""
    line = 0
    if isinstance(error, OSError):
        message = f"cannot be read: {error.strerror}"
    elif isinstance(error, UnicodeDecodeError):
        line = error.object.count(b"\n", 0, error.start) + 1
        message = f"expected UTF-8, found the byte 0x{error.object[error.start]:02x}"
    elif isinstance(error, yaml.MarkedYAMLError):
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        message = f"not YAML: {error.problem}"
    elif isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        message = f"not YAML: {error.reason}: U+{int(error.character):04X}"
    elif isinstance(error, RecursionError):
        message = f"expected at most {MAX_DEPTH} levels of nesting"
    else:
        message = str(error)
    document = Document(path, line)
    document.add((), message)
    return document


def _plain(document: Document, node: yaml.Node, path: FieldPath) -> Any:
    """Turn a node into dicts, lists and scalars, and remember its line. Aliases are written out."""
    document.nodes += 1
    if document.nodes > MAX_NODES:
        raise _UnfitError(f"expected at most {MAX_NODES} values, aliases written out")
    if len(path) > MAX_DEPTH:
        raise _UnfitError(f"expected at most {MAX_DEPTH} levels of nesting")
    document.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(document, node, path)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(document, item, (*path, index)) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode) and not node.style and node.tag != _TAG + "str":
        document.words[path] = node.value
    try:
        return _scalar(node)
    except (KeyError, ValueError):
        document.add(path, f"cannot be read as {quoted(node.tag.removeprefix(_TAG))}", node.start_mark.line + 1)
        return None


def _mapping(document: Document, node: yaml.MappingNode, path: FieldPath) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag != _TAG + "str":
            word = f", write {_in_quotes(key.value)}" if isinstance(key, yaml.ScalarNode) else ""
            document.add(path, f"expected text as a field's name{word}", line)
        elif key.value in found:
            first = document.lines[(*path, key.value)]
            document.add((*path, key.value), f"is given twice, first on line {first}", line)
        else:
            document.lines[(*path, key.value)] = line
            found[key.value] = _plain(document, value, (*path, key.value))
    return found


def _scalar(node: yaml.Node) -> Any:
    """Return the value of a scalar; raise KeyError or ValueError when it has none in JSON."""
    text = str(node.value)
    if node.tag == _TAG + "str":
        # A JSON file may escape a character beyond 16 bits as a surrogate pair, which PyYAML reads as two characters.
        return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return _SCALARS[node.tag.removeprefix(_TAG)](text.lower().replace("_", ""))


def _integer(text: str) -> int | float:
    """Read an integer; one beyond 64 bits becomes a float, as it does in kubectl."""
    number = float(text) if text.lstrip("+-").isdecimal() else 0.0
    if abs(number) >= 2**64:
        return number
    digits = text.lstrip("+-")
    octal = len(digits) > 1 and digits[0] == "0" and digits.isdecimal()
    return int(text, 8 if octal else 0)


_SCALARS: dict[str, Callable[[str], Any]] = {
    "bool": {word.lower(): word.lower() in {"y", "yes", "on", "true"} for word in _BOOL.split("|")}.__getitem__,
    "int": _integer,
    "float": lambda text: float(text.replace(".inf", "inf").replace(".nan", "nan")),
    "null": lambda _: None,
}
