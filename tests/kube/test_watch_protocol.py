"""List and watch against a server that is as nasty as one may be: whatever it does, the copy ends up right."""

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keytrail.domain.errors import KubeError, KubeForbiddenError, KubeNotFoundError, KubeUnreachableError
from keytrail.kube.backoff import Backoff
from keytrail.kube.places import Kind
from keytrail.kube.store import Change, Key
from keytrail.kube.watch import Watch, WatchState
from kube.model_server import Collection, Json, ModelServer
from support.processes import wait_until

THINGS = Kind("things", "example.com")
PATIENCE = 20.0
NAMES = st.sampled_from("abcd")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES, st.integers(0, 3)),
        st.tuples(st.just("delete"), NAMES),
        st.tuples(st.just("cut")),
        st.tuples(st.just("compact")),
        st.tuples(st.just("settle")),
    ),
    max_size=25,
)


class Told:
    """Every change that a watch told of, and what one knows who took them all."""

    def __init__(self) -> None:
        self.changes: list[tuple[Change, str, int | None]] = []
        self.known: dict[str, tuple[str, int]] = {}
        self.states: list[WatchState] = []

    def take(self, change: Change, key: Key, value: int | None) -> None:
        """Take one; it must fit to what was told before."""
        self.changes.append((change, key.name, value))
        before = self.known.get(key.name)
        if change is Change.DELETED:
            assert before is not None
            assert before[0] == key.uid
            del self.known[key.name]
            return
        assert value is not None
        assert (before is None) == (change is Change.ADDED)
        assert before is None or (before[0] == key.uid and before[1] != value)
        self.known[key.name] = key.uid, value

    def values(self) -> dict[str, int]:
        """What is known."""
        return {name: value for name, (_, value) in self.known.copy().items()}


def value_of(raw: Json) -> int | None:
    """Keep the value; of no interest are those with 3."""
    value = raw["value"]
    return int(value) if value != 3 else None


def watch_of(server: ModelServer, told: Told, decode: Callable[[Json], int | None] = value_of) -> Watch[int]:
    """A watch that loses no time."""
    api, pauses = server.api(), Backoff(0.01, 0.05)
    return Watch(api, THINGS.at(), decode, told.take, on_state=told.states.append, pauses=pauses)


def expected(collection: Collection) -> dict[str, int]:
    """What a watch with `value_of` should know."""
    return {name: value for name, value in collection.values().items() if value != 3}


@pytest.mark.parametrize("streams_lists", [True, False])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_the_copy_ends_up_right_whatever_happens(steps: list[tuple[object, ...]], *, streams_lists: bool) -> None:
    """After any sequence of changes, cuts and compactions each change was told of once and fits to the one before."""
    collection, told = Collection(streams_lists=streams_lists), Told()
    with ModelServer(collection) as server:
        watch = watch_of(server, told)
        watch.start()
        try:
            for name, *arguments in steps:
                if name == "settle":
                    assert wait_until(lambda: told.values() == expected(collection), PATIENCE)
                else:
                    getattr(collection, str(name))(*arguments)
            assert wait_until(lambda: told.values() == expected(collection), PATIENCE)
            assert sorted(watch.objects()) == sorted(told.values().values())
        finally:
            watch.close()
        assert not watch._thread.is_alive()
        assert watch.state().undecodable == 0


def test_what_happened_while_the_history_went_away_is_told_of() -> None:
    """After a compaction a list brings what was added and takes what is gone; the same name is another object."""
    collection, told = Collection(), Told()
    for name in ("stays", "goes", "again"):
        collection.put(name, 1)
    with ModelServer(collection) as server:
        watch = watch_of(server, told)
        watch.start()
        assert watch.wait_synced(PATIENCE)
        collection.refuse = (503, "not now", {})
        collection.cut()
        assert wait_until(lambda: not watch.state().connected, PATIENCE)
        assert told.values() == {"stays": 1, "goes": 1, "again": 1}
        del told.changes[:]
        collection.delete("goes")
        collection.delete("again")
        collection.put("again", 1)
        collection.put("comes", 2)
        collection.compact()
        collection.refuse = None
        assert wait_until(lambda: len(told.changes) == 4, PATIENCE)
        watch.close()
    deleted, added = (Change.DELETED, None), (Change.ADDED, 1)
    assert [(change, value) for change, name, value in told.changes if name == "again"] == [deleted, added]
    assert (Change.ADDED, "comes", 2) in told.changes
    assert (Change.DELETED, "goes", None) in told.changes
    assert watch.state().lists == 2
    assert [state.connected for state in told.states] == [True, False, True]


def test_what_decoding_leaves_the_same_is_no_change() -> None:
    """An update of fields that nobody keeps reaches nobody, and is counted as an event all the same."""
    collection, told = Collection(), Told()
    collection.put("a", 1)
    with ModelServer(collection) as server:
        watch = watch_of(server, told)
        watch.start()
        assert watch.wait_synced(PATIENCE)
        before = watch.state().events
        collection.put("a", 1)
        collection.put("a", 2)
        assert wait_until(lambda: told.values() == {"a": 2}, PATIENCE)
        assert watch.state().events == before + 2
        assert [change for change, _, _ in told.changes] == [Change.ADDED, Change.CHANGED]
        watch.close()


def test_an_odd_object_hides_no_other() -> None:
    """An object that cannot be decoded is counted; the last good version of it and all others stay."""
    collection, told = Collection(), Told()

    def picky(raw: Json) -> int:
        if raw["value"] == 2:
            raise ValueError
        return int(raw["value"])

    collection.put("a", 1)
    with ModelServer(collection) as server:
        watch = watch_of(server, told, picky)
        watch.start()
        assert watch.wait_synced(PATIENCE)
        collection.put("a", 2)
        collection.put("b", 1)
        assert wait_until(lambda: told.values() == {"a": 1, "b": 1}, PATIENCE)
        assert watch.state().undecodable == 1
        watch.close()


def test_a_change_that_was_not_taken_comes_again() -> None:
    """When a callback fails, the watch goes on and tells the same change once more."""
    collection, failures = Collection(), [RuntimeError("once")]
    told = Told()

    def take(change: Change, key: Key, value: int | None) -> None:
        if failures:
            raise failures.pop()
        told.take(change, key, value)

    collection.put("a", 1)
    with ModelServer(collection) as server:
        watch = Watch(server.api(), THINGS.at(), value_of, take, pauses=Backoff(0.01, 0.05))
        watch.start()
        assert wait_until(lambda: told.values() == {"a": 1}, PATIENCE)
        assert watch.state().failures == 1
        assert "once" not in str(watch.state().error)
        watch.close()


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        ((403, "things is forbidden", {}), KubeForbiddenError),
        ((404, "the server could not find the requested resource", {}), KubeNotFoundError),
        ((500, "etcdserver: request timed out", {}), KubeUnreachableError),
    ],
)
def test_a_refusal_is_shown_and_tried_again(refusal: tuple[int, str, dict[str, str]], kind: type[KubeError]) -> None:
    """While the server refuses, the state says why; when it no longer does, the watch goes on by itself."""
    collection, told = Collection(refuse=refusal), Told()
    collection.put("a", 1)
    with ModelServer(collection) as server:
        watch = watch_of(server, told)
        watch.start()
        assert wait_until(lambda: watch.state().failures > 2, PATIENCE)
        assert isinstance(watch.state().error, kind)
        assert len(told.states) == 1
        collection.refuse = None
        assert watch.wait_synced(PATIENCE)
        assert wait_until(lambda: watch.state().error is None, PATIENCE)
        watch.close()
    assert [state.connected for state in told.states] == [False, True]


def test_a_silent_watch_ends_at_once_when_it_is_closed() -> None:
    """A thread that waits for the next event does not keep the collector from ending."""
    with ModelServer(Collection()) as server:
        watch = watch_of(server, Told())
        watch.start()
        assert watch.wait_synced(PATIENCE)
        began = time.monotonic()
        watch.close(PATIENCE)
        assert not watch._thread.is_alive()
        assert time.monotonic() - began < PATIENCE
        assert not [one for one in threading.enumerate() if one.name == "keytrail-watch-things"]
