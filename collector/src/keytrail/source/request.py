"""What to ask the agent for, so that only wanted kinds leave it.

In: the user's `EventFilter`. Out: `tetragon.GetEventsRequest`. The collector applies the filter again to what arrives:
what is asked for here may be more than the filter selects, never less.
"""

from collections.abc import Iterable

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

_NAMED_HOOKS = frozenset({PROCESS_KPROBE, PROCESS_TRACEPOINT, PROCESS_UPROBE, PROCESS_LSM})
_HOOKS = _NAMED_HOOKS | {PROCESS_USDT}
_OWN_TYPES = {
    EventKind.EXEC: frozenset({PROCESS_EXEC}),
    EventKind.EXIT: frozenset({PROCESS_EXIT}),
    # A library may also be seen as the mmap of a file; a policy decides which.
    EventKind.LIBRARY: _HOOKS | {PROCESS_LOADER},
    # A credential-changing exec is an exec event that says so.
    EventKind.PRIVILEGE: _HOOKS | {PROCESS_EXEC},
    EventKind.THROTTLE: frozenset[EventType](),
}
_ALL = _HOOKS | {PROCESS_EXEC, PROCESS_EXIT, PROCESS_LOADER}


def events_request(wanted: EventFilter) -> GetEventsRequest:
    """Build the request. No field filters: they cost the agent three times its CPU. No aggregation: it only drops."""
    request = GetEventsRequest()
    if not wanted:
        return request  # an absent list, not an empty filter, is how to ask for everything
    types = frozenset().union(*(_OWN_TYPES.get(kind, _HOOKS) for kind in wanted.kinds)) if wanted.kinds else _ALL
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
