"""The agent's own counters of loss, from its Prometheus page.

In: the page, every two seconds. Out: an episode of loss for each cause whose counters rise. This is the only place
where Tetragon says that it dropped events: nothing is in the stream.
"""

import errno
import logging
import re
import time
from collections.abc import Callable, Collection, Mapping
from http.client import HTTPConnection, HTTPException

from keytrail.domain.gap import GapCause
from keytrail.loss.episode import Episode, Report
from keytrail.source.address import Address

log = logging.getLogger(__name__)

WATCHED: Mapping[str, GapCause] = {
    # One number for all readers and for the JSON exporter, without a label: how much of it is ours nobody can say.
    "tetragon_notify_overflowed_events_total": GapCause.READER_SLOW,
    "tetragon_bpf_missed_events_total": GapCause.KERNEL_OVERFLOW,
    "tetragon_observer_ringbuf_events_lost_total": GapCause.KERNEL_OVERFLOW,
    "tetragon_observer_ringbuf_queue_events_lost_total": GapCause.KERNEL_OVERFLOW,
    "tetragon_missed_link_probes_total": GapCause.HOOK_MISSED,
    "tetragon_missed_prog_probes_total": GapCause.HOOK_MISSED,
    "tetragon_events_missing_process_info_total": GapCause.PROCESS_UNKNOWN,
}
_DETAILS = {
    GapCause.READER_SLOW: "the agent's queue for a reader was full; it has one count for all its readers: at most "
    "so many of them would have been ours",
    GapCause.KERNEL_OVERFLOW: "lost between kernel and agent, for all its readers",
    GapCause.HOOK_MISSED: "as happens inside of another hook; nobody knows which of these calls would have been events",
    GapCause.PROCESS_UNKNOWN: "events arrived, without the process that caused them",
}
_SIGNS = frozenset({GapCause.HOOK_MISSED})
_OF_POLICIES = frozenset(name for name, cause in WATCHED.items() if cause is GapCause.HOOK_MISSED)
"""What the kernel counts for each policy that is loaded: it falls when one goes."""
_NOT_YET = "not looked at yet"
_SECONDS = 1.5
_LARGEST = 8 * 1024 * 1024
_CHUNK = 64 * 1024
_SAMPLE = re.compile(rb"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{.*\})?[ \t]+(\S+)", re.MULTILINE)
"""Name, labels, value. A label's value may hold anything but a raw newline; the last brace of a line closes them."""


def read_counters(page: bytes, names: Collection[str]) -> dict[str, int]:
    """Sum the samples of each name over their labels; the text format, version 0.0.4. Other lines are passed over."""
    counters: dict[str, int] = {}
    wanted = {name.encode(): name for name in names}
    for name, value in _SAMPLE.findall(page):
        if name in wanted:
            try:
                counters[wanted[name]] = counters.get(wanted[name], 0) + int(float(value))
            except (ValueError, OverflowError):  # NaN, infinity, or no number at all
                continue
    return counters


def fetch_page(
    address: Address, *, seconds: float = _SECONDS, largest: int = _LARGEST, clock: Callable[[], float] = time.monotonic
) -> bytes:
    """Return the page at `/metrics`. Raises OSError, also for one that is too large or slow, or HTTPException."""
    connection = HTTPConnection(address.host, address.port, timeout=seconds)
    end = clock() + seconds
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        if answer.status != 200:  # noqa: PLR2004 - OK
            raise OSError(errno.EPROTO, f"status {answer.status}")
        page = bytearray()
        while chunk := answer.read1(_CHUNK):
            page += chunk
            if len(page) > largest or clock() > end:
                raise OSError(errno.EFBIG, "the page is too large or comes too slowly")
        return bytes(page)
    finally:
        connection.close()


class AgentMetrics:
    """Compares one look at the page with the look before. For one thread."""

    def __init__(
        self,
        locate: Callable[[], Address | None],
        report: Report,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        fetch: Callable[[Address], bytes] = fetch_page,
    ) -> None:
        """`locate` is asked at each look: the agent may come later than we."""
        self.problem: str | None = _NOT_YET
        """Why the counters are not watched; None while they are. For doctor and status."""
        self._locate = locate
        self._now_ns = now_ns
        self._fetch = fetch
        self._episodes = {
            cause: Episode(cause, report, suspected=cause in _SIGNS) for cause in dict.fromkeys(WATCHED.values())
        }
        self._last: dict[str, int] | None = None
        self._last_ns = 0

    def look(self) -> None:
        """Read the page and report what rose since the last time; never raises."""
        counters = self._read()
        now = self._now_ns()
        if counters is not None:
            if self._last is not None:
                self._compare(self._last, counters, now)
            self._last, self._last_ns = counters, now
        for episode in self._episodes.values():
            episode.tick(now)

    def close(self) -> None:
        """End what is open."""
        for episode in self._episodes.values():
            episode.close()

    def _compare(self, before: Mapping[str, int], counters: Mapping[str, int], now: int) -> None:
        rises: dict[GapCause, int] = {}
        for name, count in counters.items():
            # A counter with labels appears at its first rise. One that fell is a new agent's, which began at 0.
            earlier = before.get(name, 0)
            rise = count - earlier if count >= earlier else 0 if name in _OF_POLICIES else count
            if rise:
                cause = WATCHED[name]
                rises[cause] = rises.get(cause, 0) + rise
        for cause, rise in rises.items():
            self._episodes[cause].add(self._last_ns, now, now_ns=now, lost=rise, detail=_DETAILS[cause])

    def _read(self) -> dict[str, int] | None:
        address = self._locate()
        if address is None:
            self._say("its address is not known: the agent names none, and agent_metrics_address is not set")
            return None
        try:
            page = self._fetch(address)
        except (OSError, HTTPException) as error:
            self._say(f"http://{address}/metrics: {getattr(error, 'strerror', None) or type(error).__name__}")
            return None
        self._say(None)
        return read_counters(page, WATCHED)

    def _say(self, problem: str | None) -> None:
        """Log a change between watched and not watched, once."""
        if problem is None and self.problem is not None:
            log.info("watching the agent's metrics for events that it drops")
        elif problem is not None and self.problem in (None, _NOT_YET):
            log.warning(
                "cannot read the agent's metrics (%s): what it drops for a slow reader or in the kernel is not counted",
                problem,
            )
        self.problem = problem
