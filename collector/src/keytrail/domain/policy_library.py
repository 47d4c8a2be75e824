"""The shape of the PolicyLibrary: what of the shipped library is on, and how it is tuned.

Plain data comes in through `keytrail.domain.shape.read`, a typed object goes out to `keytrail.detect` and the operator.
There is one such object, named `default`, in a cluster as in a folder.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from keytrail.domain.objects import OBJECT_FIELDS, Metadata, Resource, list_doc, name_doc, namespace_doc
from keytrail.domain.rules import (
    MAX_PARAMETERS,
    MAX_TEXT,
    PARAMETERS_DOC,
    Maturity,
    RuleException,
    Severity,
    parameters_fit,
    window_doc,
)
from keytrail.domain.shape import Doc, Fault, Rules, quoted

LIBRARY_NAME: Final = "default"


class LibraryMode(StrEnum):
    """Which shipped TracingPolicies are loaded."""

    REQUIRED = "required"
    LISTED = "listed"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceSelection:
    """Which namespaces a policy looks at."""

    include: Annotated[tuple[str, ...], namespace_doc("Only these. Left out: all.", ["shop"], max_items=256)] = ()
    exclude: Annotated[tuple[str, ...], namespace_doc("All but these.", ["kube-system"], max_items=256)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTuning:
    """How one shipped TracingPolicy is loaded."""

    name: Annotated[str, name_doc("Name of the policy in the library.", "egress")]
    parameters: Annotated[
        Mapping[str, object],
        Doc(
            "Values for the policy's parameters.",
            {"clusterCIDRs": "auto"},
            max_items=MAX_PARAMETERS,
            max_length=MAX_TEXT,
        ),
    ] = field(default_factory=dict, hash=False)
    namespaces: Annotated[
        NamespaceSelection | None, Doc("Namespaces that it looks at.", {"exclude": ["kube-system"]})
    ] = None
    rate_limit: Annotated[str, window_doc("Time in which the agent reports the same event once.", "1m")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTuning:
    """What is different here about one rule."""

    name: Annotated[str, name_doc("Name of the rule.", "shell-in-container")]
    enabled: Annotated[bool | None, Doc("Whether the rule runs, whatever its maturity.", example=True)] = None
    severity: Annotated[Severity | None, Doc("Severity of its findings here.", "medium")] = None
    parameters: Annotated[Mapping[str, object], PARAMETERS_DOC] = field(default_factory=dict, hash=False)
    exceptions: Annotated[
        tuple[RuleException, ...],
        list_doc(
            "Further cases that are meant to be.",
            {"name": "jumphost", "condition": 'pod.name == "jump"'},
            key="name",
        ),
    ] = ()


def _tuning_fits(rules: "LibraryRules") -> Iterator[Fault]:
    for index, tuning in enumerate(rules.tune):
        for fault in parameters_fit(tuning.parameters, ("parameters",)):
            yield Fault(("tune", index, *fault.path), fault.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryRules:
    """Which rules run."""

    maturity: Annotated[
        tuple[Maturity, ...], Doc("Rules of these maturities run.", ["stable", "incubating"], max_items=3)
    ] = (Maturity.STABLE,)
    tune: Annotated[
        tuple[RuleTuning, ...],
        Doc("What is different here.", [{"name": "shell-in-container"}], max_items=512, key="name"),
    ] = ()
    RULES: ClassVar[Rules] = Rules(checks=(_tuning_fits,))


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLibrarySpec:
    """What of the shipped library is on."""

    mode: Annotated[
        LibraryMode,
        Doc("required: what enabled rules and mappings need; listed: only the list; off: none.", "required"),
    ] = LibraryMode.REQUIRED
    policies: Annotated[
        tuple[PolicyTuning, ...],
        Doc("Policies to load, or how to load them.", [{"name": "egress"}], max_items=128, key="name"),
    ] = ()
    rules: Annotated[LibraryRules, Doc("Which rules run, and how tuned.", {"maturity": ["stable"]})] = LibraryRules()


def _named_default(library: "PolicyLibrary") -> Iterator[Fault]:
    if library.metadata.name != LIBRARY_NAME:
        yield Fault(
            ("metadata", "name"),
            f"there is one PolicyLibrary, named {LIBRARY_NAME}: found {quoted(library.metadata.name)}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLibrary(Resource):
    """What of the shipped library is on, and how it is tuned."""

    metadata: Annotated[Metadata, Doc("Name and labels.", {"name": LIBRARY_NAME})]
    spec: Annotated[PolicyLibrarySpec, Doc("What the library does here.", {"mode": "required"})] = PolicyLibrarySpec()
    RULES: ClassVar[Rules] = Rules(ignored=OBJECT_FIELDS, checks=(_named_default,))
