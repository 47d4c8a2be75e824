"""The shape of a CollectorStatus: how the collector of one node is doing.

There is one for each node, named like it and owned by it, so that it goes with the node. Its collector writes it when a
state changed, at most once a minute, and every ten minutes in any case; rates are rounded and never a reason to write.
The operator adds up the per-identity and per-rule figures of all nodes for the status of mappings and rules.

Names and counts only: nothing that a process wrote, sent or was given gets here. Knows no API server.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from keytrail.domain.objects import OBJECT_FIELDS, Resource, name_doc, printable_doc
from keytrail.domain.shape import Doc, Rules
from keytrail.domain.status import Condition, PolicyState, conditions_doc, count_doc, time_doc

MAX_POLICIES: Final = 128
MAX_IDENTITIES: Final = 256
MAX_RULES: Final = 512
MAX_WORKLOADS: Final = 8


class BackendState(StrEnum):
    """How delivery goes."""

    DELIVERING = "Delivering"
    RETRYING = "Retrying"
    REFUSED = "Refused"
    NONE = "None"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePolicyStatus:
    """What the node's agent made of one TracingPolicy."""

    name: Annotated[str, name_doc("Name of the TracingPolicy, as the agent calls it.", "keytrail-egress-7f3a")]
    state: Annotated[PolicyState, Doc("Its state; Missing: it is wanted and the agent does not have it.", "Loaded")]
    message: Annotated[
        str, printable_doc("What the agent says is wrong with it.", "kprobe: function not found", max_length=512)
    ] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityUse:
    """The use of one identity on this node."""

    id: Annotated[str, printable_doc("What records call the identity.", "openai-prod", max_length=640)]
    last_used: Annotated[str, time_doc("When a process of this node used it last.")]
    workloads: Annotated[
        tuple[str, ...],
        Doc(
            "Workloads that used it in the last 24 hours, as namespace/kind/name, the latest first.",
            ("ml/Deployment/chat-api",),
            max_items=MAX_WORKLOADS,
            max_length=384,
        ),
    ] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFindings:
    """What one rule found on this node."""

    name: Annotated[str, name_doc("Name of the rule.", "shell-in-container")]
    findings24h: Annotated[int, count_doc("Findings of the last 24 hours.", 4)]


_READY = (
    "AgentConnected, EnvironmentCaptured, CredentialsCaptured, BackendReachable, ConfigurationAccepted: each says, "
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorState:
    """How the collector of this node is doing. Written by the collector."""

    heartbeat_time: Annotated[
        str, time_doc("When this was written. Older than twenty minutes: nobody knows how the node is doing.")
    ]
    version: Annotated[str, printable_doc("Version of the collector.", "0.2.0", max_length=63)]
    tetragon_version: Annotated[
        str, printable_doc("Version of the agent, as it says it. Left out: not known.", "v1.7.0", max_length=63)
    ] = ""
    conditions: Annotated[
        tuple[Condition, ...],
        conditions_doc(f"{_READY}where it is False, which change makes it True."),
    ] = ()
    policies_loaded: Annotated[
        str,
        Doc(
            "TracingPolicies that are loaded, of those that are wanted.",
            "5/6",
            max_length=9,
            pattern="^[0-9]{1,4}/[0-9]{1,4}$",
            expected="two numbers such as 5/6",
        ),
    ] = ""
    policies: Annotated[
        tuple[NodePolicyStatus, ...],
        Doc(
            "The TracingPolicies that are wanted or that the agent has.",
            ({"name": "keytrail-egress-7f3a", "state": "Loaded"},),
            max_items=MAX_POLICIES,
            key="name",
        ),
    ] = ()
    events_per_second: Annotated[
        int, count_doc("Rate of events over the last minute, rounded down to 0, 1, 3, 10, 30, 100, ...", 300)
    ] = 0
    lost_events: Annotated[
        int, count_doc("Events known or presumed lost since the collector started.", 0, unit="events")
    ] = 0
    lag: Annotated[
        str,
        Doc(
            "Time from an event to its decision, rounded up to 1s, 10s, 1m, 10m, ...",
            "1s",
            max_length=9,
            pattern="^[0-9]{1,6}(s|m|h)$",
            expected="a time such as 1s",
        ),
    ] = ""
    backend: Annotated[BackendState, Doc("How delivery goes; None: records are not sent anywhere.", "Delivering")] = (
        BackendState.NONE
    )
    identities: Annotated[
        tuple[IdentityUse, ...],
        Doc(
            "Identities that were used, the latest first.",
            ({"id": "openai-prod", "lastUsed": "2026-11-22T14:06:35Z"},),
            max_items=MAX_IDENTITIES,
            key="id",
        ),
    ] = ()
    identities_left_out: Annotated[int, count_doc("Identities used that the list has no room for.", 0)] = 0
    rules: Annotated[
        tuple[RuleFindings, ...],
        Doc(
            "Rules that found something, the most findings first.",
            ({"name": "shell-in-container", "findings24h": 4},),
            max_items=MAX_RULES,
            key="name",
        ),
    ] = ()
    rules_left_out: Annotated[int, count_doc("Rules with findings that the list has no room for.", 0)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorStatus(Resource):
    """How the collector of one node is doing. Named like the node, written by its collector, nothing to set."""

    RULES: ClassVar[Rules] = Rules(ignored=OBJECT_FIELDS)
