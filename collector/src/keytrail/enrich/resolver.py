"""Host names that mappings expect in, the addresses that they have now out, in the background.

A thread asks the system's resolver for each host about once a minute, which tells no time to live; the deciding thread
only looks addresses up in the table that was made last. An address stays for a while after it was last an answer: those
of a busy service change with every answer, and connections outlive them. That a host had an address proves nothing of a
connection to it: thousands of hosts share the addresses of one provider.
"""

import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from keytrail.domain.peer_facts import plain_address
from keytrail.domain.resources import ClusterIdentityMapping, IdentityMapping

log = logging.getLogger(__name__)

Resolve = Callable[[str], Iterable[str]]
"""A host in, its addresses out. Raises OSError."""

_AGAIN_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 5.0
_KEEP_SECONDS: Final = 600.0
_MOST_HOSTS: Final = 256
_MOST_ADDRESSES: Final = 64


def system_addresses(host: str) -> Iterable[str]:
    """Ask the system's resolver. Raises OSError."""
    return dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))


class HostResolver:
    """Resolves between `start` and `close`. `host_of` and `failures` are for any thread."""

    def __init__(
        self,
        wanted: Callable[[], Iterable[str]],
        resolve: Resolve = system_addresses,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        """`wanted` gives the hosts of now: names without wildcards."""
        self._wanted = wanted
        self._resolve = resolve
        self._clock = clock
        self._uniform = uniform
        self._due: dict[str, float] = {}
        self._found: dict[str, dict[str, float]] = {}
        """Host -> address -> when it was last an answer."""
        self._table: Mapping[str, str] = {}
        self.failures = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keytrail-resolve", daemon=True)

    def start(self) -> None:
        """Begin to resolve."""
        self._thread.start()

    def close(self, seconds: float = 0.3) -> None:
        """Have the thread end, and wait so long: one that waits for a resolver is left behind."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def host_of(self, address: str) -> str:
        """The host that had an address lately, the first by name of several; empty when none did."""
        return self._table.get(address, "")

    def look(self) -> None:
        """Resolve what is due, as the thread does."""
        wanted = sorted(set(self._wanted()))[:_MOST_HOSTS]
        for gone in self._due.keys() - set(wanted):
            del self._due[gone]
            self._found.pop(gone, None)
        for host in wanted:
            if self._closing.is_set():
                return
            now = self._clock()
            if self._due.get(host, now) <= now:
                self._ask(host)
                self._due[host] = self._clock() + _AGAIN_SECONDS * (1 + self._uniform() / 4)
        self._publish()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - the boundary of this thread: the next look may go well
                self.failures += 1
                log.warning("hosts of mappings cannot be resolved (%s)", type(error).__name__)
            self._closing.wait(_LOOK_SECONDS)

    def _ask(self, host: str) -> None:
        known = self._found.setdefault(host, {})
        now = self._clock()
        try:
            for address in self._resolve(host):
                plain = plain_address(address)
                known.pop(plain, None)  # to its place among the newest
                known[plain] = now
        except (OSError, UnicodeError):  # what it had stays for its time; that a name does not exist is no news here
            self.failures += 1
        old = [address for address, when in known.items() if now - when > _KEEP_SECONDS]
        for address in (*old, *list(known)[len(old) : max(len(old), len(known) - _MOST_ADDRESSES)]):
            del known[address]

    def _publish(self) -> None:
        made: dict[str, str] = {}
        for host, known in sorted(self._found.items()):
            for address in known:
                made.setdefault(address, host)
        self._table = made


def named_hosts(mappings: Iterable[ClusterIdentityMapping | IdentityMapping]) -> set[str]:
    """Every host that mappings name in full: a wildcard cannot be resolved."""
    return {
        host
        for mapping in mappings
        for host in (*mapping.spec.evidence.server_names, *(one.host for one in mapping.spec.allowed.destinations))
        if host and not host.startswith("*.")
    }
