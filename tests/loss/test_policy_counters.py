"""Posts of the kernel against arrivals: each policy by its own usual yield, and never by what is still on its way."""

from typing import Any

import pytest

from keytrail.domain.errors import AgentError
from keytrail.domain.gap import GapCause, GapPhase
from keytrail.loss.policy_counters import PolicyCounters
from keytrail.source.address import parse_address
from keytrail.source.agent import AgentClient, PolicyStatus
from keytrail.testing.fake_tetragon import FakeTetragon
from keytrail.testing.fake_tetragon_agent import AgentProfile
from support.recordings import folder, messages


def status(
    npost: int, *, name: str = "p", id_: int = 1, namespace: str = "", sensors: tuple[str, ...] = ()
) -> PolicyStatus:
    """One policy as the agent lists it."""
    return PolicyStatus(id_, name, "enabled", 0, namespace, sensors, 0, "monitor_only", npost, 0, 0, "")


class Agent:
    """Posts and arrivals of a policy, changed by the test."""

    def __init__(self) -> None:
        self.statuses: list[PolicyStatus] | AgentError = []
        self.arrivals: dict[str, int] = {}

    def policies(self) -> list[PolicyStatus]:
        """Answer as the agent would."""
        if isinstance(self.statuses, AgentError):
            raise self.statuses
        return self.statuses

    def run(self, counters: PolicyCounters, clock: Any, *steps: tuple[int, int]) -> None:
        """Let 30 s pass for each step, with so many posts and arrivals in it."""
        for posted, arrived in steps:
            before = self.statuses[0].npost if isinstance(self.statuses, list) and self.statuses else 0
            self.statuses = [status(before + posted)]
            self.arrivals["p"] = self.arrivals.get("p", 0) + arrived
            counters.look()
            clock.turn(30)


@pytest.fixture
def agent() -> Agent:
    """Give an agent without policies."""
    return Agent()


def test_a_fall_below_the_usual_yield_is_told(agent: Agent, gaps: Any, clock: Any) -> None:
    """A policy of which half the posts usually become events, and then next to none: told after two intervals."""
    counters = PolicyCounters(agent.policies, lambda: agent.arrivals, gaps, now_ns=clock)
    agent.run(counters, clock, (1000, 500), (100, 50), (200, 100), (100, 60), (100, 5))
    assert gaps.all == []
    agent.run(counters, clock, (100, 5))
    (gap,) = gaps.all
    assert (gap.cause, gap.policy, gap.suspected, gap.lost) == (GapCause.POLICY_SHORTFALL, "p", True, 90)
    assert gap.end_ns - gap.start_ns == 60_000_000_000
    agent.run(counters, clock, *[(100, 50)] * 6)
    assert [one.phase for one in gaps.all] == [GapPhase.OPEN, GapPhase.CLOSED]


def test_what_arrives_an_interval_later_is_no_loss(agent: Agent, gaps: Any, clock: Any) -> None:
    """A burst posted just before a look and arrived just after it evens out over two intervals."""
    counters = PolicyCounters(agent.policies, lambda: agent.arrivals, gaps, now_ns=clock)
    agent.run(counters, clock, (0, 0), *[(100, 100)] * 3, (1000, 100), (100, 1000), (100, 100))
    assert gaps.all == []


def test_rate_limited_and_doubled_posts_are_usual(agent: Agent, gaps: Any, clock: Any) -> None:
    """Yields as a real agent's policies had without loss, changing from interval to interval, give nothing."""
    counters = PolicyCounters(agent.policies, lambda: agent.arrivals, gaps, now_ns=clock)
    agent.run(counters, clock, (0, 0), (534, 65), (445, 297), (354, 167), (534, 66), (30, 15), (500, 60), (10, 0))
    assert gaps.all == []


def test_what_was_not_asked_for_is_not_missed(gaps: Any, clock: Any) -> None:
    """A policy whose type of event stays with the agent is not judged meanwhile, and afterwards like a new one."""
    posted, arrived = {"libraries": 0, "calls": 0}, {"libraries": 0, "calls": 0}
    sensors = {"libraries": ("__loader__",), "calls": ("generic_kprobe",)}

    def policies() -> list[PolicyStatus]:
        return [status(posted[name], name=name, sensors=sensors[name]) for name in posted]

    counters = PolicyCounters(policies, lambda: arrived, gaps, now_ns=clock)

    def run(intervals: int, *coming: str) -> None:
        for _ in range(intervals):
            for name in posted:
                posted[name] += 100
                arrived[name] += 100 * (name in coming)
            counters.look()
            clock.turn(30)

    run(5, "libraries", "calls")
    counters.left_out = ("PROCESS_LOADER", "PROCESS_USDT")
    run(5, "calls")
    counters.left_out = ()
    run(5, "libraries", "calls")
    assert gaps.all == []
    run(3)
    assert {gap.policy for gap in gaps.all} == {"libraries", "calls"}


def test_a_new_count_is_measured_anew(agent: Agent, gaps: Any, clock: Any) -> None:
    """After the agent restarted, the policy was loaded again, or the agent did not answer, nothing is concluded."""
    counters = PolicyCounters(agent.policies, lambda: agent.arrivals, gaps, now_ns=clock)
    agent.run(counters, clock, (0, 0), *[(100, 100)] * 3)
    agent.statuses = [status(50)]
    counters.look()
    agent.statuses = AgentError("away")
    counters.look()
    agent.statuses = [status(5000, id_=7)]
    counters.look()
    agent.statuses = []
    counters.look()
    assert gaps.all == []


def test_policies_of_one_name_are_one(agent: Agent, gaps: Any, clock: Any) -> None:
    """Events name no namespace: two policies of one name in two namespaces are counted together."""
    counters = PolicyCounters(agent.policies, lambda: agent.arrivals, gaps, now_ns=clock)
    for step in range(6):
        agent.statuses = [status(100 * step, namespace="a"), status(300 * step, namespace="b")]
        agent.arrivals = {"p": 400 * step}
        counters.look()
        clock.turn(30)
    assert gaps.all == []


def test_a_running_agents_counts_are_compared(gaps: Any, clock: Any) -> None:
    """Over real gRPC: recorded events are posted by the fake agent's policies; those that do not arrive are missed."""
    profile = AgentProfile.of_recording(folder("sensors"))
    stream = messages("sensors")
    arrivals = {"sensor-procmem": 0}
    with (
        FakeTetragon("127.0.0.1:0", profile=profile) as fake,
        AgentClient(parse_address(fake.address)) as client,
    ):
        counters = PolicyCounters(client.list_policies, lambda: arrivals, gaps, now_ns=clock)
        for round_ in range(6):
            counters.look()
            clock.turn(30)
            fake.publish(stream)
            if round_ < 4:
                arrivals["sensor-procmem"] += 350
        counters.look()
        counters.close()
    assert {(gap.policy, gap.lost) for gap in gaps.all} == {("sensor-procmem", 700)}
