"""Actions in, requests to the API server out: each once, in order, with what must hold for it checked by the server.

Nothing is tried again here: whatever failed, or was overtaken by somebody else, is in the next world, and the
reconcilers ask for what is still needed. A failed action ends those of its reconciler for this run, since the later
ones may build on it: a predecessor must not be deleted when making its successor failed.
"""

import logging
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from keytrail.domain.errors import KubeConflictError, KubeError, KubeInvalidError, KubeNotFoundError
from keytrail.domain.objects import API_VERSION
from keytrail.kube.api import Api
from keytrail_operator.actions import Action, Apply, Create, Delete, Replace, WriteStatus

log = logging.getLogger(__name__)

MANAGER: Final = "keytrail-operator"
_STRICT: Final = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
"""A field that is not known is an error: else the API server would drop it, and the rest would mean something else."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of the actions of one reconciler."""

    writes: int = 0
    overtaken: int = 0
    """Actions that somebody else was quicker with; the next world tells."""
    error: KubeError | None = None
    """Why the rest was left out."""


class Actor:
    """Does what reconcilers ask for. For one thread; `counts` is for any."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self.refused: dict[str, str] = {}
        """What the API server said against objects that it did not take, by their name: an installed definition may be
        too old for them. The next that it takes under that name ends it."""

    def do(self, actions: Iterable[Action]) -> Done:
        """Do them in order."""
        writes = overtaken = 0
        for action in actions:
            outcome = "done"
            try:
                self._one(action)
                writes += 1
                self.refused.pop(action.at.name, None)
                log.info("%s", action)
            except KubeInvalidError as error:
                # It fails by itself: the others may be right.
                outcome = "refused"
                if self.refused.get(action.at.name) != str(error):
                    log.warning("%s", error)
                self.refused[action.at.name] = str(error)
            except (KubeConflictError, KubeNotFoundError) as error:
                outcome, overtaken = "overtaken", overtaken + 1
                log.info("%s: overtaken (%s)", action, error)
                if isinstance(error, KubeNotFoundError) and not isinstance(action, Delete | WriteStatus):
                    return Done(writes, overtaken, error)
            except KubeError as error:
                outcome = "failed"
                return Done(writes, overtaken, error)
            finally:
                with self._lock:
                    self._counts[type(action).__name__, outcome] += 1
        return Done(writes, overtaken)

    def counts(self) -> dict[tuple[str, str], int]:
        """Return how many actions there were, by kind and outcome."""
        with self._lock:
            return dict(self._counts)

    def _one(self, action: Action) -> None:
        if isinstance(action, Create):
            self._api.create(action.kind.at(action.at.namespace), dict(action.body), **_STRICT)
        elif isinstance(action, Replace):
            self._api.replace(action.at, dict(action.body), **_STRICT)
        elif isinstance(action, Delete):
            self._api.delete(action.at, uid=action.uid)
        elif isinstance(action, Apply):
            self._api.apply(action.at, dict(action.body), manager=MANAGER)
        else:
            self._api.apply(action.at, _status_body(action), manager=MANAGER)


def _status_body(action: WriteStatus) -> dict[str, object]:
    """Server-side apply takes away what the last status had and this one has not; the uid makes it this object."""
    metadata = {"name": action.name, "uid": action.uid, **({"namespace": action.namespace} if action.namespace else {})}
    return {"apiVersion": API_VERSION, "kind": action.kind, "metadata": metadata, "status": dict(action.status)}
