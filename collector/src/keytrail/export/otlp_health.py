"""How sending goes: what `keytrail status`, metrics and the log say about the backend.

In flow answers as the slots get them, out come one `SenderState` and a log line whenever things turn for the worse or
well again, never one for each request. Texts are safe already (`otlp_credentials`). Knows no records; the queue counts
them.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from keytrail.export.otlp_answer import Accepted, Answer, Denied, Retry

log = logging.getLogger(__name__)
_QUIET_NS = 60 * 10**9
"""A backend that fails every other request must not fill the log: each trouble is told once in so long."""


class Trouble(StrEnum):
    """What is wrong with the backend; records wait in the queue meanwhile."""

    NONE = ""
    UNREACHABLE = "unreachable"
    """No answer, or the answer to come again."""
    DENIED = "denied"
    """It takes nothing from us: token, path, rights."""
    REJECTING_ALL = "rejecting_all"
    """It answers, and refuses every record that it is given."""


_ADVICE = {
    Trouble.UNREACHABLE: "the backend cannot take records; they wait and are tried again",
    Trouble.DENIED: "the backend takes nothing from us; records wait until its address, the token or its rights change",
    Trouble.REJECTING_ALL: "the backend refuses every record; they wait and are tried again",
}


@dataclass(frozen=True, slots=True)
class SenderState:
    """One consistent picture."""

    reachable: bool | None = None
    """Whether the last attempt got an answer for good, be it a refusal; None before the first."""
    trouble: Trouble = Trouble.NONE
    last_success_ns: int | None = None
    """Wall clock of the last acknowledged request, nanoseconds since the epoch."""
    last_error: str = ""
    """The last refusal or failure, without credentials. Stays after a success: see its time."""
    last_error_ns: int | None = None
    requests: Mapping[str, int] = field(default_factory=dict)
    """Answered or failed requests by result: accepted, rejected, toolarge, denied, retry."""
    retries: int = 0
    """Requests that repeated what was sent before."""
    in_flight: int = 0
    """Requests without an answer yet."""


class Health:
    """Keeps the state. Any thread."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self._lock = threading.Lock()
        self._reachable: bool | None = None
        self._trouble = Trouble.NONE
        self._last_success_ns: int | None = None
        self._last_error = ""
        self._last_error_ns: int | None = None
        self._requests: Counter[str] = Counter()
        self._retries = 0
        self._in_flight = 0
        self._told_ns: dict[Trouble, int] = {}
        self._told = Trouble.NONE
        """The trouble that was told last, and not yet its end."""

    def sending(self, *, again: bool) -> None:
        """Count a request that goes out."""
        with self._lock:
            self._in_flight += 1
            self._retries += again

    def answered(self, answer: Answer) -> None:
        """Take note of its answer."""
        with self._lock:
            self._in_flight -= 1
            self._requests[type(answer).__name__.lower()] += 1
            self._reachable = not isinstance(answer, Retry)
            if isinstance(answer, Accepted):
                self._last_success_ns = self._now_ns()
            if answer.text:
                self._last_error, self._last_error_ns = answer.text, self._now_ns()
        if isinstance(answer, Accepted):
            self._turn(Trouble.NONE, "")
        elif isinstance(answer, Retry):
            self._turn(Trouble.UNREACHABLE, answer.text)
        elif isinstance(answer, Denied):
            self._turn(Trouble.DENIED, answer.text)

    def rejects_all(self, text: str) -> None:
        """Take note that what was refused is not to be blamed on the records."""
        self._turn(Trouble.REJECTING_ALL, text)

    def state(self) -> SenderState:
        """As of one moment."""
        with self._lock:
            return SenderState(
                self._reachable,
                self._trouble,
                self._last_success_ns,
                self._last_error,
                self._last_error_ns,
                MappingProxyType(dict(self._requests)),
                self._retries,
                self._in_flight,
            )

    def _turn(self, trouble: Trouble, text: str) -> None:
        with self._lock:
            if trouble is self._trouble:
                return
            self._trouble = trouble
            if trouble is Trouble.NONE:
                told, self._told = self._told, Trouble.NONE
                if told is not Trouble.NONE:
                    log.info("the backend takes records again")
                return
            now, before = self._now_ns(), self._told_ns.get(trouble)
            if before is None or abs(now - before) >= _QUIET_NS:
                self._told_ns[trouble], self._told = now, trouble
                log.warning("%s: %s", _ADVICE[trouble], text)
