"""A Tetragon agent without a kernel: a real gRPC server that publishes what it is given, with the agent's manners.

Serialized events come in through `publish`, from a recording or made up; they go out unchanged to every client that is
connected at that moment. As with Tetragon 1.7 each stream has a queue that silently drops the newest event when it is
full, filters work behind it, and the drops show on a metrics page alone. A test can also kill, restart, stall or cut
it. The methods themselves are in `fake_tetragon_service`.

    with FakeTetragon("unix:///tmp/tetragon.sock") as agent:
        agent.wait_for_listeners(timeout=10)
        agent.publish(read_recording(path))
"""

import contextlib
import json
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self

import grpc
from google.protobuf.message import DecodeError

from keytrail.proto.tetragon.events_pb2 import GetEventsResponse
from keytrail.testing.fake_tetragon_agent import AgentProfile
from keytrail.testing.fake_tetragon_listeners import DEFAULT_QUEUE_SIZE, Listeners
from keytrail.testing.fake_tetragon_metrics import MetricsPage, Numbers
from keytrail.testing.fake_tetragon_policies import PolicyTable
from keytrail.testing.fake_tetragon_release import not_before, strip_to_release
from keytrail.testing.fake_tetragon_service import AgentState, Script, TetragonService
from keytrail.testing.fake_tetragon_sockets import bind_unix, connections_of

_UNIX: Final = "unix://"
_MAX_CALLS: Final = 64
"""Streams and other calls at once: each has a thread."""


class FakeTetragon:
    """One agent. Start and stop it as a context manager or by name; every part of it may be called from any thread."""

    def __init__(  # keyword-only, each a flag of the real agent
        self,
        address: str = "127.0.0.1:0",
        *,
        profile: AgentProfile | None = None,
        release: str | None = None,
        queue_size: int = DEFAULT_QUEUE_SIZE,
        metrics_address: str | None = None,
        info_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe the agent; nothing is opened before `start`.

        `address` is `unix:///absolute/path` or `host:port`, port 0 being a free one. `profile` is what it says of
        itself. `release` (1.4 to 1.8) removes from all that it sends what that release does not have; None sends all.
        `queue_size` is in events per stream. `info_file` is where to write the agent's `tetragon-info.json`.
        """
        self.script = Script()
        profile = profile or AgentProfile()
        self._profile = profile.with_version(f"v{release}.0") if release and release not in profile.version else profile
        self._release = release
        self._queue_size = queue_size
        self._wanted_address = address
        self._wanted_metrics = metrics_address
        self._info_file = info_file
        self._clock = clock
        self._server: grpc.Server | None = None
        self._metrics: MetricsPage | None = None
        self._bound = ""
        self._held = False
        self._state = self._new_state()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """Where it listens or last listened, in the syntax of the agent's `--server-address`."""
        return self._wanted_address

    @property
    def metrics_address(self) -> str | None:
        """Where the metrics page is, as `host:port`; None when there is none."""
        return self._wanted_metrics

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    @property
    def listeners(self) -> int:
        """How many GetEvents streams are open."""
        return len(self._state.listeners)

    @property
    def overflowed(self) -> int:
        """Events dropped because a stream's queue was full, since the last start, of all streams together."""
        return self._state.listeners.overflowed

    @property
    def published(self) -> int:
        """Events published since the last start."""
        return self._state.published

    def start(self) -> None:
        """Listen. Raises RuntimeError when the address cannot be had."""
        if self._server is not None:
            return
        self._state = self._new_state()
        # A second server on the same port must fail, as with the agent, instead of sharing its connections.
        server = grpc.server(
            ThreadPoolExecutor(_MAX_CALLS, thread_name_prefix="fake-tetragon"),
            handlers=[TetragonService(self._state)],
            options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 4 * 1024 * 1024)),
        )
        if self._wanted_address.startswith(_UNIX):
            self._bound = bind_unix(server, Path(self._wanted_address.removeprefix(_UNIX)))
        else:
            host = self._wanted_address.rpartition(":")[0]
            self._bound = self._wanted_address = f"{host}:{server.add_insecure_port(self._wanted_address)}"
        server.start()
        self._server = server
        if self._wanted_metrics is not None:
            self._metrics = MetricsPage(self._wanted_metrics, self._numbers, lambda: self.script.metrics_status)
            self._wanted_metrics = self._metrics.address
        self._write_info()

    def stop(self) -> None:
        """End as on SIGTERM: streams break off (UNAVAILABLE), the unix socket goes. Idempotent."""
        if self._server is None:
            return
        self.kill()
        if self._wanted_address.startswith(_UNIX):
            Path(self._wanted_address.removeprefix(_UNIX)).unlink(missing_ok=True)
        if self._info_file is not None:
            self._info_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """End as on SIGKILL: streams break off (UNAVAILABLE) and the unix socket's file stays, refusing connections."""
        self.cut_connections()
        self._end_server(grace=None)

    def go_away(self, grace: float = 5.0) -> None:
        """End politely: GOAWAY, streams end without an error, and nothing is accepted any more.

        The agent never does this, a proxy before it does. `grace` is how long calls may take to end, in seconds.
        """
        self._end_server(grace)

    def restart(self) -> None:
        """Stop and start at the same address: policies added over gRPC, processes and counters are gone."""
        self.stop()
        self.start()

    def cut_connections(self) -> None:
        """Break every open connection, in the middle of a message if one is under way; the agent goes on listening."""
        broken = self._state.listeners.streams
        for connection in connections_of(self._bound):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for listener in broken:  # gRPC will tell their handlers, but later: nothing shall be counted as sent to them
            self._state.listeners.remove(listener)

    def stall(self) -> None:
        """Send no events, also to streams opened later, until `resume`: queues fill and overflow."""
        self._held = True
        self._state.listeners.hold(held=True)

    def resume(self) -> None:
        """Send again what is queued and what is published from now on."""
        self._held = False
        self._state.listeners.hold(held=False)

    def refuse(self, method: str, code: grpc.StatusCode, details: str = "refused", *, times: int = 1) -> None:
        """End the next `times` calls of a method, such as `GetEvents`, with this status."""
        self.script.refusals.setdefault(method, deque()).extend([(code, details)] * times)

    def wait_for_listeners(self, count: int = 1, *, timeout: float) -> bool:
        """Wait until `count` streams are open; False after `timeout` seconds."""
        return self._state.listeners.wait_for(count, timeout)

    def wait_until_drained(self, *, timeout: float) -> bool:
        """Wait until every queue is empty and its last event was handed to the transport."""
        return self._state.listeners.wait_until_drained(timeout)

    def publish(self, messages: Iterable[bytes], *, pace: float | None = None, lossless: bool = False) -> int:
        """Send serialized events to all open streams and return how many there were; ends early when stopped.

        `pace` 1.0 keeps the distances of the events' own times, 2.0 halves them, None sends at full speed. Full speed
        overflows the queues as the agent would; `lossless` waits for room instead, which the agent never does.
        Bytes that are no event are sent as they are.
        """
        state = self._state
        before = state.published
        pacer = _Pacer(pace, self._clock) if pace else None
        for message in messages:
            event = _decoded(message)
            if pacer is not None and event is not None:
                state.stopped.wait(pacer.seconds_until(event))
            if lossless:
                state.listeners.wait_for_room(state.stopped)
            if state.stopped.is_set():
                break
            if event is not None:
                _observe(state, event)
                if self._release is not None:
                    message = strip_to_release(message, self._release)  # noqa: PLW2901  # what leaves, from here on
                    if not message:
                        continue
            state.listeners.publish(message)
            state.published += 1
        return state.published - before

    def _new_state(self) -> AgentState:
        listeners = Listeners(self._queue_size, self._clock)
        listeners.hold(self._held)
        policies = PolicyTable(self._profile.policies, monitor_only=not_before(self._release, "1.7"))
        return AgentState(self._profile, self._release, listeners, policies, self.script)

    def _write_info(self) -> None:
        if self._info_file is None:
            return
        info = {
            "version": self._profile.version,
            "pid": os.getpid(),
            "server_address": self.address,
            "metrics_address": self.metrics_address or "",
        }
        self._info_file.write_text(json.dumps(info), encoding="utf-8")

    def _end_server(self, grace: float | None) -> None:
        if self._server is None:
            return
        self._state.stopped.set()
        ended = self._server.stop(grace)
        self._state.listeners.close()
        ended.wait()
        self._server = None
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None

    def _numbers(self) -> Numbers:
        state = self._state
        posts = {
            f'tetragon_policy_events_total{{policy="{status.name}"}}': status.stats.action_counters.post
            for status in state.policies.statuses()
        }
        return {
            "tetragon_notify_overflowed_events_total": state.listeners.overflowed,
            "tetragon_events_exported_total": state.published,
            "tetragon_process_cache_size": len(state.processes),
            **posts,
            **self.script.counters,
        }


class _Pacer:
    """Turns the events' own times into waiting times. Loader events have no time: they go with the event before."""

    def __init__(self, pace: float, clock: Callable[[], float]) -> None:
        self._pace = pace
        self._clock = clock
        self._origin: tuple[float, float] | None = None

    def seconds_until(self, event: GetEventsResponse) -> float:
        """How long to wait before this event is due; 0 when it is late, since recordings are not strictly by time."""
        if not event.HasField("time"):
            return 0.0
        recorded = event.time.seconds + event.time.nanos / 1e9
        if self._origin is None:
            self._origin = (recorded, self._clock())
        began, started = self._origin
        return max(0.0, started + (recorded - began) / self._pace - self._clock())


def _decoded(message: bytes) -> GetEventsResponse | None:
    try:
        return GetEventsResponse.FromString(message)
    except DecodeError:
        return None


def _observe(state: AgentState, event: GetEventsResponse) -> None:
    """Let the agent's own tables see an event, whether or not anybody listens."""
    kind = event.WhichOneof("event")
    if kind in ("process_exec", "process_exit"):
        state.processes.observe(kind, getattr(event, kind))
    elif kind is not None:
        policy_name = getattr(getattr(event, kind), "policy_name", "")
        if policy_name:
            state.policies.count_post(policy_name)
