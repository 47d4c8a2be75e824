"""A collector's part in its cluster, composed: this node's pods, the manifests in the API server, and its own status.

In flow settings; out flow pods into the `PodIndex` of enrichment, resources for the configuration, and a
CollectorStatus. Everything here may be late or away without holding up an event; its threads end with it.
"""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self, TypeVar

from keytrail.aside import Task, run_aside
from keytrail.choices import Peers as Watched
from keytrail.domain import peer_facts
from keytrail.domain.errors import KubeError
from keytrail.domain.objects import ObjectName, Resource
from keytrail.domain.peer_facts import PodAddresses
from keytrail.domain.pod_facts import Owner, PodFacts, Redact, pod_facts
from keytrail.domain.policy_library import PolicyLibrary
from keytrail.domain.rules import DetectionRule
from keytrail.domain.shape import Fault
from keytrail.enrich.enricher import Enricher
from keytrail.enrich.index import PodIndex
from keytrail.enrich.peer_index import Named, PeerIndex
from keytrail.kube.accounts import AccountReader
from keytrail.kube.api import Api
from keytrail.kube.config_watch import ConfigWatch, problems_of
from keytrail.kube.places import ENDPOINT_SLICES, JOBS, NODES, PODS, SERVICES, Place
from keytrail.kube.status import StatusWriter
from keytrail.kube.status_content import Picture
from keytrail.kube.store import Change, Decode, Key
from keytrail.kube.watch import Watch, WatchState
from keytrail.observe.snapshot import ClusterPart, RequestPart, WatchPart
from keytrail.settings import Settings

T = TypeVar("T")

SETTLE_SECONDS = 5.0
"""How long the start waits for pods and manifests of an API server that is slow; one that is away is known at once."""
_END_SECONDS = 0.3
"""Threads that wait for an API server which does not answer are left behind: delivery has had its time by then."""


class Cluster:
    """The API server's side of one collector. A context manager; `status` may follow once the collector is composed."""

    def __init__(self, settings: Settings, api: Api, redact: Redact | None) -> None:
        self.api = api
        self.node = settings.node_name or socket.gethostname().lower()
        self.index = PodIndex(self._job_owner)
        self.enricher = Enricher(
            self.index, wait_ns=settings.pod_wait_ms * 1_000_000, runtimes=settings.container_runtimes
        )
        """For the deciding thread."""
        self._changed: Callable[[], None] = lambda: None
        self._configuration = ConfigWatch(api, _Judge(settings), lambda _: self._changed())
        self._pods: Watch[PodFacts] = Watch(
            api,
            PODS.at(),
            partial(pod_facts, redact=redact, annotations=settings.pod_annotations),
            self._pod,
            selectors={"fieldSelector": f"spec.nodeName={self.node}"},
            on_state=lambda state: self.index.reachable(yes=state.connected),
        )
        self._account_of: dict[str, tuple[str, str]] = {}
        """The ServiceAccount of each pod, by its uid."""
        self.peers = None if settings.peers is Watched.NONE else PeerIndex(settings.cluster_ranges)
        """Who has which address in the cluster; None when nobody wants to know."""
        self._only_services = settings.peers is Watched.SERVICES
        self._peer_watches = [] if self.peers is None else peer_watches(api, settings.peers, self.peers)
        self._accounts = AccountReader(api, lambda: self._account_of.copy().values(), self.index.service_account)
        self._status: StatusWriter | None = None

    @classmethod
    def open(cls, settings: Settings, environ: Mapping[str, str], redact: Redact | None) -> Self:
        """Ask the API server that the settings or the Pod name. Raises SettingsError when there is none."""
        return cls(settings, Api.open(settings.kubeconfig, settings.kubeconfig_context, environ), redact)

    def __enter__(self) -> Self:
        """Begin, and wait a little for what is there, so that the first events are decided on by it."""
        self._pods.start()
        self._configuration.start()
        for watch in self._peer_watches:
            watch.start()
        self._accounts.start()
        self._configuration.wait_settled(SETTLE_SECONDS)
        if self._pods.state().error is None:
            self._pods.wait_synced(SETTLE_SECONDS)
        return self

    def __exit__(self, *_exc: object) -> None:
        status = () if self._status is None else (self._status,)
        parts = (self._pods, self._configuration, *self._peer_watches, self._accounts, *status)
        for part in parts:
            part.stop()
        end = time.monotonic() + _END_SECONDS
        for part in parts:
            part.close(max(0.0, end - time.monotonic()))
        self.api.close()

    def resources(self) -> tuple[Resource, ...]:
        """Return the API server's resources that are to be in force."""
        return self._configuration.resources()

    def on_change(self, changed: Callable[[], None], known: tuple[Resource, ...]) -> None:
        """Call `changed` whenever `resources` change, and now if they are no longer those that are known."""
        self._changed = changed
        if self.resources() != known:
            changed()

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong with objects in the API server."""
        return tuple(map(str, problems_of(self._configuration.reports())))

    def watches(self) -> tuple[WatchState, ...]:
        """Return how each watch is doing."""
        return (self._pods.state(), *self._configuration.states(), *(one.state() for one in self._peer_watches))

    def part(self) -> ClusterPart:
        """Return the state of now, for metrics and status."""
        own = self._pods.state()
        return ClusterPart(
            url=self.api.url,
            watches=(_part(own, "pods of this node"), *(_part(one, one.resource) for one in self.watches()[1:])),
            requests=tuple(
                RequestPart(verb, resource, used.requests, used.failed, used.sent, used.received)
                for (verb, resource), used in self.api.usage().items()
            ),
            problems=self.problems(),
            pods=len(self.index),
            peers=None if self.peers is None else len(self.peers),
            waiting=self.enricher.waiting,
            waited=self.enricher.waited,
            misses={reason.value: count for reason, count in self.enricher.misses.copy().items()},
        )

    def write_status(self, picture: Callable[[], Picture]) -> None:
        """From now on say in the API server how this node is doing."""
        self._status = StatusWriter(self.api, self.node, picture)
        self._status.start()

    # -- the watching threads

    def _pod(self, change: Change, key: Key, pod: PodFacts | None) -> None:
        if self.peers is not None and self._only_services:
            self.peers.pod((key.namespace, key.name), _addresses(pod))
        if change is Change.DELETED or pod is None:
            self.index.delete(key.uid)
            self._account_of.pop(key.uid, None)
            return
        self.index.apply(pod)
        if change is Change.ADDED and pod.service_account:
            self._account_of[key.uid] = pod.namespace, pod.service_account
            self._accounts.look()

    def _job_owner(self, namespace: str, name: str) -> Owner | None:
        """One request for each Job with pods here: nothing else says whether a CronJob made it."""
        try:
            metadata: Mapping[str, Any] = self.api.get(JOBS.at(namespace, name)).get("metadata") or {}
        except KubeError as error:
            raise LookupError(str(error)) from None
        for one in metadata.get("ownerReferences") or ():
            if one.get("controller"):
                return Owner(str(one.get("kind", "")), str(one.get("name", "")), str(one.get("uid", "")))
        return None


def peer_watches(api: Api, watched: Watched, peers: PeerIndex) -> list[Watch[Any]]:
    """Make the watches of the whole cluster that tell who has which address."""

    def watch(at: Place, decode: Decode[T], take: Callable[[Named, T | None], None], **selectors: str) -> Watch[T]:
        def on_change(_change: Change, key: Key, value: T | None) -> None:
            take((key.namespace, key.name), value)

        return Watch(api, at, decode, on_change, selectors=selectors)

    found: list[Watch[Any]] = [
        watch(SERVICES.at(), peer_facts.service_addresses, peers.service),
        watch(ENDPOINT_SLICES.at(), peer_facts.endpoints, peers.endpoints),
        watch(NODES.at(), peer_facts.node_addresses, peers.node),
    ]
    if watched is Watched.ALL:
        # Of a pod that has ended another may have the address.
        running = "status.phase!=Succeeded,status.phase!=Failed"
        found.append(watch(PODS.at(), peer_facts.pod_addresses, peers.pod, fieldSelector=running))
    return found


class _Judge:
    """What is wrong with resources (`keytrail.judging`), asked of another process, and only about what may be wrong."""

    def __init__(self, settings: Settings) -> None:
        self._settings = replace(settings, origins={})
        self._judged: Sequence[Resource] = ()
        self._faults: Mapping[ObjectName, Sequence[Fault]] = {}

    def __call__(self, resources: Sequence[Resource]) -> Mapping[ObjectName, Sequence[Fault]]:
        """Of what was judged last the answer is known: mappings change more often than rules do."""
        judged = [one for one in resources if isinstance(one, DetectionRule) or _tunes(one)]
        if judged != self._judged:
            self._faults = run_aside(Task.JUDGE, self._settings, judged) if judged else {}
            self._judged = judged
        return self._faults


def _tunes(resource: Resource) -> bool:
    return isinstance(resource, PolicyLibrary) and bool(resource.spec.rules.tune)


def _part(state: WatchState, resource: str) -> WatchPart:
    return WatchPart(
        resource,
        state.connected,
        state.synced,
        state.objects,
        state.events,
        state.lists,
        state.failures,
        state.undecodable,
        state.heard_ns,
        "" if state.error is None else str(state.error),
    )


def _addresses(pod: PodFacts | None) -> PodAddresses | None:
    """What of a pod of this node others may ask for; nothing of one that has its node's addresses."""
    if pod is None or pod.host_network or not pod.ips:
        return None
    addresses = tuple(filter(None, map(peer_facts.plain_address, pod.ips)))
    return PodAddresses(pod.namespace, pod.name, addresses, "", "")
