"""Every metric of Keytrail's own, declared once.

Names and units follow OpenTelemetry's conventions (units in UCUM, `{thing}` for counts); those under `process.` are the
semantic conventions' own. Attribute values are bounded: reasons, kinds, lanes, rules in force; never a pod, a path or
an address. A counter whose attributes are known is there with 0 before the first thing it counts, so that a rate over
it sees the first step. `keytrail.observe.metrics` makes instruments and docs/metrics.md of this table.
"""

from keytrail.domain.drop import DropReason, Undecodable
from keytrail.domain.event import EventKind
from keytrail.domain.gap import GapCause
from keytrail.domain.placement import Partial
from keytrail.domain.rules import Severity
from keytrail.observe.metric import (
    Kind,
    Metric,
    age,
    build,
    count_of,
    cpu,
    drops,
    each,
    findings,
    one,
    part,
    parts,
    requests,
    threads,
    watches,
)

_EVENT_REASONS = (DropReason.QUEUE_FULL, DropReason.FILTERED, DropReason.DUPLICATE_HOOK, DropReason.SHUTDOWN)
_RECORD_REASONS = tuple(reason for reason in DropReason if reason not in _EVENT_REASONS[:3])
_SUPPRESSED = ("repeated", "over_budget")
_LANES = ("event", *Severity)
_LOG_LEVELS = ("warning", "error")
_RESULTS = ("accepted", "rejected", "toolarge", "denied", "retry")
_RELOADS = ("in_force", "refused")
_DROP_ATTRIBUTES = {"intended": "true: asked for by the user; false: a loss"}
_COUNTER, _LEVEL, _GAUGE = Kind.COUNTER, Kind.UP_DOWN_COUNTER, Kind.GAUGE

METRICS: tuple[Metric, ...] = (
    # -- events
    Metric(
        "keytrail.events.received", _COUNTER, "{event}",
        "Messages of the agent's stream that were taken, or dropped before that. Equals by_kind, undecodable and "
        "dropped together.",
        count_of("events", "received"), alert="No increase for 10 minutes on a node that runs workloads.",
    ),
    Metric(
        "keytrail.events.by_kind", _COUNTER, "{event}", "Events that were decoded and went on.",
        each("kind", lambda s: s.accounting["events"]["by_kind"], EventKind),
        {"kind": ", ".join(EventKind)},
    ),
    Metric(
        "keytrail.events.undecodable", _COUNTER, "{event}", "Messages that are no event.",
        each("reason", lambda s: s.accounting["events"]["undecodable_by_reason"], Undecodable),
        {"reason": ", ".join(Undecodable)}, "Any increase: an agent newer than this collector, or a damaged stream.",
    ),
    Metric(
        "keytrail.events.dropped", _COUNTER, "{event}", "Events that were received and went no further.",
        drops("events", _EVENT_REASONS), {"reason": ", ".join(_EVENT_REASONS), **_DROP_ATTRIBUTES},
        'Any increase with `intended="false"`.',
    ),
    # -- records
    Metric(
        "keytrail.records.made", _COUNTER, "{record}",
        "Records made of events and findings, and those recovered from disk. Equals exported, queued, suppressed and "
        "dropped together.",
        count_of("records", "made"),
    ),
    Metric(
        "keytrail.records.recovered", _COUNTER, "{record}",
        "Of the records made: left on disk by an earlier run and queued again.", count_of("records", "recovered"),
    ),
    Metric(
        "keytrail.records.exported", _COUNTER, "{record}",
        "Records that were written, or that the backend acknowledged.",
        count_of("records", "exported"), alert="No increase for 10 minutes while keytrail.records.queued is above 0.",
    ),
    Metric("keytrail.records.queued", _LEVEL, "{record}", "Records made and not delivered yet.",
           count_of("records", "queued"), alert="Growing for 30 minutes."),
    Metric(
        "keytrail.records.suppressed", _COUNTER, "{record}",
        "Records held back on purpose; a summary record tells of them.",
        each("reason", lambda s: s.accounting["records"]["suppressed"], _SUPPRESSED),
        {"reason": ", ".join(_SUPPRESSED)},
    ),
    Metric(
        "keytrail.records.dropped", _COUNTER, "{record}", "Records that will never be delivered.",
        drops("records", _RECORD_REASONS), {"reason": ", ".join(_RECORD_REASONS), **_DROP_ATTRIBUTES}, "Any increase.",
    ),
    Metric("keytrail.findings", _COUNTER, "{finding}", "Findings of detection rules.", findings,
           {"rule": "rules that found something", "severity": ", ".join(Severity)},
           "Findings themselves go to the backend; alert there. Here: a rule whose rate is far above its usual one."),
    # -- the agent's stream
    Metric("keytrail.stream.connected", _GAUGE, "{state}", "1 while the agent's event stream is open, else 0.",
           part("stream", lambda p: int(p.connected)), alert="0 for 2 minutes."),
    Metric("keytrail.stream.connections", _COUNTER, "{connection}", "How often the stream was opened.",
           part("stream", lambda p: p.connections), alert="More than 3 in 15 minutes: the agent keeps restarting."),
    Metric("keytrail.stream.lag", _GAUGE, "s", "Age of the newest event when it was decided on.",
           part("stream", lambda p: p.lag_seconds), alert="Above 5 for 2 minutes: the next step is loss."),
    Metric("keytrail.inbox.events", _LEVEL, "{event}", "Events that were read and wait to be decided on.",
           part("inbox", lambda p: p.events), alert="Above 80 % of keytrail.inbox.limit for 1 minute."),
    Metric("keytrail.inbox.limit", _LEVEL, "{event}", "How many may wait (`queue_capacity`).",
           part("inbox", lambda p: p.capacity)),
    # -- loss
    Metric("keytrail.gaps", _COUNTER, "{gap}", "Episodes in which events or records were lost, or may have been.",
           each("cause", lambda s: s.gaps.episodes, GapCause), {"cause": ", ".join(GapCause)}, "Any increase."),
    Metric("keytrail.gap.lost_events", _COUNTER, "{event}",
           "Events lost in gaps (records, for causes that say so), counted or estimated. A gap whose loss nobody can "
           "know adds 0.", each("cause", lambda s: s.gaps.lost, GapCause), {"cause": "as keytrail.gaps"}),
    Metric("keytrail.gap.backfilled_events", _COUNTER, "{event}",
           "Of the events lost in gaps: found in the agent's export file since.",
           each("cause", lambda s: s.gaps.backfilled, GapCause), {"cause": "as keytrail.gaps"}),
    # -- state
    Metric("keytrail.processes.known", _LEVEL, "{process}", "Processes that are remembered.",
           part("processes", lambda p: p.known)),
    Metric("keytrail.processes.evicted", _COUNTER, "{process}",
           "Processes forgotten while they may have run, as the memory was full (`process_capacity`).",
           part("processes", lambda p: p.evicted),
           alert="Any increase: their later events have no command line and no identity."),
    Metric("keytrail.fingerprints.refused", _COUNTER, "{value}",
           "Values of environment variables that were not compared with Secrets: more in a process, or more different "
           "ones in a container and hour, than anybody has who does not guess.",
           part("processes", lambda p: p.uncompared), alert="Any increase: the log's warning says more."),
    Metric("keytrail.rules.enabled", _LEVEL, "{rule}", "Detection rules in force.",
           part("rules", lambda p: len(p.enabled)), alert="0 where rules are expected."),
    Metric("keytrail.rules.refused", _LEVEL, "{rule}",
           "Rules that were wrong when they were read; an earlier version of one may be in force.",
           part("rules", lambda p: len(p.refused)), alert="Above 0."),
    Metric("keytrail.rules.failed", _COUNTER, "{event}", "Events for which a rule's condition ended in an error.",
           parts("rules", "rule", lambda p: dict.fromkeys(p.enabled, 0) | dict(p.failures)),
           {"rule": "rules in force"}, "Any increase: that rule is blind for these events."),
    Metric("keytrail.rules.forgotten", _COUNTER, "{entry}",
           "Windows and repeats that a rule forgot early, as its memory was full.",
           parts("rules", "rule", lambda p: dict.fromkeys(p.enabled, 0) | dict(p.forgotten)),
           {"rule": "rules in force"}),
    Metric("keytrail.reloads", _COUNTER, "{reload}", "Times that changed rules, mappings or settings were read.",
           parts("reload", "result", lambda p: p.results, _RELOADS), {"result": ", ".join(_RELOADS)}),
    Metric("keytrail.config.last_reload_successful", _GAUGE, "{state}",
           "1 when what was read last is in force, 0 when the last good version is.",
           part("reload", lambda p: int(p.successful)), alert="0."),
    # -- Kubernetes
    Metric("keytrail.kubernetes.watch.connected", _GAUGE, "{state}",
           "1 while the API server answers a watch, else 0: then what was known last stays in force.",
           watches(lambda w, _: int(w.connected)), {"resource": "what is watched"}, "0 for 10 minutes."),
    Metric("keytrail.kubernetes.watch.objects", _LEVEL, "{object}", "Objects that a watch keeps something of.",
           watches(lambda w, _: w.objects), {"resource": "as above"}),
    Metric("keytrail.kubernetes.watch.quiet_time", _GAUGE, "s",
           "Time since the API server last said anything in a watch; it sends a mark every minute or so.",
           watches(lambda w, s: age(s, w.heard_ns)), {"resource": "as above"}, "Above 900."),
    Metric("keytrail.kubernetes.watch.events", _COUNTER, "{event}", "Changes that the API server told of.",
           watches(lambda w, _: w.events), {"resource": "as above"}),
    Metric("keytrail.kubernetes.watch.lists", _COUNTER, "{list}",
           "Complete lists: one at the start, and one whenever the API server no longer had the changes since.",
           watches(lambda w, _: w.lists), {"resource": "as above"}),
    Metric("keytrail.kubernetes.watch.failures", _COUNTER, "{failure}", "Watches that ended in an error.",
           watches(lambda w, _: w.failures), {"resource": "as above"}),
    Metric("keytrail.kubernetes.watch.undecodable", _COUNTER, "{object}", "Objects that could not be read.",
           watches(lambda w, _: w.undecodable), {"resource": "as above"}, "Any increase."),
    Metric("keytrail.kubernetes.requests", _COUNTER, "{request}", "Requests to the API server.",
           requests(lambda r: r.requests), {"verb": "as a Role names it", "resource": "as a Role names it"}),
    Metric("keytrail.kubernetes.requests.failed", _COUNTER, "{request}",
           "Of them: refused, or without an answer.", requests(lambda r: r.failed),
           {"verb": "as above", "resource": "as above"}),
    Metric("keytrail.kubernetes.sent", _COUNTER, "By", "Bytes of bodies sent to the API server.",
           requests(lambda r: r.sent), {"verb": "as above", "resource": "as above"}),
    Metric("keytrail.kubernetes.received", _COUNTER, "By", "Bytes of bodies received from the API server.",
           requests(lambda r: r.received), {"verb": "as above", "resource": "as above"}),
    Metric("keytrail.kubernetes.problems", _LEVEL, "{problem}",
           "What is wrong with objects of Keytrail's kinds in the API server.",
           part("cluster", lambda p: len(p.problems)), alert="Above 0: `keytrail status` says what."),
    Metric("keytrail.kubernetes.peers", _LEVEL, "{address}",
           "Addresses in the cluster whose owners are known (`peers`).", part("cluster", lambda p: p.peers)),
    Metric("keytrail.enrich.pods", _LEVEL, "{pod}",
           "Pods of this node that are known, those deleted lately included.", part("cluster", lambda p: p.pods)),
    Metric("keytrail.enrich.waiting", _LEVEL, "{event}", "Events that wait for their pod (`pod_wait_ms`).",
           part("cluster", lambda p: p.waiting), alert="Above 1000: beyond 2000, they go on without it."),
    Metric("keytrail.enrich.waited", _COUNTER, "{event}", "Events that ever waited for their pod.",
           part("cluster", lambda p: p.waited)),
    Metric("keytrail.enrich.misses", _COUNTER, "{process}",
           "Processes of which something about their workload is not known.",
           parts("cluster", "reason", lambda p: p.misses, Partial), {"reason": ", ".join(Partial)},
           "api_unavailable, not_announced or too_many_wait increasing; any increase of forged."),
    # -- delivery
    Metric("keytrail.spool.bytes", _LEVEL, "By",
           "What undelivered records take, dead letters and bookkeeping included.",
           part("spool", lambda p: p.bytes), alert="Above 80 % of keytrail.spool.limit."),
    Metric("keytrail.spool.limit", _LEVEL, "By", "How much they may take (`spool_bytes`).",
           part("spool", lambda p: p.most_bytes)),
    Metric("keytrail.spool.records", _LEVEL, "{record}",
           "Records that wait, by severity; room is made from the lowest.",
           parts("spool", "lane", lambda p: p.by_lane, _LANES), {"lane": ", ".join(_LANES)}),
    Metric("keytrail.spool.unsynced", _LEVEL, "{record}", "Of them: not on disk yet; a power cut would lose them.",
           part("spool", lambda p: p.unsynced)),
    Metric("keytrail.spool.dead_letters", _LEVEL, "{record}",
           "Records that the backend refused for good, set aside (`keytrail spool list`).",
           part("spool", lambda p: p.dead_letters), alert="Above 0."),
    Metric("keytrail.spool.oldest_age", _GAUGE, "s", "Age of the oldest record that waits; 0 when none does.",
           one(lambda s: None if s.spool is None else age(s, s.spool.oldest_ns) or 0.0), alert="Above 600."),
    Metric("keytrail.spool.durable", _GAUGE, "{state}", "1 while records are on disk before they are sent, else 0.",
           part("spool", lambda p: int(p.durable)), alert="0 where `state_dir` is set."),
    Metric("keytrail.export.requests", _COUNTER, "{request}", "Requests to the backend that were answered or failed.",
           parts("backend", "result", lambda p: p.requests, _RESULTS),
           {"result": ", ".join(_RESULTS)}, "rejected, toolarge or denied increasing."),
    Metric("keytrail.export.retries", _COUNTER, "{request}", "Requests that repeated what was sent before.",
           part("backend", lambda p: p.retries)),
    Metric("keytrail.export.reachable", _GAUGE, "{state}", "1 while the backend takes records, else 0.",
           part("backend", lambda p: None if p.reachable is None else int(p.reachable and not p.trouble)),
           alert="0 for 10 minutes."),
    Metric("keytrail.export.last_success_age", _GAUGE, "s", "Time since the backend last acknowledged a request.",
                      one(lambda s: None if s.backend is None else age(s, s.backend.last_success_ns))),
    # -- the collector itself
    Metric("keytrail.thread.busy_time", _GAUGE, "s",
           "How long a thread has been at one piece of work; 0 while it waits.",
           threads, {"thread": "the collector's own threads"}, "Above 30: it is stuck."),
    Metric("keytrail.log.entries", _COUNTER, "{entry}",
           "The collector's own warnings and errors, held-back ones included.",
           each("level", lambda s: s.log.entries, _LOG_LEVELS), {"level": ", ".join(_LOG_LEVELS)},
           "error increasing."),
    Metric("keytrail.log.held_back", _COUNTER, "{entry}", "Log entries that were not written as they repeated others.",
           one(lambda s: s.log.held_back)),
    Metric("keytrail.build.info", _GAUGE, "{build}", "Always 1: versions of the collector and of the agent.", build,
           {"version": "Keytrail's", "agent.version": "the agent's; empty when unknown"}),
    Metric("process.cpu.time", _COUNTER, "s", "CPU time of the collector.", cpu, {"cpu.mode": "user, system"},
           "A rate above what the node may give it."),
    Metric("process.memory.usage", _LEVEL, "By", "Resident memory of the collector.",
           one(lambda s: s.usage.memory_bytes), alert="Above 90 % of its limit."),
    Metric("process.thread.count", _LEVEL, "{thread}", "Threads of the collector.", one(lambda s: s.usage.threads)),
    Metric("process.unix.file_descriptor.count", _LEVEL, "{file_descriptor}", "Open file descriptors of the collector.",
           one(lambda s: s.usage.file_descriptors)),
    Metric("process.uptime", _GAUGE, "s", "Time since the collector was started.",
           one(lambda s: age(s, s.started_ns))),
)  # fmt: skip
