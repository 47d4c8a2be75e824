"""OtlpSender against a real OTLP receiver: order, batching, outages, shutdown, and what it says of itself."""

import logging

import grpc
import pytest

from export.sending import (
    CANARY,
    QUICK,
    bodies,
    both_protocols,
    resource_logs,
    running,
    settings_for,
)
from keytrail.export.otlp_health import Trouble
from keytrail.export.otlp_pace import SendLimits
from keytrail.export.otlp_sender import OtlpSender
from keytrail.export.otlp_settings import otlp_settings
from keytrail.export.spool.entries import Entry
from keytrail.testing.otlp_sink import OtlpSink
from keytrail.testing.otlp_sink_faults import Fault, Hang, Refusal, Reset, Trickle, throttled, unavailable
from support.memory_queue import MemoryQueue
from support.processes import wait_until


@both_protocols
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_records_arrive_in_order_in_bounded_batches(protocol: str, compression: str) -> None:
    """A thousand records arrive once each, in order, in requests within the limits, with the settings' headers."""
    names = [f"record {number}" for number in range(1000)]
    limits = SendLimits(linger=0.01, batch_records=64, batch_bytes=1500)
    with OtlpSink() as sink:
        options = {"COMPRESSION": compression, "HEADERS": f"authorization=Bearer%20{CANARY}"}
        with running(settings_for(sink, protocol, **options), limits) as (sender, queue):
            for first in range(0, 1000, 4):
                queue.put(resource_logs(*names[first : first + 4]), 4)
            queue.wait(1000)
            assert sender.state().reachable
            assert sender.state().last_success_ns is not None
            assert sender.state().requests["accepted"] >= 16
        assert queue.exported_records == 1000
        assert bodies(sink) == names
        for request in sink.requests():
            assert len(request.raw) <= 1700  # 1500 and six bytes for each entry
            assert request.records <= 64
            assert request.headers["authorization"] == f"Bearer {CANARY}"
            assert request.headers["user-agent"].startswith("keytrail/")
            if protocol != "grpc":
                assert request.headers.get("content-encoding", "none") == compression


@both_protocols
def test_each_slot_keeps_the_order_of_its_streams(protocol: str) -> None:
    """With three slots, and refusals and resets in between, no record overtakes another one of its stream."""
    faults: list[Fault | None] = [None, unavailable(), Reset(), None, throttled(0)] * 3
    with OtlpSink() as sink:
        sink.script(faults)
        limits = SendLimits(linger=0.005, first_pause=0.01, longest_pause=0.02, batch_records=5)
        with running(settings_for(sink, protocol), limits, slots=3) as (_, queue):
            for number in range(300):
                queue.put(resource_logs(f"{number % 7}:{number}"), 1, stream=number % 7)
            queue.wait(300)
        for stream in range(7):
            arrived = [body for body in bodies(sink) if body.startswith(f"{stream}:")]
            # A broken connection may repeat a batch; what came first is in order.
            assert list(dict.fromkeys(arrived)) == [f"{n % 7}:{n}" for n in range(300) if n % 7 == stream]


@both_protocols
def test_two_requests_are_under_way_at_once(protocol: str) -> None:
    """A backend that is slow to answer one slot does not keep the other from sending."""
    with OtlpSink() as sink:
        sink.script([Hang(600)])
        with running(settings_for(sink, protocol), slots=2) as (sender, queue):
            queue.put(resource_logs("slow"), 1, stream=0)
            assert wait_until(lambda: sender.state().in_flight == 1 and len(sink.requests()) == 1)
            queue.put(resource_logs("quick"), 1, stream=1)
            queue.wait(1)
            assert sender.state().in_flight == 1
            assert bodies(sink) == ["quick"]
            sender.close(0.1)
            assert queue.queued_records == 1


@both_protocols
def test_transient_faults_lose_and_repeat_nothing(protocol: str) -> None:
    """After refusals with and without a hint and after a broken connection every record is stored once, in order."""
    faults: list[Fault | None] = [unavailable(), throttled(0), Reset(), None, unavailable(0), Reset(), Reset()]
    with OtlpSink() as sink:
        sink.script(faults)
        names = [f"record {number}" for number in range(50)]
        limits = SendLimits(linger=0.01, first_pause=0.01, longest_pause=0.05, batch_records=10)
        with running(settings_for(sink, protocol), limits) as (sender, queue):
            for name in names:
                queue.put(resource_logs(name))
            queue.wait(50)
            assert sender.state().last_error != ""
            # A sink that resets gRPC is away for a moment, in which there may be further attempts.
            assert sender.state().requests["retry"] == sender.state().retries >= 6
        assert bodies(sink) == names
        assert queue.exported_records == 50


@both_protocols
def test_a_hint_holds_all_slots(protocol: str) -> None:
    """When one slot is told to come back in a minute, the other sends nothing either, and closing does not wait."""
    with OtlpSink() as sink:
        sink.script([unavailable(60)] * 10)
        with running(settings_for(sink, protocol), slots=2) as (sender, queue):
            queue.put(resource_logs("a"), 1, stream=0)
            assert wait_until(lambda: sender.state().requests.get("retry") == 1)
            # The answer is counted just before the hold: a request that was on its way may still be made.
            for number in range(5):
                queue.put(resource_logs(str(number)), 1, stream=1)
            sender.close(0.3)
        assert len(sink.requests()) <= 2
        assert queue.queued_records == 6


@both_protocols
def test_an_outage_loses_nothing(protocol: str, caplog: pytest.LogCaptureFixture) -> None:
    """While the backend is away records wait; when it is back all arrive; the log says both once, not each attempt."""
    caplog.set_level(logging.INFO, "keytrail")
    names = [f"record {number}" for number in range(100)]
    with OtlpSink() as sink:
        with running(settings_for(sink, protocol)) as (sender, queue):
            queue.put(resource_logs("before"))
            queue.wait(1)
            sink.stop()
            for name in names:
                queue.put(resource_logs(name))
            assert wait_until(lambda: sender.state().requests.get("retry", 0) > 3)
            assert sender.state().reachable is False
            assert sender.state().trouble is Trouble.UNREACHABLE
            assert sender.state().last_error != ""
            assert queue.queued_records == 100
            sink.start()
            queue.wait(101)
            assert sender.state().reachable
            assert sender.state().trouble is Trouble.NONE
        assert bodies(sink) == ["before", *names]
    assert [record.levelname for record in caplog.records if record.name.startswith("keytrail.export")] == [
        "WARNING",
        "INFO",
    ]


@both_protocols
@pytest.mark.parametrize("fault", [Hang(600), Trickle()])
def test_a_late_answer_means_the_records_are_sent_again(protocol: str, fault: Fault) -> None:
    """A request without a whole answer in time is repeated, so that delivery is at least once; it is counted once."""
    with OtlpSink() as sink:
        sink.script([fault])
        with running(settings_for(sink, protocol, TIMEOUT="200")) as (sender, queue):
            queue.put(resource_logs("a"))
            queue.wait(1)
            # The answer that counts has no more time than the one that was late: it may take several.
            assert sender.state().requests == {"retry": sender.state().retries, "accepted": 1}
        assert queue.exported_records == 1
        assert set(bodies(sink)) == {"a"}


@both_protocols
def test_a_host_without_address_is_tried_again(protocol: str) -> None:
    """A name that cannot be resolved (its label is too long to be asked for) keeps the records waiting and says so."""
    name = f"http://{'x' * 64}.invalid:4317"
    settings = otlp_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": name, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol})
    with running(settings) as (sender, queue):
        queue.put(resource_logs("a"))
        assert wait_until(lambda: sender.state().requests.get("retry", 0) > 1)
        assert sender.state().last_error != ""
        sender.close(0)
        assert queue.queued_records == 1


@both_protocols
def test_closing_sends_what_waits(protocol: str) -> None:
    """A batch that still lingers is sent by close, which then ends at once; closing again changes nothing."""
    with OtlpSink() as sink:
        limits = SendLimits(linger=3600)
        with running(settings_for(sink, protocol), limits, slots=2) as (sender, queue):
            queue.put(resource_logs("a"))
            queue.put(resource_logs("b", "c"), 2)
            assert wait_until(lambda: queue.taken_entries == 0 and queue.queued_records == 3)
            sender.close(20)
            sender.close(20)
        assert bodies(sink) == ["a", "b", "c"]
        assert queue.exported_records == 3


@both_protocols
@pytest.mark.parametrize("fault", [Hang(600), Trickle(), unavailable(60), unavailable()])
def test_closing_without_an_answer_gives_everything_back(protocol: str, fault: Fault) -> None:
    """With a backend that hangs, trickles, asks for a long pause or refuses on, all records are queued afterwards."""
    with OtlpSink() as sink:
        sink.script([fault] * 1000)
        limits = SendLimits(linger=0.01, first_pause=60, longest_pause=60)
        with running(settings_for(sink, protocol), limits) as (sender, queue):
            for number in range(10):
                queue.put(resource_logs(f"record {number}"))
            assert wait_until(lambda: len(sink.requests()) >= 1)
            sender.close(0.2)
            assert (queue.exported_records, queue.queued_records) == (0, 10)
            assert wait_until(lambda: queue.taken_entries == 0)
        if fault == unavailable(60):
            assert len(sink.requests()) == 1
    # The sink's end answers the hanging request: a late answer must settle nothing.
    for slot in sender._slots:
        slot.thread.join(60)
        assert not slot.thread.is_alive()
    assert queue.queued_records == 10


def test_closing_what_never_started_leaves_everything_queued() -> None:
    """A sender that was never started takes nothing, and may be closed."""
    queue = MemoryQueue()
    sender = OtlpSender(otlp_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}), queue)
    queue.put(resource_logs("a", "b"), 2)
    sender.close(0)
    sender.close(0)
    assert queue.queued_records == 2
    assert sender.state().reachable is None


class FailingOnce(MemoryQueue):
    """A queue that raises once, as no queue should."""

    failed = False

    def take(self, slot: int, slots: int, most_records: int, most_bytes: int, linger: float) -> list[Entry]:
        """Raise, then behave."""
        if not self.failed:
            self.failed = True
            raise RuntimeError("on purpose")
        return super().take(slot, slots, most_records, most_bytes, linger)


def test_a_slot_outlives_what_nobody_foresaw(caplog: pytest.LogCaptureFixture) -> None:
    """An exception in the middle of sending is logged and does not end the thread that sends."""
    queue = FailingOnce()
    with OtlpSink() as sink:
        sender = OtlpSender(settings_for(sink, "http/protobuf"), queue, slots=1, limits=QUICK)
        sender.start()
        queue.put(resource_logs("a"))
        queue.wait(1)
        sender.close(5)
        assert bodies(sink) == ["a"]
    assert "tried again" in caplog.text


@both_protocols
@pytest.mark.parametrize("status", [301, 307, 502, 408])
def test_redirects_and_gateways_are_tried_again(protocol: str, status: int) -> None:
    """A redirect is not followed, our headers go nowhere else, and the records arrive when it is over."""
    with OtlpSink() as sink:
        sink.script([Refusal(grpc.StatusCode.ABORTED, status, "elsewhere")] * 3)
        with running(settings_for(sink, protocol)) as (_, queue):
            queue.put(resource_logs("a"))
            queue.wait(1)
        assert bodies(sink) == ["a"]
        assert len(sink.requests()) == 4
