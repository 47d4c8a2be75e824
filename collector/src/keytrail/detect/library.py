"""Rules from a file or folder: manifests in, rules that can run out, or every problem with file, line and column.

The shapes of `domain.rules` judge the fields, `rule_check` the conditions; here what they found gets its line. A folder
may hold manifests of other kinds, which are not this module's. Knows no event.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from keytrail.detect.rule_check import RuleError, check_rule
from keytrail.domain.errors import Problem
from keytrail.domain.objects import API_VERSION
from keytrail.domain.rules import DetectionRule
from keytrail.domain.shape import FieldPath, described, quoted, read
from keytrail.manifests import SUFFIXES
from keytrail.yaml_documents import Document, read_documents

KIND: Final = "DetectionRule"


@dataclass(frozen=True, slots=True)
class LoadedRule:
    """A rule, and where it stands."""

    rule: DetectionRule
    path: str
    line: int


def load_rules(
    path: Path, *, sensors: Collection[str] | None = None
) -> tuple[tuple[DetectionRule, ...], tuple[Problem, ...]]:
    """Return the rules of a file or folder that can run, in order, and all problems of those that cannot.

    `sensors` are the names that `requires` may use beside the agent's features; None: they are not judged.
    """
    loaded, problems = load_with_places(path, sensors=sensors)
    return tuple(one.rule for one in loaded), problems


def check(path: Path, *, sensors: Collection[str] | None = None) -> tuple[Problem, ...]:
    """Return everything that is wrong with the rules of a file or folder."""
    return load_with_places(path, sensors=sensors)[1]


def load_with_places(
    path: Path, *, sensors: Collection[str] | None = None
) -> tuple[tuple[LoadedRule, ...], tuple[Problem, ...]]:
    """As `load_rules`, with the file and line of each rule."""
    loaded: list[LoadedRule] = []
    problems: list[Problem] = []
    places: dict[str, str] = {}
    try:
        files = _files(path)
    except OSError as error:
        return (), (Problem(str(path), 0, "", f"cannot be read: {error.strerror}"),)
    for file in files:
        for document in read_documents(file):
            if not document.problems:
                for data, where in _objects(document.data, ()):
                    rule = _rule(document, data, where, sensors)
                    if rule is not None and _first(document, rule, where, places):
                        loaded.append(rule)
            problems += document.in_order()
    if not loaded and not problems:
        problems.append(Problem(str(path), 0, "", "expected rules: there is no DetectionRule"))
    return tuple(loaded), tuple(problems)


def _files(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return [path]  # reading it says so when there is none
    next(path.iterdir(), None)  # `rglob` passes over a folder that it may not read
    files = (file for file in sorted(path.rglob("*")) if file.suffix in SUFFIXES and file.is_file())
    # The kubelet mounts a ConfigMap through hidden folders, whose files would be seen twice.
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]


def _objects(data: Any, path: FieldPath) -> Iterator[tuple[dict[str, Any], FieldPath]]:
    """The objects of a document, or of a List as kubectl prints it."""
    if not isinstance(data, dict):
        return
    items = data.get("items")
    if (data.get("apiVersion"), data.get("kind")) == ("v1", "List") and isinstance(items, list):
        for index, item in enumerate(items):
            yield from _objects(item, (*path, "items", index))
    elif data.get("kind") == KIND:
        yield data, path


def _rule(
    document: Document, data: dict[str, Any], where: FieldPath, sensors: Collection[str] | None
) -> LoadedRule | None:
    if data.get("apiVersion") != API_VERSION:
        document.add((*where, "apiVersion"), f"expected {API_VERSION}, found {described(data.get('apiVersion'))}")
        return None
    rule, faults = read(DetectionRule, data, where)
    if rule is None:
        for fault in faults:
            document.add_fault(fault)
        return None
    try:
        check_rule(rule, sensors=sensors)
    except RuleError as error:
        for fault in error.faults:
            document.add((*where, *fault.path), fault.message)
        return None
    return LoadedRule(rule, document.path, document.line_of(where))


def _first(document: Document, rule: LoadedRule, where: FieldPath, places: dict[str, str]) -> bool:
    name = rule.rule.name
    at = (*where, "metadata", "name")
    if name in places:
        document.add(at, f"{KIND} {quoted(name)} is given twice, first at {places[name]}")
        return False
    places[name] = f"{document.path}:{document.line_of(at)}"
    return True
