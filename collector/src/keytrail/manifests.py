"""Manifests from a folder: the same objects that a cluster would hold, for a host that has none.

In flows a folder, such as a mounted ConfigMap or the library that Keytrail ships; out flow the resources in it, or a
ManifestError with every problem, each with file, line and field. YAML is read as kubectl reads it, so that a file which
works here works there (`keytrail.yaml_documents`). Knows nothing of what a manifest means: that is
`keytrail.identify`, which comes next.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keytrail.domain.errors import ManifestError, SettingsError
from keytrail.domain.objects import name_of
from keytrail.domain.resources import API_VERSION, KINDS, ClusterIdentityMapping, IdentityMapping, Resource
from keytrail.domain.shape import FieldPath, described, quoted, read, suggestion
from keytrail.yaml_documents import Document, read_documents

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
POLICY_API_VERSION = "cilium.io/v1alpha1"
POLICY_KINDS = ("TracingPolicy", "TracingPolicyNamespaced")


@dataclass(frozen=True, slots=True)
class RawManifest:
    """A manifest of a kind that is not ours, as it stands in its file: a TracingPolicy is the agent's to judge."""

    path: str
    line: int
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Manifests:
    """What a folder holds, in the order of its files."""

    resources: tuple[Resource, ...] = ()
    tracing_policies: tuple[RawManifest, ...] = ()

    @property
    def identity_mappings(self) -> tuple[IdentityMapping | ClusterIdentityMapping, ...]:
        """The mappings of both kinds."""
        return tuple(one for one in self.resources if isinstance(one, IdentityMapping | ClusterIdentityMapping))

    def overlaid(self, applied: Iterable[Resource]) -> "Manifests":
        """Return these with what the API server has on top: of two with the same kind and name, its own counts."""
        resources = {name_of(one): one for one in (*self.resources, *applied)}
        return Manifests(tuple(resources.values()), self.tracing_policies)


def builtin_folder() -> Path:
    """Return the folder of the shipped library: inside an installed wheel, else the source tree's own."""
    package = Path(__file__).resolve().parent
    for folder in (package / "library", package.parents[2] / "policies"):
        if (folder / "identities").is_dir():
            return folder
    raise SettingsError(
        "this installation of Keytrail lacks its library (the folder `library` in the package): reinstall it"
    )


def load_builtin_identities() -> tuple[ClusterIdentityMapping, ...]:
    """Return the provider mappings that Keytrail ships."""
    mappings = load_folder(builtin_folder() / "identities").identity_mappings
    return tuple(one for one in mappings if isinstance(one, ClusterIdentityMapping))


def load_folder(path: Path) -> Manifests:
    """Return everything in the YAML and JSON files below a folder.

    Raises SettingsError when it is no folder, ManifestError with all problems of all files when anything is wrong.
    """
    if not path.is_dir():
        found = "it is a file, name the folder that holds it" if path.exists() else "there is no such folder"
        raise SettingsError(f"{path}: expected a folder of manifests: {found}")
    try:
        files = list(_files(path, set()))
    except OSError as error:
        raise SettingsError(f"{error.filename}: cannot be read: {error.strerror}") from None
    loader, problems = _FolderLoader(), []
    for file in files:
        for document in read_documents(file):
            if not document.problems and document.data is not None:
                loader.take(document, document.data, ())
            problems += document.in_order()
    if problems:
        raise ManifestError(problems)
    return Manifests(tuple(loader.resources), tuple(loader.tracing_policies))


class _FolderLoader:
    """Gathers the objects of many documents and sees to it that none is given twice."""

    def __init__(self) -> None:
        self.resources: list[Resource] = []
        self.tracing_policies: list[RawManifest] = []
        self._places: dict[tuple[str, str, str], str] = {}

    def take(self, document: Document, data: object, path: FieldPath) -> None:
        """Take one object, or those of a List as kubectl prints it."""
        if not isinstance(data, dict):
            document.add(path, f"expected a manifest with apiVersion and kind, found {described(data)}")
            return
        api_version, kind = data.get("apiVersion"), data.get("kind")
        if (api_version, kind) == ("v1", "List"):
            items = data.get("items")
            if not isinstance(items, list):
                document.add((*path, "items"), f"expected a list, found {described(items)}")
                return
            for index, item in enumerate(items):
                self.take(document, item, (*path, "items", index))
        elif _known_kind(document, api_version, kind, path) and self._first(document, data, path):
            self._keep(document, data, path)

    def _keep(self, document: Document, data: dict[str, Any], path: FieldPath) -> None:
        if data["kind"] in POLICY_KINDS:
            self.tracing_policies.append(RawManifest(document.path, document.line_of(path), data["kind"], data))
            return
        resource, faults = read(KINDS[data["kind"]], data, path)
        for fault in faults:
            document.add_fault(fault)
        if resource is not None:
            self.resources.append(resource)

    def _first(self, document: Document, data: dict[str, Any], path: FieldPath) -> bool:
        metadata = data.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            return True  # the shape will say so
        name = (data["kind"], str(metadata.get("namespace") or ""), metadata["name"])
        where = (*path, "metadata", "name")
        if name in self._places:
            shown = quoted("/".join(filter(None, name[1:])))
            document.add(where, f"{data['kind']} {shown} is given twice, first at {self._places[name]}")
            return False
        self._places[name] = f"{document.path}:{document.line_of(where)}"
        return True


def _known_kind(document: Document, api_version: object, kind: object, path: FieldPath) -> bool:
    kinds = {**dict.fromkeys(KINDS, API_VERSION), **dict.fromkeys(POLICY_KINDS, POLICY_API_VERSION)}
    if not isinstance(kind, str):
        document.add(
            (*path, "kind"),
            f"is required, one of {', '.join(kinds)}" if kind is None else f"expected text, found {described(kind)}",
        )
    elif kind not in kinds:
        document.add((*path, "kind"), f"unknown kind {quoted(kind)}, {suggestion(kind, list(kinds))}")
    elif api_version != kinds[kind]:
        document.add((*path, "apiVersion"), f"expected {kinds[kind]}, found {described(api_version)}")
    else:
        return True
    return False


def _files(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield the manifest files below a folder, sorted by path.

    The kubelet mounts a ConfigMap as links through `..data` into `..2026_01_02…`: links are followed, names that begin
    with a dot are not entered. What was seen under another name is not read again, so that a link cannot make a loop.
    """
    if _seen(folder, seen):
        return
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _files(entry, seen)
        elif entry.suffix in SUFFIXES and not _seen(entry, seen):
            yield entry


def _seen(path: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False  # a link to nothing: reading it will say so
    place = (status.st_dev, status.st_ino)
    before = place in seen
    seen.add(place)
    return before
