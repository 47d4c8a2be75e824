"""The annotations of the ServiceAccounts that this node's pods run as: they say which role in a cloud a pod has.

In flow which accounts are of interest; out flow their annotations, as soon as each is first wanted and every ten
minutes from then on. A watch would bring all accounts of the cluster to every node; a node's pods run as a few dozen,
whose roles change once in months.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from keytrail.domain.errors import KubeError, KubeNotFoundError
from keytrail.kube.api import Api
from keytrail.kube.places import SERVICE_ACCOUNTS

log = logging.getLogger(__name__)

Account = tuple[str, str]
"""Namespace and name."""
Tell = Callable[[str, str, Mapping[str, str]], None]

_AGAIN_SECONDS: Final = 600.0
_AFTER_FAILURE_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 30.0


class AccountReader:
    """Reads between `start` and `close`, in a thread of its own; `look` is for any thread."""

    def __init__(
        self,
        api: Api,
        wanted: Callable[[], Iterable[Account]],
        tell: Tell,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        """`tell` gets namespace, name and annotations: none of an account that is gone."""
        self._api = api
        self._wanted = wanted
        self._tell = tell
        self._clock = clock
        self._uniform = uniform
        self._due: dict[Account, float] = {}
        self._trouble = ""
        self._awake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="keytrail-accounts", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def look(self) -> None:
        """Look now whether other accounts are wanted."""
        self._awake.set()

    def stop(self) -> None:
        """Have the thread end."""
        self._closing = True
        self._awake.set()

    def close(self, seconds: float = 1.0) -> None:
        """Stop, and wait for the thread so long."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while not self._closing:
            self._awake.clear()
            try:
                self._read_due()
            except Exception as error:  # noqa: BLE001 - the boundary of this thread: the next look may go well
                self._say(f"cannot read ServiceAccounts ({type(error).__name__})")
            self._awake.wait(_LOOK_SECONDS)

    def _read_due(self) -> None:
        wanted = set(self._wanted())
        for gone in self._due.keys() - wanted:
            del self._due[gone]
        for account in sorted(wanted):
            now = self._clock()
            if self._closing:
                return
            if self._due.get(account, now) <= now:
                pause = _AGAIN_SECONDS if self._read(*account) else _AFTER_FAILURE_SECONDS
                self._due[account] = now + pause * (1 + self._uniform() / 10)

    def _read(self, namespace: str, name: str) -> bool:
        metadata: Mapping[str, Any] = {}
        try:
            metadata = self._api.get(SERVICE_ACCOUNTS.at(namespace, name)).get("metadata") or {}
        except KubeNotFoundError:
            pass
        except KubeError as error:
            self._say(f"{error}; until then no cloud role of its pods is known")
            return False
        self._trouble = ""
        self._tell(namespace, name, metadata.get("annotations") or {})
        return True

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.warning("%s", trouble)
        self._trouble = trouble
