"""Watch and list make one picture: the newest of both, and a word when the watch is silent."""

from collections.abc import Iterator
from typing import Any

import pytest

from keytrail_operator.shelf import PATIENCE_SECONDS, Shelf


def thing(name: str, version: int, value: int = 0, uid: str = "") -> dict[str, Any]:
    """An object as the API server sends it."""
    return {"metadata": {"name": name, "uid": uid or name, "resourceVersion": str(version)}, "value": value}


class Counting:
    """A shelf of numbers, and how often it said that something changed."""

    def __init__(self) -> None:
        self.changes = 0
        self.shelf: Shelf[int] = Shelf(lambda raw: raw["value"], self.changed)

    def changed(self) -> None:
        """Count a change."""
        self.changes += 1

    def list(self, *objects: dict[str, Any], version: int, now: float = 0.0) -> None:
        """Take a list."""
        self.shelf.take_list(objects, lambda: str(version), now)


def test_the_newer_counts() -> None:
    """An event that is older than the list, or a list older than the event, changes nothing."""
    one = Counting()
    one.list(thing("a", 5, 5), version=9)
    one.shelf.tell(thing("a", 4, 4), deleted=False)
    assert one.shelf.values() == [5]
    one.shelf.tell(thing("a", 12, 12), deleted=False)
    one.shelf.tell(thing("new", 11, 1), deleted=False)
    one.list(thing("a", 5, 5), version=9)
    assert one.shelf.values() == [12, 1]


def test_a_deletion_that_nobody_told() -> None:
    """What a list no longer has is gone, and counted as missed."""
    one = Counting()
    one.list(thing("a", 1), thing("b", 2), version=3)
    one.list(thing("b", 2), version=8)
    assert len(one.shelf) == 1
    assert one.shelf.missed == 1


def test_deleted_while_a_list_is_read() -> None:
    """A list that was begun before a deletion does not bring the object back."""
    one = Counting()
    one.list(thing("a", 1), version=1)

    def reading() -> Iterator[dict[str, Any]]:
        one.shelf.tell(thing("a", 7), deleted=True)
        yield thing("a", 1)

    one.shelf.take_list(reading(), lambda: "5", 0.0)
    assert one.shelf.values() == []


def test_a_list_that_breaks_off() -> None:
    """What an interrupted list did not show is not taken for gone."""
    one = Counting()
    one.list(thing("a", 1), thing("b", 2), version=3)

    def broken() -> Iterator[dict[str, Any]]:
        yield thing("a", 1)
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - it is the reader's own
        one.shelf.take_list(broken(), lambda: "9", 0.0)
    assert len(one.shelf) == 2


def test_made_again_under_its_name() -> None:
    """The deletion of an object does not take its successor away."""
    one = Counting()
    one.shelf.tell(thing("a", 9, 2, uid="second"), deleted=False)
    one.shelf.tell(thing("a", 5, 1, uid="first"), deleted=True)
    assert one.shelf.values() == [2]


def test_only_changes_are_told() -> None:
    """What decoding leaves as it was is no change."""
    one = Counting()
    one.shelf.tell(thing("a", 1, 7), deleted=False)
    before = one.changes
    one.shelf.tell(thing("a", 2, 7), deleted=False)
    assert one.changes == before


def test_a_silent_watch() -> None:
    """An object that a list showed and the watch does not tell of for a minute: stuck, until it tells."""
    one = Counting()
    one.list(thing("a", 1), version=1, now=100.0)
    assert one.shelf.stuck(100.0 + PATIENCE_SECONDS) == 0
    assert one.shelf.stuck(101.0 + PATIENCE_SECONDS) == 1
    one.list(thing("a", 1), version=2, now=150.0)
    assert one.shelf.stuck(101.0 + PATIENCE_SECONDS) == 1
    one.shelf.tell(thing("a", 1), deleted=False)
    assert one.shelf.stuck(1000.0) == 0
    one.list(thing("a", 4), version=4, now=2000.0)
    one.list(thing("a", 6), version=6, now=2050.0)
    assert one.shelf.stuck(2061.0) == 1


def test_a_kind_that_is_not_served() -> None:
    """Without the kind there are no objects; the first word of one says that it has come."""
    one = Counting()
    one.shelf.not_served()
    assert (one.shelf.served, one.shelf.listed) == (False, True)
    one.shelf.tell(thing("a", 1), deleted=False)
    assert one.shelf.served


def test_an_odd_object() -> None:
    """What cannot be decoded is counted and hides nothing; what was known of it stays."""
    one = Counting()
    one.shelf.tell(thing("a", 1, 7), deleted=False)
    one.shelf.tell({"metadata": {"name": "a", "uid": "a", "resourceVersion": "2"}}, deleted=False)
    assert one.shelf.values() == [7]
    assert one.shelf.undecodable == 1
