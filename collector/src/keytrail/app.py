"""Wiring: settings to stages, stages to threads, and the order in which they start and stop.

Three threads: one only reads, one decides, one delivers (inside the OTLP sender). Started from the output backwards
and stopped from the source forwards, so that nothing that was read has nowhere to go.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeGuard

from keytrail.decode import memory
from keytrail.decode.credential_patterns import looks_like_credential_name
from keytrail.decode.decoder import Decoder
from keytrail.decode.duplicates import HookMerger
from keytrail.decode.redact import Redactor
from keytrail.decode.table import ProcessTable
from keytrail.detect import Engine
from keytrail.detect.library import load_rules
from keytrail.domain.errors import ManifestError, Problem
from keytrail.domain.event import Event
from keytrail.domain.filters import EventMatcher
from keytrail.domain.finding import Finding
from keytrail.domain.policy_library import PolicyLibrary
from keytrail.domain.resources import BUILTIN_LABEL, ClusterIdentityMapping
from keytrail.domain.rules import DetectionRule, Maturity
from keytrail.export.output import Output
from keytrail.identify.matcher import IdentityMatcher, Mapping
from keytrail.identify.proc_environ import ProcEnvironment
from keytrail.inbox import Inbox
from keytrail.manifests import Manifests, builtin_folder, load_builtin_identities, load_folder
from keytrail.observe.accounting import Accounting
from keytrail.pipeline import Outputs, Pipeline, freeze_heap
from keytrail.settings import Settings
from keytrail.source.base import Source
from keytrail.tracing import sensors

log = logging.getLogger(__name__)

CLOSE_SECONDS = 4.0
"""What is left to deliver after a stop gets this long: Kubernetes and systemd are told to expect five seconds."""
_SAVE_SECONDS = 60.0
_RULE_CHOICES: dict[str, tuple[Maturity, ...] | None] = {"stable": None, "all": tuple(Maturity), "none": ()}
"""What of the library runs; None leaves it to the user's PolicyLibrary, whose default is the stable rules."""


def given_manifests(settings: Settings) -> Manifests:
    """The user's folder; empty without one. Raises UsageError for a wrong manifest."""
    return Manifests() if settings.config is None else load_folder(settings.config)


def rules_folder(settings: Settings) -> Path:
    """Where the rules come from that run beside the user's own: the shipped library, or the folder that replaces it."""
    return builtin_folder() / "rules" if settings.rules in _RULE_CHOICES else Path(settings.rules)


def build_rules(settings: Settings, manifests: Manifests) -> Engine:
    """The shipped rules and the user's own, tuned by the user's PolicyLibrary. Raises ManifestError for a wrong one."""
    known = sensors()
    replaced = settings.rules not in _RULE_CHOICES
    shipped, problems = load_rules(rules_folder(settings), sensors=known)
    own: tuple[DetectionRule, ...] = ()
    if settings.config is not None and any(isinstance(one, DetectionRule) for one in manifests.resources):
        own, more = load_rules(settings.config, sensors=known)
        problems += more
    if problems:
        raise ManifestError(list(problems))
    library = next((one for one in manifests.resources if isinstance(one, PolicyLibrary)), None)
    engine = Engine.load(
        ({rule.name: rule for rule in (*shipped, *own)}).values(),
        library,
        sensors=known,
        maturities=tuple(Maturity) if replaced else _RULE_CHOICES[settings.rules],
    )
    if engine.refused:
        where = str(settings.config)
        raise ManifestError(
            [Problem(where, 0, fault.field, fault.message) for faults in engine.refused.values() for fault in faults]
        )
    return engine


def build_matcher(settings: Settings, manifests: Manifests, redactor: Redactor, *, live: bool) -> IdentityMatcher:
    """Mappings of the user's folder and the built-in providers."""
    given = manifests.identity_mappings
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
        self, settings: Settings, source: Source, outputs: Outputs, accounting: Accounting, *, live: bool
    ) -> None:
        redactor = Redactor()
        wanted = settings.event_filter()
        manifests = given_manifests(settings)
        self.accounting = accounting
        self.table = ProcessTable(settings.process_capacity)
        self._settings = settings
        self._source = source
        self._outputs = outputs
        self._pipeline = Pipeline(
            Decoder(redactor.redact, self.table),
            build_matcher(settings, manifests, redactor, live=live),
            build_rules(settings, manifests) if outputs.findings else None,
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
            self._pipeline.finish()
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
        except Exception as error:  # noqa: BLE001 - the boundary of the reading thread: `run_live` raises it
            self._failure = error
        finally:
            inbox.close()

    def _decide(self, inbox: Inbox) -> None:
        try:
            for batch in inbox:
                self._pipeline.process(batch)
            self._pipeline.finish()
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
        outputs: list[Output[Event] | Output[Finding]] = [*self._outputs.events, *self._outputs.findings]
        for output in outputs:
            output.close(max(0.0, deadline - time.monotonic()))


def _boot_id(proc: Path) -> str:
    try:
        return (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
