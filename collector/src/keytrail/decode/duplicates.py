"""The same kernel call reported by several policies in, one event out.

Policies of the user and ours may hook the same function, and while a policy is replaced both versions are loaded: the
agent then sends one event for each policy. On a real agent twins were 0.14 to 5.2 ms apart, in either order.
"""

from collections import Counter, deque

from keytrail.domain.event import Event, Network

DEFAULT_WINDOW_NS = 5_000_000
"""Two calls of one thread further apart than this are two calls."""

_DISORDER_NS = 100_000_000
"""How much older than the newest event one may come: an agent under flood was seen to be 62 ms out of order."""
_REMEMBERED = 64
"""Events of one function that a twin may lie behind: those of other processors within the window."""
_FUNCTIONS = 1_024


class _Calls:
    """Recent events of one function, each with the policies that reported it."""

    __slots__ = ("policy", "recent", "shared")

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self.shared = False
        self.recent: deque[tuple[Event, list[str]]] = deque(maxlen=_REMEMBERED)


class HookMerger:
    """Tells twins. Remembers a few events for each function, so it must be asked about every hook event in order."""

    def __init__(self, window_ns: int = DEFAULT_WINDOW_NS) -> None:
        self._window_ns = window_ns
        self._kept_ns = window_ns + _DISORDER_NS
        self._functions: dict[str, _Calls] = {}

    def is_duplicate(self, event: Event) -> bool:
        """Whether the call was already reported by another policy that saw as much of it."""
        policy = event.policy
        calls = self._functions.get(event.function)
        if calls is None:
            if len(self._functions) >= _FUNCTIONS:
                self._functions.clear()
            calls = self._functions[event.function] = _Calls(policy)
        recent = calls.recent
        # An event keeps its message alive, secrets included: no longer than a twin can come.
        oldest_ns = event.time_ns - self._kept_ns
        while recent and recent[0][0].time_ns < oldest_ns:
            recent.popleft()
        if calls.shared or policy != calls.policy:
            calls.shared = True
            process = event.process
            for earlier, policies in reversed(recent):
                # Most are of other processes: asked here, that costs a tenth of a call.
                if earlier.process is process and policy not in policies and self._is_same_call(earlier, event):
                    policies.append(policy)
                    return True
        recent.append((event, [policy]))
        return False

    def _is_same_call(self, earlier: Event, later: Event) -> bool:
        """Of two events of one process."""
        if abs(later.time_ns - earlier.time_ns) > self._window_ns:
            return False
        if earlier.tid != later.tid or earlier.kind is not later.kind:
            return False
        return _is_same_subject(earlier, later) and not _says_more(later, earlier)


def _is_same_subject(earlier: Event, later: Event) -> bool:
    a, b = earlier.details, later.details
    if (a.file, a.operation) != (b.file, b.operation):
        return False
    if a.network is not None and b.network is not None and not _is_same_socket(a.network, b.network):
        return False
    if a.payload is not None and b.payload is not None and a.payload.size != b.payload.size:
        return False
    if None not in (a.returned, b.returned) and a.returned != b.returned:
        return False
    if _shape(earlier) == _shape(later):
        return [one.value for one in earlier.arguments] == [one.value for one in later.arguments]
    # Policies that read different arguments: only a socket, file or operation in common says that it is one call.
    return a.file is not None or a.operation is not None or None not in (a.network, b.network)


def _is_same_socket(a: Network, b: Network) -> bool:
    if a.cookie and b.cookie and a.cookie != b.cookie:
        return False
    return (a.peer_address, a.peer_port, a.family) == (b.peer_address, b.peer_port, b.family)


def _shape(event: Event) -> list[str]:
    """Types of the arguments; numbers of any width are one type, for a policy chooses the width."""
    return [_CLASSES.get(argument.type, argument.type) for argument in event.arguments]


_CLASSES = {"int": "number", "uint": "number", "size": "number", "long": "number", "truncated_bytes": "bytes"}


def _says_more(later: Event, earlier: Event) -> bool:
    """Whether a policy captured what the other did not: an argument, the return value, an action taken."""
    if later.returned is not None and earlier.returned is None:
        return True
    if later.action not in ("", earlier.action):
        return True
    return bool(Counter(_shape(later)) - Counter(_shape(earlier)))
