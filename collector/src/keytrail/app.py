"""Wiring: settings to stages, stages to threads, and the order in which they start and stop.

One thread only reads, one decides; behind them the spool's stores and the sender's deliver. Started from the output
backwards and stopped from the source forwards, so that nothing that was read has nowhere to go.
"""

import ctypes
import gc
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from keytrail.configuration import Configuration, load_configuration
from keytrail.decode import memory
from keytrail.decode.decoder import Decoder
from keytrail.decode.duplicates import HookMerger
from keytrail.decode.redact import Redactor
from keytrail.decode.table import ProcessTable
from keytrail.domain.filters import EventFilter, EventMatcher
from keytrail.domain.objects import Resource
from keytrail.enrich.enricher import Enricher
from keytrail.enrich.peers import Peers
from keytrail.inbox import Inbox
from keytrail.loss.guard import LossGuard
from keytrail.observe.accounting import Accounting
from keytrail.observe.rate import Rate
from keytrail.observe.watchdog import Watchdog
from keytrail.pipeline import Pipeline
from keytrail.records import Outputs
from keytrail.reload import Reloader
from keytrail.settings import Settings
from keytrail.source.base import Batch, Source

log = logging.getLogger(__name__)

_STOP_SECONDS = 4.5
"""From a stop to the end: Kubernetes and systemd are told to expect five seconds. Outputs deliver in what is left."""
_READ_SECONDS = 1.5
"""A source ends within a second after it was closed; then open gaps are closed."""
_DECIDE_SECONDS = 1.5
"""What was read and waits gets this long to be decided on; the rest is counted as lost by the shutdown."""
_LAST_BATCH_SECONDS = 0.5
_STUCK_SECONDS = 30.0
"""A batch is decided on in milliseconds; one that takes this long will not end."""
_SAVE_SECONDS = 60.0


class Collector:
    """One source through one pipeline into its outputs."""

    def __init__(
        self,
        settings: Settings,
        source: Source,
        outputs: Outputs,
        accounting: Accounting,
        *,
        live: bool,
        guard: LossGuard | None = None,
        enricher: Enricher | None = None,
        peers: Peers | None = None,
        applied: Callable[[], tuple[Resource, ...]] = tuple,
        ask_for: Callable[[EventFilter], None] | None = None,
    ) -> None:
        """`guard` watches a live stream for loss, `enricher` knows pods, `peers` who has which address.

        `applied` gives the API server's resources. `ask_for` tells the source what of its events is looked at, whenever
        that changes; it is not used where events themselves are sent, which are all looked at.

        Raises UsageError for wrong manifests.
        """
        redactor = Redactor(settings.redact_patterns)
        wanted, placed = settings.event_filter(), EventFilter()
        if enricher is not None:  # which pod it is nobody knows before
            placed = EventFilter(namespaces=wanted.namespaces, pods=wanted.pods)
            wanted = replace(wanted, namespaces=frozenset(), pods=())
        self._load = partial(load_configuration, settings, redactor.redact, live=live, findings=bool(outputs.findings))
        self._applied = applied
        self._configuration = self._load(applied=applied())
        self.accounting = accounting
        self.table = ProcessTable(settings.process_capacity)
        self._settings = settings
        self._source = source
        self._outputs = outputs
        self._guard = guard
        self._enricher = enricher
        self.watchdog = Watchdog()
        self._pulse = self.watchdog.watch("decide", _STUCK_SECONDS)
        self.rate = Rate()
        """Events received a second."""
        self.pipeline = Pipeline(
            Decoder(redactor.redact, self.table),
            self._configuration,
            outputs,
            accounting,
            wanted=EventMatcher(wanted) if wanted else None,
            enricher=enricher,
            placed=EventMatcher(placed) if placed else None,
            merger=HookMerger(settings.duplicates_window_ms * 1_000_000) if settings.duplicates_window_ms else None,
            watch=guard,
            peers=peers,
        )
        self.inbox = Inbox(accounting, settings.queue_capacity)
        self._ask_for = None if outputs.events else ask_for
        self._ask(self._configuration)
        self._failure: BaseException | None = None
        self._boot_id = _boot_id(settings.proc_root) if live and settings.state_dir is not None else ""

    def run_through(self, *, stopped: Callable[[], bool] = lambda: False) -> None:
        """Read a finite source to its end in this thread, losing nothing: for recordings and files.

        Raises SourceError when the source is damaged; what came before the damage has been delivered by then.
        """
        freeze_heap()
        self._outputs.start()
        try:
            for batch in self._source.batches():
                self.pipeline.process(batch)
                if stopped():
                    break
        finally:
            try:
                self.pipeline.finish()
            finally:
                self._outputs.close(time.monotonic() + _STOP_SECONDS)

    def run_live(self, stop: threading.Event) -> None:
        """Read a live source until `stop` is set or the source ends; raises what ended it unexpectedly. Once only."""
        if self._settings.state_dir is not None:
            self.table.remember(memory.load(self._settings.state_dir, self._boot_id))
        reading = threading.Thread(target=self._read, name="keytrail-read", daemon=True)
        deciding = threading.Thread(target=self._decide, name="keytrail-decide", daemon=True)
        freeze_heap()
        self._outputs.start()
        deciding.start()
        if self._guard is not None:
            self._guard.start(self.inbox.put, self.inbox.__len__, self._previous_run())
        reading.start()
        saved = time.monotonic()
        while deciding.is_alive() and not stop.wait(0.2):
            self.rate.sample(self.accounting.received)
            if self._enricher is not None and self._enricher.waiting:  # time is up for them on a quiet stream, too
                self.inbox.put(Batch((), time.time_ns()))
            if time.monotonic() - saved >= _SAVE_SECONDS:
                self._save()
                saved = time.monotonic()
        deadline = time.monotonic() + _STOP_SECONDS
        self._source.close()
        reading.join(_READ_SECONDS)
        self.inbox.close()
        if (delivery := self._outputs.delivery) is not None:
            delivery.last_call()
        deciding.join(_DECIDE_SECONDS)
        self.inbox.give_up()
        deciding.join(_LAST_BATCH_SECONDS)
        self._save()
        self._outputs.close(deadline)
        if self._failure is not None:
            raise self._failure

    @property
    def applied(self) -> tuple[Resource, ...]:
        """The API server's resources that this began with."""
        return self._configuration.applied

    def replace(self, configuration: Configuration) -> None:
        """Decide by another configuration from the next batch on; on a quiet stream an empty one is the next."""
        self.pipeline.replace(configuration)
        self.inbox.put(Batch((), time.time_ns()))
        self._ask(configuration)

    def reloader(self, reread: Callable[[], Settings], settings_file: Path | None) -> Reloader:
        """What keeps this collector's settings and manifests those on disk; `reread` gives the settings of now."""
        return Reloader(
            self._settings,
            reread,
            settings_file,
            loaded=self._configuration,
            load=lambda *, previous: self._load(previous=previous, applied=self._applied()),
            replace=self.replace,
            applied=self._applied,
        )

    def _ask(self, configuration: Configuration) -> None:
        if self._ask_for is not None:
            self._ask_for(configuration.looked_at(self._settings.event_filter()))

    # -- threads

    def _read(self) -> None:
        try:
            for batch in self._source.batches():
                self.inbox.put(batch)
        except Exception as error:  # noqa: BLE001 - the boundary of the reading thread: `run_live` raises it
            self._failure = error
        finally:
            if self._guard is not None:
                self._guard.close()  # its closing records must find the inbox open
            self.inbox.close()

    def _decide(self) -> None:
        self._pulse.started()
        try:
            for batch in self.inbox:
                self._pulse.busy()
                self.pipeline.process(batch)
                self._pulse.idle()
            self.pipeline.finish()
            self._pulse.finished()
        except Exception as error:  # noqa: BLE001 - the boundary of the deciding thread: `run_live` raises it
            self._failure = error

    # -- ends

    def _save(self) -> None:
        if self._settings.state_dir is None:
            return
        try:
            memory.save(self._settings.state_dir, self._boot_id, self.table.running())
        except OSError as error:
            log.warning(
                "cannot write %s (%s): a restart will forget environments of running processes",
                self._settings.state_dir,
                error.strerror,
            )

    def _previous_run(self) -> tuple[bool, int | None]:
        """How the run before this one ended, as the spool's folder tells, and when it last lived."""
        delivery = self._outputs.delivery
        if delivery is None:
            return True, None
        before = delivery.spool.previous
        return before.clean, before.last_alive_ns


def _boot_id(proc: Path) -> str:
    try:
        return (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def freeze_heap() -> None:
    """Take what start-up made out of the garbage collector's sight: it would be walked again and again for nothing.

    Measured on a prototype with 30,000 cached processes: a fifth more events a second (19.0 against 20.0 microseconds
    each, and no pauses). What start-up took of the C library's heap goes back to the system: 1 MB, and 10 MB where it
    compiled rules itself.
    """
    gc.collect()
    with suppress(AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)
    gc.freeze()
    gc.set_threshold(50_000)
