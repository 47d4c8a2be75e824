"""Events to an OTLP receiver: records are gathered by resource and handed to the sender as whole ResourceLogs.

Events come in from the pipeline; encoded messages go to a sender, which never blocks. What becomes of them is counted
there: a record is not exported before the receiver acknowledged it.
"""

from typing import Protocol

from keytrail.domain.event import Event
from keytrail.export.otlp_encode import RecordEncoder, ResourceKey

_RECORDS = 512
_BYTES = 1 << 20
"""Command lines reach 128 KiB, and a receiver's default limit for a whole request is 4 MiB."""


class Sender(Protocol):
    """Delivers encoded messages."""

    def submit(self, resource_logs: bytes, records: int, /) -> None:
        """Take one ResourceLogs message of that many records. Never blocks; counts what it cannot take."""
        ...

    def close(self, deadline: float, /) -> None:
        """Send what it can within `deadline` seconds; count the rest as dropped."""
        ...


class OtlpOutput:
    """An `Output` that feeds a sender."""

    def __init__(self, encoder: RecordEncoder, sender: Sender) -> None:
        self._encoder = encoder
        self._sender = sender
        self._gathered: dict[ResourceKey, list[bytes]] = {}
        self._records = 0
        self._bytes = 0

    def write(self, event: Event) -> None:
        """Encode the event; submit when enough are together."""
        key, record = self._encoder.encode(event)
        self._gathered.setdefault(key, []).append(record)
        self._records += 1
        self._bytes += len(record)
        if self._records >= _RECORDS or self._bytes >= _BYTES:
            self.flush()

    def flush(self) -> None:
        """Submit what is gathered."""
        gathered, self._gathered = self._gathered, {}
        self._records = self._bytes = 0
        for key, records in gathered.items():
            self._sender.submit(self._encoder.resource_logs(key, records), len(records))

    def close(self, deadline: float) -> None:
        """Submit what is gathered and end the sender, within `deadline` seconds."""
        self.flush()
        self._sender.close(deadline)
