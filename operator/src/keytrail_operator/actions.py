"""What a reconciler may ask for. Each is plain data that prints as one line; `acting` does it.

An action says what shall be, with what must still hold for it to be right: an object's uid, where another one of the
same name must not be touched. None of them holds a credential, nor a fingerprint in what it prints.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keytrail.domain.crds import GROUP, VERSION
from keytrail.domain.crds import KINDS as DEFINITIONS
from keytrail.kube.places import Kind, Place

TRACING_POLICIES = Kind("tracingpolicies", "cilium.io", "v1alpha1")
OWN: Mapping[str, Kind] = {one.name: Kind(one.plural, GROUP, VERSION) for one in DEFINITIONS}
"""Our own kinds by name."""


@dataclass(frozen=True, slots=True)
class Create:
    """Make an object. That somebody made it meanwhile is no failure: the next world shows what it is."""

    kind: Kind
    body: Mapping[str, Any] = field(hash=False, repr=False)

    @property
    def at(self) -> Place:
        """Where it will be."""
        return self.kind.at(self.body["metadata"].get("namespace", ""), self.body["metadata"].get("name", ""))

    def __str__(self) -> str:
        """What it is, for the log."""
        return f"create {self.at}"


@dataclass(frozen=True, slots=True)
class Replace:
    """Put an object in place of one that was read; `body` carries its uid and resourceVersion."""

    kind: Kind
    body: Mapping[str, Any] = field(hash=False, repr=False)
    why: str = ""

    @property
    def at(self) -> Place:
        """Where it is."""
        return self.kind.at(self.body["metadata"].get("namespace", ""), self.body["metadata"]["name"])

    def __str__(self) -> str:
        """What it is, for the log."""
        return f"replace {self.at}: {self.why}"


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an object, if it is still the one with this uid."""

    kind: Kind
    name: str
    uid: str
    why: str
    namespace: str = ""

    @property
    def at(self) -> Place:
        """Where it is."""
        return self.kind.at(self.namespace, self.name)

    def __str__(self) -> str:
        """What it is, for the log."""
        return f"delete {self.at}: {self.why}"


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Have exactly this status in an object of our own, if it is still the one with this uid."""

    kind: str
    """One of `OWN`."""
    name: str
    uid: str
    status: Mapping[str, Any] = field(hash=False, repr=False)
    namespace: str = ""

    @property
    def at(self) -> Place:
        """Where it is."""
        return OWN[self.kind].at(self.namespace, self.name, "status")

    def __str__(self) -> str:
        """What it is, for the log."""
        return f"write {self.at}"


@dataclass(frozen=True, slots=True)
class Apply:
    """Have exactly these fields in an object, whoever had them before; makes it when there is none."""

    kind: Kind
    body: Mapping[str, Any] = field(hash=False, repr=False)

    @property
    def at(self) -> Place:
        """Where it is."""
        return self.kind.at(self.body["metadata"].get("namespace", ""), self.body["metadata"]["name"])

    def __str__(self) -> str:
        """What it is, for the log."""
        return f"apply {self.at}"


Action = Create | Replace | Delete | WriteStatus | Apply
