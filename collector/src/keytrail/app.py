"""Wiring: settings to stages, stages to threads, and the order in which they start and stop.

Three threads: one only reads, one decides, one delivers (inside the OTLP sender). Started from the output backwards
and stopped from the source forwards, so that nothing that was read has nowhere to go.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeGuard

from keytrail.decode import memory
from keytrail.decode.credential_patterns import looks_like_credential_name
from keytrail.decode.decoder import Decoder
from keytrail.decode.duplicates import HookMerger
from keytrail.decode.redact import Redactor
from keytrail.decode.table import ProcessTable
from keytrail.domain.errors import KeytrailError
from keytrail.domain.filters import EventMatcher
from keytrail.domain.resources import BUILTIN_LABEL, ClusterIdentityMapping
from keytrail.export.output import Output
from keytrail.identify.matcher import IdentityMatcher, Mapping
from keytrail.identify.proc_environ import ProcEnvironment
from keytrail.inbox import Inbox
from keytrail.manifests import load_builtin_identities, load_folder
from keytrail.observe.accounting import Accounting
from keytrail.pipeline import Pipeline, freeze_heap
from keytrail.settings import Settings
from keytrail.source.base import Source

log = logging.getLogger(__name__)

CLOSE_SECONDS = 4.0
"""What is left to deliver after a stop gets this long: Kubernetes and systemd are told to expect five seconds."""
_SAVE_SECONDS = 60.0


def build_matcher(settings: Settings, redactor: Redactor, *, live: bool) -> IdentityMatcher:
    """Mappings of the user's folder and the built-in providers. Raises UsageError for a wrong manifest."""
    given = load_folder(settings.config).identity_mappings if settings.config is not None else ()
    # A folder may hold the shipped library itself, or newer files of it: they stay knowledge of providers.
    builtin = {mapping.metadata.name: mapping for mapping in load_builtin_identities()}
    builtin |= {mapping.metadata.name: mapping for mapping in given if _is_builtin(mapping)}
    mappings = [mapping for mapping in given if not _is_builtin(mapping)]
    fallback = None
    if live and settings.proc_fallback:
        fallback = ProcEnvironment(settings.proc_root, lambda name: redactor.redact(name)[0])
    return IdentityMatcher(
        mappings,
        list(builtin.values()),
        looks_like_credential=looks_like_credential_name if settings.unmapped_credentials else None,
        fallback=fallback,
    )


def _is_builtin(mapping: Mapping) -> TypeGuard[ClusterIdentityMapping]:
    return mapping.metadata.labels.get(BUILTIN_LABEL) == "true" and isinstance(mapping, ClusterIdentityMapping)


class Collector:
    """One source through one pipeline into its outputs."""

    def __init__(
        self, settings: Settings, source: Source, outputs: Sequence[Output], accounting: Accounting, *, live: bool
    ) -> None:
        redactor = Redactor()
        wanted = settings.event_filter()
        self.accounting = accounting
        self.table = ProcessTable(settings.process_capacity)
        self._settings = settings
        self._source = source
        self._outputs = outputs
        self._pipeline = Pipeline(
            Decoder(redactor.redact, self.table),
            build_matcher(settings, redactor, live=live),
            outputs,
            accounting,
            wanted=EventMatcher(wanted) if wanted else None,
            merger=HookMerger(settings.duplicates_window_ms * 1_000_000) if settings.duplicates_window_ms else None,
        )
        self._failure: BaseException | None = None
        self._boot_id = _boot_id(settings.proc_root) if live and settings.state_dir is not None else ""

    def run_through(self, *, stopped: Callable[[], bool] = lambda: False) -> None:
        """Read a finite source to its end in this thread, losing nothing: for recordings and files.

        Raises SourceError when the source is damaged; what came before the damage has been delivered by then.
        """
        freeze_heap()
        try:
            for batch in self._source.batches():
                self._pipeline.process(batch)
                if stopped():
                    break
        finally:
            self._close_outputs()

    def run_live(self, stop: threading.Event) -> None:
        """Read a live source until `stop` is set or the source ends; raises what ended it unexpectedly."""
        if self._settings.state_dir is not None:
            self.table.remember(memory.load(self._settings.state_dir, self._boot_id))
        inbox = Inbox(self.accounting, self._settings.queue_capacity, gather_seconds=self._settings.gather_ms / 1000)
        reading = threading.Thread(target=self._read, args=(inbox,), name="keytrail-read", daemon=True)
        deciding = threading.Thread(target=self._decide, args=(inbox,), name="keytrail-decide", daemon=True)
        freeze_heap()
        deciding.start()
        reading.start()
        saved = time.monotonic()
        while deciding.is_alive() and not stop.wait(0.2):
            if time.monotonic() - saved >= _SAVE_SECONDS:
                self._save()
                saved = time.monotonic()
        self._source.close()
        reading.join(2.0)
        inbox.close()
        deciding.join(2.0)
        self._save()
        self._close_outputs()
        if self._failure is not None:
            raise self._failure

    # -- threads

    def _read(self, inbox: Inbox) -> None:
        try:
            for batch in self._source.batches():
                inbox.put(batch)
        except KeytrailError as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001 - the boundary of the reading thread: `run_live` raises it
            self._failure = error
        finally:
            inbox.close()

    def _decide(self, inbox: Inbox) -> None:
        try:
            for batch in inbox:
                self._pipeline.process(batch)
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

    def _close_outputs(self) -> None:
        deadline = time.monotonic() + CLOSE_SECONDS
        for output in self._outputs:
            output.close(max(0.0, deadline - time.monotonic()))


def _boot_id(proc: Path) -> str:
    try:
        return (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
