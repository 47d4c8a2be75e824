"""Places in the API: which path an object or a collection has, and what RBAC calls it.

In flow names; out flow a `Place` for `api` and messages. Pure.
"""

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Place:
    """A collection, an object or a part of one."""

    path: str
    resource: str
    """As a Role names it: `pods`, `collectorstatuses/status`; with a slash before it what is no kind of object."""
    group: str = ""
    namespace: str = ""
    name: str = ""
    """Empty for a collection."""

    def __str__(self) -> str:
        """What it is, for a person."""
        if self.resource.startswith("/"):
            return self.resource
        kind = f"{self.resource}.{self.group}" if self.group else self.resource
        named = f"{kind} {self.name}" if self.name else kind
        return f"{named} in namespace {self.namespace}" if self.namespace else named


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object as the API serves it."""

    plural: str
    group: str = ""
    version: str = "v1"

    def at(self, namespace: str = "", name: str = "", part: str = "") -> Place:
        """Return the place of an object, of its part (`status`), or of all objects (of a namespace)."""
        steps = ["apis", self.group, self.version] if self.group else ["api", self.version]
        steps += ["namespaces", namespace] if namespace else []
        steps += [step for step in (self.plural, name, part) if step]
        resource = f"{self.plural}/{part}" if part else self.plural
        # A name from elsewhere may hold a slash or a question mark, and must not lead to another place.
        path = "/" + "/".join(quote(step, safe="") for step in steps)
        return Place(path, resource, self.group, namespace, name)


PODS = Kind("pods")
NODES = Kind("nodes")
SERVICES = Kind("services")
SERVICE_ACCOUNTS = Kind("serviceaccounts")
ENDPOINT_SLICES = Kind("endpointslices", "discovery.k8s.io")
JOBS = Kind("jobs", "batch")
VERSION = Place("/version", "/version", name="version")
"""Which version the server is of; everybody who is let in may ask."""
