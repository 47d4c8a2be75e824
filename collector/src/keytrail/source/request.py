"""What to ask the agent for, so that only wanted kinds leave it.

In: an `EventFilter`: the user's, with the kinds that the configuration in force looks at. Out: what `Asked` holds. What
is asked for here may be more than the filter selects, never less: one type of the agent's carries events of many kinds.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from keytrail.domain.event import EventKind
from keytrail.domain.filters import EventFilter
from keytrail.proto.tetragon.events_pb2 import (
    PROCESS_EXEC,
    PROCESS_EXIT,
    PROCESS_KPROBE,
    PROCESS_LOADER,
    PROCESS_LSM,
    PROCESS_THROTTLE,
    PROCESS_TRACEPOINT,
    PROCESS_UPROBE,
    PROCESS_USDT,
    EventType,
    Filter,
    GetEventsRequest,
)

_KERNEL_HOOKS = frozenset({PROCESS_KPROBE, PROCESS_TRACEPOINT, PROCESS_LSM})
_NAMED_HOOKS = _KERNEL_HOOKS | {PROCESS_UPROBE}
"""Hooks of which the agent knows the policy."""
_TYPES = {
    EventKind.EXEC: frozenset({PROCESS_EXEC}),
    EventKind.EXIT: frozenset({PROCESS_EXIT}),
    # A library may also be seen as the mmap of a file; a policy decides which.
    EventKind.LIBRARY: _KERNEL_HOOKS | {PROCESS_LOADER},
    # A credential-changing exec is an exec event that says so.
    EventKind.PRIVILEGE: _KERNEL_HOOKS | {PROCESS_EXEC},
    # What a function of a program means nobody knows beforehand: one that is named like a kernel's is not that one.
    EventKind.HOOK: _NAMED_HOOKS | {PROCESS_USDT},
    EventKind.THROTTLE: frozenset[EventType](),
}
"""Types that may carry a kind; of what is not named here, the kernel's hooks."""
_ALL = _NAMED_HOOKS | {PROCESS_USDT, PROCESS_EXEC, PROCESS_EXIT, PROCESS_LOADER}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for events."""

    types: frozenset[EventType]
    """Types of event that it asks for. Throttling comes besides, whatever is asked for."""
    request: bytes
    """A serialized `GetEventsRequest`."""

    @classmethod
    def for_(cls, wanted: EventFilter) -> Self:
        """Make the request for what is wanted."""
        return cls(types_of(wanted), events_request(wanted).SerializeToString())

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the types that stay with the agent."""
        return type_names(_ALL - self.types)


def types_of(wanted: EventFilter) -> frozenset[EventType]:
    """Types of event of which some may be wanted."""
    if not wanted.kinds:
        return _ALL
    return frozenset().union(*(_TYPES.get(kind, _KERNEL_HOOKS) for kind in wanted.kinds))


def type_names(types: Iterable[EventType]) -> tuple[str, ...]:
    """Name types as the agent does, for a person."""
    return tuple(EventType.Name(one) for one in sorted(types))


def events_request(wanted: EventFilter) -> GetEventsRequest:
    """Build the request. No field filters: they cost the agent three times its CPU. No aggregation: it only drops."""
    request = GetEventsRequest()
    types = types_of(wanted)
    if types == _ALL and not replace(wanted, kinds=frozenset()):
        return request  # an absent list, not an empty filter, is how to ask for everything
    if wanted.policies:
        # The agent knows no policy of a usdt event: asked for by policy it would send none.
        _allow(request, wanted, types & _NAMED_HOOKS, sorted(wanted.policies))
        _allow(request, wanted, types & {PROCESS_USDT}, ())
    else:
        _allow(request, wanted, types, ())
    # Throttling means that execs are being lost. It names no process, so every filter by process would hide it.
    request.allow_list.append(Filter(event_set=[PROCESS_THROTTLE]))
    return request


def _allow(
    request: GetEventsRequest, wanted: EventFilter, types: frozenset[EventType], policies: Iterable[str]
) -> None:
    """Add a filter. Its event set comes first in the agent's evaluation: the others never see a foreign event."""
    if types:
        request.allow_list.append(
            Filter(
                event_set=sorted(types),
                namespace=sorted(wanted.namespaces),
                pod_regex=wanted.pods,
                binary_regex=wanted.binaries,
                policy_names=policies,
            )
        )
