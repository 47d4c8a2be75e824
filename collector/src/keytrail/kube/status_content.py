"""What a CollectorStatus says: pictures of the collector in, the shape of `domain.collector_status` out.

Conditions say what is well when they are True; where one is False, its message says which change makes it True. Rates
are rounded so far that they stay the same for hours. Names and counts only: texts of errors come from the snapshot,
which holds no secret. Pure; `status` says when it is written.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, TypeVar

from keytrail.domain.agent import AgentFacts
from keytrail.domain.collector_status import (
    MAX_IDENTITIES,
    MAX_POLICIES,
    MAX_RULES,
    BackendState,
    CollectorState,
    IdentityUse,
    NodePolicyStatus,
    RuleFindings,
)
from keytrail.domain.shape import fields_of, read
from keytrail.domain.status import Condition, ConditionStatus, PolicyState
from keytrail.observe.snapshot import BackendPart, Snapshot
from keytrail.observe.text import printable

FIELD_FILTER: Final = (
    '{"fields": "process.environment_variables,parent.environment_variables,ancestors.environment_variables", '
    '"action": "EXCLUDE"}'
)
"""What keeps environments out of the agent's own JSON export. It comes first: that file ends in container logs."""
_ENVIRONMENT: Final = (
    "the agent sends no environments, so that no identity is known by a variable: in the ConfigMap tetragon-config set "
    f"field-filters to '{FIELD_FILTER}' and enable-process-environment-variables to 'true', then restart the DaemonSet "
    "tetragon; `keytrail doctor` prints the commands"
)
_CREDENTIALS: Final = (
    "the agent sends no user ids and capabilities of processes, so that rules on them find nothing: in the ConfigMap "
    "tetragon-config set enable-process-cred to 'true', then restart the DaemonSet tetragon"
)
_AGENT: Final = "start Tetragon on this node and give the collector its socket (agent_address)"
_LONGEST_MESSAGE: Final = 1024
_LONGEST_VERSION: Final = 63
_SHOWN_PROBLEMS: Final = 5
_STEPS: Final[tuple[int, ...]] = tuple(step * 10**power for power in range(7) for step in (1, 3))
_LAGS: Final = ((1, "1s"), (10, "10s"), (60, "1m"), (600, "10m"), (3600, "1h"), (36_000, "10h"))

Verdict = tuple[ConditionStatus, str, str]
"""Status, reason and message of a condition."""
ItemT = TypeVar("ItemT", IdentityUse, NodePolicyStatus)
_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


@dataclass(frozen=True, slots=True)
class Picture:
    """What a collector knows of itself at one moment."""

    snapshot: Snapshot
    agent: AgentFacts | None = None
    problems: Sequence[str] = ()
    """What is wrong with configuration that stands on disk or in the API server."""
    policies: Sequence[NodePolicyStatus] = ()
    identities: Sequence[IdentityUse] = ()
    """The latest first."""
    findings24h: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """By rule."""


def state_of(picture: Picture, before: Iterable[Condition] = ()) -> CollectorState:
    """Return what is said now; a condition whose status did not change keeps its time."""
    snapshot = picture.snapshot
    now = timestamp(snapshot.now_ns)
    since = {(one.type, one.status): one.last_transition_time for one in before}
    conditions = tuple(
        Condition(
            type=type_,
            status=status,
            last_transition_time=since.get((type_, status), now),
            reason=reason,
            message=printable(message)[:_LONGEST_MESSAGE],
        )
        for type_, (status, reason, message) in _verdicts(picture)
    )
    rules = sorted(picture.findings24h.items(), key=lambda item: (-item[1], item[0]))
    policies = sorted(_fitting(picture.policies), key=lambda one: one.name)
    identities = _fitting(picture.identities)
    loaded = sum(one.state is PolicyState.LOADED for one in policies)
    stream = snapshot.stream
    return CollectorState(
        heartbeat_time=now,
        version=snapshot.version,
        tetragon_version="" if stream is None else printable(stream.agent_version)[:_LONGEST_VERSION],
        conditions=conditions,
        policies_loaded=f"{loaded}/{len(policies)}" if policies else "",
        policies=tuple(policies[:MAX_POLICIES]),
        events_per_second=rounded_rate(snapshot.events_per_second or 0.0),
        lost_events=sum(snapshot.gaps.lost.values()),
        lag="" if stream is None or stream.lag_seconds is None else rounded_lag(stream.lag_seconds),
        backend=_backend_state(snapshot.backend),
        identities=tuple(identities[:MAX_IDENTITIES]),
        identities_left_out=max(0, len(identities) - MAX_IDENTITIES),
        rules=tuple(RuleFindings(name=name, findings24h=count) for name, count in rules[:MAX_RULES]),
        rules_left_out=max(0, len(rules) - MAX_RULES),
    )


def signature(state: CollectorState) -> object:
    """What of it is worth a write of its own. Not messages, times and figures, which change without end."""
    conditions = tuple((one.type, one.status, one.reason) for one in state.conditions)
    policies = tuple((one.name, one.state) for one in state.policies)
    return conditions, policies, state.version, state.tetragon_version, state.backend, state.lost_events > 0


def as_data(made: Any) -> Any:
    """Return a shape as the API's JSON, without empty texts and lists; a column of `kubectl get` shows a 0."""
    if isinstance(made, Enum):
        return made.value
    if isinstance(made, tuple):
        return [as_data(item) for item in made]
    if not dataclasses.is_dataclass(made) or isinstance(made, type):
        return made
    values = ((one, getattr(made, one.attribute)) for one in fields_of(type(made)))
    return {one.name: as_data(value) for one, value in values if value not in ("", ())}


def _fitting(items: Iterable[ItemT]) -> list[ItemT]:
    """Return those that the shape takes: one policy with an odd name must not keep all else from being written."""
    return [one for one in items if not read(type(one), as_data(one))[1]]


def timestamp(time_ns: int) -> str:
    """Return a time as Kubernetes writes them, to the second."""
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rounded_rate(rate: float) -> int:
    """Round down to 0, 1, 3, 10, 30, 100, ..."""
    return next((step for step in reversed(_STEPS) if step <= rate), 0)


def rounded_lag(seconds: float) -> str:
    """Round up to 1s, 10s, 1m, 10m, ..."""
    return next((text for most, text in _LAGS if seconds <= most), "100h")


def _backend_state(backend: BackendPart | None) -> BackendState:
    if backend is None:
        return BackendState.NONE
    if backend.trouble in {"denied", "rejecting_all"}:
        return BackendState.REFUSED
    return BackendState.RETRYING if backend.trouble or backend.reachable is False else BackendState.DELIVERING


# -- conditions


def _verdicts(picture: Picture) -> Iterator[tuple[str, Verdict]]:
    yield "AgentConnected", _agent(picture.snapshot)
    yield "EnvironmentCaptured", _environment(picture.agent)
    yield "CredentialsCaptured", _credentials(picture.agent)
    yield "BackendReachable", _backend(picture.snapshot.backend)
    yield "ConfigurationAccepted", _configuration(picture)


def _agent(snapshot: Snapshot) -> Verdict:
    stream = snapshot.stream
    if stream is None:
        return _UNKNOWN, "Starting", "the agent's stream was not opened yet"
    if stream.connected:
        return _TRUE, "Connected", f"reading from {stream.address}"
    reason = f": {stream.reason}" if stream.reason else ""
    return _FALSE, "NotConnected", f"no events from {stream.address or 'any known place'}{reason}; {_AGENT}"


def _environment(agent: AgentFacts | None) -> Verdict:
    if agent is None or agent.captures_environment is None:
        return _UNKNOWN, "AgentDoesNotSay", "the agent was not asked yet, or is older than 1.7 and captures none"
    if not agent.captures_environment:
        return _FALSE, "NotCaptured", _ENVIRONMENT
    if agent.environment_filter:
        names = ", ".join(agent.environment_filter)
        return _TRUE, "CapturedInPart", f"the agent lets only these variables through: {names}"
    return _TRUE, "Captured", "environments of processes are captured"


def _credentials(agent: AgentFacts | None) -> Verdict:
    if agent is None or agent.captures_credentials is None:
        return _UNKNOWN, "AgentDoesNotSay", "the agent was not asked yet, or does not tell its flags"
    if not agent.captures_credentials:
        return _FALSE, "NotCaptured", _CREDENTIALS
    return _TRUE, "Captured", "user ids and capabilities of processes are captured"


def _backend(backend: BackendPart | None) -> Verdict:
    state = _backend_state(backend)
    if backend is None:
        return _UNKNOWN, "NoBackend", "records are not sent anywhere: set OTEL_EXPORTER_OTLP_ENDPOINT and output otlp"
    if state is BackendState.DELIVERING:
        if backend.reachable is None:
            return _UNKNOWN, "NothingSent", f"nothing was sent to {backend.endpoint} yet"
        return _TRUE, "Delivering", f"{backend.endpoint} takes records"
    what = {"denied": "Denied", "rejecting_all": "RejectingAll"}.get(backend.trouble, "Unreachable")
    mend = {
        "Denied": "check its address, the token and its rights",
        "RejectingAll": "its log says why it refuses every record",
        "Unreachable": "check its address (OTEL_EXPORTER_OTLP_ENDPOINT), network policies and whether it runs",
    }[what]
    return _FALSE, what, f"{backend.endpoint} takes no records, which wait: {backend.last_error}; {mend}"


def _configuration(picture: Picture) -> Verdict:
    snapshot = picture.snapshot
    problems = [*picture.problems]
    if snapshot.reload is not None:
        problems += snapshot.reload.problems
    if snapshot.rules is not None:
        problems += [f"rule {name}: {why}" for name, why in sorted(snapshot.rules.refused.items())]
    problems = list(dict.fromkeys(problems))
    if not problems:
        return _TRUE, "InForce", "all rules, mappings and settings are in force as given"
    more = len(problems) - _SHOWN_PROBLEMS
    shown = "; ".join(problems[:_SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
    return _FALSE, "Refused", f"the last good version of what is wrong stays in force: {shown}"
