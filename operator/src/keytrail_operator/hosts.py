"""Whether the hosts that mappings name exist: names in, answers out, asked for in the background.

DNS may take seconds for an answer and many mappings name many hosts, so that one thread asks for one name after the
other, again every hour, and whoever wants to know takes what is known. Only an authoritative "there is no such name"
counts; a resolver that cannot be reached says nothing.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

_AGAIN_SECONDS: Final = 3_600.0
MOST_HOSTS: Final = 1_024
"""Names that are asked for; of further ones nothing is known."""
_PAUSE_SECONDS: Final = 0.05
"""Between two questions: mappings must not be a way to flood the cluster's DNS."""


def resolves(host: str) -> bool | None:
    """Ask the system's resolver; None when it cannot say."""
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        missing = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
        return False if error.errno in missing else None
    except (OSError, UnicodeError):
        return None
    return True


class Hosts:
    """Asks between `start` and `close`. `wanted` and `known` are for any thread."""

    def __init__(
        self,
        changed: Callable[[], None],
        *,
        ask: Callable[[str], bool | None] = resolves,
        pause_seconds: float = _PAUSE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`changed` is called when an answer is another one than before."""
        self._changed = changed
        self._ask = ask
        self._pause = pause_seconds
        self._clock = clock
        self._lock = threading.Condition()
        self._due: dict[str, float] = {}
        """When each name is to be asked for next."""
        self._known: dict[str, bool] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="keytrail-hosts", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def close(self, seconds: float = 1.0) -> None:
        """Stop; a question that waits for its answer is left behind."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def wanted(self, names: Iterable[str]) -> None:
        """Ask for these names from now on, and for no others."""
        kept = list(dict.fromkeys(names))[:MOST_HOSTS]
        with self._lock:
            self._due = {name: self._due.get(name, 0.0) for name in kept}
            self._known = {name: answer for name, answer in self._known.items() if name in self._due}
            self._lock.notify_all()

    def known(self) -> Mapping[str, bool]:
        """Return the answers so far."""
        with self._lock:
            return dict(self._known)

    def _run(self) -> None:
        while (name := self._next()) is not None:
            answer = self._ask(name)
            with self._lock:
                if name not in self._due:
                    continue
                self._due[name] = self._clock() + _AGAIN_SECONDS
                news = answer is not None and self._known.get(name) != answer
                if answer is not None:
                    self._known[name] = answer
            if news:
                self._changed()

    def _next(self) -> str | None:
        """Wait for a name that is due; None at the end."""
        with self._lock:
            self._lock.wait_for(lambda: self._closing, self._pause)
            while not self._closing:
                name = min(self._due, key=self._due.__getitem__, default=None)
                left = _AGAIN_SECONDS if name is None else self._due[name] - self._clock()
                if name is not None and left <= 0:
                    return name
                self._lock.wait(left)
            return None
