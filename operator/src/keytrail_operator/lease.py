"""Which of several replicas acts: whoever holds the Lease.

In flow the Lease as it stands; out flows `held`, which is true only while no other replica can believe the same of
itself. A holder that could not renew in time ends its process: requests of its may still be under way, and nothing that
it remembers can be trusted any more. Only replicas that stand by need this; it is off by default.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from keytrail.domain.errors import KubeConflictError, KubeError, KubeNotFoundError
from keytrail.kube.api import Api
from keytrail.kube.places import Kind

log = logging.getLogger(__name__)

LEASES: Final = Kind("leases", "coordination.k8s.io")
NAME: Final = "keytrail-operator"
LASTS_SECONDS: Final = 30
_RENEW_SECONDS: Final = 10.0
_GIVE_UP_SECONDS: Final = 20.0
"""Before the Lease runs out for others, by more than a request may take to be noticed as failed."""


class Lease:
    """Competes between `start` and `close`, in a thread of its own; `held` is for any thread."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        identity: str,
        *,
        won: Callable[[], None],
        lost: Callable[[], None],
        renew_seconds: float = _RENEW_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._identity = identity
        self._won, self._lost = won, lost
        self._renew_seconds = renew_seconds
        self._clock = clock
        self._now = now
        self._renewed: float | None = None
        """When the request began that won or renewed the Lease last; None while another one has it."""
        self._seen: tuple[object, float] = (None, 0.0)
        """What the Lease said last, and since when it says so: clocks of two machines are never compared."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keytrail-lease", daemon=True)

    def start(self) -> None:
        """Begin to compete."""
        self._thread.start()

    def held(self) -> bool:
        """Whether this replica may act now."""
        renewed = self._renewed
        return renewed is not None and self._clock() - renewed < _GIVE_UP_SECONDS

    def close(self, seconds: float = 2.0) -> None:
        """Stop, and let the next replica begin at once."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while not self._closing.is_set():
            had = self._renewed is not None
            self._try()
            if had and not self.held():
                log.error("the Lease %s could not be renewed in time: ending, so that another replica can act", NAME)
                self._lost()
                return
            self._closing.wait(self._renew_seconds)
        if self.held():
            self._release()

    def _try(self) -> None:
        began = self._clock()
        try:
            found = self._api.get(LEASES.at(self._namespace, NAME))
        except KubeNotFoundError:
            found = None
        except KubeError as error:
            log.warning("%s", error)
            return
        try:
            won = self._take(found)
        except KubeConflictError:
            return  # another replica was quicker
        except KubeError as error:
            log.warning("%s", error)
            return
        if won:
            first, self._renewed = self._renewed is None, began
            if first:
                log.info("this replica acts")
                self._won()

    def _take(self, found: dict[str, Any] | None) -> bool:
        if found is None:
            self._api.create(LEASES.at(self._namespace), self._body({}, self._identity))
            return True
        spec = found.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        said = holder, spec.get("renewTime")
        if said != self._seen[0]:
            self._seen = said, self._clock()
        lasts = float(spec.get("leaseDurationSeconds") or LASTS_SECONDS)
        if holder not in {"", self._identity} and self._clock() - self._seen[1] < lasts:
            return False
        self._api.replace(LEASES.at(self._namespace, NAME), self._body(found["metadata"], self._identity))
        return True

    def _release(self) -> None:
        try:
            found = self._api.get(LEASES.at(self._namespace, NAME))
            self._api.replace(LEASES.at(self._namespace, NAME), self._body(found["metadata"], ""))
        except KubeError as error:
            log.info("the Lease runs out by itself: %s", error)

    def _body(self, metadata: dict[str, Any], holder: str) -> dict[str, Any]:
        """Return a Lease; with the resourceVersion that was read, so that only one replica can win."""
        kept = {name: metadata[name] for name in ("resourceVersion", "uid") if name in metadata}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": NAME, "namespace": self._namespace, **kept},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": LASTS_SECONDS if holder else 1,
                "renewTime": self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            },
        }
