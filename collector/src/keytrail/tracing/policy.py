"""The shipped library: files of policies/tracing in, one `Policy` for each sensor out.

A rule names the sensors that it needs; `sensors()` is what those names mean. What a policy says of itself for machines
stands in its labels and annotations, for people in the comment at its head. Next: `render` makes what is loaded.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from keytrail.domain.errors import ManifestError, Problem
from keytrail.domain.event import EventKind
from keytrail.domain.shape import FieldPath, quoted, suggestion
from keytrail.manifests import builtin_folder
from keytrail.tracing.inspection import hooks_in, inspect
from keytrail.tracing.parameters import Parameter, declared
from keytrail.yaml_documents import Document, parse_documents

SENSOR_LABEL = "keytrail.io/sensor"
_PROVIDES, _COST, _KERNEL, _AGENT = (
    "keytrail.io/provides",
    "keytrail.io/cost",
    "keytrail.io/kernel",
    "keytrail.io/agent",
)
_UNPROVEN = "keytrail.io/unproven"
COSTS = ("low", "medium", "high")
"""Events: fewer than one a minute on a quiet node; as the workload goes; as fast as the workload goes."""
_RELEASE = re.compile(r"\d+\.\d+")
_HEADINGS = ("What you see", "Cost", "Kernel", "Load it")
"""Parts of the comment at a policy's head, in this order."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One shipped TracingPolicy. `data` is shared: copy before changing."""

    name: str
    """Of the object as shipped, and of the sensor."""
    path: Path
    data: Mapping[str, Any]
    title: str
    provides: tuple[EventKind, ...]
    """Kinds of the events that it makes."""
    cost: str
    kernel: str
    """Oldest release on which it sees what it says."""
    agent: str
    """Oldest release of Tetragon that takes it."""
    unproven: tuple[str, ...]
    """Its hooks that no recorded agent has loaded in this form."""
    notes: Mapping[str, str]
    """The comment at its head by heading: `What you see`, `Cost`, `Kernel`, `Load it`."""
    parameters: Mapping[str, Parameter]

    @property
    def hooks(self) -> tuple[str, ...]:
        """Hooked functions, in order; `loader` for the sensor that has none."""
        calls = tuple(str(hook["call"]) for kind, _, hook in hooks_in(self.data) if kind == "kprobes")
        return calls or ("loader",)


@functools.cache
def sensors() -> Mapping[str, Policy]:
    """Return the shipped policies by name. Raises ManifestError when this installation's files are damaged."""
    return load_policies(builtin_folder() / "tracing")


def load_policies(folder: Path) -> Mapping[str, Policy]:
    """Return the policies of a folder by name. Raises ManifestError with everything that is wrong with them."""
    found: dict[str, Policy] = {}
    problems: list[Problem] = []
    for path in sorted(folder.glob("*.yaml")):
        text = path.read_text("utf-8")
        documents = parse_documents(text, str(path))
        if len(documents) != 1:
            problems.append(Problem(str(path), 0, "", f"expected one policy in the file, found {len(documents)}"))
            continue
        policy = read_policy(documents[0], text)
        if policy is None:
            problems += documents[0].in_order()
        else:
            found[policy.name] = policy
    if problems:
        raise ManifestError(problems)
    return MappingProxyType(found)


def read_policy(document: Document, text: str) -> Policy | None:
    """Read one policy of the library; None when anything is wrong with it, which the document then says."""
    inspect(document, observe_only=True)
    if document.problems:
        return None
    metadata, path = document.data["metadata"], Path(document.path)
    annotations = metadata.get("annotations") or {}
    if metadata["name"] != path.stem or (metadata.get("labels") or {}).get(SENSOR_LABEL) != path.stem:
        document.add(("metadata", "name"), f"expected name, label {SENSOR_LABEL} and file to have the same name")
    _check_one_of(document, annotations, _COST, COSTS)
    for name in (_KERNEL, _AGENT):
        if not _RELEASE.fullmatch(str(annotations.get(name))):
            document.add(("metadata", "annotations", name), 'expected a release such as "5.4"')
    kinds, unproven = _words(annotations, _PROVIDES), _words(annotations, _UNPROVEN)
    known = [one.value for one in EventKind]
    for kind in kinds:
        if kind not in known:
            message = f"unknown event kind {quoted(kind)}, {suggestion(kind, known)}"
            document.add(("metadata", "annotations", _PROVIDES), message)
    title, notes = head_of(text)
    for heading in _HEADINGS:
        if heading not in notes:
            document.add((), f"expected a comment at the head with a part `{heading}:`")
    parameters = declared(document)
    if document.problems:
        return None
    return Policy(
        metadata["name"], path, document.data, title, tuple(map(EventKind, kinds)), annotations[_COST],
        annotations[_KERNEL], annotations[_AGENT], tuple(unproven), notes, MappingProxyType(parameters),
    )  # fmt: skip


def _words(given: Mapping[str, Any], name: str) -> list[str]:
    return [word.strip() for word in str(given.get(name, "")).split(",") if word.strip()]


def _check_one_of(document: Document, given: Mapping[str, Any], name: str, known: tuple[str, ...]) -> None:
    if given.get(name) not in known:
        where: FieldPath = ("metadata", "annotations", name)
        document.add(where, f"unknown value, {suggestion(str(given.get(name)), known)}")


def head_of(text: str) -> tuple[str, dict[str, str]]:
    """Return title and parts of the comment at a file's head; the text of a part is one line."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    notes: dict[str, str] = {}
    heading = ""
    for line in lines[1:]:
        before, colon, after = line.partition(":")
        if colon and before in _HEADINGS:
            heading, line = before, after  # noqa: PLW2901 - the rest of the line belongs to the part it opens
        if heading:
            notes[heading] = f"{notes.get(heading, '')} {line.strip()}".strip()
    return (lines[0] if lines else ""), notes
