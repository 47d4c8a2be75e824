"""Snapshots for tests: one with every part filled, and a probe that hands out what it was given."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from keytrail.domain.drop import DropReason
from keytrail.domain.gap import Gap, GapCause
from keytrail.observe.accounting import Accounting
from keytrail.observe.gap_log import GapLog
from keytrail.observe.http_server import OwnHttp, open_http
from keytrail.observe.metrics import OwnMetrics
from keytrail.observe.snapshot import (
    BackendPart,
    ClusterPart,
    IdentityPart,
    LogPart,
    ProcessesPart,
    QueuePart,
    RecentPart,
    ReloadPart,
    RequestPart,
    RulesPart,
    Snapshot,
    SpoolPart,
    StreamPart,
    ThreadPart,
    WatchPart,
)
from keytrail.observe.usage import usage

SECOND = 1_000_000_000
NOW_NS = 1_795_000_000 * SECOND
RESOURCE = {"service.name": "keytrail", "service.instance.id": 'node "7"\\\n\x1b[31m'}


class Given:
    """A probe; counts how often it was asked."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot_ = snapshot
        self.asked = 0

    def snapshot(self) -> Snapshot:
        """Hand out what was given."""
        self.asked += 1
        return self.snapshot_


@contextmanager
def pages() -> Iterator[tuple[Given, OwnHttp]]:
    """A server on a free port, and the probe behind it: for a module, as starting and stopping takes a while."""
    probe = Given(healthy())
    metrics = OwnMetrics(probe, RESOURCE)
    server = open_http("127.0.0.1:0", probe, metrics)
    assert server is not None
    try:
        yield probe, server
    finally:
        server.close()
        metrics.close(5)


def counted() -> Accounting:
    """An accounting in which every number is there and different."""
    accounting = Accounting()
    accounting.events({"exec": 70, "connect": 20}, {"malformed": 2}, {DropReason.DUPLICATE_HOOK: 5})
    accounting.lost_before_decode(3, DropReason.QUEUE_FULL)
    accounting.found({("shell-in-container", "high"): 4, ("key-elsewhere", "critical"): 1})
    accounting.recovered(6)
    accounting.made(50)
    accounting.on_exported(30)
    accounting.suppressed(7, "repeated")
    accounting.on_dropped(2, DropReason.SPOOL_EVICTED)
    return accounting


def healthy() -> Snapshot:
    """A collector that does its work, with nothing to complain of and every part there."""
    return Snapshot(
        now_ns=NOW_NS,
        started_ns=NOW_NS - 7200 * SECOND,
        version="9.8.7",
        accounting=counted().summary(),
        events_per_second=12.5,
        stream=StreamPart(
            connected=True, address="unix:/run/t.sock", reader="http2", since_ns=NOW_NS - 60 * SECOND,
            agent_version="v1.7.0", connections=2, lag_seconds=0.25,
        ),
        inbox=QueuePart(11, 65536),
        processes=ProcessesPart(123, 32768, 1),
        rules=RulesPart(loaded=True, enabled=("key-elsewhere", "shell-in-container"), forgotten={"key-elsewhere": 3}),
        spool=SpoolPart(
            queued=17, unsynced=1, by_lane={"high": 16, "critical": 1}, bytes=3 * 1024 * 1024, most_bytes=1024**3,
            oldest_ns=NOW_NS - 90 * SECOND, durable=True,
        ),
        backend=BackendPart(
            endpoint="collector:4317", reachable=True, requests={"accepted": 9, "retry": 1}, retries=1,
            last_success_ns=NOW_NS - 2 * SECOND, last_error="UNAVAILABLE: no", failed_ns=NOW_NS - 30 * SECOND,
        ),
        reload=ReloadPart(successful=True, loaded_ns=NOW_NS - 7200 * SECOND, results={"in_force": 1}),
        cluster=ClusterPart(
            "https://10.96.0.1:443",
            (
                WatchPart("pods of this node", connected=True, synced=True, objects=31, heard_ns=NOW_NS - 5 * SECOND),
                WatchPart("services", connected=True, synced=True, objects=12, events=4, lists=1),
            ),
            (RequestPart("watch", "pods", 3, 1, 0, 2048), RequestPart("patch", "collectorstatuses/status", 2, 0, 99)),
            pods=33, peers=140, waiting=2, waited=9, misses={"forged": 1},
        ),
        recent=RecentPart(
            (
                IdentityPart("openai-prod", NOW_NS - 60 * SECOND, ("ml/Deployment/chat", "ml/CronJob/report")),
                IdentityPart("stripe-prod", NOW_NS - 7200 * SECOND),
            ),
            {"shell-in-container": 4},
        ),
        threads=(ThreadPart("decide", alive=True, busy_seconds=0.1, longest_seconds=30.0),),
        log=LogPart({"warning": 8, "error": 1}, 40),
        usage=usage(),
    )  # fmt: skip


def troubled() -> Snapshot:
    """A collector that works, with every complaint that there is."""
    gaps = GapLog()
    start = NOW_NS - 600 * SECOND
    gaps.add(Gap(GapCause.READER_SLOW, start, start + SECOND, lost=100, exact=True))
    gaps.add(Gap(GapCause.READER_SLOW, start, start + 2 * SECOND, lost=150, exact=True, backfilled=40))
    gaps.add(Gap(GapCause.AGENT_AWAY, start, start + 9 * SECOND))
    gaps.add(Gap(GapCause.LATE, start, start + SECOND, suspected=True, lag_ns=7 * SECOND))
    fine = healthy()
    return changed(
        fine,
        stream={"lag_seconds": 9.0},
        inbox={"events": 60_000},
        rules={
            "failures": {"shell-in-container": 2, "key-elsewhere": 1},
            "failing": ("shell-in-container",),
            "refused": {"mine": "spec.condition: no such field"},
        },
        spool={"bytes": 1000 * 1024 * 1024, "dead_letters": 5},
        backend={"reachable": False, "trouble": "unreachable"},
        reload={"successful": False, "problems": ("rules/mine.yaml:3: spec.condition: no such field",)},
        gaps=gaps.part(),
        cluster={
            "watches": (
                WatchPart("services", heard_ns=start, reason="no answer in time"),
                WatchPart("nodes", reason="no answer in time"),
            ),
            "problems": ("DetectionRule mine: spec.condition: no such field", "another"),
        },
    )


def changed(snapshot: Snapshot, **parts: Any) -> Snapshot:
    """Change fields of parts, or replace a part."""
    made = {
        name: replace(getattr(snapshot, name), **value) if isinstance(value, dict) else value
        for name, value in parts.items()
    }
    return replace(snapshot, **made)
