"""One connection to an agent: the event stream, and what must be known before its first event.

In: a stream and a channel. Out: facts and processes of the agent, then batches until the stream ends. A connection is
used once; `grpc_stream` makes the next one. It must not know why a connection ended nor what follows.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

import grpc

from keytrail.domain.agent import AgentFacts
from keytrail.proto.tetragon.sensors_pb2 import (
    CONFIG_FLAG_DUMP_PROCESS_CACHE,
    DumpProcessCacheReqArgs,
    DumpProcessCacheResArgs,
    GetDebugRequest,
    GetDebugResponse,
    GetInfoResponse,
    GetVersionResponse,
    ProcessInternal,
)
from keytrail.source.base import MAX_MESSAGE_BYTES, Batch
from keytrail.source.channel import SERVICE
from keytrail.source.facts import facts_of
from keytrail.source.status import StreamError, code_of, details_of
from keytrail.source.wire import WireError, submessages

DUMP_LIMIT = 64 * 1024 * 1024
"""Bytes of a process-cache dump: room for the agent's 65,536 processes at 1 KiB each, fewer with environments."""
_HELD_LIMIT = 64 * 1024 * 1024
"""Bytes of events held while the dump is on its way; beyond it the dump is given up, since events are worth more."""
_ANSWER_SECONDS = 10.0
_LOOK_UP_SECONDS = 0.05
"""How often the holding thread looks whether it has been relieved, when nothing arrives that would wake it."""
_LEAVE_SECONDS = 0.5
_DUMP_SECONDS = 30.0
_DUMPED = GetDebugResponse.DESCRIPTOR.fields_by_name["processes"]
_ENTRIES = DumpProcessCacheResArgs.DESCRIPTOR.fields_by_name["processes"]
_PROCESS = ProcessInternal.DESCRIPTOR.fields_by_name["process"]
_DUMP_REQUEST = GetDebugRequest(
    flag=CONFIG_FLAG_DUMP_PROCESS_CACHE, dump=DumpProcessCacheReqArgs(skip_zero_refcnt=True)
).SerializeToString()


@dataclass(frozen=True, slots=True)
class Greeting:
    """What an agent said at the start of a connection."""

    agent: AgentFacts
    processes: list[bytes]
    dump_error: str = ""
    """Why there are no `processes`; empty when the agent listed them."""


class EventStream(Protocol):
    """The call that delivers events, by whichever reader. It raises grpc.RpcError or StreamError."""

    @property
    def ended(self) -> bool:
        """Whether nothing will come any more."""
        ...

    def wait_open(self) -> None:
        """Return when the agent has the call, as far as this reader can know; raise what hindered it."""
        ...

    def batches(self, pause: float | None = None) -> Iterator[Batch]:
        """Yield until the stream ends; may be broken off and taken up again. Raises what ended the stream.

        With `pause`, in seconds, a reader that can yields an empty batch whenever so long nothing came.
        """
        ...

    def cancel(self) -> None:
        """End it, from any thread."""
        ...

    def close(self) -> None:
        """Free what it holds; nobody reads any more."""
        ...


class GrpcioStream:
    """The call on a grpcio channel, sent at once. A batch for every message: grpcio hands over one at a time."""

    def __init__(self, channel: grpc.Channel, request: bytes, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._call: Any = channel.unary_stream(f"/{SERVICE}/GetEvents", _same, _same)(request)
        self._now_ns = now_ns

    @property
    def ended(self) -> bool:
        """Whether nothing will come any more."""
        done: bool = self._call.done()
        return done

    def wait_open(self) -> None:
        """Return: calls on one channel are sent in their order, so that the questions come behind this one."""

    def batches(self, pause: float | None = None) -> Iterator[Batch]:  # noqa: ARG002 - nothing interrupts grpcio
        """Yield until the stream ends, or raise its grpc.RpcError, whoever reads on."""
        for message in self._call:
            if len(message) > MAX_MESSAGE_BYTES:
                yield Batch((), self._now_ns(), too_large=1)
            else:
                yield Batch((message,), self._now_ns())

    def cancel(self) -> None:
        """End it, from any thread."""
        self._call.cancel()

    def close(self) -> None:
        """Do nothing more: the call goes with its channel."""


class Connection:
    """An open event stream. `cancel` may be called from any thread and ends every other method."""

    def __init__(self, channel: grpc.Channel, stream: EventStream, *, shared: bool) -> None:
        """`channel` is for the questions; `shared` says that the stream is on it, too."""
        self._channel = channel
        self._shared = shared
        self._stream = stream
        self._questions: list[Any] = []
        self._cancelled = False
        self._held: SimpleQueue[Batch | None] = SimpleQueue()
        self._held_bytes = 0
        self._handed_over = threading.Event()
        self._holder = threading.Thread(target=self._hold, name="keytrail-hold", daemon=True)
        self._holder.start()

    @property
    def works(self) -> bool:
        """Whether the stream is open, as far as is known, or has at least delivered something."""
        return self._held_bytes > 0 or not self._stream.ended

    def greet(self) -> Greeting:
        """Ask for version, flags and processes. Raises what the stream does when there is no agent that answers.

        An agent that sends events is one, even if something between forbids the questions: then facts stay unknown.
        """
        # First of all calls: the agent then queues every event for us while it answers the others.
        self._stream.wait_open()
        try:
            version = GetVersionResponse.FromString(self._ask("GetVersion", b"", _ANSWER_SECONDS)).version
        except grpc.RpcError:
            if not self._held_bytes:
                raise
            version = ""
        greeting = self._greeting(self._facts(version))
        if not self._shared:
            self._channel.close()  # nothing else will be asked
        return greeting

    def _greeting(self, agent: AgentFacts) -> Greeting:
        try:
            return Greeting(agent, _processes(self._ask("GetDebug", _DUMP_REQUEST, _DUMP_SECONDS)))
        except grpc.RpcError as error:
            flooded = f"given up: {self._held_bytes} bytes of events came meanwhile"
            return Greeting(agent, [], flooded if self._held_bytes > _HELD_LIMIT else details_of(error) or "failed")
        except WireError as error:
            return Greeting(agent, [], str(error))

    def _facts(self, version: str) -> AgentFacts:
        try:
            return facts_of(version, GetInfoResponse.FromString(self._ask("GetInfo", b"", _ANSWER_SECONDS)))
        except grpc.RpcError as error:
            # Agents before 1.7 have neither GetInfo nor environments.
            older = code_of(error) is grpc.StatusCode.UNIMPLEMENTED
            return AgentFacts(version=version, captures_environment=False if older else None)

    def batches(self) -> Iterator[Batch]:
        """Yield what arrived during the greeting, then the rest; end with the stream or raise what ended it."""
        self._handed_over.set()
        # The other thread passes on what it waits for: inside grpcio nothing can interrupt it.
        yield from iter(self._held.get, None)
        yield from self._stream.batches()

    def cancel(self) -> None:
        """End the stream and whatever was asked."""
        self._cancelled = True
        self._stream.cancel()
        self._cancel_questions()

    def close(self) -> None:
        """Free the connection."""
        self.cancel()
        # Only the system's name resolution cannot be ended; what comes out of it is thrown away then.
        self._holder.join(_LEAVE_SECONDS)
        self._stream.close()
        self._channel.close()

    def _cancel_questions(self) -> None:
        for question in tuple(self._questions):
            question.cancel()

    def _ask(self, method: str, request: bytes, seconds: float) -> bytes:
        call: Any = self._channel.unary_unary(f"/{SERVICE}/{method}", _same, _same).future(request, timeout=seconds)
        self._questions.append(call)
        if self._cancelled:
            call.cancel()
        try:
            answer: bytes = call.result()
        except grpc.FutureCancelledError:
            raise call from None  # the same failure as the error that it is, with its status
        finally:
            self._questions.remove(call)  # it would keep its answer, a dump of megabytes, as long as we live
        return answer

    def _hold(self) -> None:
        """Keep what arrives while the questions are asked: the agent drops what exceeds 10,000 events in its queue."""
        # The stream raises its error once more to whoever reads on, and that one handles it.
        with contextlib.suppress(grpc.RpcError, StreamError):
            for batch in self._stream.batches(pause=_LOOK_UP_SECONDS):
                if batch.messages or batch.too_large:
                    self._held.put(batch)
                    self._held_bytes += sum(map(len, batch.messages))
                if self._handed_over.is_set():
                    break
                if self._held_bytes > _HELD_LIMIT:
                    self._cancel_questions()
        self._held.put(None)


def _same(message: bytes) -> bytes:
    return message


def _processes(dump: bytes) -> list[bytes]:
    """Cut GetDebugResponse.processes.processes[].process out of the reply: parsing it would triple its memory."""
    return [
        bytes(process)
        for cache in submessages(memoryview(dump), _DUMPED.number)
        for entry in submessages(cache, _ENTRIES.number)
        for process in submessages(entry, _PROCESS.number)
    ]
