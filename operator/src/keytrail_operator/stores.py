"""Everything that is observed: one shelf for each kind, and the `World` that they make together.

In flow the handlers' events and lists of our own; out flows a World whenever the worker asks. A further kind is one row
in `WATCHED`, one line in `Stores.world` and one rule in the chart's ClusterRole. There is no row for Secrets, and must
be none: what the operator may know of those it gets one by one, by name.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from keytrail.domain.crds import KINDS as DEFINITIONS
from keytrail.domain.errors import KubeError, KubeNotFoundError
from keytrail.domain.objects import Resource
from keytrail.domain.rules import DetectionRule
from keytrail.kube.api import Api
from keytrail.kube.json_stream import Json, ListReader
from keytrail.kube.places import NODES, PODS, SERVICE_ACCOUNTS, Kind, Place
from keytrail_operator import decoding
from keytrail_operator.actions import OWN, TRACING_POLICIES
from keytrail_operator.rulebook import Rulebook, rulebook
from keytrail_operator.shelf import Shelf
from keytrail_operator.waiting import waiting_pod
from keytrail_operator.world import Owner, World

log = logging.getLogger(__name__)

SERVICE_CIDRS: Final = Kind("servicecidrs", "networking.k8s.io", "v1")
CLUSTER_ROLES: Final = Kind("clusterroles", "rbac.authorization.k8s.io")
_API_ENDPOINTS: Final = Kind("endpointslices", "discovery.k8s.io").at("default", "kubernetes")
"""What the API server itself writes."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One kind that is observed in the whole cluster."""

    name: str
    kind: Kind
    decode: Callable[[Json], Any]
    optional: bool = False
    """Whether a cluster may lack it: then the operator works on, and says what that costs."""
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    """A field selector, so that the others never leave the API server."""


def _own(name: str, shape: type[Resource]) -> Watched:
    return Watched(name, OWN[name], partial(decoding.applied, shape))


_SHAPES: Final = {one.name: one.shape for one in DEFINITIONS}
WATCHED: Final[tuple[Watched, ...]] = (
    *(_own(name, _SHAPES[name]) for name in OWN if name != "CollectorStatus"),
    Watched("CollectorStatus", OWN["CollectorStatus"], decoding.collector),
    Watched("TracingPolicy", TRACING_POLICIES, decoding.tracing_policy, optional=True),
    Watched("Node", NODES, decoding.node),
    Watched("ServiceCIDR", SERVICE_CIDRS, decoding.service_ranges, optional=True),
    Watched("ServiceAccount", SERVICE_ACCOUNTS, decoding.service_account),
    Watched("Pod", PODS, waiting_pod, optional=True, fields={"status.phase": "Pending"}),
)


class Stores:
    """All shelves. `tell` is for the handlers' thread, everything else for the worker's."""

    def __init__(
        self,
        changed: Callable[[], None],
        *,
        shipped_rules: Iterable[DetectionRule],
        sensors: Iterable[str],
        owner_name: str = "",
        given_ranges: tuple[str, ...] = (),
    ) -> None:
        """`owner_name` names the release's ClusterRole; empty: what is made has no owner but the library."""
        self.shelves: dict[str, Shelf[Any]] = {one.name: Shelf(one.decode, changed) for one in WATCHED}
        self._changed = changed
        self._shipped = tuple(shipped_rules)
        self._sensors = frozenset(sensors)
        self._owner_name = owner_name
        self._given_ranges = given_ranges
        self._owner: Owner | None = None
        self._api_addresses: tuple[str, ...] = ()
        self._rulebook = Rulebook()
        self.trouble: dict[str, KubeError] = {}
        """Why a kind could not be listed the last time, by its name."""

    # -- observing

    def tell(self, name: str, kind: str | None, raw: Json) -> None:
        """Take an event of the watch: kopf's type is None for its own lists."""
        self.shelves[name].tell(raw, deleted=kind == "DELETED")

    def look(self, api: Api, now: float, *, only: Callable[[Watched], bool] = lambda _: True) -> bool:
        """List kinds, and read what is not watched; whether all that is needed is known now."""
        for one in WATCHED:
            if only(one):
                self._list(api, one, now)
        self._read_singles(api)
        return all(one.optional or self.shelves[one.name].listed for one in WATCHED)

    def absent(self, one: Watched) -> bool:
        """Whether the API server has not got the kind, or was not asked successfully yet."""
        shelf = self.shelves[one.name]
        return not shelf.served or not shelf.listed

    def stuck(self, now: float) -> dict[str, int]:
        """Kinds whose watch is silent about what lists show, and about how many objects."""
        return {name: count for name, shelf in self.shelves.items() if (count := shelf.stuck(now))}

    def _list(self, api: Api, one: Watched, now: float) -> None:
        selector = ",".join(f"{name}={value}" for name, value in one.fields.items())
        try:
            with api.stream("list", one.kind.at(), fieldSelector=selector) as stream:
                reader = ListReader(stream)
                self.shelves[one.name].take_list(reader, lambda: str(reader.metadata.get("resourceVersion")), now)
        except KubeNotFoundError as error:
            self.shelves[one.name].not_served()
            self._note(one.name, None if one.optional else error)
        except KubeError as error:
            self._note(one.name, error)
        else:
            self._note(one.name, None)

    def _note(self, name: str, error: KubeError | None) -> None:
        if error is None:
            self.trouble.pop(name, None)
            return
        if str(self.trouble.get(name)) != str(error):
            log.warning("%s; what was known stays in force", error)
        self.trouble[name] = error

    def _read_singles(self, api: Api) -> None:
        """Read the two objects that need no watch: they change when a cluster is rebuilt or the release reinstalled."""
        owner, addresses = self._owner, self._api_addresses
        if self._owner_name:
            found = self._single(api, CLUSTER_ROLES.at(name=self._owner_name), "ClusterRole")
            if found is not None:
                uid = str(found.get("metadata", {}).get("uid", ""))
                owner = Owner("rbac.authorization.k8s.io/v1", "ClusterRole", self._owner_name, uid) if uid else None
        found = self._single(api, _API_ENDPOINTS, "EndpointSlice")
        if found is not None:
            endpoints = found.get("endpoints") or ()
            addresses = tuple(sorted({str(one) for each in endpoints for one in each.get("addresses") or ()}))
        if (owner, addresses) != (self._owner, self._api_addresses):
            self._owner, self._api_addresses = owner, addresses
            self._changed()

    def _single(self, api: Api, at: Place, name: str) -> Json | None:
        """Read one object: empty when there is none, None when that is not known."""
        try:
            found = api.get(at)
        except KubeNotFoundError:
            found = {}
        except KubeError as error:
            self._note(name, error)
            return None
        self._note(name, None)
        return found

    # -- the world

    def world(self) -> World:
        """Return what is known now."""
        libraries, rules, cidrs = (self._values(name) for name in ("PolicyLibrary", "DetectionRule", "ServiceCIDR"))
        library = libraries[0] if libraries else None
        self._rulebook = rulebook(
            (*self._shipped, *(one.value for one in rules if one.value is not None)),
            None if library is None else library.value,
            self._sensors,
            self._rulebook,
        )
        mappings = self._values("ClusterIdentityMapping") + self._values("IdentityMapping")
        return World(
            library=library,
            libraries_served=self.shelves["PolicyLibrary"].served,
            rules=tuple(rules),
            mappings=tuple(mappings),
            rulebook=self._rulebook,
            collectors={one.node: one for one in self._values("CollectorStatus")},
            nodes={one.name: one for one in self._values("Node")},
            policies=self._policies(),
            service_ranges=self._service_ranges(cidrs),
            api_addresses=self._api_addresses,
            service_accounts=frozenset(self._values("ServiceAccount")),
            waiting=tuple(self._values("Pod")),
            owner=self._owner,
            given_ranges=self._given_ranges,
        )

    def _values(self, name: str) -> list[Any]:
        return self.shelves[name].values()

    def _policies(self) -> dict[str, Any] | None:
        shelf = self.shelves["TracingPolicy"]
        return {one.name: one for one in shelf.values()} if shelf.served and shelf.listed else None

    def _service_ranges(self, found: Iterable[tuple[str, ...]]) -> tuple[str, ...] | None:
        shelf = self.shelves["ServiceCIDR"]
        if not shelf.served or not shelf.listed:
            return None
        return tuple(sorted({one for each in found for one in each}))
