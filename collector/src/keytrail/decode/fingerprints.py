"""Values of environment variables in, their keyed fingerprints out: 16 bytes each, and nothing else of a value.

The only place of a collector that computes with a value. Used by `processes` for each new process image when the
operator's file of fingerprints is configured; `keytrail.identify` compares. Whoever can start a process could guess a
credential and watch for the finding, so guesses are few: so many variables of a process, so many different values of a
container in an hour. What is over is counted in `over_cap` and gets no fingerprint. Must not know mappings or pods.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from keytrail.domain.fingerprint import Book, ClusterKey
from keytrail.domain.process import Process
from keytrail.proto.tetragon import tetragon_pb2 as pb

log = logging.getLogger(__name__)

MOST_OF_A_PROCESS: Final = 16
MOST_IN_AN_HOUR: Final = 64
"""Different values of one container: one that starts the same program a thousand times has a few."""
_HOUR_NS: Final = 3_600_000_000_000
_MOST_CONTAINERS: Final = 4_096
_REMEMBERED: Final = 4_096
_KEY_TAG: Final = b"\x0a"
_LONGEST_NAME: Final = 127
"""One whose length is one byte on the wire; a longer one is no variable that anybody declares."""

Fingerprint = tuple[str, bytes]
"""Name of a variable, and the fingerprint of its value."""
Declared = Callable[[Process], Collection[str]]
"""Variables that the spec of a process's Pod takes from Secrets, as far as they are known so early."""


def nothing_declared(_process: Process) -> Collection[str]:
    """Where no Pods are known."""
    return ()


class Fingerprinter:
    """Fingerprints the variables of processes, once there is a key. One thread only."""

    def __init__(self) -> None:
        self.declared: Declared = nothing_declared
        self.over_cap = 0
        """Values that were not looked at, because there were too many."""
        self._key: ClusterKey | None = None
        self._wanted: Callable[[str], bool] = bool
        self._names: dict[tuple[str, ...], frozenset[bytes]] = {}
        self._hour = self._told = -1
        self._seen: dict[str, set[bytes]] = {}
        """Fingerprints of each container in this hour."""

    @property
    def on(self) -> bool:
        """Whether there is a key."""
        return self._key is not None

    def use(self, book: Book, wanted: Callable[[str], bool]) -> None:
        """From now on use the first key of this book, and look at variables by their names as `wanted` says.

        What counts against the caps stays: whoever may change a mapping could otherwise guess without end.
        """
        self._key = book.keys[0] if book.keys else None
        self._wanted = wanted
        self._names.clear()

    def of(self, process: Process, sent: Sequence[bytes]) -> tuple[Fingerprint, ...]:
        """Fingerprint a new process's environment, which comes as serialized `EnvVar` messages."""
        key = self._key
        if key is None:
            return ()
        wanted = self._by_name(process.environment or ())
        if declared := self.declared(process):
            wanted |= {name.encode() for name in declared}
        if not wanted:
            return ()
        self._begin_hour(process.start_ns // _HOUR_NS)
        container_id = process.container_id
        found: list[Fingerprint] = []
        for raw in sent:
            # Key is field 1: a tag, a length (of one byte for every name that is wanted), the name.
            name = raw[2 : 2 + raw[1]] if raw[:1] == _KEY_TAG and len(raw) > 1 else b""
            digest = key.digest(_value_of(raw)) if name in wanted else None
            if digest is None:
                continue
            if len(found) < MOST_OF_A_PROCESS and self._may_compare(container_id, digest):
                found.append((name.decode(), digest))
            else:
                self._refuse()
        return tuple(found)

    def _by_name(self, names: tuple[str, ...]) -> frozenset[bytes]:
        known = self._names.get(names)
        if known is None:
            known = frozenset(name.encode() for name in names if len(name) <= _LONGEST_NAME and self._wanted(name))
            if len(self._names) >= _REMEMBERED:
                self._names.clear()
            self._names[names] = known
        return known

    def _may_compare(self, container_id: str, digest: bytes) -> bool:
        """Whether this value may be looked at: one that was seen before tells nothing new."""
        seen = self._seen.get(container_id)
        if seen is None:
            if len(self._seen) >= _MOST_CONTAINERS:
                return False
            seen = self._seen[container_id] = set()
        if digest in seen:
            return True
        if len(seen) >= MOST_IN_AN_HOUR:
            return False
        seen.add(digest)
        return True

    def _begin_hour(self, hour: int) -> None:
        if hour > self._hour:
            self._hour = hour
            self._seen.clear()

    def _refuse(self) -> None:
        self.over_cap += 1
        if self._told != self._hour:  # once an hour
            self._told = self._hour
            log.warning(
                "a container shows more different credentials than are compared with Secrets in an hour (%d, and %d of "
                "a process): somebody may be guessing, or they change without end; the others are not compared",
                MOST_IN_AN_HOUR,
                MOST_OF_A_PROCESS,
            )


def _value_of(raw: bytes) -> bytes:
    try:
        value: str = pb.EnvVar.FromString(raw).Value
    except DecodeError:  # no UTF-8: no credential that a Secret's variable could have
        return b""
    return value.encode()
