"""Objects of a recording in a real API server, with the uids that they had.

The API server gives every object that is created a uid of its own, and events of a recording name the recorded ones. So
objects are written where it keeps them: into etcd, as JSON, which it reads as well as its own form. From there on all
is as ever: its watches tell of them, its lists have them. Only etcd and the API server run: a controller would put the
recorded objects right.
"""

import base64
import copy
import json
from collections.abc import Callable
from typing import Any

import requests

from keytrail.cluster import Cluster
from keytrail.domain.pod_facts import PodFacts
from support.components.control_plane import ControlPlane
from support.processes import wait_until

Json = dict[str, Any]
SECONDS = 60.0
_AT_ONCE = 50
"""In one transaction: etcd takes 1.5 MiB."""
_FOLDERS = {
    "Pod": "pods",
    "Job": "jobs",
    "ServiceAccount": "serviceaccounts",
    "Service": "services/specs",
    "EndpointSlice": "endpointslices",
    "Node": "minions",
}


class Storage:
    """What an API server has, written behind its back."""

    def __init__(self, plane: ControlPlane) -> None:
        self._url = f"{plane.etcd_url}/v3/kv"
        self._session = requests.Session()

    def put(self, *objects: Json) -> None:
        """Have objects exactly as they are."""
        for first in range(0, len(objects), _AT_ONCE):
            some = objects[first : first + _AT_ONCE]
            self._post(
                "txn", {"success": [{"requestPut": _texts(key=_key(raw), value=json.dumps(raw))} for raw in some]}
            )

    def delete(self, raw: Json) -> None:
        """Have one no more."""
        self._post("deleterange", _texts(key=_key(raw)))

    def _post(self, path: str, body: Json) -> None:
        self._session.post(f"{self._url}/{path}", json=body, timeout=20).raise_for_status()


def _texts(**texts: str) -> dict[str, str]:
    return {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}


def _key(raw: Json) -> str:
    metadata = raw["metadata"]
    return "/".join(filter(None, ("/registry", _FOLDERS[raw["kind"]], metadata.get("namespace"), metadata["name"])))


class World:
    """Pods that come, change and go in the API server; each change has reached the collector when the call returns.

    Takes what a `PodIndex` takes, so that the announcements of `enrich.recorded_cluster` can be made to it.
    """

    def __init__(self, storage: Storage, cluster: Cluster, pods: dict[str, Json]) -> None:
        self._storage = storage
        self._cluster = cluster
        self._pods = pods
        """As recorded, by uid."""
        self.present: set[str] = set()

    def apply(self, pod: PodFacts) -> None:
        """Announce a pod as recorded, with these labels, and without the ids of its containers when it has none yet."""
        raw = copy.deepcopy(self._pods[pod.uid])
        raw["metadata"]["labels"] = dict(pod.labels or {})
        if not any(one.ids for one in pod.containers):
            raw["status"].pop("containerStatuses", None)
        self._told(lambda: self._storage.put(raw))
        self.present.add(pod.uid)

    def delete(self, uid: str) -> None:
        """Delete a pod, if it is there."""
        if uid in self.present:
            self._told(lambda: self._storage.delete(self._pods[uid]))
            self.present.remove(uid)

    def _told(self, change: Callable[[], None]) -> None:
        before = self._cluster.watches()[0].events
        change()
        assert wait_until(lambda: self._cluster.watches()[0].events == before + 1, SECONDS), self._cluster.watches()[0]
