"""The collector against a running (recorded) agent: the same lines as a replay, every fault of the agent survived."""

from pathlib import Path

import grpc
import pytest

from keytrail.source.recording import RecordingWriter
from keytrail.testing.fake_tetragon import FakeTetragon
from keytrail.testing.fake_tetragon_agent import AgentProfile
from keytrail.testing.fake_tetragon_release import RELEASES, strip_to_release
from keytrail.testing.otlp_sink import OtlpSink
from support.commands import keytrail, replay
from support.processes import CollectorProcess, wait_until
from support.recordings import folder, messages
from support.variants import with_long

SECONDS = 120.0
LIKE_THEM = ("policy-library", "seed-demo", "seed-demo-default-flags", "throttle")


@pytest.mark.parametrize("name", with_long(("kubernetes", "odd-input", *LIKE_THEM), *LIKE_THEM))
def test_grpc_gives_the_same_lines_as_a_replay(name: str, tmp_path: Path) -> None:
    """Whether a stream comes from a file or over gRPC makes no difference to a single byte of output."""
    expected = replay(name).out
    address = f"unix://{tmp_path}/tetragon.sock"
    with (
        FakeTetragon(address, profile=AgentProfile.of_recording(folder(name))) as agent,
        CollectorProcess(tmp_path, "--output", "json", "--agent", address) as collector,
    ):
        assert agent.wait_for_listeners(timeout=SECONDS), collector.err
        agent.publish(messages(name))
        assert wait_until(lambda: collector.lines() >= expected.count("\n")), collector.err
        summary = collector.stop()
    assert collector.out == expected
    assert summary["events"]["received"] == len(messages(name))
    assert summary["events"]["undecodable"] == 0


def test_agents_restart_is_survived_and_nothing_after_it_is_missed(tmp_path: Path) -> None:
    """An agent that is killed and comes back on a new socket is found again; its next events arrive."""
    address = f"unix://{tmp_path}/tetragon.sock"
    stream = messages("seed-demo")
    with (
        FakeTetragon(address, profile=AgentProfile.of_recording(folder("seed-demo"))) as agent,
        CollectorProcess(tmp_path, "--output", "json", "--agent", address) as collector,
    ):
        assert agent.wait_for_listeners(timeout=SECONDS), collector.err
        agent.publish(stream[:20])
        assert wait_until(lambda: collector.lines() == 20)
        agent.kill()
        assert wait_until(lambda: "no events from the agent" in collector.err)
        agent.start()
        assert agent.wait_for_listeners(timeout=SECONDS), collector.err
        agent.publish(stream[20:])
        assert wait_until(lambda: collector.lines() == len(stream)), collector.err
        collector.stop()
    log = collector.err
    assert log.count("no events from the agent") == 1
    assert log.count("connected to the agent") == 2


def test_absent_agent_is_waited_for_and_said_once(tmp_path: Path) -> None:
    """Without an agent the collector stays, says so once, and connects when one appears."""
    address = f"unix://{tmp_path}/tetragon.sock"
    with CollectorProcess(tmp_path, "--output", "json", "--agent", address) as collector:
        assert wait_until(lambda: "no events from the agent" in collector.err)
        with FakeTetragon(address) as agent:
            assert agent.wait_for_listeners(timeout=SECONDS), collector.err
            agent.publish(messages("seed-demo")[:3])
            assert wait_until(lambda: collector.lines() == 3)
            collector.stop()
    assert collector.err.count("no events from the agent") == 1


def test_message_over_the_size_limit_is_counted_and_the_stream_goes_on(tmp_path: Path) -> None:
    """A 20 MiB message is kept out as too large; events behind it arrive."""
    address = f"unix://{tmp_path}/tetragon.sock"
    good = messages("seed-demo")
    huge = b"\xfa\x3e\x80\x80\x80\x0a" + b"x" * (20 * 1024 * 1024)
    with (
        FakeTetragon(address) as agent,
        CollectorProcess(tmp_path, "--output", "json", "--agent", address) as collector,
    ):
        assert agent.wait_for_listeners(timeout=SECONDS), collector.err
        agent.publish([good[0], huge])
        assert wait_until(lambda: collector.lines() == 1)
        assert wait_until(lambda: agent.listeners == 1)
        agent.publish(good[1:4])
        assert wait_until(lambda: collector.lines() == 4), collector.err
        summary = collector.stop()
    assert summary["events"]["undecodable_by_reason"] == {"too_large": 1}


def test_refused_call_is_tried_again(tmp_path: Path) -> None:
    """An agent that refuses the stream for a while is asked again until it agrees."""
    address = f"unix://{tmp_path}/tetragon.sock"
    with FakeTetragon(address) as agent:
        agent.refuse("GetEvents", grpc.StatusCode.UNAVAILABLE, times=1)
        with CollectorProcess(tmp_path, "--output", "json", "--agent", address) as collector:
            assert agent.wait_for_listeners(timeout=SECONDS), collector.err
            agent.publish(messages("seed-demo")[:2])
            assert wait_until(lambda: collector.lines() == 2)
            collector.stop()


@pytest.mark.parametrize("release", with_long(RELEASES, "1.5", "1.6", "1.7"))
def test_every_release_of_the_agent_is_understood(release: str, tmp_path: Path) -> None:
    """Agents from 1.4 to 1.8 differ in fields and calls; none gives an undecodable message or ends the collector."""
    address = f"unix://{tmp_path}/tetragon.sock"
    stream = messages("kubernetes")[:900]
    as_sent = [message for message in (strip_to_release(message, release) for message in stream) if message]
    with RecordingWriter(tmp_path / "as-sent.pb") as writer:
        for message in as_sent:
            writer.write(message)
    # Fewer lines than messages: the same call reported by two policies comes out as one.
    expected = len(keytrail("replay", tmp_path / "as-sent.pb").records)
    with (
        FakeTetragon(address, profile=AgentProfile.of_recording(folder("kubernetes")), release=release) as agent,
        CollectorProcess(tmp_path, "--output", "json", "--agent", address) as collector,
    ):
        assert agent.wait_for_listeners(timeout=SECONDS), collector.err
        published = agent.publish(stream)
        assert wait_until(lambda: collector.lines() == expected), collector.err
        summary = collector.stop()
    assert summary["events"]["received"] == published
    assert summary["events"]["undecodable"] == 0
    captured = '"type":"env"' in collector.out
    assert captured == (release in {"1.7", "1.8"})
    assert ("not_captured" in collector.out) or captured


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_every_event_arrives_at_an_otlp_backend(protocol: str, tmp_path: Path) -> None:
    """Over both of OTLP's transports the backend holds one record for each decoded event when the collector ends."""
    address = f"unix://{tmp_path}/tetragon.sock"
    name = "policy-library"
    stream = messages(name)[:1000]
    with OtlpSink() as sink, FakeTetragon(address, profile=AgentProfile.of_recording(folder(name))) as agent:
        endpoint = sink.grpc_endpoint if protocol == "grpc" else sink.http_endpoint
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
        with CollectorProcess(tmp_path, "--otlp-records", "events", "--agent", address, environ=environ) as collector:
            assert agent.wait_for_listeners(timeout=SECONDS), collector.err
            agent.publish(stream)
            assert agent.wait_until_drained(timeout=SECONDS)
            assert wait_until(lambda: sink.count() >= len(stream) - 4), collector.err
            summary = collector.stop()
        assert summary["records"]["exported"] == summary["records"]["made"] == sink.count()
        uids = sink.rows("""SELECT count(DISTINCT attributes ->> '$."log.record.uid"') FROM records""")
        assert uids == [(sink.count(),)]
        assert summary["events"]["received"] == len(stream)


def test_backend_that_is_away_loses_nothing_within_the_queue(tmp_path: Path) -> None:
    """Records wait while the backend is down and arrive when it is back."""
    address = f"unix://{tmp_path}/tetragon.sock"
    stream = messages("seed-demo")
    with OtlpSink(http=None) as sink, FakeTetragon(address) as agent:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.grpc_endpoint}
        sink.stop()
        with CollectorProcess(tmp_path, "--otlp-records", "events", "--agent", address, environ=environ) as collector:
            assert agent.wait_for_listeners(timeout=SECONDS), collector.err
            agent.publish(stream)
            assert agent.wait_until_drained(timeout=SECONDS)
            assert wait_until(lambda: "the backend cannot take records" in collector.err)
            sink.start()
            sink.wait_for(len(stream), timeout=SECONDS)
            summary = collector.stop()
        assert summary["records"] == {
            "made": len(stream),
            "exported": len(stream),
            "recovered": 0,
            "queued": 0,
            "suppressed": {},
            "dropped": {},
        }
