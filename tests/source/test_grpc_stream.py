"""The live source against a fake agent: a real gRPC server with Tetragon's manners."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import pytest

from keytrail.domain.agent import AgentFacts
from keytrail.domain.errors import SettingsError
from keytrail.domain.event import EventKind
from keytrail.domain.filters import EventFilter
from keytrail.proto.tetragon.events_pb2 import GetEventsResponse
from keytrail.proto.tetragon.tetragon_pb2 import Process
from keytrail.source.address import Address, parse_address
from keytrail.source.channel import RECEIVE_LIMIT, TlsOptions
from keytrail.source.grpc_stream import Backoff, GrpcSource, State
from keytrail.source.status import Reason
from keytrail.testing.fake_tetragon import FakeTetragon
from keytrail.testing.fake_tetragon_agent import AgentProfile
from support.processes import wait_until
from support.recordings import folder, messages

SECONDS = 60
EXECUTION = {"process_exec", "process_exit"}
Reading = Callable[..., AbstractContextManager[Any]]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeTetragon]:
    """Run an agent as the demo session had it, on a unix socket."""
    profile = AgentProfile.of_recording(folder("seed-demo"))
    with FakeTetragon(f"unix://{tmp_path}/tetragon.sock", profile=profile) as running:
        yield running


def connected(version: str = "v1.7.0") -> AgentFacts:
    """Return the facts of an agent with all capture on."""
    return AgentFacts(version, captures_environment=True, captures_credentials=True)


def test_every_event_arrives_unchanged_and_in_order(agent: FakeTetragon, reading: Reading) -> None:
    """What the agent sends is what the source hands over, byte for byte, behind the facts about the agent."""
    sent = list(messages("policy-library"))
    with reading(agent.address) as reader:
        reader.until_connected()
        assert agent.wait_for_listeners(timeout=SECONDS)
        agent.publish(sent, lossless=True)
        reader.until(lambda: len(reader.messages) >= len(sent))
    assert reader.messages == sent
    assert reader.batches[0].agent == connected()
    assert all(batch.agent is None for batch in reader.batches[1:])
    assert reader.seen == [(State.CONNECTED, Reason.CONNECTED)]
    assert reader.source.transitions[State.CONNECTED, Reason.CONNECTED] == 1


def test_a_tcp_agent_is_read_too(reading: Reading) -> None:
    """Older installations listen on TCP."""
    with FakeTetragon() as agent, reading(agent.address) as reader:
        reader.until_connected()
        assert agent.wait_for_listeners(timeout=SECONDS)
        agent.publish([b"\x0a\x00"])
        reader.until(lambda: reader.messages == [b"\x0a\x00"])


def test_a_folder_is_an_address(agent: FakeTetragon, tmp_path: Path, reading: Reading) -> None:
    """What is mounted into the collector is the socket's folder."""
    assert agent.listeners == 0
    with reading(Address(path=tmp_path)) as reader:
        reader.until_connected()


def test_processes_come_before_events(agent: FakeTetragon, reading: Reading) -> None:
    """The agent's process cache is handed over with the facts, each process whole, before any message."""
    with reading(agent.address) as first:
        first.until_connected()
        assert agent.wait_for_listeners(timeout=SECONDS)
        agent.publish(messages("seed-demo"), lossless=True)
    with reading(agent.address) as reader:
        reader.until(lambda: reader.batches)
        greeting = reader.batches[0]
    assert greeting.agent == connected()
    assert greeting.messages == ()
    processes = [Process.FromString(process) for process in greeting.processes]
    assert processes
    assert all(process.exec_id for process in processes)


@pytest.mark.parametrize(
    ("release", "captures"), [("1.4", False), ("1.5", False), ("1.6", False), ("1.7", True), ("1.8", True)]
)
def test_every_release_is_read(tmp_path: Path, release: str, captures: bool, reading: Reading) -> None:
    """Agents from 1.4 to 1.8 connect; those without GetInfo are known to capture no environment."""
    profile = AgentProfile.of_recording(folder("seed-demo"))
    address = f"unix://{tmp_path}/tetragon.sock"
    with FakeTetragon(address, profile=profile, release=release) as agent, reading(address) as reader:
        reader.until_connected()
        assert agent.wait_for_listeners(timeout=SECONDS)
        agent.publish(messages("seed-demo")[-1:])
        reader.until(lambda: reader.messages)
    facts = reader.batches[0].agent
    assert facts is not None
    assert facts.version.startswith(f"v{release}")
    assert facts.captures_environment is captures


def test_filters_are_applied_by_the_agent(agent: FakeTetragon, reading: Reading) -> None:
    """Only wanted kinds leave the agent."""
    with reading(agent.address, filters=EventFilter(kinds=frozenset({EventKind.EXIT}))) as reader:
        reader.until_connected()
        assert agent.wait_for_listeners(timeout=SECONDS)
        agent.publish(messages("seed-demo"), lossless=True)
        reader.until(lambda: len(reader.messages) >= 16)
    assert {GetEventsResponse.FromString(m).WhichOneof("event") for m in reader.messages} == {"process_exit"}


@pytest.mark.parametrize("own", ["http2", "grpcio"])
def test_more_is_asked_for_at_once_and_less_with_the_next_connection(
    agent: FakeTetragon, reading: Reading, own: str
) -> None:
    """Who looks at more gets it from a stream made anew, which is told; who looks at less costs the stream nothing."""
    starts = EventFilter(kinds=frozenset({EventKind.EXEC}))
    with reading(agent.address, reader=own) as reader:
        reader.until_connected()
        reader.source.ask_for(starts)
        assert agent.wait_for_listeners(timeout=SECONDS)
        sent = list(messages("seed-demo"))
        agent.publish(sent, lossless=True)
        reader.until(lambda: len(reader.messages) == len(sent))
        assert (reader.seen, reader.source.left_out) == ([(State.CONNECTED, Reason.CONNECTED)], ())

        agent.cut_connections()
        reader.until_connected(2)
        assert "PROCESS_EXIT" in reader.source.left_out
        assert reader.transitions[-1].left_out == reader.source.left_out
        reader.source.ask_for(EventFilter(kinds=frozenset({EventKind.EXEC, EventKind.EXIT})))
        reader.until_connected(3)
        assert "PROCESS_EXIT" not in reader.source.left_out
        assert agent.wait_for_listeners(timeout=SECONDS)
        agent.publish(sent, lossless=True)
        wanted = [one for one in sent if GetEventsResponse.FromString(one).WhichOneof("event") in EXECUTION]
        reader.until(lambda: reader.messages[len(sent) :] == wanted)
    assert reader.seen[3:] == [(State.AWAY, Reason.ASKED_ANEW), (State.CONNECTED, Reason.CONNECTED)]
    assert reader.transitions[3].detail == "the configuration in force looks at PROCESS_EXIT, too"


def test_an_agent_that_is_away_is_asked_for_more_when_it_comes(tmp_path: Path, reading: Reading) -> None:
    """What is wanted may change while nobody answers: the connection that then stands asks for all of it."""
    address = f"unix://{tmp_path}/tetragon.sock"
    with reading(address, filters=EventFilter(kinds=frozenset({EventKind.EXEC}))) as reader:
        reader.until(lambda: reader.seen == [(State.AWAY, Reason.ABSENT)])
        reader.source.ask_for(EventFilter())
        with FakeTetragon(address):
            reader.until_connected()
            assert reader.source.left_out == ()
            reader.source.close()


def test_an_absent_agent_is_reported_once_and_awaited(tmp_path: Path, reading: Reading) -> None:
    """However long there is no agent, that is one transition; when it comes, it is read."""
    address = f"unix://{tmp_path}/tetragon.sock"
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        time.sleep(0.01)

    with reading(address, sleep=sleep, backoff=Backoff(random=lambda: 1.0)) as reader:
        reader.until(lambda: len(waits) >= 8)
        assert reader.seen == [(State.AWAY, Reason.ABSENT)]
        with FakeTetragon(address):
            reader.until_connected()
            reader.source.close()
    assert waits[:8] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert reader.transitions[0].attempt == 1
    assert reader.transitions[0].address == address
    assert "No such file" in reader.transitions[0].detail
    assert reader.transitions[-1].attempt > 8


def test_back_off_is_jittered_downwards() -> None:
    """The wait is between a half and the whole of its step, and never grows past the limit or overflows."""
    lowest, highest = Backoff(random=lambda: 0.0), Backoff(random=lambda: 1.0)
    assert (lowest.delay(1), highest.delay(1)) == (0.5, 1.0)
    assert (lowest.delay(10_000), highest.delay(10_000)) == (15.0, 30.0)


def test_a_restart_is_reported_and_its_stream_resumed(agent: FakeTetragon, reading: Reading) -> None:
    """An agent that restarts makes a new socket: the gap has a start and an end, and events come again."""
    with reading(agent.address) as reader:
        reader.until_connected()
        agent.stop()
        reader.until(lambda: len(reader.seen) >= 2)
        agent.start()
        reader.until_connected(2)
        assert agent.wait_for_listeners(timeout=SECONDS)
        agent.publish([b"\x0a\x00"])
        reader.until(lambda: reader.messages)
    assert reader.seen[1] == (State.AWAY, Reason.REMOVED)
    assert reader.seen[-1] == (State.CONNECTED, Reason.CONNECTED)
    assert [transition.at_ns for transition in reader.transitions] == sorted(t.at_ns for t in reader.transitions)
    assert sum(batch.agent is not None for batch in reader.batches) == 2


def test_a_killed_agent_leaves_a_socket_that_refuses(agent: FakeTetragon, reading: Reading) -> None:
    """After SIGKILL the socket's file stays: told apart from an agent that is not there."""
    with reading(agent.address) as reader:
        reader.until_connected()
        agent.kill()
        reader.until(lambda: (State.AWAY, Reason.REFUSED) in reader.seen)


def test_a_polite_end_is_an_end(agent: FakeTetragon, reading: Reading) -> None:
    """A stream that ends without an error is a gap like any other."""
    with reading(agent.address) as reader:
        reader.until_connected()
        assert agent.wait_for_listeners(timeout=SECONDS)
        agent.go_away(grace=SECONDS)
        reader.until(lambda: len(reader.seen) >= 2)
    assert reader.seen[1] in {(State.AWAY, Reason.ENDED), (State.AWAY, Reason.GOAWAY)}


def test_a_connection_cut_inside_a_message_loses_no_whole_one(agent: FakeTetragon, reading: Reading) -> None:
    """A socket that closes mid-message is a broken stream; what was whole before it has arrived."""
    with reading(agent.address) as reader:
        reader.until_connected()
        assert agent.wait_for_listeners(timeout=SECONDS)
        agent.publish([b"\x0a\x00"])
        reader.until(lambda: reader.messages)
        agent.publish([bytes(10 * 1024 * 1024)])
        agent.cut_connections()
        reader.until_connected(2)
    assert reader.messages[0] == b"\x0a\x00"
    assert reader.seen[1] == (State.AWAY, Reason.REMOVED)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.CANCELLED, Reason.CANCELLED),
        (grpc.StatusCode.UNIMPLEMENTED, Reason.UNIMPLEMENTED),
        (grpc.StatusCode.PERMISSION_DENIED, Reason.DENIED),
        (grpc.StatusCode.UNAUTHENTICATED, Reason.DENIED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Reason.EXHAUSTED),
        (grpc.StatusCode.UNKNOWN, Reason.REJECTED),
        (grpc.StatusCode.INTERNAL, Reason.REJECTED),
    ],
)
def test_a_refused_stream_is_tried_again(
    agent: FakeTetragon, code: grpc.StatusCode, reason: Reason, reading: Reading
) -> None:
    """Whatever status a stream ends with has its reason, the agent's text is kept, and the next attempt works."""
    agent.refuse("GetEvents", code, "the agent's own words")
    with reading(agent.address) as reader:
        reader.until(lambda: len(reader.seen) >= 2)
        reader.until(lambda: reader.seen[-1] == (State.CONNECTED, Reason.CONNECTED))
    away = next(transition for transition in reader.transitions if transition.state is State.AWAY)
    assert (away.reason, away.detail) == (reason, "the agent's own words")


def test_a_refused_dump_is_reported_and_survived(agent: FakeTetragon, reading: Reading) -> None:
    """Without the process cache events still flow; the report says what is missing and why."""
    agent.refuse("GetDebug", grpc.StatusCode.PERMISSION_DENIED, "not for you")
    with reading(agent.address) as reader:
        reader.until_connected()
        assert agent.wait_for_listeners(timeout=SECONDS)
        agent.publish([b"\x0a\x00"])
        reader.until(lambda: reader.messages)
    assert reader.seen == [(State.CONNECTED, Reason.NO_PROCESS_CACHE)]
    assert reader.transitions[0].detail == "not for you"
    assert reader.batches[0].agent == connected()


def test_facts_stay_unknown_where_the_agent_does_not_answer(agent: FakeTetragon, reading: Reading) -> None:
    """A failed GetInfo is not an old agent: nobody said whether it captures."""
    agent.refuse("GetInfo", grpc.StatusCode.UNKNOWN, "no")
    with reading(agent.address) as reader:
        reader.until_connected()
    assert reader.batches[0].agent == AgentFacts("v1.7.0")


def test_a_message_over_the_limit_costs_itself_alone(agent: FakeTetragon, reading: Reading) -> None:
    """A 20 MiB message is counted and thrown away on the same connection."""
    with reading(agent.address) as reader:
        reader.until_connected()
        assert agent.wait_for_listeners(timeout=SECONDS)
        agent.publish([b"\x0a\x00", bytes(20 * 1024 * 1024), b"\x2a\x00"])
        reader.until(lambda: len(reader.messages) >= 2)
    assert reader.messages == [b"\x0a\x00", b"\x2a\x00"]
    assert sum(batch.too_large for batch in reader.batches) == 1
    assert reader.seen == [(State.CONNECTED, Reason.CONNECTED)]


def test_a_message_over_grpcs_limit_costs_its_stream(agent: FakeTetragon, reading_by: Reading) -> None:
    """With grpcio a still larger message ends the stream: counted at once, reported, and read on afterwards."""
    with reading_by(agent.address, reader="grpcio") as reader:
        reader.until_connected()
        assert agent.wait_for_listeners(timeout=SECONDS)
        agent.publish([b"\x0a\x00", bytes(RECEIVE_LIMIT + 1)])
        reader.until_connected(2)
        assert agent.wait_for_listeners(timeout=SECONDS)
        agent.publish([b"\x2a\x00"])
        reader.until(lambda: len(reader.messages) >= 2)
    assert reader.messages == [b"\x0a\x00", b"\x2a\x00"]
    assert sum(batch.too_large for batch in reader.batches) == 1
    assert reader.seen[1] == (State.AWAY, Reason.TOO_LARGE)


def test_no_message_is_too_large_for_our_own_reader(agent: FakeTetragon, reading_by: Reading) -> None:
    """A message that grpcio would fail on is counted and skipped as any other over the limit; the stream goes on."""
    with reading_by(agent.address, reader="http2") as reader:
        reader.until_connected()
        assert agent.wait_for_listeners(timeout=SECONDS)
        agent.publish([b"\x0a\x00", bytes(RECEIVE_LIMIT + 1), b"\x2a\x00"])
        reader.until(lambda: len(reader.messages) >= 2)
    assert reader.messages == [b"\x0a\x00", b"\x2a\x00"]
    assert sum(batch.too_large for batch in reader.batches) == 1
    assert reader.seen == [(State.CONNECTED, Reason.CONNECTED)]


def test_close_before_reading_ends_at_once() -> None:
    """A source that was closed before it was read yields nothing and connects to nothing."""
    source = GrpcSource(parse_address("localhost:1"))
    source.close()
    source.close()
    assert list(source.batches()) == []


def test_close_ends_a_wait_for_an_absent_agent(tmp_path: Path, reading: Reading) -> None:
    """A source in its back-off ends soon after close, not after half a minute."""
    with reading(f"{tmp_path}/none.sock", backoff=Backoff(first=3600, limit=3600)) as reader:
        reader.until(lambda: reader.seen)


def test_abandoning_the_iteration_closes_the_stream(agent: FakeTetragon) -> None:
    """Whoever stops iterating leaves no listener behind at the agent."""
    batches = GrpcSource(parse_address(agent.address)).batches()
    next(batches)
    assert agent.wait_for_listeners(timeout=SECONDS)
    batches.close()  # type: ignore[attr-defined]  # a generator, as a caller may know
    assert wait_until(lambda: not agent.listeners)


def test_our_own_reader_is_not_asked_to_speak_tls() -> None:
    """TLS is grpcio's: chosen by itself, refused where the other reader was named."""
    assert GrpcSource(parse_address("agent:1"), tls=TlsOptions()).reader == "grpcio"
    assert GrpcSource(parse_address("agent:1")).reader == "http2"
    with pytest.raises(SettingsError, match="http2 speaks no TLS"):
        GrpcSource(parse_address("agent:1"), tls=TlsOptions(), reader="http2")


def test_wrong_tls_options_show_before_anything_starts() -> None:
    """A missing certificate is a settings error, not an endless reconnection."""
    with pytest.raises(SettingsError, match=r"/nowhere/ca\.pem"):
        GrpcSource(parse_address("agent:1"), tls=TlsOptions(ca_file=Path("/nowhere/ca.pem")))
