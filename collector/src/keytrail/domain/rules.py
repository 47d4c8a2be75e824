"""The shape of a DetectionRule: what is suspicious.

Plain data comes in through `keytrail.domain.shape.read`, a typed object goes out to `keytrail.detect` and the operator.
A condition is text here: what it means, and whether it means anything, is for `keytrail.detect` to say.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from keytrail.domain.event import EventKind
from keytrail.domain.objects import OBJECT_FIELDS, Resource, list_doc, name_doc, printable_doc
from keytrail.domain.shape import Doc, Fault, Format, Rules, described

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
MAX_PARAMETERS = 32
MAX_TEXT = 1024
_PARAMETER_ITEMS = 1024
_LONGEST_WINDOW_S = 24 * 3600.0


class Severity(StrEnum):
    """How bad it is when the rule is right."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info to 4 for critical."""
        return list(Severity).index(self)


class Maturity(StrEnum):
    """How much a rule has been proven. Only stable ones are on by default."""

    STABLE = "stable"
    INCUBATING = "incubating"
    SANDBOX = "sandbox"


class SequenceScope(StrEnum):
    """What the steps of a sequence must have in common."""

    PROCESS = "process"
    COMMAND = "command"
    TREE = "tree"
    POD = "pod"


def duration_ns(text: str) -> int:
    """`10m` in nanoseconds."""
    digits = text.rstrip("msh")
    return int(int(digits) * _SECONDS[text[len(digits) :]] * 1_000_000_000)


def _reject_window(text: str) -> str:
    return "" if duration_ns(text) <= _LONGEST_WINDOW_S * 1e9 else "a day at most"


_WINDOW = Format(
    "window",
    "a time such as 10m or 30s",
    _reject_window,
    "duration({text}) <= duration('24h')",
    "'expected a time such as 10m or 30s, a day at most'",
)


def window_doc(description: str, example: str) -> Doc:
    """Document a time."""
    full = f"{description} A whole number with ms, s, m or h; a day at most."
    pattern = "^[1-9][0-9]{0,6}(ms|s|m|h)$"
    return Doc(full, example, max_length=9, pattern=pattern, expected=_WINDOW.expected, format=_WINDOW)


def _condition(description: str, example: str) -> Doc:
    return Doc(description, example, max_length=8192)


_FIELD_PATTERN = "^[a-z]+[.][a-z_]+$"


def _fields(description: str, *example: str) -> Doc:
    words = "a field of the event such as pod.uid or process.binary"
    return Doc(
        description, list(example), min_items=1, max_items=8, max_length=64, pattern=_FIELD_PATTERN, expected=words
    )


def _scalar_fault(value: object) -> str:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "expected a whole number of 64 bits"
    if isinstance(value, float) and not math.isfinite(value):
        return "expected a finite number"
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return f"expected at most {MAX_TEXT} characters, found {len(value)}"
    if isinstance(value, str | bool | int | float):
        return ""
    return f"expected text, a number, true, false or a list of these, found {described(value)}"


def _value_fault(value: object) -> str:
    """What keeps a value from being a parameter; empty when it is one."""
    if not isinstance(value, list):
        return _scalar_fault(value)
    if len(value) > _PARAMETER_ITEMS:
        return f"expected at most {_PARAMETER_ITEMS} items, found {len(value)}"
    if len({type(item) for item in value}) > 1 or any(isinstance(item, list) for item in value):
        return "expected items of one type: text, whole numbers, numbers, or true and false"
    return next(filter(None, map(_scalar_fault, value)), "")


def parameters_fit(parameters: Mapping[str, object], path: tuple[str, ...]) -> Iterator[Fault]:
    """Say what is wrong with parameters."""
    for name, value in parameters.items():
        if not (name.isascii() and name.isidentifier() and name == name.lower()):
            yield Fault((*path, name), "expected a name of lower-case letters, digits and _ that begins with a letter")
        elif message := _value_fault(value):
            yield Fault((*path, name), message)


PARAMETERS_DOC = Doc("Values by name.", {"shells": ["sh", "bash"]}, max_items=MAX_PARAMETERS, max_length=MAX_TEXT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mitre:
    """A place in MITRE ATT&CK."""

    tactic: Annotated[
        str, Doc("Id of the tactic.", "TA0002", max_length=6, pattern="^TA[0-9]{4}$", expected="an id such as TA0002")
    ]
    technique: Annotated[
        str,
        Doc(
            "Id of the technique or sub-technique.",
            "T1059.004",
            max_length=9,
            pattern="^T[0-9]{4}([.][0-9]{3})?$",
            expected="an id such as T1059 or T1059.004",
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleException:
    """A case that is meant to be: the rule says nothing where the condition holds."""

    name: Annotated[str, name_doc("Name of the exception, for records and tuning.", "debug-namespace", max_length=63)]
    condition: Annotated[str, _condition("CEL expression, as the rule's own.", 'pod.namespace == "debug"')]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppress:
    """Repeats become one finding and a count."""

    by: Annotated[
        tuple[str, ...], _fields("Fields in which two findings must agree to be repeats.", "pod.uid", "process.binary")
    ]
    window: Annotated[str, window_doc("Time after a finding in which repeats are only counted.", "10m")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A finding only when the condition held often enough."""

    count: Annotated[
        int, Doc("Number of events, or of distinct values, that makes a finding.", 20, minimum=2, maximum=10_000)
    ]
    window: Annotated[str, window_doc("Time within which they must come.", "1m")]
    by: Annotated[tuple[str, ...], _fields("Fields whose values are counted apart.", "process.exec_id")]
    distinct: Annotated[
        str,
        Doc(
            "Field whose distinct values are counted. Left out: events are counted.",
            "network.peer_port",
            max_length=64,
            pattern=_FIELD_PATTERN,
            expected="a field of the event such as network.peer_port",
        ),
    ] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceStep:
    """One event that must have come before."""

    events: Annotated[
        tuple[EventKind, ...], Doc("Kinds of event that the step looks at.", ["file"], min_items=1, max_items=8)
    ]
    condition: Annotated[str, _condition("CEL expression, as the rule's own.", 'file.path == "/etc/shadow"')]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """A finding only when other events came before, in this order; the rule's own condition is the last step."""

    steps: Annotated[
        tuple[SequenceStep, ...],
        Doc(
            "The events before, in order.",
            [{"events": ["file"], "condition": 'file.path == "/etc/shadow"'}],
            min_items=1,
            max_items=4,
        ),
    ]
    within: Annotated[str, window_doc("Time from the first step to the last.", "30s")]
    by: Annotated[
        SequenceScope,
        Doc(
            "What the steps share: process (one process image), command (the later process is the earlier one or "
            "was started by it, or one `sh -c` started both), tree (a process, its parent or its grandparent in "
            "common; PID 1 does not count), pod.",
            "tree",
        ),
    ] = SequenceScope.TREE


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTest:
    """A case that documents the rule and proves it."""

    name: Annotated[str, printable_doc("What the case is.", "bash by kubectl exec")]
    event: Annotated[
        Mapping[str, object],
        Doc(
            "The event, its fields by the names that conditions use; `event.kind` defaults to the rule's first.",
            {"process": {"binary": "/bin/bash"}},
            max_items=32,
        ),
    ] = field(default_factory=dict, hash=False)
    events: Annotated[
        tuple[Mapping[str, object], ...],
        Doc(
            "Several events, in order, for a rule with threshold or sequence; `event.at` is their time in seconds.",
            [{"event": {"kind": "file"}, "file": {"path": "/etc/shadow"}}],
            max_items=64,
        ),
    ] = field(default=(), hash=False)
    match: Annotated[bool, Doc("Whether a finding is expected, of several events for any of them.", example=True)]
    RULES: ClassVar[Rules] = Rules(exactly_one_of=("event", "events"))


def _rule_fits(rule: "DetectionRuleSpec") -> Iterator[Fault]:
    yield from parameters_fit(rule.parameters, ("parameters",))


_STEP = {"events": ["file"], "condition": 'file.path == "/etc/shadow"'}
_SENSOR_PATTERN = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionRuleSpec:
    """What the rule looks for, and what it says when it found it."""

    title: Annotated[str, printable_doc("One line that names what was found.", "Shell started in a container")]
    description: Annotated[
        str, Doc("What it means, why it matters, how to tune it.", "Shells in containers are rare.", max_length=4096)
    ]
    severity: Annotated[Severity, Doc("Severity of the findings.", "high")]
    maturity: Annotated[
        Maturity, Doc("How much the rule has been proven; only stable ones are on by default.", "stable")
    ]
    mitre: Annotated[
        tuple[Mitre, ...], Doc("Places in MITRE ATT&CK.", [{"tactic": "TA0002", "technique": "T1059.004"}], max_items=8)
    ] = ()
    references: Annotated[
        tuple[str, ...],
        Doc(
            "Pages to read on.",
            ["https://attack.mitre.org/techniques/T1059/004/"],
            max_items=8,
            max_length=256,
            pattern="^https?://[^[:space:][:cntrl:]]+$",
            expected="an address that begins with https://",
        ),
    ] = ()
    events: Annotated[
        tuple[EventKind, ...],
        Doc(
            "Kinds of event that the rule looks at; others never reach the condition.",
            ["exec"],
            min_items=1,
            max_items=18,
        ),
    ]
    requires: Annotated[
        tuple[str, ...],
        Doc(
            "Sensors: TracingPolicies of the library and features of the agent.",
            ["tcp-connect"],
            max_items=16,
            max_length=63,
            pattern=_SENSOR_PATTERN,
            expected="a sensor's name of lower-case letters, digits and -",
        ),
    ] = ()
    parameters: Annotated[Mapping[str, object], PARAMETERS_DOC] = field(default_factory=dict, hash=False)
    condition: Annotated[str, _condition("CEL expression over the event: true is a finding.", 'process.name == "nc"')]
    exceptions: Annotated[
        tuple[RuleException, ...],
        list_doc(
            "Cases that are meant to be.",
            {"name": "debug-namespace", "condition": 'pod.namespace == "debug"'},
            key="name",
        ),
    ] = ()
    message: Annotated[
        str,
        printable_doc(
            "One line; {process.name} stands for a field's value.", "{process.name} in {pod.name}", max_length=512
        ),
    ]
    suppress: Annotated[
        Suppress | None, Doc("Repeats are counted and summarised.", {"by": ["pod.uid"], "window": "10m"})
    ] = None
    threshold: Annotated[
        Threshold | None, Doc("Only when it happens often.", {"count": 20, "window": "1m", "by": ["pod.uid"]})
    ] = None
    sequence: Annotated[Sequence | None, Doc("Only after other events.", {"steps": [_STEP], "within": "30s"})] = None
    tests: Annotated[
        tuple[RuleTest, ...], list_doc("Cases that prove the rule.", {"name": "bash", "event": {}, "match": True})
    ] = ()
    RULES: ClassVar[Rules] = Rules(at_most_one_of=("threshold", "sequence"), checks=(_rule_fits,))


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionRule(Resource):
    """What is suspicious, and how to say so."""

    spec: Annotated[DetectionRuleSpec, Doc("What the rule says.", {
        "title": "Netcat", "description": "Netcat ran.", "severity": "low", "maturity": "sandbox",
        "events": ["exec"], "condition": 'process.name == "nc"', "message": "netcat ran",
    })]  # fmt: skip
    RULES: ClassVar[Rules] = Rules(ignored=OBJECT_FIELDS)

    @property
    def name(self) -> str:
        """What records call the rule."""
        return self.metadata.name
