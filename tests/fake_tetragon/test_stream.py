"""GetEvents of the fake: what is published arrives unchanged, and what a slow reader loses is counted."""

import urllib.request
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from keytrail.proto.tetragon.events_pb2 import GetEventsResponse
from keytrail.testing.fake_tetragon import FakeTetragon
from support.processes import wait_until

Start = Callable[..., FakeTetragon]
Connect = Callable[..., Any]
Recorded = Callable[[str], list[bytes]]

NARROW_WINDOW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536)]


def _metric(agent: FakeTetragon, name: str) -> int:
    with urllib.request.urlopen(f"http://{agent.metrics_address}/metrics", timeout=60) as page:
        lines = dict(line.rsplit(" ", 1) for line in page.read().decode().splitlines() if not line.startswith("#"))
    return int(lines[name])


def test_a_recording_arrives_byte_for_byte_in_order(
    listen: str, start: Start, connect: Connect, recorded: Recorded
) -> None:
    """A client receives over either kind of socket exactly the bytes that the recorder received from a real agent."""
    messages = recorded("policy-library")
    agent = start(listen)
    stream = connect(agent).collect()
    assert agent.wait_for_listeners(timeout=60)

    assert agent.publish(messages) == len(messages)
    assert agent.wait_until_drained(timeout=60)
    agent.go_away()
    stream.wait()

    assert stream.messages == messages
    assert not stream.failed
    assert agent.overflowed == 0


def test_a_stream_gets_nothing_older_than_itself(start: Start, connect: Connect, recorded: Recorded) -> None:
    """What was published before a client came is gone for it: the agent has no history."""
    early, late = recorded("seed-demo")[:20], recorded("seed-demo")[20:]
    agent = start()
    agent.publish(early)
    stream = connect(agent).collect()
    assert agent.wait_for_listeners(timeout=60)

    agent.publish(late)
    agent.wait_until_drained(timeout=60)
    agent.go_away()
    stream.wait()

    assert stream.messages == late


def test_a_full_queue_drops_the_newest_silently_and_counts_exactly(
    start: Start, connect: Connect, recorded: Recorded
) -> None:
    """Of 1,640 events to a stalled stream with a queue of 300, the oldest 300 arrive, 1,340 are on the metrics page."""
    messages = recorded("slow-consumer/fast.pb.zst")
    agent = start(queue_size=300, metrics_address="127.0.0.1:0")
    agent.stall()
    stream = connect(agent).collect()
    assert agent.wait_for_listeners(timeout=60)

    agent.publish(messages)
    dropped = _metric(agent, "tetragon_notify_overflowed_events_total")
    agent.resume()
    agent.wait_until_drained(timeout=60)
    agent.publish(messages[:1])
    agent.wait_until_drained(timeout=60)
    agent.go_away()
    stream.wait()

    assert dropped == agent.overflowed == len(messages) - 300 == 1340
    assert stream.messages == [*messages[:300], messages[0]]
    assert not stream.failed


def test_the_counter_is_one_for_all_streams(start: Start, connect: Connect, recorded: Recorded) -> None:
    """Two stalled streams lose separately and count together, and nothing says which lost what."""
    agent = start(queue_size=10)
    agent.stall()
    streams = [connect(agent).collect() for _ in range(2)]
    assert agent.wait_for_listeners(2, timeout=60)

    agent.publish(recorded("seed-demo"))
    agent.resume()
    agent.wait_until_drained(timeout=60)
    agent.go_away()
    for stream in streams:
        stream.wait()

    assert agent.overflowed == 2 * (len(recorded("seed-demo")) - 10)
    assert [len(stream.messages) for stream in streams] == [10, 10]


def test_a_client_that_reads_nothing_loses_what_its_buffers_do_not_hold(
    start: Start, connect: Connect, recorded: Recorded
) -> None:
    """Back-pressure through real flow control: received and dropped together are what was published."""
    messages = recorded("burst") * 2
    agent = start(queue_size=300)
    call = connect(agent, options=NARROW_WINDOW).stream()
    assert agent.wait_for_listeners(timeout=60)

    agent.publish(messages)
    received = sum(1 for _, _ in zip(range(len(messages) - agent.overflowed), call, strict=False))
    call.cancel()

    assert agent.overflowed > 0
    assert received + agent.overflowed == len(messages)


def test_lossless_publishing_waits_for_the_reader(start: Start, connect: Connect, recorded: Recorded) -> None:
    """A publisher that may lose nothing outlasts a queue far smaller than the recording."""
    agent = start(queue_size=50)
    stream = connect(agent).collect()
    assert agent.wait_for_listeners(timeout=60)

    agent.publish(recorded("burst"), lossless=True)
    agent.wait_until_drained(timeout=60)
    agent.go_away()
    stream.wait()

    assert stream.messages == recorded("burst")
    assert agent.overflowed == 0


def test_bytes_that_are_no_event_go_out_as_they_are(start: Start, connect: Connect) -> None:
    """A test can feed its client damaged messages."""
    agent = start()
    stream = connect(agent).collect()
    assert agent.wait_for_listeners(timeout=60)

    agent.publish([b"\xff\xff\xff", b""])
    agent.wait_until_drained(timeout=60)
    agent.go_away()
    stream.wait()

    assert stream.messages == [b"\xff\xff\xff", b""]


def test_pace_keeps_the_distances_of_the_events(start: Start) -> None:
    """At a tenth of the recorded speed two events a second apart need ten seconds of the clock, and no real ones."""
    now = 100.0
    agent = start(clock=lambda: now)
    waited: list[float] = []

    def wait(seconds: float) -> bool:
        nonlocal now
        waited.append(round(seconds, 6))
        now += seconds
        return False

    agent._state.stopped.wait = wait  # type: ignore[method-assign,assignment]  # the clock's other half
    first, second, loader = GetEventsResponse(), GetEventsResponse(), GetEventsResponse()
    first.time.seconds, second.time.seconds = 50, 51
    loader.process_loader.path = "/lib/libssl.so"

    agent.publish([event.SerializeToString() for event in (first, loader, second, first)], pace=0.1)

    assert waited == [0.0, 0.0, 10.0, 0.0]


def test_ending_a_client_frees_its_queue(start: Start, connect: Connect) -> None:
    """A stream that the client cancels is forgotten, without an event having to be sent first."""
    agent = start()
    stream = connect(agent).collect()
    assert agent.wait_for_listeners(timeout=60)

    stream.call.cancel()
    stream.wait()

    assert wait_until(lambda: agent.listeners == 0)
    assert stream.error is not None
    assert stream.error.code() is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("method", ["GetEvents", "GetVersion"])
def test_refused_calls_end_with_the_scripted_status(start: Start, connect: Connect, method: str) -> None:
    """The next calls of a method can be made to fail, the one after works."""
    agent = start()
    agent.refuse(method, grpc.StatusCode.RESOURCE_EXHAUSTED, "no room", times=2)
    client = connect(agent)

    def attempt() -> None:
        if method == "GetVersion":
            client.call(method)
        else:
            stream = client.stream()
            assert wait_until(lambda: agent.listeners == 1 or not stream.is_active())
            if not agent.listeners:
                next(stream)
            stream.cancel()

    for _ in range(2):
        with pytest.raises(grpc.RpcError) as refused:
            attempt()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.value.details() == "no room"
    attempt()
