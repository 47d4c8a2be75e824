"""What Keytrail says about an object of its own: the status of mappings, rules and the library.

The operator writes these from what collectors report, the API server keeps them, `kubectl get` prints them. They are
written sparingly, since each write reaches every collector that watches the kind: conditions when they change, times
to the hour. Exact figures are in `keytrail.domain.collector_status` and on the command line.

Knows no API server, and nothing of how the figures come about.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from keytrail.domain.objects import name_doc, printable_doc
from keytrail.domain.shape import Doc, Format

MAX_COUNT: Final = 2**53 - 1
"""The largest whole number that every reader of JSON keeps exact."""


def _reject_time(text: str) -> str:
    try:
        return "" if datetime.fromisoformat(text).tzinfo else "it has no time zone"
    except ValueError:
        return "it is none"


DATE_TIME = Format("date-time", "a time such as 2026-11-22T14:06:35Z", _reject_time)


def count_doc(description: str, example: int, *, unit: str = "") -> Doc:
    """Document a number of things."""
    return Doc(description, example, unit=unit, minimum=0, maximum=MAX_COUNT)


def time_doc(description: str) -> Doc:
    """Document a point in time."""
    return Doc(description, "2026-11-22T14:06:35Z", max_length=40, format=DATE_TIME)


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One statement about the object, as Kubernetes spells them: its type says what is well when it is true."""

    type: Annotated[
        str, Doc("What is stated.", "Ready", max_length=63, pattern="^[A-Z][A-Za-z0-9]*$", expected="a type like Ready")
    ]
    status: Annotated[ConditionStatus, Doc("Whether it holds.", "True")]
    observed_generation: Annotated[int, count_doc("Generation of the object that was judged.", 3)] = 0
    last_transition_time: Annotated[str, time_doc("When the status changed last.")]
    reason: Annotated[
        str,
        Doc(
            "Why, in one word that stays the same.",
            "InvalidCondition",
            max_length=256,
            pattern="^[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?$",
            expected="one word such as InvalidCondition",
        ),
    ]
    message: Annotated[
        str,
        Doc("Why, and what to do about it.", "spec.condition: no such field", min_length=0, max_length=4096),
    ] = ""


def conditions_doc(description: str) -> Doc:
    """Document the conditions of a kind; the description names their types."""
    example = {"type": "Ready", "status": "True", "reason": "InForce", "lastTransitionTime": "2026-11-22T14:06:35Z"}
    return Doc(description, (example,), max_items=16, key="type")


Generation = Annotated[int, count_doc("Generation of the object that this status is about.", 3)]
LastUsed = Annotated[str, time_doc("When the identity was used last, to the hour.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingStatus:
    """What the collectors say about a mapping. Written by the operator."""

    observed_generation: Generation = 0
    conditions: Annotated[
        tuple[Condition, ...],
        conditions_doc(
            "Ready: in force. SecretsResolved: the Secrets that it names exist. Unambiguous: no other mapping claims "
            "the same. EnvCaptured: the agents show the variables that it names."
        ),
    ] = ()
    identity_id: Annotated[str, printable_doc("What records call the identity.", "openai-prod", max_length=320)] = ""
    workloads_using: Annotated[int, count_doc("Workloads that used the identity in the last 24 hours.", 2)] = 0
    nodes_reporting: Annotated[int, count_doc("Nodes whose collector has the mapping in force.", 3)] = 0
    last_used: LastUsed = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionRuleStatus:
    """What the collectors say about a rule. Written by the operator."""

    observed_generation: Generation = 0
    conditions: Annotated[
        tuple[Condition, ...],
        conditions_doc("Ready: in force. SensorsAvailable: what the rule requires is loaded on every node."),
    ] = ()
    findings24h: Annotated[int, count_doc("Findings of the last 24 hours, renewed at most hourly.", 4)] = 0


class PolicyState(StrEnum):
    """What became of a TracingPolicy."""

    LOADED = "Loaded"
    LOADING = "Loading"
    MISSING = "Missing"
    DISABLED = "Disabled"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryPolicyStatus:
    """What became of one TracingPolicy on all nodes."""

    name: Annotated[str, name_doc("Name of the policy in the library.", "egress")]
    state: Annotated[PolicyState, Doc("The worst of all nodes.", "Loaded")]
    nodes_loaded: Annotated[int, count_doc("Nodes that have it loaded.", 12)] = 0
    nodes_failed: Annotated[int, count_doc("Nodes that could not load it.", 0)] = 0
    message: Annotated[str, Doc("Why it is not loaded everywhere.", "no ranges are known", max_length=1024)] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryRulesStatus:
    """How many rules run."""

    enabled: Annotated[int, count_doc("Rules that run.", 98)] = 0
    failing: Annotated[int, count_doc("Rules that were to run and cannot.", 0)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLibraryStatus:
    """What became of the library. Written by the operator."""

    observed_generation: Generation = 0
    conditions: Annotated[tuple[Condition, ...], conditions_doc("Ready: all that is wanted runs on every node.")] = ()
    policies: Annotated[
        tuple[LibraryPolicyStatus, ...],
        Doc("The policies that are wanted.", ({"name": "egress", "state": "Loaded"},), max_items=128, key="name"),
    ] = ()
    rules: Annotated[LibraryRulesStatus, Doc("How many rules run.", {"enabled": 98})] = LibraryRulesStatus()
