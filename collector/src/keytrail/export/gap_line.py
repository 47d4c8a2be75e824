"""One gap as one line of JSON, and as a sentence for a person.

A gap comes in, printable ASCII without a newline goes out: in the place of a finding's line, told apart by its key
`gap`. An episode gives several lines with the same `id`, of which the last counts. Knows no other format.
"""

import json
from typing import Final

from keytrail.domain.gap import Gap, GapCause, GapPhase
from keytrail.export.output import rfc3339
from keytrail.export.terminal_line import quote

_encode = json.JSONEncoder(separators=(",", ":")).encode
_NS: Final = 1_000_000_000
_WHAT: Final = {
    GapCause.AGENT_AWAY: "no event stream from the agent",
    GapCause.READER_SLOW: "the agent dropped events for a slow reader",
    GapCause.KERNEL_OVERFLOW: "events lost between kernel and agent",
    GapCause.INBOX_FULL: "more events than could be decided on",
    GapCause.POLICY_SHORTFALL: "fewer events of a policy arrived than the kernel posted",
    GapCause.EXIT_WITHOUT_EXEC: "processes whose start never arrived",
    GapCause.HOOK_MISSED: "the kernel did not run hooks of policies",
    GapCause.PROCESS_UNKNOWN: "events whose process the agent did not know",
    GapCause.THROTTLED: "the agent throttles a busy cgroup",
    GapCause.RATE_LIMITED: "the agent's exporter left events out of its file",
    GapCause.LATE: "events arrive late",
    GapCause.COLLECTOR_STOPPED: "no collector ran",
    GapCause.COLLECTOR_KILLED: "the collector before this one was killed",
    GapCause.SPOOL_DAMAGED: "stored records could not be read",
    GapCause.RECORDS_EVICTED: "stored records made room for others",
}
_LOST_RECORDS: Final = frozenset({GapCause.SPOOL_DAMAGED, GapCause.RECORDS_EVICTED})


def gap_sentence(gap: Gap) -> str:
    """Say what happened, how much it cost and how sure that is, in one line."""
    text = _WHAT[gap.cause]
    if gap.policy:
        text += f" ({quote(gap.policy)})"
    text += "".join(f", {name} {quote(value)}" for name, value in gap.facts)
    if gap.phase is GapPhase.OPEN:
        text += f", since {rfc3339(gap.start_ns)}"
    else:
        text += f", for {(gap.end_ns - gap.start_ns) / _NS:.1f} s from {rfc3339(gap.start_ns)}"
    if gap.lost is not None:
        unit = "records" if gap.cause in _LOST_RECORDS else "events"
        text += f", {'' if gap.exact else 'about '}{gap.lost} {unit}{' so far' if gap.phase is GapPhase.OPEN else ''}"
    if gap.phase is GapPhase.BACKFILLED:
        text += f", {gap.backfilled} backfilled"
    return f"{text}: {inert(gap.detail)}" if gap.detail else text


def inert(text: str) -> str:
    """Any text as printable ASCII."""
    return text.encode("unicode_escape", "backslashreplace").decode("ascii")


def gap_line(gap: Gap) -> str:
    """Write the gap as JSON, without a newline."""
    parts: dict[str, object] = {
        "cause": gap.cause,
        "id": gap.id,
        "phase": gap.phase,
        "start": rfc3339(gap.start_ns),
        "end": rfc3339(gap.end_ns),
        "suspected": gap.suspected,
        "lost": gap.lost,
        "exact": None if gap.lost is None else gap.exact,
        "backfilled": gap.backfilled if gap.phase is GapPhase.BACKFILLED else None,
        "lag_seconds": gap.lag_ns / _NS or None,
        "node": gap.node or None,
        "policy": gap.policy or None,
        "facts": dict(gap.facts) or None,
        "message": gap_sentence(gap),
    }
    given = {name: part for name, part in parts.items() if part is not None}
    # DEL is the one control character that JSON lets through raw.
    return _encode({"ts": rfc3339(gap.start_ns), "gap": given}).replace("\x7f", "\\u007f")
