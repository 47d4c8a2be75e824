"""Events and findings to an OTLP receiver: records are gathered by resource and sent as whole ResourceLogs.

Events or findings come in from the pipeline; encoded messages go to a sender, which never blocks. What becomes of them
is counted there: a record is not exported before the receiver acknowledged it.
"""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from keytrail.export.otlp_encode import ResourceKey

Record = TypeVar("Record")

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


class OtlpOutput(Generic[Record]):
    """An `Output` that feeds a sender. `encode` makes records, `resource_logs` one message of them."""

    def __init__(
        self,
        encode: Callable[[Record], tuple[ResourceKey, bytes]],
        resource_logs: Callable[[ResourceKey, list[bytes]], bytes],
        sender: Sender,
    ) -> None:
        self._encode = encode
        self._resource_logs = resource_logs
        self._sender = sender
        self._gathered: dict[ResourceKey, list[bytes]] = {}
        self._records = 0
        self._bytes = 0

    def write(self, record: Record, /) -> None:
        """Encode the record; submit when enough are together."""
        key, encoded = self._encode(record)
        self._gathered.setdefault(key, []).append(encoded)
        self._records += 1
        self._bytes += len(encoded)
        if self._records >= _RECORDS or self._bytes >= _BYTES:
            self.flush()

    def flush(self) -> None:
        """Submit what is gathered."""
        gathered, self._gathered = self._gathered, {}
        self._records = self._bytes = 0
        for key, records in gathered.items():
            self._sender.submit(self._resource_logs(key, records), len(records))

    def close(self, deadline: float) -> None:
        """Submit what is gathered and end the sender, within `deadline` seconds."""
        self.flush()
        self._sender.close(deadline)
