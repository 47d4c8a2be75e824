"""One connection to an agent: the event stream, and what must be known before its first event.

In: an address. Out: facts and processes of the agent, then raw messages until the stream ends. A connection is used
once; `grpc_stream` makes the next one. It must not know why a connection ended nor what follows.
"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

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
from keytrail.source.channel import SERVICE
from keytrail.source.facts import facts_of
from keytrail.source.status import code_of, details_of
from keytrail.source.wire import WireError, submessages

DUMP_LIMIT = 64 * 1024 * 1024
"""Bytes of a process-cache dump: room for the agent's 65,536 processes at 1 KiB each, fewer with environments."""
_HELD_LIMIT = 64 * 1024 * 1024
"""Bytes of events held while the dump is on its way; beyond it the dump is given up, since events are worth more."""
_ANSWER_SECONDS = 10.0
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


class Connection:
    """An open event stream. `cancel` may be called from any thread and ends every other method."""

    def __init__(self, channel: grpc.Channel, request: bytes) -> None:
        self._channel = channel
        self._questions: list[Any] = []
        self._cancelled = False
        self._held: SimpleQueue[bytes | None] = SimpleQueue()
        self._held_bytes = 0
        self._handed_over = threading.Event()
        # First of all calls: the agent then queues every event for us while it answers the others.
        self._stream: Any = channel.unary_stream(f"/{SERVICE}/GetEvents", _same, _same)(request)
        self._holder = threading.Thread(target=self._hold, name="keytrail-hold", daemon=True)
        self._holder.start()

    @property
    def works(self) -> bool:
        """Whether the stream is open, as far as is known, or has at least delivered something."""
        return self._held_bytes > 0 or not self._stream.done()

    def greet(self) -> Greeting:
        """Ask for version, flags and processes. Raises grpc.RpcError when there is no agent that answers.

        An agent that sends events is one, even if something between forbids the questions: then facts stay unknown.
        """
        try:
            version = GetVersionResponse.FromString(self._ask("GetVersion", b"", _ANSWER_SECONDS)).version
        except grpc.RpcError:
            if not self._held_bytes:
                raise
            version = ""
        agent = self._facts(version)
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

    def messages(self) -> Iterator[bytes]:
        """Yield what arrived during the greeting, then the rest; end with the stream or raise its grpc.RpcError."""
        self._handed_over.set()
        # The other thread waits inside grpcio for one more message, which nothing can interrupt: it passes that on.
        yield from iter(self._held.get, None)
        yield from self._stream

    def cancel(self) -> None:
        """End the stream and whatever was asked."""
        self._cancelled = True
        self._stream.cancel()
        self._cancel_questions()

    def close(self) -> None:
        """Free the connection."""
        self.cancel()
        self._holder.join()
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
        with contextlib.suppress(grpc.RpcError):
            for message in self._stream:
                self._held.put(message)
                self._held_bytes += len(message)
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
