"""What is known of one collection: objects as the API server tells of them in, changes out, each exactly once.

A list begins, brings objects and ends: what it did not bring is gone by then, and is told of as deleted. In between and
after it single objects come and go. What decoding leaves the same is no change: most of a kubelet's updates end here.
A change counts once the callback took it; what raised comes again with the next list. For one thread. Pure.
"""

import logging
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

from keytrail.kube.json_stream import Json

log = logging.getLogger(__name__)

T = TypeVar("T")


class Change(StrEnum):
    """What happened to an object."""

    ADDED = "added"
    CHANGED = "changed"
    DELETED = "deleted"


class Key(NamedTuple):
    """An object: another one of the same name has another uid."""

    namespace: str
    name: str
    uid: str


OnChange = Callable[[Change, Key, T | None], None]
"""Told in order, by the thread that watches; without a value what was deleted."""
Decode = Callable[[Json], T | None]
"""What is kept of an object; None for one that is of no interest."""


class Store(Generic[T]):
    """The objects of one collection."""

    def __init__(self, decode: Decode[T], on_change: OnChange[T]) -> None:
        self._decode = decode
        self._on_change = on_change
        self._objects: dict[tuple[str, str], tuple[str, T]] = {}
        self._listed: set[tuple[str, str]] | None = None
        """Names seen since the list began; None outside of one."""
        self.undecodable = 0

    def __len__(self) -> int:
        """Objects that are kept."""
        return len(self._objects)

    def __iter__(self) -> Iterator[tuple[Key, T]]:
        """Go through a copy: for any thread."""
        return iter([(Key(*place, uid), value) for place, (uid, value) in self._objects.copy().items()])

    def begin_list(self) -> None:
        """Begin a complete list; one that had begun was cut off, and proves nothing."""
        self._listed = set()

    def end_list(self) -> None:
        """End the list: what it did not bring is gone."""
        if self._listed is not None:
            for place in self._objects.keys() - self._listed:
                self._forget(place)
        self._listed = None

    def put(self, raw: Json) -> None:
        """Take an object in its state of now."""
        key = key_of(raw)
        place = key.namespace, key.name
        if self._listed is not None:
            self._listed.add(place)
        uid, before = self._objects.get(place, ("", None))
        if before is not None and uid != key.uid:  # deleted and made again while nobody told us
            self._forget(place)
            before = None
        try:
            value = self._decode(raw)
        except Exception as error:  # noqa: BLE001 - one odd object must not hide the others; what was known of it stays
            self.undecodable += 1
            # Its text could quote the object.
            log.warning("an object of kind %s cannot be read (%s)", raw.get("kind"), type(error).__name__)
            return
        if value is None:
            self._forget(place)
        elif value != before:
            self._on_change(Change.CHANGED if before is not None else Change.ADDED, key, value)
            self._objects[place] = key.uid, value

    def remove(self, raw: Json) -> None:
        """Take note that an object is gone."""
        namespace, name, _ = key_of(raw)
        if self._listed is not None:
            self._listed.discard((namespace, name))
        self._forget((namespace, name))

    def _forget(self, place: tuple[str, str]) -> None:
        if place in self._objects:
            self._on_change(Change.DELETED, Key(*place, self._objects[place][0]), None)
            del self._objects[place]


def key_of(raw: Json) -> Key:
    """Return the object's key; empty parts where the metadata is odd."""
    metadata = raw.get("metadata")
    found = metadata if isinstance(metadata, dict) else {}
    return Key(*(str(found.get(part) or "") for part in Key._fields))
