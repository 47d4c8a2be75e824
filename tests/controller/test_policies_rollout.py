"""How policies replace each other: at no moment may a node be without a hook that it had."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from keytrail.domain.collector_status import CollectorState, NodePolicyStatus
from keytrail.domain.status import PolicyState
from keytrail_operator.actions import Action, Create, Delete, Replace
from keytrail_operator.reconcile.conditions import timestamp
from keytrail_operator.reconcile.desired import Desired
from keytrail_operator.reconcile.rollout import RolloutMemory, rollout
from keytrail_operator.world import Collector, Node, Owner, TracingPolicy, World

OWNER = Owner("rbac.authorization.k8s.io/v1", "ClusterRole", "keytrail-operator", "owner")
SENSOR = "mounts"


def desired(version: int) -> Desired:
    """The policy that one choice of parameters makes."""
    return Desired(
        SENSOR,
        {"metadata": {"name": f"keytrail-{SENSOR}-{version}"}, "spec": {"kprobes": [{"call": f"call_{version}"}]}},
    )


def policy(name: str, created: float = 0.0, **changed: Any) -> TracingPolicy:
    """A policy as it is in the cluster."""
    version = name.rpartition("-")[2]
    facts: dict[str, Any] = {
        "uid": f"uid-{name}", "version": "1", "generation": 1, "created": created, "sensor": SENSOR, "managed": True,
        "owners": frozenset({OWNER.uid}), "spec": {"kprobes": [{"call": f"call_{version}", "syscall": True}]},
    }  # fmt: skip
    return TracingPolicy(name=name, **(facts | changed))


def collector(node: str, states: Mapping[str, PolicyState], heard: float) -> Collector:
    """What a node's collector says."""
    policies = tuple(NodePolicyStatus(name=name, state=state, message="why") for name, state in states.items())
    return Collector(node, node, CollectorState(heartbeat_time=timestamp(heard), version="1", policies=policies), heard)


def world(policies: list[TracingPolicy], *collectors: Collector, ready: bool = True) -> World:
    """A cluster whose nodes all have a collector."""
    return World(
        policies={one.name: one for one in policies},
        collectors={one.node: one for one in collectors},
        nodes={one.node: Node(one.node, one.node, ready) for one in collectors},
        owner=OWNER,
    )


def run(at: World, version: int, memory: RolloutMemory | None = None, now: float = 1000.0) -> list[Action]:
    """What is done when one version is wanted."""
    return rollout(at, [desired(version)], memory or RolloutMemory(), now)[0]


OLD, NEW = policy(f"keytrail-{SENSOR}-1"), policy(f"keytrail-{SENSOR}-2", created=500.0)
LOADED, FAILED, LOADING = PolicyState.LOADED, PolicyState.FAILED, PolicyState.LOADING


def test_the_next_is_made_beside_the_first() -> None:
    """Another choice makes another object, and deletes nothing yet."""
    actions = run(world([OLD], collector("a", {OLD.name: LOADED}, 900)), 2)
    assert [type(one) for one in actions] == [Create]


def test_loaded_everywhere_ends_the_first() -> None:
    """Once every node has the next one, the first one goes."""
    both = {OLD.name: LOADED, NEW.name: LOADED}
    actions = run(world([OLD, NEW], collector("a", both, 900), collector("b", both, 900)), 2)
    assert [(type(one), str(one.at.name)) for one in actions] == [(Delete, OLD.name)]


@pytest.mark.parametrize("other", [FAILED, LOADING, PolicyState.DISABLED, PolicyState.MISSING, None])
def test_one_node_holds_the_first(other: PolicyState | None) -> None:
    """A node that failed, is not done, was told to disable it or says nothing keeps the first for all."""
    states = {OLD.name: LOADED} | ({} if other is None else {NEW.name: other})
    at = world([OLD, NEW], collector("a", {OLD.name: LOADED, NEW.name: LOADED}, 900), collector("b", states, 900))
    assert run(at, 2) == []


def test_words_from_before_do_not_count() -> None:
    """What a collector said before the policy was made is about an earlier one of that name."""
    both = {OLD.name: LOADED, NEW.name: LOADED}
    assert run(world([OLD, NEW], collector("a", both, 499)), 2) == []


def test_words_soon_after_a_deletion_do_not_count() -> None:
    """A policy made again under the name of one just deleted is believed only when an older list cannot be meant."""
    both = {OLD.name: LOADED, NEW.name: LOADED}
    at = world([OLD, NEW], collector("a", both, 510))
    assert run(at, 2, RolloutMemory(deleted={NEW.name: 490.0})) == []
    assert run(at, 2, RolloutMemory(deleted={NEW.name: 470.0})) != []


def test_nobody_to_ask() -> None:
    """Without any collector nothing is taken for loaded."""
    assert run(world([OLD, NEW]), 2) == []


def test_a_node_that_is_down_is_not_waited_for() -> None:
    """A kubelet that is not ready may stay so for days."""
    both = {OLD.name: LOADED, NEW.name: LOADED}
    at = world([OLD, NEW], collector("a", both, 900), collector("b", {}, 1))
    down = World(policies=at.policies, collectors=at.collectors, owner=OWNER,
                 nodes=dict(at.nodes) | {"b": Node("b", "b", ready=False)})  # fmt: skip
    assert [type(one) for one in run(down, 2)] == [Delete]


def test_a_third_choice_keeps_the_one_that_works() -> None:
    """While the newest is loading, of two older ones that which is loaded everywhere stays."""
    third = policy(f"keytrail-{SENSOR}-3", created=800.0)
    states = {OLD.name: LOADED, NEW.name: FAILED, third.name: LOADING}
    actions = run(world([OLD, NEW, third], collector("a", states, 900)), 3)
    assert [str(one.at.name) for one in actions] == [NEW.name]


def test_nothing_wanted_is_deleted() -> None:
    """Policies of sensors that nothing needs go at once, by label or, without it, by owner and name."""
    unlabelled = policy(f"keytrail-{SENSOR}-2", managed=False, sensor="")
    actions, *_ = rollout(world([OLD, unlabelled]), [], RolloutMemory(), 0.0)
    assert [str(one.at.name) for one in actions] == [OLD.name, unlabelled.name]


def test_others_are_left_alone() -> None:
    """A policy without label and owner of ours is somebody else's, whatever its name."""
    foreign = policy(NEW.name, managed=False, owners=frozenset())
    actions, _, _, taken = rollout(world([foreign]), [desired(2)], RolloutMemory(), 0.0)
    assert actions == []
    assert NEW.name in taken[SENSOR]


@pytest.mark.parametrize(
    "changed",
    [
        {"spec": {"kprobes": [{"call": "another"}]}, "generation": 2},
        {"spec": {"kprobes": [{"call": "call_2"}], "podSelector": {"a": "b"}}, "generation": 2},
        {"sensor": ""},
        {"managed": False},
    ],
)
def test_what_was_edited_is_put_back_once(changed: dict[str, Any]) -> None:
    """An edit of spec or labels is undone by one write that fails if somebody else writes meanwhile."""
    edited = policy(NEW.name, version="7", **changed)
    at = world([edited], collector("a", {NEW.name: LOADED}, 900))
    actions, memory, *_ = rollout(at, [desired(2)], RolloutMemory(), 1000.0)
    (action,) = actions
    assert isinstance(action, Replace)
    assert action.body["metadata"]["resourceVersion"] == "7"
    assert action.body["metadata"]["uid"] == edited.uid
    mended = policy(NEW.name, version="8", generation=edited.generation + ("spec" in changed))
    assert rollout(world([mended]), [desired(2)], memory, 1001.0)[0] == []


def test_a_server_that_keeps_something_else_is_not_fought() -> None:
    """Where the API server drops a field that was asked for, that is written once more and then left."""
    pruned = policy(NEW.name, spec={"kprobes": []})
    actions, memory, *_ = rollout(world([pruned]), [desired(2)], RolloutMemory(), 0.0)
    assert [type(one) for one in actions] == [Replace]
    assert rollout(world([pruned]), [desired(2)], memory, 1.0)[0] == []


def test_a_refused_policy_is_tried_again_later() -> None:
    """What the API server does not take is tried every ten minutes, not with every heartbeat of every node."""
    at = World(policies={}, refused={NEW.name: "unknown field"}, owner=OWNER)
    first, memory, *_ = rollout(at, [desired(2)], RolloutMemory(), 1000.0)
    assert [type(one) for one in first] == [Create]
    second, memory, *_ = rollout(at, [desired(2)], memory, 1100.0)
    assert second == []
    assert rollout(at, [desired(2)], memory, 1600.0)[0] != []


class Cluster:
    """A cluster in motion: choices change, agents load late or not at all, collectors report later still."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a test that can be repeated
        self.now = 1000.0
        self.memory = RolloutMemory()
        self.wanted = 0
        self.policies: dict[str, TracingPolicy] = {}
        self.loaded: dict[str, dict[str, str]] = {node: {} for node in "abc"}
        """What the agent of each node really has, by name with uid."""
        self.reports = {node: collector(node, {}, 0.0) for node in "abc"}
        self.asked: dict[str, dict[str, PolicyState]] = {node: {} for node in "abc"}
        self.asked_at = 0.0
        self.loaded_at = dict.fromkeys("abc", 0.0)
        self.failing: set[tuple[str, int]] = set()
        self.made = 0

    def step(self) -> None:
        """Let one thing happen."""
        self.now += self.random.choice((0.5, 5.0, 20.0))
        for node in "abc":
            if self.now - self.loaded_at[node] > 15:  # an agent hears of a change within seconds
                self.load(node)
        getattr(
            self, self.random.choice(("choose", "fail", "reconcile", "reconcile", "load", "load", "ask", "report"))
        )()

    def choose(self) -> None:
        """Want something, perhaps something else."""
        self.wanted = self.random.randrange(4)

    def fail(self) -> None:
        """Have a node refuse a version, or take it again."""
        pair = self.random.choice("abc"), self.random.randrange(4)
        self.failing ^= {pair}

    def load(self, node: str = "") -> None:
        """Let an agent follow what there is."""
        node = node or self.random.choice("abc")
        self.loaded_at[node] = self.now
        there = {one.name: one.uid for one in self.policies.values()}
        self.loaded[node] = {
            name: uid for name, uid in there.items() if (node, int(name.rpartition("-")[2])) not in self.failing
            or self.loaded[node].get(name) == uid
        }  # fmt: skip

    def ask(self) -> None:
        """Let the collectors ask their agents."""
        self.asked_at = self.now
        for node in "abc":
            failed = {name: FAILED for name in self.policies if name not in self.loaded[node]}
            self.asked[node] = failed | dict.fromkeys(self.loaded[node], LOADED)

    def report(self) -> None:
        """Let a collector say what it heard last."""
        if self.now - self.asked_at > 30:  # what a collector says of its agent is no older
            self.ask()
        node = self.random.choice("abc")
        self.reports[node] = collector(node, self.asked[node], self.now)

    def reconcile(self) -> None:
        """Run, and see after each action that no node lost what it had."""
        at = world(list(self.policies.values()), *self.reports.values())
        actions, self.memory, *_ = rollout(at, [desired(self.wanted)], self.memory, self.now)
        if self.random.random() < 0.1:
            actions = actions[: len(actions) // 2]  # killed in the middle
        for action in actions:
            before = {node: self._covered(node) for node in "abc"}
            if isinstance(action, Create):
                self.made += 1
                name = action.body["metadata"]["name"]
                self.policies[name] = policy(name, self.now, uid=f"{name}-{self.made}", spec=action.body["spec"])
            elif isinstance(action, Delete):
                del self.policies[action.name]
            after = {node: self._covered(node) for node in "abc"}
            assert all(after[node] or not before[node] for node in "abc"), (action, self.loaded)

    def _covered(self, node: str) -> bool:
        return any(name in self.policies and self.policies[name].uid == uid for name, uid in self.loaded[node].items())


@pytest.mark.parametrize("seed", range(12))
def test_no_node_ever_loses_the_hook(seed: int) -> None:
    """Whatever the order of choices, loads, failures, reports and kills: no deletion takes a node's last policy."""
    cluster = Cluster(seed)
    for _ in range(150):
        cluster.step()
    cluster.failing.clear()
    for _ in range(3):  # in the end one is left, on every node
        cluster.now += 60
        cluster.reconcile()
        for _ in range(30):
            cluster.load()
        cluster.ask()
        cluster.reports = {node: collector(node, cluster.asked[node], cluster.now) for node in "abc"}
        cluster.random.seed(1)  # none is killed any more
        cluster.reconcile()
    assert list(cluster.policies) == [desired(cluster.wanted).name]


class Looked(tuple[NodePolicyStatus, ...]):
    """What a node says; counts how often somebody looks through it."""

    __slots__ = ()
    times: ClassVar[int] = 0

    def __iter__(self) -> Iterator[NodePolicyStatus]:
        type(self).times += 1
        return super().__iter__()


def test_what_a_node_says_is_looked_through_once() -> None:
    """However many policies are wanted and there: a thousand nodes with thirty each are 0.4 times the work by that."""
    said = collector("a", {OLD.name: LOADED, NEW.name: LOADED}, 900)
    assert said.state is not None
    at = world([OLD, NEW], replace(said, state=replace(said.state, policies=Looked(said.state.policies))))
    Looked.times = 0
    rollout(at, [desired(1), desired(2), desired(3)], RolloutMemory(), 1000.0)
    assert Looked.times == 1
