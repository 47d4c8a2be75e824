"""The objects of one kind: what the watch tells and what lists show, in; the newest of both, out.

kopf tells what happened to an object, but not what happened while its watch had no history (a deletion after 410 Gone
is never told), nor when its first list is complete, nor that its watch has gone silent. So every kind is listed as
well, at the start and every few minutes, and the two are compared here: what a list shows and the watch still has not
told a minute later means that the watch is stuck, which only a restart mends.

For any thread. Knows no API server and no kopf.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from keytrail.kube.json_stream import Json

T = TypeVar("T")

PATIENCE_SECONDS: Final = 60.0
"""After so long without word of an object that a list showed, the watch is taken for stuck."""


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    uid: str
    version: int
    value: T
    untold: float | None
    """Since when the watch should have told of it; None when it did."""


class Shelf(Generic[T]):
    """The objects of one kind, slimmed by `decode`, which returns None for what is of no interest."""

    def __init__(self, decode: Callable[[Json], T | None], changed: Callable[[], None]) -> None:
        """`changed` is called with the shelf's lock held, whenever what is kept differs from before."""
        self._decode = decode
        self._changed = changed
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], _Kept[T]] = {}
        self._gone: dict[tuple[str, str], int] = {}
        """Deleted while a list was under way, which may still show them, and up to which version."""
        self._listing = False
        self.listed = False
        """Whether a complete list was taken at least once."""
        self.served = True
        """Whether the API server has the kind."""
        self.missed = 0
        """Changes that lists showed and the watch had not told."""
        self.undecodable = 0

    def values(self) -> list[T]:
        """What is kept, in order of namespace and name."""
        with self._lock:
            return [one.value for _, one in sorted(self._kept.items(), key=lambda item: item[0])]

    def __len__(self) -> int:
        """Objects that are kept."""
        return len(self._kept)

    def tell(self, raw: Json, *, deleted: bool) -> None:
        """Take what the watch tells. Its first list tells everything once."""
        place, uid, version = _key(raw)
        with self._lock:
            if deleted:
                self._delete(place, uid, version)
            else:
                self._put(place, uid, version, raw, untold=None)
            if not self.served:
                self.served = True
                self._changed()

    def take_list(self, objects: Iterable[Json], version_of: Callable[[], str], now: float) -> None:
        """Take a complete list: its objects, and once they were read its version. What it lacks is gone.

        Raises what reading raises; then nothing is taken for gone.
        """
        with self._lock:
            self._listing = True
        try:
            seen = set()
            for raw in objects:
                place, uid, version = _key(raw)
                seen.add(place)
                with self._lock:
                    if self._gone.get(place, -1) < version:
                        # At the start the watch has not begun: its own first list may tell of all a little later.
                        self._put(place, uid, version, raw, untold=now)
            self._end_list(seen, _number(version_of()))
        finally:
            with self._lock:
                self._listing = False
                self._gone.clear()

    def not_served(self) -> None:
        """Take note that the API server does not have the kind: there are no such objects."""
        with self._lock:
            if self.served or self._kept or not self.listed:
                self._kept.clear()
                self.served, self.listed = False, True
                self._changed()

    def stuck(self, now: float) -> int:
        """Objects of which the watch has not told for too long after a list showed them."""
        with self._lock:
            return sum(one.untold is not None and now - one.untold > PATIENCE_SECONDS for one in self._kept.values())

    # -- with the lock held

    def _put(self, place: tuple[str, str], uid: str, version: int, raw: Json, *, untold: float | None) -> None:
        known = self._kept.get(place)
        if known is not None and known.version >= version:
            if untold is None and known.untold is not None:
                self._kept[place] = _Kept(known.uid, known.version, known.value, None)
            return
        try:
            value = self._decode(raw)
        except Exception:  # noqa: BLE001 - one odd object must not hide the others; what was known of it stays
            self.undecodable += 1
            return
        if value is None:
            if self._kept.pop(place, None) is not None:
                self._changed()
            return
        if untold is not None and self.listed:
            self.missed += 1
            untold = untold if known is None or known.untold is None else known.untold
        self._kept[place] = _Kept(uid, version, value, untold)
        if known is None or known.value != value:
            self._changed()

    def _delete(self, place: tuple[str, str], uid: str, version: int) -> None:
        if self._listing:
            self._gone[place] = version
        known = self._kept.get(place)
        if known is not None and (known.uid == uid or known.version <= version):
            del self._kept[place]
            self._changed()

    def _end_list(self, seen: set[tuple[str, str]], version: int) -> None:
        with self._lock:
            # What is newer than the list was made while it was read.
            gone = [place for place, one in self._kept.items() if place not in seen and one.version <= version]
            for place in gone:
                del self._kept[place]
            self.missed += len(gone)
            if gone or not self.listed or not self.served:
                self.listed = self.served = True
                self._changed()


def _key(raw: Json) -> tuple[tuple[str, str], str, int]:
    metadata: Any = raw.get("metadata") or {}
    place = str(metadata.get("namespace") or ""), str(metadata.get("name") or "")
    return place, str(metadata.get("uid") or ""), _number(str(metadata.get("resourceVersion") or ""))


def _number(version: str) -> int:
    """Return a resourceVersion as the number that it is: Kubernetes 1.35 guarantees what was so since its beginning."""
    return int(version) if version.isdecimal() else 0
