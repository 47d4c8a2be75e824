"""The other ends of a benchmark, in processes of their own: the sender of events and the counting OTLP receiver.

In: what to send. Out: JSON lines on standard output, first one that says where to connect. They end when their standard
input does, so that they outlive nobody. `Peer` is such a process as the one that started it sees it, `Cores` who runs
where.

The paced sender has an agent's manners: a queue of 10,000 events, and what finds it full is lost. Events come into it
when they are due, whether or not their reader is ready: a reader that is late cannot make the clock wait for it.
"""

import argparse
import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections import deque
from concurrent import futures
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple, TextIO

import grpc
from http2_sender import END_HEADERS, HEADERS, SETTINGS, Client, Stream, frame, literal, serve
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from synthetic import events, looped

from keytrail.export.otlp_transport import GRPC_METHOD

HERE = Path(__file__).parent
_QUEUE = 10_000
"""Events that an agent keeps for one reader (Tetragon's `--event-queue-size`)."""
_AT_ONCE = 65_536
"""Bytes that grpc-go hands to a connection before its reader must have taken some."""
_TICK = 0.0002
"""Seconds. Events that are due within one come together: a wake-up for each would be all that the sender does."""
_HEADER_BYTES = 9
_END_STREAM = 1


class Cores:
    """Which core the contenders run on, and which one everybody else; the same one where there is no other."""

    def __init__(self) -> None:
        usable = sorted(os.sched_getaffinity(0))
        self.client, self.others = usable[0], usable[-1]

    def __str__(self) -> str:
        if self.client == self.others:
            return "one core for all: the sender takes part of what the contenders have"
        return f"contenders on core {self.client}, sender and receiver on core {self.others}"


class Peer:
    """A process that answers in JSON lines and ends with its standard input."""

    def __init__(self, script: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self.answer()

    def answer(self) -> dict[str, Any]:
        """Return the next line."""
        answer: dict[str, Any] = json.loads(opened(self._process.stdout).readline())
        return answer

    def tell(self, **facts: object) -> None:
        """Write a line."""
        opened(self._process.stdin).write(json.dumps(facts) + "\n")
        opened(self._process.stdin).flush()

    def ask(self) -> dict[str, Any]:
        """Write a line and return the answer."""
        self.tell()
        return self.answer()

    def stop(self) -> None:
        """End it and wait."""
        opened(self._process.stdin).close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        opened(self._process.stdout).close()


def run_script(script: str, *arguments: str, patience: float = 300, stdin: Any = None) -> dict[str, Any]:
    """Run one of the benchmark's programs to its end and return the JSON that it printed. `patience` is in seconds."""
    command = [sys.executable, str(HERE / script), *arguments]
    done = subprocess.run(command, check=True, stdin=stdin, stdout=subprocess.PIPE, timeout=patience)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@cache
def go_client() -> str:
    """Return the path of the client in Go, empty where it was not built: that needs Go and a network."""
    sys.path.append(str(HERE.parent))
    from support.components.build import GO_CLIENT, built

    folder = built(GO_CLIENT) if shutil.which("go") else None
    return str(folder / GO_CLIENT.programs[0]) if folder else ""


def opened(pipe: Any) -> TextIO:
    """Return a pipe that Popen was asked for, which its type leaves open."""
    text: TextIO = pipe
    return text


def say(**facts: object) -> None:
    """Answer whoever started this process."""
    print(json.dumps(facts), flush=True)


def send(corpus: str, count: int, processes: int) -> None:
    """Serve the events to one client after another; tell of each what sending took."""
    messages = list(events(count, processes)) if corpus == "synthetic" else looped(Path(corpus), count)
    size = sum(map(len, messages))
    stream = Stream(messages)
    del messages
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "agent.sock"
        listener.bind(str(path))
        listener.listen()
        say(socket=str(path), bytes=size)
        # The socket goes when our parent does.
        threading.Thread(target=_end_with_input, args=(path,), daemon=True).start()
        while True:
            # A client may ask its questions on another connection than the stream's.
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection, stream), daemon=True).start()


def _serve(connection: socket.socket, stream: Stream) -> None:
    cost = serve(connection, stream)
    if cost is not None:
        say(**cost._asdict())


class Pace(NamedTuple):
    """What the sender is told."""

    rate: int
    seconds: float


class _Paced(Client):
    """One connection. What its reader does not take in time waits in the queue, and then is lost."""

    def __init__(self, connection: socket.socket, stream: Stream, paces: "SimpleQueue[Pace]") -> None:
        super().__init__(connection, stream)
        starts = (0, *stream.ends[:-1])
        self._frames = [stream.data[start:end] for start, end in zip(starts, stream.ends, strict=True)]
        self._paces = paces
        self._pace: Pace | None = None
        self._began = self._offered = self._total = self._dropped = self._deepest = 0
        self._queue: deque[int] = deque()
        self._came = array("q")
        self._unsent = memoryview(b"")
        self._busy = 0.0

    def serve(self) -> None:
        """Let events come in, send them, listen; until the client leaves."""
        self._connection.sendall(frame(SETTINGS, 0, 0))
        while True:
            self._offer()
            more = self._send()
            if not self._wait(0.0 if more else self._until_due()):
                continue
            received = self._connection.recv(65_536)
            if not received:
                return
            self._hear(received)

    def _offer(self) -> None:
        """Put what is due by now into the queue, or lose it."""
        if not self._asked:
            return
        now = time.monotonic_ns()
        if self._pace is None:
            self._pace, self._began = self._paces.get(), now
            self._total = int(self._pace.rate * self._pace.seconds)
        due = min(self._total, (now - self._began) * self._pace.rate // 1_000_000_000 + 1)
        kept = min(due - self._offered, _QUEUE - len(self._queue))
        self._queue.extend(range(self._offered, self._offered + kept))
        self._came.extend([now] * kept)
        self._dropped += due - self._offered - kept
        self._offered = due
        self._deepest = max(self._deepest, len(self._queue))

    def _until_due(self) -> float | None:
        """Seconds until the next event comes in; None when there is none."""
        if self._pace is None or self._offered == self._total:
            return None
        due = self._began + self._offered * 1_000_000_000 // self._pace.rate
        return max(_TICK, (due - time.monotonic_ns()) / 1e9)

    def _send(self) -> bool:
        """Write what the windows and the socket take without waiting; False when there is nothing, or no room."""
        if not self._unsent:
            self._unsent = self._next_frames()
        if self._unsent:
            with contextlib.suppress(BlockingIOError):
                self._unsent = self._unsent[self._connection.send(self._unsent, socket.MSG_DONTWAIT) :]
                return not self._unsent
        elif self._pace is not None and not self._ended and self._offered == self._total and not self._queue:
            self._ended = True
            self._connection.sendall(
                frame(HEADERS, END_HEADERS | _END_STREAM, self._stream.number, literal(b"grpc-status", b"0"))
            )
            wall, cpu = self._since
            self._busy = (time.process_time() - cpu) / (time.perf_counter() - wall)
        return False

    def _next_frames(self) -> memoryview:
        taken: list[memoryview] = []
        room, size, block = min(self._connection_window, self._stream_window), 0, len(self._frames)
        while self._queue and size < _AT_ONCE:
            piece = self._frames[self._queue[0] % block]
            if size + len(piece) > room:  # headers of frames do not count, and a little room stays free
                break
            self._queue.popleft()
            taken.append(piece)
            size += len(piece)
        used = size - _HEADER_BYTES * len(taken)
        self._connection_window -= used
        self._stream_window -= used
        return memoryview(b"".join(taken))

    def _wait(self, seconds: float | None) -> bool:
        """Wait for the client; whether it said something. Nothing may be answered in the middle of a frame."""
        if self._unsent:
            select.select([], [self._connection], [], seconds)
            return False
        return bool(select.select([self._connection], [], [], seconds)[0])

    def tell(self) -> None:
        """Say what came of the events, if they were asked for; also when their reader left before the last."""
        if self._pace is not None:
            say(came=list(self._came), dropped=self._dropped, deepest=self._deepest, busy=self._busy)


def send_paced(block: int) -> None:
    """Serve one client after another at the pace that was told last, until standard input ends."""
    stream, paces = Stream(events(block, block)), SimpleQueue[Pace]()

    def serve(connection: socket.socket) -> None:
        client = _Paced(connection, stream, paces)
        with connection, contextlib.suppress(ConnectionError):
            client.serve()
        client.tell()

    def accept() -> None:
        while True:  # questions come on another connection than the stream's
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "agent.sock"
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=accept, daemon=True).start()
        say(socket=str(path))
        for line in sys.stdin:
            paces.put(Pace(**json.loads(line)))


def receive() -> None:
    """Take OTLP records over gRPC and count them; tell the total whenever somebody writes a line."""
    total, cpu = 0, time.process_time()

    def export(request: ExportLogsServiceRequest, _context: Any) -> bytes:
        nonlocal total
        total += sum(len(scope.log_records) for one in request.resource_logs for scope in one.scope_logs)
        return b""

    service, method = GRPC_METHOD.strip("/").split("/")
    handler: Any = grpc.unary_unary_rpc_method_handler(export, ExportLogsServiceRequest.FromString)
    server = grpc.server(futures.ThreadPoolExecutor(1), options=[("grpc.max_receive_message_length", 64 << 20)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say(otlp=f"127.0.0.1:{port}")
    for _ in sys.stdin:
        say(records=total, cpu=time.process_time() - cpu)
        total, cpu = 0, time.process_time()
    server.stop(0)


def _end_with_input(path: Path) -> None:
    sys.stdin.read()
    path.unlink(missing_ok=True)
    path.parent.rmdir()
    os._exit(0)


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("send", "pace", "receive"))
    parser.add_argument(
        "--corpus", default="synthetic", help="`synthetic`, or the path of a recording to send over and over"
    )
    parser.add_argument("--events", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--core", type=int, help="the only core to run on")
    args = parser.parse_args()
    if args.core is not None:
        os.sched_setaffinity(0, {args.core})
    if args.role == "send":
        send(args.corpus, args.events, args.processes)
    elif args.role == "pace":
        send_paced(args.events)
    else:
        receive()


if __name__ == "__main__":
    main()
