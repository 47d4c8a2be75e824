"""One collection of the API server, kept up to date: list and watch, in a thread of its own.

In flow events of the watch; out flow changes, each exactly once and in order, and a state to show. While the server is
away the last copy stays, and what happened meanwhile is told of when it is back. The initial list is streamed object by
object where the server can (WatchList, on by default since Kubernetes 1.34), else read from one list in the same way:
both are answered out of the server's cache, where pages would make it ask etcd for each.

Knows no kind of object: `decode` says what is kept of one.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from keytrail.domain.errors import KubeError, KubeGoneError, KubeInvalidError, KubeUnreachableError
from keytrail.kube.answers import Asked, error_of_status
from keytrail.kube.api import Api, Stream
from keytrail.kube.backoff import Backoff
from keytrail.kube.json_stream import Json, ListReader, objects_of_lines
from keytrail.kube.places import Place
from keytrail.kube.store import Decode, OnChange, Store

log = logging.getLogger(__name__)

T = TypeVar("T")

_WATCH_SECONDS: Final = (300.0, 600.0)
"""A watch ends after a random time in between and goes on with the next: so load spreads over API servers again."""
_GRACE_SECONDS: Final = 15.0
_LASTING_NS: Final = 10_000_000_000
"""A watch that lived so long worked, even if nothing happened."""
_END_OF_LIST: Final = "k8s.io/initial-events-end"


@dataclass(frozen=True, slots=True)
class WatchState:
    """How one watch is doing. Times are wall clock, nanoseconds since the epoch."""

    resource: str
    objects: int = 0
    connected: bool = False
    """Whether the last request was answered and the copy is as new as it can be."""
    synced: bool = False
    """Whether the copy was complete at least once."""
    heard_ns: int | None = None
    """When the server last said anything."""
    events: int = 0
    lists: int = 0
    """Complete lists: one at the start, and one whenever the server no longer had the history since."""
    failures: int = 0
    undecodable: int = 0
    error: KubeError | None = None
    """Why it is not connected."""


class Watch(Generic[T]):
    """Watches between `start` and `close`. `state`, `objects` and `wait_synced` are for any thread."""

    def __init__(
        self,
        api: Api,
        at: Place,
        decode: Decode[T],
        on_change: OnChange[T],
        *,
        selectors: dict[str, str] | None = None,
        on_state: Callable[[WatchState], None] = lambda _state: None,
        pauses: Backoff | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`selectors` are fieldSelector and labelSelector. Both callbacks are called by the watching thread."""
        self._api = api
        self._at = at
        self._selectors = dict(selectors or {})
        self._on_state = on_state
        self._pauses = pauses or Backoff()
        self._uniform = uniform
        self._now_ns = now_ns
        self._store = Store(decode, on_change)
        self._version = ""
        """Up to where events were taken; empty: a list is needed."""
        self._streams_lists = True
        self._connected = False
        self._synced = threading.Event()
        self._heard_ns: int | None = None
        self._events = self._lists = self._failures = 0
        self._error: KubeError | None = None
        self._closing = threading.Event()
        self._stream: Stream | None = None
        self._thread = threading.Thread(target=self._run, name=f"keytrail-watch-{at.resource}", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Have the thread end; the copy stays."""
        self._closing.set()
        stream = self._stream
        if stream is not None:
            stream.stop()

    def close(self, seconds: float = 1.0) -> None:
        """Stop, and wait for the thread so long: one that waits for a server which does not answer is left behind."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def state(self) -> WatchState:
        """How it is doing now."""
        return WatchState(
            self._at.resource,
            len(self._store),
            self._connected,
            self._synced.is_set(),
            self._heard_ns,
            self._events,
            self._lists,
            self._failures,
            self._store.undecodable,
            self._error,
        )

    def objects(self) -> list[T]:
        """What is kept now."""
        return [value for _, value in self._store]

    def wait_synced(self, seconds: float) -> bool:
        """Wait for the first complete copy."""
        return self._synced.wait(seconds)

    # -- the thread

    def _run(self) -> None:
        while not self._closing.is_set():
            at_least = 0.0
            try:
                if not self._version and not self._streams_lists:
                    self._list()
                self._follow()
            except KubeGoneError:
                # Compaction: what happened since is not kept any more. The copy stays until the next list.
                self._version = ""
                log.debug("the history of %s since the last event is gone: listing again", self._at)
            except KubeError as error:
                at_least = error.retry_after if isinstance(error, KubeUnreachableError) else 0.0
                self._failed(error)
            except Exception as error:  # noqa: BLE001 - the boundary of this thread: it must go on
                self._version = ""  # a change that a callback did not take comes again with a list
                self._failed(KubeError(f"watching {self._at} failed ({type(error).__name__})"))
            self._stream = None
            self._closing.wait(self._pauses.pause(at_least))

    def _follow(self) -> None:
        """Take events until the server ends the watch; without a version, first those that make the list."""
        listing = not self._version
        if listing:
            self._store.begin_list()
            extra = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        else:
            extra = {"resourceVersion": self._version}
        seconds = int(self._uniform(*_WATCH_SECONDS))
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds), **extra}
        try:
            stream = self._open("watch", seconds + _GRACE_SECONDS, query)
        except KubeInvalidError:
            if not listing:
                raise
            self._streams_lists = False  # this server does not: the next turn reads a list
            return
        began_ns = self._now_ns()
        with stream:
            if not listing:
                self._answered()
            for event in objects_of_lines(stream):
                self._take(event, listing=listing)
                if listing and _ends_list(event):
                    listing = False
                    self._listed()
        if listing:
            raise KubeUnreachableError(f"the API server at {self._api.url} ended the list of {self._at} before its end")
        if self._now_ns() - began_ns > _LASTING_NS:
            self._pauses.reset()

    def _list(self) -> None:
        self._store.begin_list()
        with self._open("list", _GRACE_SECONDS, {}) as stream:
            reader = ListReader(stream)
            for raw in reader:
                self._store.put(raw)
        self._version = str(reader.metadata.get("resourceVersion") or "")
        self._listed()

    def _open(self, verb: str, silence: float, query: dict[str, str]) -> Stream:
        stream = self._api.stream(verb, self._at, silence_seconds=silence, **self._selectors, **query)
        self._stream = stream
        if self._closing.is_set():  # `close` may have looked before there was a stream to stop
            stream.stop()
        return stream

    def _take(self, event: Json, *, listing: bool) -> None:
        kind, raw = event.get("type"), event.get("object")
        if kind == "ERROR":
            raise error_of_status(Asked("watch", self._at, self._api.url), raw)
        if not isinstance(raw, dict):
            raise KubeError(f"the API server sent an event of {self._at} without an object")
        self._heard_ns = self._now_ns()
        if kind in {"ADDED", "MODIFIED"}:
            self._store.put(raw)
        elif kind == "DELETED":
            self._store.remove(raw)
        self._events += kind != "BOOKMARK"
        if not listing or _ends_list(event):  # the objects of a list come with older versions, in any order
            self._version = str(_metadata(raw).get("resourceVersion") or self._version)
        if not listing:
            self._pauses.reset()

    # -- state

    def _listed(self) -> None:
        self._store.end_list()
        self._lists += 1
        self._heard_ns = self._now_ns()
        self._synced.set()
        self._pauses.reset()
        self._answered()

    def _answered(self) -> None:
        if not self._connected:
            self._connected, self._error = True, None
            log.info("watching %s: %d objects", self._at, len(self._store))
            self._on_state(self.state())

    def _failed(self, error: KubeError) -> None:
        if self._closing.is_set():
            return
        self._failures += 1
        before, self._error = self._error, error
        was, self._connected = self._connected, False
        if str(before) != str(error):
            kept = f"; the {len(self._store)} objects known stay in force" if self._synced.is_set() else ""
            log.warning("%s%s", error, kept)
        if was or before is None:
            self._on_state(self.state())


def _metadata(raw: Json) -> dict[str, Any]:
    metadata = raw.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _ends_list(event: Json) -> bool:
    """Whether an event is the mark behind the objects that make the list."""
    raw = event.get("object")
    annotations = _metadata(raw).get("annotations") if event.get("type") == "BOOKMARK" and isinstance(raw, dict) else {}
    return isinstance(annotations, dict) and annotations.get(_END_OF_LIST) == "true"
