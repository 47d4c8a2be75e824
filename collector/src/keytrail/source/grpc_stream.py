"""The live source: an agent's gRPC event stream, reconnected for as long as anybody reads.

In: an address and what is wanted. Out: batches, and one `Transition` whenever the connection becomes something else.
A connection itself is `connection`'s business; what a gap means is that of whoever hears of the transitions.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import grpc
from google.protobuf.message import DecodeError

from keytrail.domain.errors import SettingsError
from keytrail.domain.filters import EventFilter
from keytrail.proto.tetragon.events_pb2 import EventType
from keytrail.source.address import Address
from keytrail.source.base import Batch
from keytrail.source.channel import TlsOptions, open_channel
from keytrail.source.connection import DUMP_LIMIT, Connection, EventStream, Greeting, GrpcioStream
from keytrail.source.http2_request import REQUEST_LIMIT
from keytrail.source.http2_stream import Http2Stream
from keytrail.source.request import Asked, type_names
from keytrail.source.status import Reason, StreamError, details_of, reason_of

ReaderName = Literal["auto", "http2", "grpcio"]
_SURPRISES = frozenset({Reason.PROTOCOL, Reason.NOT_GRPC})
_DOUBLINGS = 16
_EVERYTHING = EventFilter()


class State(StrEnum):
    """Of the connection, as a reader of the log needs to know it."""

    CONNECTED = "connected"
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class Transition:
    """The connection became something else. Attempts that end as the one before did are none."""

    state: State
    reason: Reason
    address: str
    attempt: int
    """Of all connections that this source has tried, from 1."""
    detail: str
    """The agent's, grpcio's or the system's own words; may be empty."""
    at_ns: int
    """Wall clock, nanoseconds since the epoch: from an AWAY to the next CONNECTED nothing was received."""
    left_out: tuple[str, ...] = ()
    """Types of event that this connection does not ask for, as the agent names them."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before trying again, in seconds: doubling, and random so that nodes do not act in step."""

    first: float = 1.0
    limit: float = 30.0
    random: Callable[[], float] = random.random

    def delay(self, failures: int) -> float:
        """Return the wait after so many failures in a row (from 1): between a half and the whole of its step."""
        step = min(self.limit, self.first * 2.0 ** min(failures - 1, _DOUBLINGS))
        return step * (1 + self.random()) / 2


def _nobody_listens(_transition: Transition) -> None:
    pass


class GrpcSource:
    """An agent's events, from now on. `close` ends it; nothing else does."""

    def __init__(
        self,
        address: Address,
        *,
        filters: EventFilter = _EVERYTHING,
        tls: TlsOptions | None = None,
        reader: ReaderName = "auto",
        gather_seconds: float = 0.0,
        on_transition: Callable[[Transition], None] = _nobody_listens,
        backoff: Backoff = Backoff(),
        dump_limit: int = DUMP_LIMIT,
        now_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """`filters` say what is wanted, until `ask_for` says otherwise.

        `on_transition` is called on the thread that iterates `batches`. Raises SettingsError for bad TLS options.

        `reader` is who reads the stream: our own `http2`, or `grpcio`, which alone speaks TLS. `auto` begins with our
        own where it can, and goes over to grpcio for good when something comes that it does not understand.
        `gather_seconds` is `Http2Stream`'s; grpcio, which wakes for every message by itself, has nothing to gather.
        """
        self.transitions: Counter[tuple[State, Reason]] = Counter()
        self._address = address
        self._tls = tls
        self._asked = self._asking = Asked.for_(filters)
        if reader == "http2" and tls is not None:
            raise SettingsError("agent reader: http2 speaks no TLS: choose auto or grpcio")
        own = reader != "grpcio" and tls is None and len(self._asked.request) <= REQUEST_LIMIT
        self.reader: ReaderName = "http2" if own else "grpcio"
        """Who reads the next connection."""
        self._gather_seconds = gather_seconds
        self._may_change = reader == "auto"
        self._on_transition = on_transition
        self._backoff = backoff
        self._dump_limit = dump_limit
        self._now_ns = now_ns
        self._closing = threading.Event()
        self._sleep = sleep or self._closing.wait
        self._connection: Connection | None = None
        self._last: tuple[State, Reason] | None = None
        self._attempt = 0
        self._failures = 0
        self._open_channel().close()  # wrong TLS options show now, not at the first connection

    def ask_for(self, wanted: EventFilter) -> None:
        """Ask the agent for this from the next connection on. For any thread.

        Where the present one does not bring all of it, the next is made at once, and what happens in between is a gap
        like any other. Less alone is no reason for a gap.
        """
        self._asked = Asked.for_(wanted)
        if self._missing() and (connection := self._connection) is not None:
            connection.cancel()

    @property
    def left_out(self) -> tuple[str, ...]:
        """Types of event that the present connection does not ask for, as the agent names them."""
        return self._asking.left_out

    def batches(self) -> Iterator[Batch]:
        """Yield what is there, without waiting for more."""
        while not self._closing.is_set():
            self._attempt += 1
            reason, detail = yield from self._one_connection()
            if self._closing.is_set():
                return
            too_large = reason is Reason.TOO_LARGE
            if missing := self._missing():
                more = ", ".join(type_names(missing))
                reason, detail = Reason.ASKED_ANEW, f"the configuration in force looks at {more}, too"
            self._report(State.AWAY, reason, detail)
            if too_large:
                # Lost beside that one message: what the agent had queued for this stream and what happens until the
                # next connection.
                yield Batch((), self._now_ns(), too_large=1)
            if not missing:
                self._failures += 1
                self._sleep(self._backoff.delay(self._failures))

    def close(self) -> None:
        """End `batches`, wherever it waits."""
        self._closing.set()
        if (connection := self._connection) is not None:
            connection.cancel()

    def _one_connection(self) -> Generator[Batch, None, tuple[Reason, str]]:
        """Connect, yield until the connection is over, return why it is."""
        try:
            channel = self._open_channel()
        except SettingsError as error:  # a certificate that was there at the start
            return Reason.TLS, str(error)
        self._asking = self._asked
        connection = self._connection = self._connection_on(channel)
        try:
            if self._closing.is_set() or self._missing():  # since before there was anything to cancel
                return Reason.CANCELLED, ""
            greeting = connection.greet()
            if connection.works:
                self._connected(greeting)
            yield Batch((), self._now_ns(), greeting.agent, greeting.processes)
            del greeting  # the processes are megabytes, and the connection may last for months
            yield from connection.batches()
        except StreamError as error:
            return error.reason, self._after(error)
        except grpc.RpcError as error:
            return reason_of(error), details_of(error)
        except DecodeError as error:
            return Reason.REJECTED, f"not a Tetragon agent's answer: {error}"
        finally:
            connection.close()
        return Reason.ENDED, ""

    def _missing(self) -> frozenset[EventType]:
        """What is wanted by now and not asked for."""
        return self._asked.types - self._asking.types

    def _connection_on(self, channel: grpc.Channel) -> Connection:
        if self.reader == "http2":
            stream: EventStream = Http2Stream(
                self._address, self._asking.request, gather_seconds=self._gather_seconds, now_ns=self._now_ns
            )
            return Connection(channel, stream, shared=False)
        stream = GrpcioStream(channel, self._asking.request, now_ns=self._now_ns)
        return Connection(channel, stream, shared=True)

    def _after(self, error: StreamError) -> str:
        """Leave the stream to grpcio when our own reader did not understand it; return what to report."""
        if not self._may_change or error.reason not in _SURPRISES:
            return error.detail
        self.reader = "grpcio"
        return f"{error.detail}; grpcio reads from now on"

    def _open_channel(self) -> grpc.Channel:
        return open_channel(self._address, self._tls, reply_limit=self._dump_limit)

    def _connected(self, greeting: Greeting) -> None:
        self._failures = 0
        if greeting.dump_error:
            self._report(State.CONNECTED, Reason.NO_PROCESS_CACHE, greeting.dump_error)
        else:
            self._report(State.CONNECTED, Reason.CONNECTED, greeting.agent.version)

    def _report(self, state: State, reason: Reason, detail: str) -> None:
        if self._last == (state, reason):
            return
        self._last = (state, reason)
        self.transitions[self._last] += 1
        self._on_transition(
            Transition(state, reason, str(self._address), self._attempt, detail, self._now_ns(), self.left_out)
        )
