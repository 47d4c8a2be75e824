"""Which shipped TracingPolicies shall be loaded, and why: a World in, sensors with who needs them out.

`mode: required` loads exactly what enabled rules and mappings need; nobody has to know which kernel function feeds
which rule. Pure; `desired` makes manifests of it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from keytrail.domain.policy_library import LibraryMode, PolicyLibrarySpec
from keytrail.domain.resources import MappingSpec
from keytrail.domain.shape import suggestion
from keytrail.tracing import Policy
from keytrail_operator.world import World

_CREDENTIAL_FILES: Final = "credential-files"
_MOUNTED: Final = "mounted-secrets"
_CONNECT: Final = "tcp-connect"
_SERVER_NAME: Final = "tls-server-name"
_MOST_PATHS: Final = 64
"""Of mappings in one policy: each is an entry of a BPF map on every node, and any tenant may add some."""
_RUN: Final = "/var/run/"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The sensors that shall be loaded."""

    sensors: Mapping[str, str]
    """By name, with the reason for a person."""
    unknown: Mapping[str, str]
    """What is wrong with names that the library does not have."""


def wanted(world: World, spec: PolicyLibrarySpec, shipped: Mapping[str, Policy]) -> Wanted:
    """Return what is wanted."""
    unknown = {
        one.name: f"there is no policy {one.name!r}, {suggestion(one.name, list(shipped))}"
        for one in spec.policies
        if one.name not in shipped
    }
    if spec.mode is LibraryMode.OFF:
        return Wanted({}, unknown)
    if spec.mode is LibraryMode.LISTED:
        return Wanted({one.name: "listed" for one in spec.policies if one.name in shipped}, unknown)
    needs = {sensor: list(rules) for sensor, rules in world.rulebook.required.items()}
    for mapping in world.mappings:
        for sensor in _needed_by(mapping.value.spec) if mapping.value is not None else ():
            needs.setdefault(sensor, []).append(mapping.name)
    found = {name: f"needed by {_counted(users)}" for name, users in sorted(needs.items()) if name in shipped}
    return Wanted(found, unknown)


def _needed_by(spec: MappingSpec) -> Iterator[str]:
    evidence = spec.evidence
    if evidence.secrets or evidence.files:
        yield _MOUNTED
    if evidence.files:
        yield _CREDENTIAL_FILES
    if evidence.server_names or spec.allowed.destinations:
        yield _CONNECT
        yield _SERVER_NAME


def _counted(users: Iterable[str]) -> str:
    names = sorted(set(users))
    more = len(names) - 1
    return names[0] if not more else f"{names[0]} and {more} more"


def paths_of_mappings(world: World, policy: Policy) -> dict[str, list[str]]:
    """Return values for the parameters of `credential-files`, so that the files that mappings name are among them.

    Empty when the shipped values have all of them.
    """
    folders, files = set(), set()
    for mapping in world.mappings:
        for one in mapping.value.spec.evidence.files if mapping.value is not None else ():
            folder, ending = _kernel_path(one.path)
            folders |= {folder} if folder else set()
            files |= {ending} if ending else set()
    found = {}
    for name, more in (("folders", folders), ("files", files)):
        shipped = policy.parameters[name].default
        begins = str.startswith if name == "folders" else str.endswith
        missing = sorted(path for path in more if not any(begins(path, one) for one in shipped))
        if missing:
            found[name] = [*shipped, *missing[:_MOST_PATHS]]
    return found


def _kernel_path(pattern: str) -> tuple[str, str]:
    """Return the beginning or the end by which the kernel can compare: as long as there is no wildcard in it."""
    folder = pattern.partition("*")[0].replace(_RUN, "/run/", 1) if pattern.startswith("/") else ""
    if folder.strip("/"):
        return folder, ""
    ending = pattern.rpartition("*")[2]
    return "", ending if ending.startswith("/") and ending.strip("/") else ""
