"""The other ends of a benchmark, in processes of their own: the sender of events and the counting OTLP receiver.

In: what to send. Out: JSON lines on standard output, first one that says where to connect. They end when their standard
input does, so that they outlive nobody.
"""

import argparse
import json
import os
import socket
import sys
import tempfile
import threading
import time
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from http2_sender import Stream, serve
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from synthetic import events, looped

from keytrail.export.otlp_transport import GRPC_METHOD


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
        _say(socket=str(path), bytes=size)
        # The socket goes when our parent does.
        threading.Thread(target=_end_with_input, args=(path,), daemon=True).start()
        while True:
            # A client may ask its questions on another connection than the stream's.
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection, stream), daemon=True).start()


def _serve(connection: socket.socket, stream: Stream) -> None:
    cost = serve(connection, stream)
    if cost is not None:
        _say(**cost._asdict())


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
    _say(otlp=f"127.0.0.1:{port}")
    for _ in sys.stdin:
        _say(records=total, cpu=time.process_time() - cpu)
        total, cpu = 0, time.process_time()
    server.stop(0)


def _end_with_input(path: Path) -> None:
    sys.stdin.read()
    path.unlink(missing_ok=True)
    path.parent.rmdir()
    os._exit(0)


def _say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("send", "receive"))
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
    else:
        receive()


if __name__ == "__main__":
    main()
