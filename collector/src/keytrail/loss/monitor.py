"""The thread that looks at what no event tells: the agent's counters, its policies, and the end of episodes.

In: the watchers. Out: nothing; they report by themselves. One thread for all, as none of them takes long: a look at the
metrics page and a list of policies are each given up after 1.5 s, so that loss is told within five seconds.
"""

import logging
import threading
import time
from collections.abc import Callable

from keytrail.loss.agent_metrics import AgentMetrics
from keytrail.loss.policy_counters import PolicyCounters
from keytrail.loss.watch import LossWatch

log = logging.getLogger(__name__)

_EVERY_SECONDS = 2.0
_POLICIES_EVERY_SECONDS = 30.0
_CLOSE_SECONDS = 1.0


class LossMonitor:
    """Starts and ends with the collector."""

    def __init__(
        self,
        watch: LossWatch,
        metrics: AgentMetrics | None = None,
        policies: PolicyCounters | None = None,
        *,
        every_seconds: float = _EVERY_SECONDS,
        policies_every_seconds: float = _POLICIES_EVERY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.failures = 0
        """Looks that ended in an error of ours."""
        self._watch = watch
        self._metrics = metrics
        self._policies = policies
        self._every = every_seconds
        self._policies_every = policies_every_seconds
        self._policies_due = 0.0
        self._clock = clock
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keytrail-loss", daemon=True)

    def start(self) -> None:
        """Begin to look, at once."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking and end what is open; returns within a second, also when the agent hangs."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._guarded(self._look)
            self._closing.wait(self._every)
        for part in (self._metrics, self._policies, self._watch):
            if part is not None:
                self._guarded(part.close)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            # The boundary of this thread: a look that failed must not end all further ones.
            self.failures += 1
            log.exception("looking for loss failed")

    def _look(self) -> None:
        if self._metrics is not None:
            self._metrics.look()
        self._watch.tick()
        if self._policies is not None and self._clock() >= self._policies_due:
            self._policies_due = self._clock() + self._policies_every
            self._policies.look()
