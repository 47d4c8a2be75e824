"""Events in, the same events out, their processes placed: which pod, which workload, and what is not known of it.

A process is placed once, and again when the pods have changed; until then it costs one comparison. Where the agent
names a pod, the API server completes it; where it names none, the container's id leads to it; a process that only bears
the id of a container gets no pod, whatever the agent says. Events of a container that nobody knows yet wait, in their
order and without holding up others, until it is known or their time is over. Next: `identify`. Must not know rules.
"""

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from keytrail.domain.event import Event
from keytrail.domain.placement import ON_NODE, Partial, Placement, Provenance
from keytrail.domain.pod_facts import CONTAINER_ID_DIGITS
from keytrail.domain.process import Pod, Process
from keytrail.enrich.index import Known, PodIndex, Pods
from keytrail.enrich.origin import origin_of, runtime_test

DEFAULT_WAIT_NS: Final = 2_000_000_000
_MOST_WAITING: Final = 2_000
"""Events, of some 12 KB each."""
_GIVEN_UP: Final = 1_024
"""Unknown containers whose next processes do not wait again."""
_SANDBOX_PROGRAMS: Final = frozenset({"/pause", "/usr/bin/pod"})
_UNKNOWN: Final = {partial: Placement(partial) for partial in Partial}


class _Queue(NamedTuple):
    deadline_ns: int
    events: list[Event]


class Enricher:
    """Places the processes of one agent's stream. One thread only; the index may be written by others meanwhile."""

    def __init__(
        self,
        index: PodIndex,
        *,
        wait_ns: int = DEFAULT_WAIT_NS,
        most_waiting: int = _MOST_WAITING,
        runtimes: Iterable[str] = (),
    ) -> None:
        self._index = index
        self._wait_ns = wait_ns
        self._most_waiting = most_waiting
        self._is_runtime = runtime_test(runtimes)
        # Ordered ones, whose first is at hand: to find it, a dict passes over all that were taken before it.
        self._queues: OrderedDict[str, _Queue] = OrderedDict()
        """Events that wait, by the container's id, the first to wait first: deadlines are in this order."""
        self._looked_up: Pods | None = None
        """The snapshot in which none of those that wait is found."""
        self._given_up: OrderedDict[str, None] = OrderedDict()
        self.waiting = 0
        """Events that wait now."""
        self.waited = 0
        """Events that ever waited."""
        self.misses: Counter[Partial] = Counter()
        """Processes of which something is not known, by reason."""

    def process(self, events: Sequence[Event], now_ns: int) -> list[Event]:
        """Return the events that can go on, those first that waited. `now_ns` is any clock that does not go back."""
        pods = self._index.pods
        generation = pods.generation
        ready: list[Event] = []
        if self._queues:
            self._release(pods, now_ns, ready)
        for event in events:
            if event.process.placed_at == generation:
                ready.append(event)
            else:
                self._admit(event, pods, now_ns, ready)
        return ready

    def flush(self) -> list[Event]:
        """End of the stream: everything that waits goes on as it is."""
        ready: list[Event] = []
        while self._queues:
            self._end(next(iter(self._queues)), self._index.pods, ready)
        return ready

    def variables_from_secrets(self, process: Process) -> Collection[str]:
        """Variables that the Pod's spec takes from Secrets, for a process that was not placed yet; none if unknown."""
        known = self._index.pods.find(_container_id(process), process.pod)
        declared = None if known is None else known.placement.declared
        return () if declared is None else [name for name, key in declared.variables.items() if key is not None]

    # -- waiting

    def _admit(self, event: Event, pods: Pods, now_ns: int, ready: list[Event]) -> None:
        queue = self._queues.get(_container_id(event.process)) if self._queues else None
        if queue is None:
            if self._place(event, pods, may_wait=True):
                ready.append(event)
                return
            queue = self._queues[_container_id(event.process)] = _Queue(now_ns + self._wait_ns, [])
        queue.events.append(event)
        self.waited += 1
        self.waiting += 1
        named = queue.events[0].process.pod  # which an agent may tell of only with a later event
        if named is not None and pods.find(_container_id(event.process), named) is not None:
            self._end(_container_id(event.process), pods, ready)
        elif self.waiting > self._most_waiting:
            self._end(next(iter(self._queues)), pods, ready, Partial.TOO_MANY_WAIT)

    def _release(self, pods: Pods, now_ns: int, ready: list[Event]) -> None:
        if pods is not self._looked_up:  # all of them at each batch were 20 us an event, with 2,000 forged ids waiting
            self._looked_up = pods
            for container_id, queue in list(self._queues.items()):
                if pods.find(container_id, queue.events[0].process.pod) is not None:
                    self._end(container_id, pods, ready)
        while self._queues and now_ns >= next(iter(self._queues.values())).deadline_ns:
            self._end(next(iter(self._queues)), pods, ready)

    def _end(self, container_id: str, pods: Pods, ready: list[Event], reason: Partial | None = None) -> None:
        queue = self._queues.pop(container_id)
        self.waiting -= len(queue.events)
        if container_id not in pods.containers:
            if len(self._given_up) >= _GIVEN_UP:
                self._given_up.popitem(last=False)
            self._given_up[container_id] = None
        for event in queue.events:
            if event.process.placed_at != pods.generation:
                self._place(event, pods, may_wait=False, reason=reason)
        ready += queue.events

    # -- placing

    def _place(self, event: Event, pods: Pods, *, may_wait: bool, reason: Partial | None = None) -> bool:
        """Conclude where the process runs; False when that should wait."""
        process = event.process
        container_id = _container_id(process)
        if not container_id:
            self._conclude(process, None, ON_NODE, pods)
            return True
        if process.origin is None:
            process.origin = origin_of(process, event.ancestors(), self._is_runtime)
        provenance = process.origin.provenance
        known = pods.find(container_id, process.pod)
        if provenance is Provenance.RUNTIME:
            self._conclude(process, None, _UNKNOWN[Partial.RUNTIME], pods)
        elif provenance is Provenance.FORGED:
            self._conclude(process, None, _forged(process, known), pods)
        elif known is not None:
            verified = provenance is Provenance.GENUINE
            pod = known.probe if process.pod is not None and process.pod.maybe_exec_probe else known.pod
            self._conclude(process, pod, known.placement if verified else known.unverified, pods)
        elif process.placement is not None and process.placement.declared is not None:
            process.placed_at = pods.generation  # its pod was deleted long ago: what was known stays true
        elif process.pod is None and process.binary in _SANDBOX_PROGRAMS:
            self._conclude(process, None, _UNKNOWN[Partial.SANDBOX], pods)
        elif may_wait and container_id not in self._given_up and self._wait_ns:
            return False
        else:
            self._conclude(process, process.pod, _UNKNOWN[reason or _missing(process, pods)], pods)
        return True

    def _conclude(self, process: Process, pod: Pod | None, placement: Placement, pods: Pods) -> None:
        process.placed_at = pods.generation
        if process.pod is pod and process.placement is placement:
            return
        if placement.partial is not None and (process.placement is None or process.placement.partial is None):
            self.misses[placement.partial] += 1
        process.pod, process.placement = pod, placement
        process.attribution = None  # it rests on both


def _container_id(process: Process) -> str:
    if process.container_id or process.pod is None:
        return process.container_id
    return process.pod.container.id[:CONTAINER_ID_DIGITS]


def _forged(process: Process, known: Known | None) -> Placement:
    """A made-up id is an unknown container; the id of a real one is a forgery, and then it is said whose it is."""
    if process.placement is not None and process.placement.partial is Partial.FORGED:
        return process.placement
    pod = process.pod if known is None else known.pod
    if pod is None:
        return _UNKNOWN[Partial.UNKNOWN_CONTAINER]
    return Placement(Partial.FORGED, claimed=f"{pod.namespace}/{pod.name}")


def _missing(process: Process, pods: Pods) -> Partial:
    if process.pod is not None:
        return Partial.NOT_ANNOUNCED
    return Partial.UNKNOWN_CONTAINER if pods.available else Partial.API_UNAVAILABLE
