"""The custom resources in the API server, each in its last version that was right.

In flow the objects of four kinds; out flow, gathered, the resources that are to be in force: the same classes that a
folder gives. One that is wrong changes nothing but its own report; its last good version stays, all others work. While
the API server is away, or knows none of the kinds, what was last known stays in force. Where judging itself fails, as
for want of memory, it is tried again, later each time.

Whether a rule can run is not for this module to know: `judge` says so. Nothing is kept on disk: after a restart without
API server the folder and the shipped content decide.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from keytrail.domain.crds import GROUP, KINDS, VERSION
from keytrail.domain.crds import Kind as Definition
from keytrail.domain.errors import KeytrailError, Problem
from keytrail.domain.objects import ObjectName, Resource
from keytrail.domain.resources import KINDS as READ_BY_COLLECTORS
from keytrail.domain.shape import Fault, read
from keytrail.kube.api import Api
from keytrail.kube.backoff import Backoff
from keytrail.kube.json_stream import Json
from keytrail.kube.places import Kind
from keytrail.kube.store import Change, Key
from keytrail.kube.watch import Watch, WatchState

log = logging.getLogger(__name__)

QUIET_SECONDS: Final = 0.2
"""Changes that follow each other so closely are put in force together: `kubectl apply` of a folder is one change."""
LONGEST_SECONDS: Final = 2.0
"""However many changes follow each other."""
_SHOWN_FAULTS: Final = 5

Judge = Callable[[Sequence[Resource]], Mapping[ObjectName, Sequence[Fault]]]
"""What is wrong with resources beyond their shape. Called with those that are to be in force together."""


@dataclass(frozen=True, slots=True)
class Given:
    """What one version of an object says."""

    generation: int
    resource: Resource | None
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectReport:
    """What became of one object."""

    kind: str
    namespace: str
    name: str
    generation: int
    in_force: int | None
    """The generation that is in force; None: none of them."""
    problems: tuple[str, ...] = ()
    """Why the newest one is not, or what is wrong with it all the same."""


@dataclass(slots=True)
class _Object:
    newest: Given
    good: Given | None = None
    faults: tuple[Fault, ...] = field(default=())


class ConfigWatch:
    """Watches between `start` and `close`, in threads of its own. Everything is for any thread."""

    def __init__(
        self,
        api: Api,
        judge: Judge,
        hand_over: Callable[[tuple[Resource, ...]], None],
        *,
        pauses: Callable[[], Backoff] = Backoff,
        retries: Backoff | None = None,
        quiet_seconds: float = QUIET_SECONDS,
        longest_seconds: float = LONGEST_SECONDS,
    ) -> None:
        """`hand_over` gets every resource that is to be in force, whenever that changes; `retries` are of judging."""
        self._judge = judge
        self._hand_over = hand_over
        # Each judging of rules is a process and a second of CPU, and another may fail as the first one did.
        self._retries = retries or Backoff(1.0, 300.0)
        self._quiet = quiet_seconds
        self._longest = longest_seconds
        self._lock = threading.Condition()
        self._objects: dict[ObjectName, _Object] = {}
        self._changed = False
        self._answered: set[str] = set()
        self._closing = False
        self._in_force: tuple[Resource, ...] = ()
        self._settled = threading.Event()
        self._watches = [self._watch(api, kind, pauses()) for kind in KINDS if kind.name in READ_BY_COLLECTORS]
        self._thread = threading.Thread(target=self._run, name="keytrail-config", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        for watch in self._watches:
            watch.start()
        self._thread.start()

    def stop(self) -> None:
        """Have the threads end; what is in force stays."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        for watch in self._watches:
            watch.stop()

    def close(self, seconds: float = 1.0) -> None:
        """Stop, and wait for the threads so long."""
        self.stop()
        end = time.monotonic() + seconds
        for watch in self._watches:
            watch.close(max(0.0, end - time.monotonic()))
        if self._thread.ident is not None:
            self._thread.join(max(0.0, end - time.monotonic()))

    def resources(self) -> tuple[Resource, ...]:
        """Return what is to be in force, sorted."""
        return self._in_force

    def reports(self) -> tuple[ObjectReport, ...]:
        """Return what became of each object, sorted."""
        with self._lock:
            return tuple(_report(name, one) for name, one in sorted(self._objects.items()))

    def states(self) -> tuple[WatchState, ...]:
        """Return how each watch is doing."""
        return tuple(watch.state() for watch in self._watches)

    def wait_settled(self, seconds: float) -> bool:
        """Wait until every kind was listed, or could not be: from then on `resources` is what there is."""
        return self._settled.wait(seconds)

    # -- watching threads

    def _watch(self, api: Api, definition: Definition, pauses: Backoff) -> Watch[Given]:
        return Watch(
            api,
            Kind(definition.plural, GROUP, VERSION).at(),
            partial(_given, definition.shape),
            partial(self._take, definition.name),
            on_state=self._note,
            pauses=pauses,
        )

    def _take(self, kind: str, change: Change, key: Key, given: Given | None) -> None:
        name = kind, key.namespace, key.name
        with self._lock:
            if change is Change.DELETED or given is None:
                self._objects.pop(name, None)
            elif name in self._objects:
                self._objects[name].newest = given
            else:
                self._objects[name] = _Object(given)
            self._changed = True
            self._lock.notify_all()

    def _note(self, state: WatchState) -> None:
        with self._lock:
            self._answered.add(state.resource)
            self._lock.notify_all()

    # -- the gathering thread

    def _run(self) -> None:
        said, pause = "", None
        while self._wait_for_changes(pause):
            problem = self._attempt()
            self._settled.set()
            if problem and problem != said:
                log.error("cannot put the API server's resources in force: %s; trying again", problem)
            elif said and not problem:
                log.info("the API server's resources are in force after all")
                self._retries.reset()
            said, pause = problem, self._retries.pause() if problem else None

    def _attempt(self) -> str:
        """Settle, or say what is in the way."""
        try:
            self._settle()
        except KeytrailError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - the boundary of this thread: the next change must find it
            return type(error).__name__  # its text could quote an object
        return ""

    def _wait_for_changes(self, longest: float | None) -> bool:
        """Wait until something changed and nothing does any more, or the time is over; False when it is time to end."""
        with self._lock:
            first = not self._settled.is_set()
            self._lock.wait_for(lambda: self._closing or (self._all_answered() if first else self._changed), longest)
            if not first:
                end = time.monotonic() + self._longest
                while self._changed and not self._closing and (left := end - time.monotonic()) > 0:
                    self._changed = False
                    self._lock.wait_for(lambda: self._changed or self._closing, min(self._quiet, left))
            self._changed = False
            return not self._closing

    def _all_answered(self) -> bool:
        return len(self._answered) == len(self._watches)

    def _settle(self) -> None:
        """Decide which version of each object is in force, and hand them over when that is another one."""
        with self._lock:
            newest = {name: one.newest for name, one in self._objects.items()}
        refused = self._judge([given.resource for _, given in sorted(newest.items()) if given.resource is not None])
        with self._lock:
            for name, given in newest.items():
                one = self._objects.get(name)
                if one is None:
                    continue
                before, faults = one.faults, (*given.faults, *refused.get(name, ()))
                if not faults:
                    one.good = given
                one.faults = faults
                if faults and faults != before:
                    _tell(_report(name, one))
            good = sorted((name, one.good.resource) for name, one in self._objects.items() if one.good is not None)
            in_force = tuple(resource for _, resource in good if resource is not None)
        if in_force != self._in_force:
            self._in_force = in_force
            self._hand_over(in_force)


def _given(shape: type[Resource], raw: Json) -> Given:
    metadata: Mapping[str, Any] = raw.get("metadata") or {}
    resource, faults = read(shape, raw)
    return Given(int(metadata.get("generation") or 0), resource, tuple(faults))


def _report(name: ObjectName, one: _Object) -> ObjectReport:
    problems = [f"{fault.field}: {fault.message}" if fault.field else fault.message for fault in one.faults]
    return ObjectReport(*name, one.newest.generation, one.good.generation if one.good else None, tuple(problems))


def _tell(report: ObjectReport) -> None:
    instead = "nothing of it is" if report.in_force is None else f"generation {report.in_force} stays"
    for problem in report.problems[:_SHOWN_FAULTS]:
        log.error(
            "%s %s in the API server: generation %d is not in force, %s: %s",
            report.kind,
            "/".join(filter(None, (report.namespace, report.name))),
            report.generation,
            instead,
            problem,
        )


def problems_of(reports: Iterable[ObjectReport]) -> tuple[Problem, ...]:
    """Return what is wrong with objects in the form that everything else has that is wrong with manifests."""
    return tuple(
        Problem("<api server>", 0, f"{one.kind} {'/'.join(filter(None, (one.namespace, one.name)))}", problem)
        for one in reports
        for problem in one.problems
    )
