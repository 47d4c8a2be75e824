"""OTLP delivery as one thing: outputs that encode, the spool in between, the sender behind it.

In flow settings and OpenTelemetry's variables; out flow the outputs for events, findings and gaps. Closed from the
front, so that nothing is taken that has nowhere to go.
"""

import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

from keytrail import __version__
from keytrail.choices import OtlpRecords
from keytrail.domain.drop import DropReason
from keytrail.domain.event import Event
from keytrail.domain.finding import Finding
from keytrail.domain.gap import Gap, GapCause
from keytrail.export.otlp_encode import RecordEncoder
from keytrail.export.otlp_finding import FindingEncoder, finding_lane
from keytrail.export.otlp_gap import GapEncoder, gap_lane
from keytrail.export.otlp_output import OtlpOutput, event_lane
from keytrail.export.otlp_sender import OtlpSender
from keytrail.export.otlp_settings import OtlpSettings, otlp_settings
from keytrail.export.spool.durable import Spool
from keytrail.export.spool.ledger import SpoolLoss
from keytrail.observe.accounting import Accounting
from keytrail.settings import Settings

SPOOL: Final = "spool"
"""Folder in the state folder."""
_HOUR_NS: Final = 3_600_000_000_000
_SYNC_SECONDS: Final = 0.5
"""What is on its way to the disk at a stop gets this long, before anything is sent: that may take the grace period."""
_CLOSE_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 30.0
"""For a recording's records at its end, while the backend takes some: nobody waits for this process to stop."""
_LOSSES: Final = {
    DropReason.SPOOL_EVICTED: GapCause.RECORDS_EVICTED,
    DropReason.SPOOL_EXPIRED: GapCause.RECORDS_EVICTED,
    DropReason.SPOOL_DAMAGED: GapCause.SPOOL_DAMAGED,
}


def own_resource(settings: OtlpSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Attributes of the collector itself, for its records and metrics."""
    return {
        "service.name": settings.service_name,
        "service.version": __version__,
        "service.instance.id": environ.get("HOSTNAME") or socket.gethostname(),
        **dict(settings.resource_attributes),
    }


class Delivery:
    """One backend, between `start` and `close`.

    Raises SettingsError when the variables name none, SpoolBusyError when the spool is another's.

    `patient` suits a source that ends: nothing is kept on disk, and it is made to wait rather than records dropped.
    `on_loss` hears of stored records that were lost, from the spool's thread.
    """

    def __init__(
        self,
        settings: Settings,
        accounting: Accounting,
        environ: Mapping[str, str],
        *,
        patient: bool,
        on_loss: Callable[[Gap], None] = lambda _: None,
    ) -> None:
        otlp = otlp_settings(environ)
        self.endpoint = otlp.endpoint
        self._records = settings.otlp_records
        self._patient = patient
        self._accounting = accounting
        self._encoder = RecordEncoder(own_resource(otlp, environ), time.time_ns)
        self.spool = Spool(
            None if patient or settings.state_dir is None else settings.state_dir / SPOOL,
            self._encoder.resource_logs,
            accounting,
            most_bytes=settings.spool_bytes,
            longest_ns=settings.spool_age_hours * _HOUR_NS,
            patient=patient,
            on_loss=lambda loss: on_loss(_gap(loss)) if loss.reason in _LOSSES else None,
        )
        self.sender = OtlpSender(otlp, self.spool, slots=settings.requests_in_flight)
        self._started = False

    def start(self) -> None:
        """Begin to store and to send; what an earlier run left is sent too."""
        self._started = True
        self.spool.start()
        self.sender.start()

    def events(self) -> list[OtlpOutput[Event]]:
        """The output of events, when they are wanted."""
        if OtlpRecords.EVENTS not in self._records:
            return []
        return [OtlpOutput(self._encoder.encode, event_lane, self.spool)]

    def findings(self) -> list[OtlpOutput[Finding]]:
        """The output of findings, when they are wanted."""
        if OtlpRecords.FINDINGS not in self._records:
            return []
        return [OtlpOutput(FindingEncoder(self._encoder).encode, finding_lane, self.spool)]

    def gaps(self) -> list[OtlpOutput[Gap]]:
        """The output of gaps, which are always told."""
        return [OtlpOutput(GapEncoder(self._encoder, time.time_ns).encode, gap_lane, self.spool)]

    def last_call(self) -> None:
        """Nothing is read any more: the time without a collector, as the next run tells it, begins now."""
        self.spool.last_call()

    def close(self, seconds: float) -> None:
        """Bring to disk what is not there, send what the time allows. The rest stays on disk for the next run.

        Idempotent. Before `start` it only lets go of the folder: a start that is refused is no run, clean or not.
        """
        if not self._started:
            self.spool.abandon()
            return
        if self._patient:
            seconds = max(seconds, _PATIENCE_SECONDS)
        else:
            until = time.monotonic() + seconds
            self.spool.sync(min(_SYNC_SECONDS, seconds))
            seconds = until - time.monotonic()
        self.sender.close(max(0.0, seconds - _CLOSE_SECONDS))
        self.spool.close(_CLOSE_SECONDS)


def _gap(loss: SpoolLoss) -> Gap:
    return Gap(
        _LOSSES[loss.reason], loss.start_ns, loss.end_ns, lost=loss.records or None, exact=True, detail=loss.detail
    )
