"""Which events a user wants to see: the same filter is sent to the agent and applied to what arrives.

An agent applies it before it serializes, which is what makes the cheapest event the one that never leaves it. A
recording has no agent, so the collector applies it too.
"""

from dataclasses import dataclass

import re2

from keytrail.domain.errors import SettingsError
from keytrail.domain.event import Event, EventKind


def compile_pattern(pattern: str, field: str) -> re2._Regexp:
    """Compile an RE2 expression; raise SettingsError that names the field when it is none."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options=options)
    except re2.error as error:
        raise SettingsError(f"{field}: {pattern!r} is no regular expression in RE2's syntax: {error}") from None


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Empty fields do not restrict; values of one field are alternatives; fields restrict together."""

    kinds: frozenset[EventKind] = frozenset()
    namespaces: frozenset[str] = frozenset()
    """Exact names; the empty string selects events without a pod."""
    pods: tuple[str, ...] = ()
    """RE2 expressions, searched unanchored in the pod's name, as the agent does."""
    binaries: tuple[str, ...] = ()
    """RE2 expressions, searched unanchored in the binary's path."""
    policies: frozenset[str] = frozenset()
    """Names of TracingPolicies; an event that no policy made does not match."""

    def __bool__(self) -> bool:
        """Whether it restricts anything."""
        return bool(self.kinds or self.namespaces or self.pods or self.binaries or self.policies)


class EventMatcher:
    """An `EventFilter`, compiled. Call it with an event: True means wanted."""

    def __init__(self, wanted: EventFilter) -> None:
        self._kinds = wanted.kinds
        self._namespaces = wanted.namespaces
        self._policies = wanted.policies
        self._pods = [compile_pattern(pattern, "--pod") for pattern in wanted.pods]
        self._binaries = [compile_pattern(pattern, "--binary") for pattern in wanted.binaries]

    def __call__(self, event: Event) -> bool:
        """Whether every restriction is met."""
        if self._kinds and event.kind not in self._kinds:
            return False
        if self._policies and event.policy not in self._policies:
            return False
        pod = event.process.pod
        if self._namespaces and (pod.namespace if pod is not None else "") not in self._namespaces:
            return False
        if self._pods and (pod is None or not any(pattern.search(pod.name) for pattern in self._pods)):
            return False
        return not self._binaries or any(pattern.search(event.process.binary) for pattern in self._binaries)
