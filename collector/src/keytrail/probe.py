"""The picture of the running collector that its metrics, /readyz and `keytrail status` show.

In flow the real parts; out flows a `Snapshot` of plain data, taken whenever somebody looks. Nothing here is on the data
path, and nothing waits: each part has a state that it can give at once.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keytrail import __version__
from keytrail.app import Collector
from keytrail.domain.agent import AgentFacts
from keytrail.loss.guard import LossGuard
from keytrail.observe.log_gate import LogGate
from keytrail.observe.snapshot import (
    RECENT_NS,
    BackendPart,
    ClusterPart,
    ProcessesPart,
    QueuePart,
    ReloadPart,
    RulesPart,
    Snapshot,
    SpoolPart,
    StreamPart,
)
from keytrail.observe.usage import usage
from keytrail.reload import Reloader, Result
from keytrail.settings import Settings
from keytrail.source.grpc_stream import GrpcSource, State, Transition

if TYPE_CHECKING:
    from keytrail.delivery import Delivery

_NS = 1e9


class StreamLog:
    """What the source said of its connection."""

    def __init__(self) -> None:
        self._last: Transition | None = None
        self._connections = 0

    def transition(self, transition: Transition) -> None:
        """Take news."""
        self._connections += transition.state is State.CONNECTED
        self._last = transition

    def part(self, source: GrpcSource, lag_ns: int | None, agent: AgentFacts | None) -> StreamPart | None:
        """Return the state of now; None before there is any news."""
        last = self._last
        if last is None:
            return None
        connected = last.state is State.CONNECTED
        return StreamPart(
            connected=connected,
            address=last.address,
            reader=source.reader,
            since_ns=last.at_ns,
            reason="" if connected else f"{last.reason}: {last.detail}" if last.detail else str(last.reason),
            agent_version="" if agent is None else agent.version,
            connections=self._connections,
            left_out=source.left_out,
            lag_seconds=None if lag_ns is None else lag_ns / _NS,
        )


@dataclass(frozen=True, slots=True)
class CollectorProbe:
    """A `Probe` of one collector."""

    settings: Settings
    collector: Collector
    source: GrpcSource
    stream: StreamLog
    guard: LossGuard
    reloader: Reloader
    gate: LogGate
    delivery: "Delivery | None"
    cluster: Callable[[], ClusterPart] | None = None
    """What the API server's side says of itself; None without Kubernetes."""
    started_ns: int = field(default_factory=time.time_ns)

    def snapshot(self) -> Snapshot:
        """Return the state of now."""
        collector, pipeline, now_ns = self.collector, self.collector.pipeline, time.time_ns()
        return Snapshot(
            now_ns,
            self.started_ns,
            __version__,
            collector.accounting.summary(),
            events_per_second=collector.rate.per_second,
            stream=self.stream.part(self.source, self.guard.watch.lag_ns, pipeline.agent),
            inbox=QueuePart(len(collector.inbox), self.settings.queue_capacity),
            processes=ProcessesPart(
                len(collector.table),
                self.settings.process_capacity,
                collector.table.evicted_running,
                pipeline.uncompared,
            ),
            rules=self._rules(now_ns),
            spool=None if self.delivery is None else _spool(self.delivery),
            backend=None if self.delivery is None else _backend(self.delivery),
            reload=self._reload(),
            cluster=None if self.cluster is None else self.cluster(),
            recent=collector.accounting.recent.part(now_ns),
            gaps=self.guard.gaps.part(),
            threads=collector.watchdog.parts(),
            log=self.gate.part(),
            usage=usage(),
        )

    def _rules(self, now_ns: int) -> RulesPart | None:
        engine = self.collector.pipeline.rules
        if engine is None:
            return None
        return RulesPart(
            loaded=True,
            enabled=tuple(rule.name for rule in engine.rules),
            failures=dict(engine.failures),
            failing=engine.failing(now_ns - RECENT_NS),
            refused={name: "; ".join(fault.message for fault in faults) for name, faults in engine.refused.items()},
            forgotten=dict(engine.evicted),
        )

    def _reload(self) -> ReloadPart:
        state = self.reloader.state()
        return ReloadPart(
            successful=state.result is Result.IN_FORCE,
            loaded_ns=int(state.loaded_at * _NS),
            results={"in_force": state.generation - 1, "refused": state.refused, "failed": state.failures},
            problems=state.problems,
        )


def _spool(delivery: "Delivery") -> SpoolPart:
    state = delivery.spool.state()
    return SpoolPart(
        queued=state.queued,
        unsynced=state.unsynced,
        by_lane={lane.name.lower(): count for lane, count in state.queued_by_lane.items()},
        dead_letters=state.set_aside,
        bytes=state.bytes,
        most_bytes=state.most_bytes,
        oldest_ns=state.oldest_ns,
        durable=state.durable,
        fault=state.fault,
    )


def _backend(delivery: "Delivery") -> BackendPart:
    state = delivery.sender.state()
    return BackendPart(
        endpoint=delivery.endpoint,
        reachable=state.reachable,
        trouble=str(state.trouble),
        requests=dict(state.requests),
        retries=state.retries,
        last_success_ns=state.last_success_ns,
        last_error=state.last_error,
        failed_ns=state.last_error_ns,
    )
