"""What tests of the sender share: settings as a user gives them, and a sender that is closed and checked at the end."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs

from keytrail.export.otlp_pace import SendLimits
from keytrail.export.otlp_sender import OtlpSender
from keytrail.export.otlp_settings import OtlpSettings, otlp_settings
from keytrail.testing.otlp_sink import OtlpSink
from support.memory_queue import MemoryQueue
from support.processes import wait_until

CANARY = "canary-0123456789-abcdef"
QUICK = SendLimits(
    linger=0.01,
    first_pause=0.01,
    longest_pause=0.05,
    denied_pause=0.01,
    longest_denied_pause=0.05,
    smallest_request=0,
)
both_protocols = pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])


def resource_logs(*bodies: str) -> bytes:
    """Serialize a ResourceLogs with one record for each body."""
    message = ResourceLogs()
    message.resource.attributes.add(key="service.name").value.string_value = "test"
    records = message.scope_logs.add().log_records
    for body in bodies:
        records.add().body.string_value = body
    return message.SerializeToString()


def settings_for(sink: OtlpSink, protocol: str, **more: str) -> OtlpSettings:
    """Read settings as a user would give them; `more` are options such as TIMEOUT="500".

    A minute for each request, unless a test wants less: on a slow machine a late answer is no fault of the backend.
    """
    endpoint = sink.grpc_endpoint if protocol == "grpc" else sink.http_endpoint
    options = {"ENDPOINT": endpoint, "PROTOCOL": protocol, "TIMEOUT": "60000"} | more
    return otlp_settings({f"OTEL_EXPORTER_OTLP_{name}": value for name, value in options.items()})


@contextmanager
def running(
    settings: OtlpSettings, limits: SendLimits = QUICK, slots: int = 1
) -> Iterator[tuple[OtlpSender, MemoryQueue]]:
    """Start a sender whose queue is checked all the time from another thread, and close it at the end."""
    queue = MemoryQueue()
    sender = OtlpSender(settings, queue, slots=slots, limits=limits)
    over, wrong = threading.Event(), []

    def watch() -> None:
        while not over.wait(0.002):
            if not queue.is_exact():
                wrong.append(sender.state())

    watcher = threading.Thread(target=watch)
    watcher.start()
    sender.start()
    try:
        yield sender, queue
    finally:
        sender.close(2)
        over.set()
        watcher.join()
    assert not wrong
    assert queue.is_exact()
    assert wait_until(lambda: queue.taken_entries == 0)  # a slot that was just taking gives back by itself


def bodies(sink: OtlpSink) -> list[str]:
    """Return the stored bodies in the order of arrival."""
    return [body for (body,) in sink.rows("SELECT body FROM records ORDER BY id")]
