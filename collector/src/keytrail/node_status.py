"""What the CollectorStatus of this node is made of: the probe's snapshot, the agent's policies, objects that are wrong.

In flow the real parts; out flows a `Picture` whenever the status writer looks, every few seconds. The agent is asked
for its policies at most every half minute, and by the writer's own thread.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from keytrail.domain.agent import AgentFacts
from keytrail.domain.collector_status import MAX_WORKLOADS, IdentityUse, NodePolicyStatus
from keytrail.domain.errors import AgentError
from keytrail.domain.status import PolicyState
from keytrail.kube.status_content import Picture, timestamp
from keytrail.observe.snapshot import Probe
from keytrail.observe.text import printable
from keytrail.source.agent import PolicyStatus

_ASK_SECONDS: Final = 30.0
_LONGEST_MESSAGE: Final = 512
_STATES: Final[Mapping[str, PolicyState]] = MappingProxyType(
    {
        "enabled": PolicyState.LOADED,
        "partially_enabled": PolicyState.LOADED,
        "disabled": PolicyState.DISABLED,
        "loading": PolicyState.LOADING,
        "unloading": PolicyState.LOADING,
        "load_error": PolicyState.FAILED,
        "error": PolicyState.FAILED,
    }
)
"""By the agent's word; a policy that is `skipped` is meant for other nodes."""


class NodeStatus:
    """Gathers pictures of one collector. For one thread."""

    def __init__(
        self,
        probe: Probe,
        agent: Callable[[], AgentFacts | None],
        policies: Callable[[], Sequence[PolicyStatus]],
        problems: Callable[[], Sequence[str]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`policies` asks the agent and may raise AgentError; `problems` are those of objects in the API server."""
        self._probe = probe
        self._agent = agent
        self._ask = policies
        self._problems = problems
        self._clock = clock
        self._asked: float | None = None
        self._policies: tuple[NodePolicyStatus, ...] = ()

    def picture(self) -> Picture:
        """Return what is known now."""
        now = self._clock()
        if self._asked is None or now - self._asked >= _ASK_SECONDS:
            self._asked = now
            self._look()
        snapshot = self._probe.snapshot()
        return Picture(
            snapshot,
            self._agent(),
            self._problems(),
            self._policies,
            tuple(
                IdentityUse(id=one.id, last_used=timestamp(one.last_ns), workloads=one.workloads[:MAX_WORKLOADS])
                for one in snapshot.recent.identities
            ),
            snapshot.recent.findings,
        )

    def _look(self) -> None:
        try:
            statuses = self._ask()
        except AgentError:  # AgentConnected says that it is away; what it had then is the best that is known
            return
        found: dict[str, NodePolicyStatus] = {}
        for one in statuses:
            state = _STATES.get(one.state)
            # Two of one name are in different namespaces, and the one that fails is the one to be told of.
            if state is not None and (one.name not in found or state is PolicyState.FAILED):
                message = printable(one.error)[:_LONGEST_MESSAGE]
                found[one.name] = NodePolicyStatus(name=one.name, state=state, message=message)
        self._policies = tuple(found.values())
