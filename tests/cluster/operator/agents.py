"""Agents and collectors of many nodes, played: each node loads what TracingPolicies there are, and says so.

In: the administrator's way to the API server. Out: CollectorStatus objects as collectors write them. Loading takes a
turn; a policy that `refuse` names fails on that node. Also the witness: at each change of a TracingPolicy, whether
every node still has a policy of each wanted sensor loaded.
"""

import json
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Self

import requests

from cluster.operator.release import POLICIES, STATUSES, Admin

_HEARTBEAT_SECONDS = 5.0


class Agents:
    """The agents of some nodes. A context manager, inside of which they follow what there is."""

    def __init__(self, admin: Admin, names: Iterable[str]) -> None:
        self.admin = admin
        self.names = list(names)
        self.refuse: dict[str, str] = {}
        """Beginning of a policy's name -> the node that cannot load it."""
        self.silent: set[str] = set()
        """Nodes that say nothing any more."""
        self.loaded: dict[str, set[str]] = {name: set() for name in self.names}
        self._said: dict[str, object] = {}
        self._beat = 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._closing.wait(0.3):
            with suppress(requests.RequestException, AssertionError, TypeError):  # the API server may be away
                self.turn()

    def make_nodes(self, range_of: Any = None) -> None:
        """Make the Node objects, ready."""
        for number, name in enumerate(self.names):
            spec = {} if range_of is None else {"podCIDR": range_of(number), "podCIDRs": [range_of(number)]}
            body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec}
            answer = self.admin.ask("POST", "/api/v1/nodes", body)
            assert answer.ok, answer.text
            status = {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": f"10.9.{number // 250}.{number % 250 + 1}"}],
            }
            assert self.admin.merge(f"/api/v1/nodes/{name}/status", {"status": status}).ok

    def turn(self) -> None:
        """Let each node load, unload and report what is new; ten minutes between heartbeats are five seconds here."""
        beats = time.monotonic() - self._beat > _HEARTBEAT_SECONDS
        self._beat = time.monotonic() if beats else self._beat
        found = {one["metadata"]["name"]: one["metadata"]["uid"] for one in self.admin.get(POLICIES)["items"]}
        for node in self.names:
            refused = {
                one for one in found for begin, at in self.refuse.items() if one.startswith(begin) and at == node
            }
            failed = refused - self.loaded[node]  # what it has it keeps
            said = {name: uid for name, uid in found.items() if name not in failed}, failed
            if node not in self.silent and (beats or self._said.get(node) != said):
                self.loaded[node] = set(found) - failed
                self.report(node, self.loaded[node], failed)
                self._said[node] = said

    def report(self, node: str, loaded: Iterable[str], failed: Iterable[str] = (), **more: object) -> None:
        """Write the CollectorStatus of a node."""
        path = f"{STATUSES}/{node}"
        head: dict[str, Any] = {
            "apiVersion": "keytrail.io/v1alpha1",
            "kind": "CollectorStatus",
            "metadata": {"name": node},
        }
        if node not in self._said:
            self.admin.apply(path, head)
        policies = [{"name": one, "state": "Loaded"} for one in sorted(loaded)]
        policies += [{"name": one, "state": "Failed", "message": "no such function"} for one in sorted(failed)]
        status = {
            "heartbeatTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "version": "0.1.0",
            "tetragonVersion": "v1.7.0",
            "policies": policies,
            **more,
        }
        self.admin.apply(f"{path}/status", {**head, "status": status})


class Witness:
    """Watches the TracingPolicies: at no change may a wanted sensor be without a policy that all nodes have loaded."""

    def __init__(self, agents: Agents, wanted: Iterable[str]) -> None:
        self._agents = agents
        self._wanted = set(wanted)
        self.changes = 0
        self.uncovered: list[str] = []
        self._closing = False
        self._response: requests.Response | None = None
        found = agents.admin.get(POLICIES)
        self._there = {one["metadata"]["name"]: _sensor(one) for one in found["items"]}
        self._version = found["metadata"]["resourceVersion"]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        if self._response is not None:
            with suppress(Exception):
                self._response.raw.shutdown()  # the thread that reads finds the end
        self._thread.join(10)

    def _run(self) -> None:
        admin = Admin(self._agents.admin.plane)
        while not self._closing:
            with suppress(requests.RequestException, OSError):
                self._response = admin.session.get(
                    admin.plane.url + POLICIES,
                    params={"watch": "true", "resourceVersion": self._version},
                    stream=True,
                    timeout=(5, 300),
                )
                for line in self._response.iter_lines():
                    event = json.loads(line)
                    self._version = event["object"]["metadata"].get("resourceVersion", self._version)
                    self._take(event["type"], event["object"])
        admin.session.close()

    def _take(self, kind: str, policy: dict[str, Any]) -> None:
        name = policy["metadata"]["name"]
        self.changes += 1
        if kind == "DELETED":
            self._there.pop(name, None)
        else:
            self._there[name] = _sensor(policy)
        for sensor in self._wanted:
            names = [one for one, of in self._there.items() if of == sensor]
            for node, loaded in self._agents.loaded.items():
                if not any(one in loaded for one in names):
                    self.uncovered.append(f"{sensor} on {node} after {kind} {name}")


def _sensor(policy: dict[str, Any]) -> str:
    return str(policy["metadata"].get("labels", {}).get("keytrail.io/sensor", ""))
