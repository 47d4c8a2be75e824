"""What a snapshot says of the collector's health: may it live, does it work, what is not well.

Three questions with three audiences: /healthz is asked by who restarts the process (only what a restart mends belongs
there), /readyz by who waits for it to work, and the complaints are for a person. Pure decisions, no I/O.
"""

from collections.abc import Iterator
from typing import Final

from keytrail.observe.snapshot import RECENT_NS, Snapshot

LATE_SECONDS: Final = 5.0
_NEARLY_FULL: Final = 0.8


def sick(snapshot: Snapshot) -> list[str]:
    """Why the process should be restarted; empty when it should not."""
    return [
        f"thread {thread.name} has ended"
        if not thread.alive
        else f"thread {thread.name} has been at one thing for {thread.busy_seconds:.0f} s"
        for thread in snapshot.threads
        if not thread.alive or thread.busy_seconds > thread.longest_seconds
    ]


def not_ready(snapshot: Snapshot) -> list[str]:
    """Why the collector does not do its work; empty when it does."""
    return [*sick(snapshot), *_not_ready(snapshot)]


def _not_ready(snapshot: Snapshot) -> Iterator[str]:
    stream = snapshot.stream
    if stream is None:
        yield "starting: the agent's stream was not opened yet"
    elif not stream.connected:
        why = f": {stream.reason}" if stream.reason else ""
        yield f"not connected to the agent at {stream.address or 'any known place'}{why}"
    if snapshot.rules is not None and not snapshot.rules.loaded:
        yield "detection rules are not loaded"
    if snapshot.spool is not None and snapshot.spool.fault:
        yield f"undelivered records are not on disk: {snapshot.spool.fault}"


def degraded(snapshot: Snapshot) -> list[str]:
    """What needs somebody's attention although the collector works."""
    return [
        complaint
        for part in (
            _stream_complaints,
            _cluster_complaints,
            _rule_complaints,
            _delivery_complaints,
            _loss_complaints,
        )
        for complaint in part(snapshot)
    ]


def _stream_complaints(snapshot: Snapshot) -> Iterator[str]:
    stream, inbox = snapshot.stream, snapshot.inbox
    if stream is not None and stream.lag_seconds is not None and stream.lag_seconds > LATE_SECONDS:
        yield f"events are decided on {stream.lag_seconds:.0f} s after they happened"
    if inbox is not None and inbox.capacity and inbox.events > _NEARLY_FULL * inbox.capacity:
        yield f"{inbox.events} of at most {inbox.capacity} events wait to be decided on"


def _cluster_complaints(snapshot: Snapshot) -> Iterator[str]:
    cluster = snapshot.cluster
    if cluster is None:
        return
    away: dict[str, list[str]] = {}
    for watch in cluster.watches:
        if not watch.connected:
            away.setdefault(watch.reason or "it has not answered yet", []).append(watch.resource)
    for reason, resources in away.items():
        yield f"what is known of {', '.join(resources)} may be old: {reason}"
    if cluster.problems:
        more = f" (and {len(cluster.problems) - 1} more)" if len(cluster.problems) > 1 else ""
        yield f"objects in the API server are not in force as given: {cluster.problems[0]}{more}"


def _rule_complaints(snapshot: Snapshot) -> Iterator[str]:
    rules, reload = snapshot.rules, snapshot.reload
    if rules is not None:
        if rules.refused:
            yield f"rules not in force as given: {', '.join(sorted(rules.refused))}"
        if rules.failing:
            yield f"rules that had no answer for some events within the last hour: {', '.join(sorted(rules.failing))}"
    if reload is not None and not reload.successful:
        yield "the last reload failed: the last good rules, mappings and settings are in force"


def _delivery_complaints(snapshot: Snapshot) -> Iterator[str]:
    spool, backend = snapshot.spool, snapshot.backend
    if backend is not None and (backend.trouble or backend.reachable is False):
        yield f"the backend does not take records ({backend.trouble or 'unreachable'}): {backend.last_error}"
    if spool is not None:
        if spool.most_bytes and spool.bytes > _NEARLY_FULL * spool.most_bytes:
            yield f"undelivered records take {spool.bytes} of at most {spool.most_bytes} bytes"
        if spool.dead_letters:
            yield f"{spool.dead_letters} records were refused by the backend and set aside: see `keytrail spool list`"


def _loss_complaints(snapshot: Snapshot) -> Iterator[str]:
    recent = [gap for gap in snapshot.gaps.recent if snapshot.now_ns - gap.end_ns < RECENT_NS]
    suspected = sum(gap.suspected for gap in recent)
    certain = [gap for gap in recent if not gap.suspected]
    if certain:
        lost = sum(max(0, (gap.lost or 0) - gap.backfilled) for gap in certain)
        more = " or more" if any(gap.lost is None for gap in certain) else ""
        yield f"{len(certain)} gaps within the last hour, {lost}{more} events or records lost for good"
    if suspected:
        yield f"{suspected} suspected gaps within the last hour"
