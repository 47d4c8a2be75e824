"""`keytrail collect`: the collector itself, until it is told to stop. SIGHUP makes it look at its files at once."""

import argparse
import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keytrail.commands.options import (
    add_agent,
    add_command,
    add_config,
    add_filters,
    add_otlp_records,
    add_output,
    add_redaction,
    add_settings_file,
    check_state_dir,
    check_summary,
    read_settings,
    settings_now,
    write_summary,
)
from keytrail.commands.redaction import redacted

if TYPE_CHECKING:
    from keytrail.app import Collector
    from keytrail.cluster import Cluster
    from keytrail.observe.accounting import Accounting
    from keytrail.observe.log_gate import LogGate
    from keytrail.probe import CollectorProbe
    from keytrail.reload import Reloader
    from keytrail.settings import Settings
    from keytrail.source.agent import AgentClient

_LOOK_SECONDS = 1.5
"""For a look at the agent's policies: loss is to be told within five seconds."""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "collect", "follow a running Tetragon agent and send attributed events to an OTLP backend",
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 keytrail collect --config /etc/keytrail",
    )  # fmt: skip
    add_output(parser, "where records go (default: otlp, by OTEL_EXPORTER_OTLP_*)", "otlp", "findings", "json", "line")
    parser.add_argument("--color", choices=("auto", "always", "never"), help="colours of --output line")
    parser.add_argument("--summary", metavar="FILE", help="write the accounting to FILE as JSON at the end")
    parser.add_argument(
        "--state-dir",
        metavar="DIR",
        help="folder that survives restarts: records not sent yet, and names of what running processes carry",
    )
    parser.add_argument("--proc-fallback", action="store_const", const=True,
                        help="read /proc/PID/environ where the agent sends no environment (needs root)")  # fmt: skip
    add_config(parser)
    add_otlp_records(parser)
    add_agent(parser)
    add_filters(parser)
    add_redaction(parser)
    add_settings_file(parser)
    parser.set_defaults(run=run, watching=False)


def in_cluster(settings: "Settings") -> bool:
    """Whether the API server is to be asked."""
    from keytrail.choices import Choice
    from keytrail.kube.surroundings import in_pod

    if settings.kubernetes is Choice.AUTO:
        return settings.kubeconfig is not None or in_pod(os.environ)
    return settings.kubernetes is Choice.ALWAYS


def _cluster(settings: "Settings") -> "Cluster":
    from keytrail.cluster import Cluster  # and with it a client of the API server, which weighs 5 MB
    from keytrail.decode.redact import Redactor

    return Cluster.open(settings, os.environ, Redactor(settings.redact_patterns).redact)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What one run is made of."""

    cluster: "Cluster | None"
    agent: "AgentClient"
    collector: "Collector"
    reloader: "Reloader"
    probe: "CollectorProbe"

    def join_cluster(self) -> None:
        """Follow the manifests of the API server, and tell it how this node is doing."""
        from keytrail.node_status import NodeStatus

        if self.cluster is None:
            return
        self.cluster.on_change(self.reloader.look_now, self.collector.applied)
        pipeline = self.collector.pipeline
        node = NodeStatus(self.probe, lambda: pipeline.agent, self.agent.list_policies, self.cluster.problems)
        self.cluster.write_status(node.picture)


def _compose(
    args: argparse.Namespace, settings: "Settings", gate: "LogGate", accounting: "Accounting", stack: ExitStack
) -> _Parts:
    from keytrail.app import Collector
    from keytrail.commands.live import agent_address, agent_tls, open_stream
    from keytrail.domain.drop import DropReason
    from keytrail.enrich.peers import Peers
    from keytrail.enrich.resolver import HostResolver, named_hosts
    from keytrail.loss.guard import OFF, LossGuard
    from keytrail.outputs import open_outputs
    from keytrail.probe import CollectorProbe, StreamLog
    from keytrail.settings_sources import FILE_VARIABLE
    from keytrail.source.address import find_metrics
    from keytrail.source.agent import AgentClient

    # Whoever only looks for a moment has no use for the warning that an agent without metrics cannot count its losses.
    unmeasured = args.watching and not settings.agent_metrics_address and find_metrics() is None
    wanted, stream = settings.event_filter(), StreamLog()
    cluster = stack.enter_context(_cluster(settings)) if in_cluster(settings) else None
    agent = stack.enter_context(AgentClient(agent_address(settings), agent_tls(settings), timeout=_LOOK_SECONDS))
    guard = LossGuard(
        inbox_dropped=lambda: accounting.events_dropped(DropReason.QUEUE_FULL),
        metrics_address=OFF if unmeasured else settings.agent_metrics_address,
        backfill_file=settings.backfill_file,
        filtered=bool(wanted),
        policies=agent.list_policies,
    )
    source = open_stream(settings, wanted, guard.transition, stream.transition)
    outputs = open_outputs(settings, accounting, os.environ, on_loss=guard.report)
    stack.callback(outputs.close, 0.0)  # whatever is wrong below, the spool is left as it was found
    resolver = HostResolver(lambda: named_hosts(collector.pipeline.manifests.identity_mappings))
    stack.callback(resolver.close)
    collector = Collector(
        settings,
        source,
        outputs,
        accounting,
        live=True,
        guard=guard,
        enricher=None if cluster is None else cluster.enricher,
        peers=Peers(None if cluster is None else cluster.peers, resolver.host_of),
        applied=tuple if cluster is None else cluster.resources,
        ask_for=source.ask_for,
    )
    settings_file = args.settings or os.environ.get(FILE_VARIABLE)
    reloader = collector.reloader(
        lambda: _kept_apart(args, settings_now(args)), Path(settings_file) if settings_file else None
    )
    part = None if cluster is None else cluster.part
    probe = CollectorProbe(settings, collector, source, stream, guard, reloader, gate, outputs.delivery, part)
    if settings.resolve_hosts:
        resolver.start()
    return _Parts(cluster, agent, collector, reloader, probe)


def _kept_apart(args: argparse.Namespace, settings: "Settings") -> "Settings":
    """What the collector remembers is not `keytrail watch`'s to write, which may be filtered and another user's."""
    return replace(settings, state_dir=None) if args.watching else settings


def run(args: argparse.Namespace) -> int:
    """Collect until SIGINT or SIGTERM."""
    from keytrail.commands.live import stop_on_signals
    from keytrail.hardening import keep_errors_private, keep_memory_private
    from keytrail.observe.accounting import Accounting
    from keytrail.observe.logs import set_up_logs
    from keytrail.own_telemetry import OwnTelemetry

    settings = _kept_apart(args, read_settings(args))
    check_summary(args.summary)
    check_state_dir(settings)
    gate = set_up_logs(settings.log_level, settings.log_format, redact=redacted)
    keep_memory_private()
    keep_errors_private()
    accounting = Accounting()
    parts: _Parts | None = None

    def hung_up() -> None:
        if parts is not None:
            parts.reloader.look_now()

    with ExitStack() as stack:
        # From here on, since a start may take seconds. `keytrail watch` runs this, too, and ends with its terminal.
        stop = stack.enter_context(stop_on_signals(None if args.watching else hung_up))
        parts = _compose(args, settings, gate, accounting, stack)
        if stop.is_set():
            return 0  # nothing has begun
        with parts.reloader, OwnTelemetry(settings, parts.probe, os.environ):
            parts.join_cluster()
            try:
                parts.collector.run_live(stop)
            finally:
                write_summary(args.summary, accounting)
    return 0
