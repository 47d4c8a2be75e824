"""The CollectorStatus of this node, written sparingly: every write reaches whoever watches the kind, times all nodes.

In flow pictures of the collector, every few seconds; out flow writes: soon after a state changed, but never two within
a minute, and every ten minutes in any case, all at random moments so that nodes do not write in step. The object is
named like the node and owned by it, so that it goes with the node. What it says is `status_content`'s.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from keytrail.domain.collector_status import CollectorState
from keytrail.domain.crds import GROUP, KINDS, VERSION
from keytrail.domain.errors import KubeError, KubeNotFoundError
from keytrail.domain.objects import API_VERSION
from keytrail.domain.shape import read
from keytrail.domain.status import Condition
from keytrail.kube.api import Api
from keytrail.kube.json_stream import Json
from keytrail.kube.places import NODES, Kind
from keytrail.kube.status_content import Picture, as_data, signature, state_of

log = logging.getLogger(__name__)

KIND: Final = "CollectorStatus"
LOOK_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 60.0
"""Least time between two writes; up to half as much again is added at random."""
_HEARTBEAT_SECONDS: Final = 600.0
"""Most time between two writes; up to a tenth less, at random."""
_FIRST_SECONDS: Final = 10.0
"""A roll-out starts many collectors at once."""
_MANAGER: Final = "keytrail-collector"
_STATUSES: Final = next(Kind(one.plural, GROUP, VERSION) for one in KINDS if one.name == KIND)


class WritePlan:
    """When to write. Times are monotonic seconds; `uniform` is random in [0, 1)."""

    def __init__(self, now: float, uniform: Callable[[], float] = random.random) -> None:
        self._uniform = uniform
        self._written: object = None
        self._not_before = self._at_last = now + _FIRST_SECONDS * uniform()

    def is_due(self, now: float, about: object) -> bool:
        """Whether to write now what `about` sums up."""
        return now >= self._at_last or (now >= self._not_before and about != self._written)

    def tried(self, now: float, about: object, *, written: bool) -> None:
        """Plan the next write. One that failed is tried again, no sooner than after a success."""
        self._not_before = now + _PAUSE_SECONDS * (1 + self._uniform() / 2)
        if written:
            self._written = about
            self._at_last = now + _HEARTBEAT_SECONDS * (1 - self._uniform() / 10)
        else:
            self._written = None
            self._at_last = self._not_before


class StatusWriter:
    """Writes between `start` and `close`, in a thread of its own."""

    def __init__(
        self,
        api: Api,
        node: str,
        picture: Callable[[], Picture],
        *,
        look_seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._api = api
        self._node = node
        self._picture = picture
        self._look_seconds = look_seconds
        self._clock = clock
        self._plan = WritePlan(clock(), uniform)
        self._conditions: tuple[Condition, ...] = ()
        self._exists = False
        self._trouble = ""
        self.writes = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keytrail-status", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Have the thread end. Nothing more is written: what it said last ages, and that says it."""
        self._closing.set()

    def close(self, seconds: float = 1.0) -> None:
        """Stop, and wait for the thread so long."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def look(self) -> bool:
        """Look once, as the thread does; whether that wrote."""
        now = self._clock()
        state = state_of(self._picture(), self._conditions)
        about = signature(state)
        if not self._plan.is_due(now, about):
            return False
        written = self._write(state)
        self._plan.tried(now, about, written=written)
        return written

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - the boundary of this thread: the next look may go well
                self._say(f"cannot say how this node is doing ({type(error).__name__})")
            self._closing.wait(self._look_seconds)

    # -- writing

    def _write(self, state: CollectorState) -> bool:
        try:
            if not self._exists:
                # The times of conditions outlive this process.
                self._conditions = self._find_or_create()
                self._exists = True
                state = state_of(self._picture(), self._conditions)
            body = {**self._head(), "status": as_data(state)}
            self._api.apply(_STATUSES.at(name=self._node, part="status"), body, manager=_MANAGER)
        except KubeNotFoundError as error:
            self._exists = False  # deleted, or not yet defined: made anew at the next try
            self._say(f"cannot write the CollectorStatus of node {self._node}: {error}")
            return False
        except KubeError as error:
            self._say(f"cannot write the CollectorStatus of node {self._node}: {error}")
            return False
        self._conditions = state.conditions
        self.writes += 1
        self._trouble = ""
        return True

    def _find_or_create(self) -> tuple[Condition, ...]:
        try:
            return _conditions_of(self._api.get(_STATUSES.at(name=self._node)))
        except KubeNotFoundError:
            uid = _dig(self._api.get(NODES.at(name=self._node)), "metadata", "uid")
        owner = {"apiVersion": "v1", "kind": "Node", "name": self._node, "uid": uid, "blockOwnerDeletion": False}
        body = self._head()
        body["metadata"]["ownerReferences"] = [owner]
        self._api.apply(_STATUSES.at(name=self._node), body, manager=_MANAGER)
        return ()

    def _head(self) -> Json:
        return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": self._node}}

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.warning("%s", trouble)
        self._trouble = trouble


def _conditions_of(found: Json) -> tuple[Condition, ...]:
    """Return the conditions that an object has; none of what an older version wrote and nobody can read now."""
    given = _dig(found, "status", "conditions")
    read_ones = [read(Condition, one)[0] for one in given] if isinstance(given, list) else []
    return tuple(one for one in read_ones if one is not None)


def _dig(data: Any, *names: str) -> Any:
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
    return data
