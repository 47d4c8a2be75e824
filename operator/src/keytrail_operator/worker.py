"""The one thread that decides and acts: dirty stores in, requests out.

It runs when something changed, once changes have been quiet for half a second or have gone on for five, when a
reconciler asked to be called again, and in any case after every list of its own, so that whatever a watch did not tell
is noticed. Reconcilers never run at the same time, and never on a world of which a part was not yet known.
"""

import logging
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from keytrail.domain.errors import KubeUnreachableError
from keytrail.kube.api import Api
from keytrail.kube.backoff import Backoff
from keytrail.observe.watchdog import Pulse
from keytrail_operator.acting import Actor
from keytrail_operator.reconcile import AnyReconciler
from keytrail_operator.stores import Stores, Watched
from keytrail_operator.world import World

log = logging.getLogger(__name__)

QUIET_SECONDS: Final = 0.5
LONGEST_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 600.0
"""Between two lists of everything."""
ABSENT_SECONDS: Final = 30.0
"""Between two lists of a kind that the API server did not have, or did not answer about."""


@dataclass(slots=True)
class Figures:
    """What the worker did so far, for metrics. Written by the worker, read by anyone."""

    runs: int = 0
    failures: int = 0
    """Runs of a reconciler that ended in an error of ours."""
    seconds: float = 0.0
    """Spent in all runs together, requests among them."""
    last_seconds: float = 0.0
    synced: bool = False
    """Whether everything was known at least once and acted upon."""


class Worker:
    """Works between `start` and `close`."""

    def __init__(
        self,
        api: Api,
        stores: Callable[[Callable[[], None]], Stores],
        reconcilers: Sequence[AnyReconciler],
        pulse: Pulse,
        *,
        may_act: Callable[[], bool] = lambda: True,
        quiet_seconds: float = QUIET_SECONDS,
        longest_seconds: float = LONGEST_SECONDS,
        look_seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`stores` makes the stores, given what they call when something changed. `may_act`: this is the leader."""
        self._api = api
        self.stores = stores(self.changed)
        self.actor = Actor(api)
        self.figures = Figures()
        self._reconcilers = reconcilers
        self._memories: dict[str, Any] = {one.name: one.begins_with for one in reconcilers}
        self._pulse = pulse
        self._may_act = may_act
        self._quiet, self._longest, self._look_seconds = quiet_seconds, longest_seconds, look_seconds
        self._clock = clock
        self._now = now
        self._pauses = Backoff()
        self._lock = threading.Condition()
        self._dirty = False
        self._closing = False
        self._again = clock()
        """When to run at the latest."""
        self._look_at = self._absent_at = clock()
        self._known = False
        self._thread = threading.Thread(target=self._run, name="keytrail-worker", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def changed(self) -> None:
        """Take note that something changed; for any thread."""
        with self._lock:
            self._dirty = True
            self._lock.notify_all()

    def close(self, seconds: float = 5.0) -> None:
        """Stop after the request under way, and wait so long for that."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    # -- the thread

    def _run(self) -> None:
        self._pulse.started()
        while self._wait():
            self._pulse.busy()
            began = self._clock()
            try:
                self._look()
                if self._known and self._may_act():
                    self._reconcile()
            except Exception as error:  # noqa: BLE001 - the boundary of this thread: the next run may go well
                self.figures.failures += 1
                log.error("a run failed (%s)", type(error).__name__)  # noqa: TRY400 - a traceback could quote objects
                self._call_again(self._pauses.pause())
            self.figures.last_seconds = self._clock() - began
            self.figures.seconds += self.figures.last_seconds
            self._pulse.idle()
        self._pulse.finished()

    def _wait(self) -> bool:
        """Wait for work; False when it is time to end."""
        with self._lock:
            while not self._closing and not self._dirty and self._clock() < self._due():
                self._lock.wait(max(0.0, self._due() - self._clock()))
            end = self._clock() + self._longest
            while self._dirty and not self._closing and (left := end - self._clock()) > 0:
                self._dirty = False
                self._lock.wait_for(lambda: self._dirty or self._closing, min(self._quiet, left))
            self._dirty = False
            return not self._closing

    def _due(self) -> float:
        return min(self._again, self._look_at, self._absent_at)

    def _call_again(self, seconds: float) -> None:
        self._again = min(self._again, self._clock() + seconds)

    def _look(self) -> None:
        """List what is due."""
        now = self._clock()
        if now >= self._look_at:
            self._known = self.stores.look(self._api, self._now(), only=lambda _: not self._closing)
            self._look_at = now + self._look_seconds
        elif now >= self._absent_at:
            self._known = self.stores.look(self._api, self._now(), only=self._is_absent)
        else:
            return
        self._absent_at = now + (ABSENT_SECONDS if self._known else self._pauses.pause())

    def _is_absent(self, one: Watched) -> bool:
        return self.stores.absent(one) and not self._closing

    def _reconcile(self) -> None:
        self.figures.runs += 1
        self._again = self._clock() + self._look_seconds
        world, now = replace(self.stores.world(), refused=dict(self.actor.refused)), self._now()
        # Each by itself: what is wrong with one kind of object must not keep the others from being looked after.
        went_well = [self._one(one, world, now) for one in self._reconcilers]
        if all(went_well):
            self._pauses.reset()
            self.figures.synced = True

    def _one(self, one: AnyReconciler, world: World, now: float) -> bool:
        """Run one reconciler and do what it wants; whether that went well."""
        try:
            outcome = one.reconcile(world, self._memories[one.name], now)
        except Exception as error:  # noqa: BLE001 - a reconciler's own boundary
            self.figures.failures += 1
            at = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}"  # the text could quote an object
            log.error("%s failed (%s)", one.name, where)  # noqa: TRY400 - no traceback either
            self._call_again(self._pauses.pause())
            return False
        done = self.actor.do(takewhile(lambda _: not self._closing, outcome.actions))
        self._memories[one.name] = outcome.memory
        if outcome.again is not None:
            self._call_again(outcome.again)
        if done.overtaken:
            # Mostly the watch tells the rest in a moment. It may know nothing of a kind that has just come, either.
            self._call_again(self._longest)
            self._look_at = min(self._look_at, self._clock() + self._longest)
        if done.error is not None:
            log.warning("%s: %s", one.name, done.error)
            at_least = done.error.retry_after if isinstance(done.error, KubeUnreachableError) else 0.0
            self._call_again(self._pauses.pause(at_least))
        return done.error is None
