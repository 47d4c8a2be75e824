"""What the operator says of identity mappings, and how seldom it writes it."""

from typing import Any

import pytest

from keytrail.domain.declared import SecretKey
from keytrail.domain.shape import read
from keytrail.domain.status import MappingStatus
from keytrail_operator.actions import Action, Create, WriteStatus
from keytrail_operator.reconcile.fingerprints import Facts
from keytrail_operator.reconcile.mapping_checks import Seen
from keytrail_operator.reconcile.mappings import Memory, reconcile
from keytrail_operator.waiting import WaitingPod, waiting_pod
from keytrail_operator.world import World
from support.operator_world import NOW, WELL, after, collector, condition, env, mapped, said, world

SECRET = {"evidence": {"secrets": [{"namespace": "ml", "name": "openai", "keys": ["api-key"]}]}}
FILTERED = (
    said("EnvironmentCaptured", "True", "CapturedInPart", "the agent lets only these variables through: A, B"),
    WELL[1],
)


def run(at: World, seen: Seen | None = None, memory: Memory | None = None, now: float = NOW) -> list[Action]:
    """What is written."""
    return list(reconcile(at, memory or Memory(), now, seen or Seen()).actions)


def status_of(at: World, name: str, seen: Seen | None = None) -> dict[str, Any]:
    """The status that a mapping gets, which its shape takes."""
    found = next(one for one in run(at, seen) if isinstance(one, WriteStatus) and one.name == name)
    _, faults = read(MappingStatus, dict(found.status))
    assert not faults
    return dict(found.status)


def test_a_mapping_that_is_well() -> None:
    """All conditions are true; it says who uses it, and when to the hour."""
    use = ("openai-prod", "2026-11-22T14:06:35Z", ("ml/Deployment/chat",))
    at = world(
        collector("a", uses=[use]),
        collector("b", uses=[("openai-prod", "2026-11-22T13:00:01Z", ("ml/Deployment/chat", "ml/Job/batch"))]),
        mappings=(mapped("openai-prod", **env("OPENAI_API_KEY")),),
    )
    status = status_of(at, "openai-prod")
    assert {one["status"] for one in status["conditions"]} == {"True"}
    assert [one["type"] for one in status["conditions"]] == ["Ready", "Unambiguous", "SecretsResolved", "EnvCaptured"]
    figures = {name: status[name] for name in ("identityId", "workloadsUsing", "nodesReporting", "lastUsed")}
    assert figures == {
        "identityId": "openai-prod", "workloadsUsing": 2, "nodesReporting": 2, "lastUsed": "2026-11-22T14:00:00Z",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        (env("K"), env("K"), "variable K"),
        (env("OPENAI_KEY"), {"evidence": {"env": [{"pattern": "OPENAI_.*"}]}}, "variable OPENAI_KEY"),
        ({"evidence": {"env": [{"pattern": "A.*"}]}}, {"evidence": {"env": [{"pattern": "A.*"}]}}, "pattern A.*"),
        (SECRET, SECRET, "Secret ml/openai with key api-key"),
        (SECRET, {"evidence": {"secrets": [{"namespace": "ml", "name": "openai"}]}}, "Secret ml/openai with key"),
        (
            {"evidence": {"serviceAccounts": [{"namespace": "ml", "name": "chat"}]}},
            {"evidence": {"serviceAccounts": [{"namespace": "ml", "name": "chat"}]}},
            "ServiceAccount ml/chat",
        ),
    ],
)
def test_two_that_claim_the_same_are_ambiguous(first: dict[str, Any], second: dict[str, Any], what: str) -> None:
    """Both are told of the other, and what to do; the mapping is not ready for it."""
    at = world(collector("a"), mappings=(mapped("one", **first), mapped("two", **second)))
    for name, other in (("one", "two"), ("two", "one")):
        status = status_of(at, name)
        assert condition(status, "Unambiguous")[:2] == ("False", "ClaimedTwice")
        message = condition(status, "Ready")[2]
        assert what in message
        assert f"claimed by {other}, too" in message
        assert "spec.priority" in message


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (mapped("one", **env("K", priority=1)), mapped("two", **env("K"))),
        (mapped("one", **env("K")), mapped("two", "ml", **env("K"))),
        (mapped("one", "shop", **env("K")), mapped("two", "ml", **env("K"))),
        (mapped("one", **env("K", identity={"id": "same"})), mapped("two", **env("K", identity={"id": "same"}))),
        (mapped("one", **env("K1")), mapped("two", **env("K2"))),
        (
            mapped("one", **SECRET),
            mapped("two", evidence={"secrets": [{"namespace": "ml", "name": "openai", "keys": ["other"]}]}),
        ),
    ],
)
def test_what_only_looks_the_same_is_not_ambiguous(first: Any, second: Any) -> None:
    """Another priority, another scope, the same identity, other names, other keys."""
    at = world(collector("a"), mappings=(first, second))
    assert condition(status_of(at, "one"), "Unambiguous")[0] == "True"
    assert condition(status_of(at, "two"), "Unambiguous")[0] == "True"


@pytest.mark.parametrize(
    ("seen", "waiting", "expected"),
    [
        (Seen(), (), ("Unknown", "NotPermitted")),
        (Seen(), (WaitingPod("ml", "chat-0", (SecretKey("ml", "openai"),)),), ("False", "SecretMissing")),
        (Seen(), (WaitingPod("ml", "chat-0", (SecretKey("ml", "openai", "api-key"),)),), ("False", "KeyMissing")),
        (Seen(), (WaitingPod("ml", "chat-0", (SecretKey("ml", "openai", "x"),)),), ("Unknown", "NotPermitted")),
        (Seen(secrets={("ml", "openai"): Facts(frozenset({"api-key"}))}), (), ("True", "Resolved")),
        (Seen(secrets={("ml", "openai"): Facts(frozenset({"other"}))}), (), ("False", "KeyMissing")),
        (Seen(secrets={("ml", "openai"): Facts(exists=False)}), (), ("False", "SecretMissing")),
    ],
)
def test_secrets(seen: Seen, waiting: tuple[WaitingPod, ...], expected: tuple[str, str]) -> None:
    """By reading it where that is allowed, else by pods that wait for it; otherwise nobody knows, and why is said."""
    at = world(collector("a"), mappings=(mapped("one", **SECRET),), waiting=waiting)
    status = status_of(at, "one", seen)
    assert condition(status, "SecretsResolved")[:2] == expected
    assert condition(status, "Ready")[0] == ("False" if expected[0] == "False" else "True")


def test_a_pod_that_waits_is_told_by_the_kubelets_words() -> None:
    """Of a pending Pod only the names of what it waits for are kept; of others nothing."""

    def pod(reason: str, message: str) -> Any:
        state = {"waiting": {"reason": reason, "message": message}}
        return {
            "metadata": {"namespace": "ml", "name": "chat-0"},
            "spec": {"containers": [{"env": [{"name": "A", "value": "hunter2"}]}]},
            "status": {"containerStatuses": [{"name": "app", "state": state}]},
        }

    missing = waiting_pod(pod("CreateContainerConfigError", 'secret "openai" not found'))
    assert missing == WaitingPod("ml", "chat-0", (SecretKey("ml", "openai"),))
    lacking = waiting_pod(pod("CreateContainerConfigError", "couldn't find key api-key in Secret ml/openai"))
    assert lacking == WaitingPod("ml", "chat-0", (SecretKey("ml", "openai", "api-key"),))
    assert waiting_pod(pod("ImagePullBackOff", "")) is None
    assert waiting_pod(pod("CreateContainerConfigError", 'configmap "x" not found')) is None
    assert waiting_pod({}) is None


@pytest.mark.parametrize(
    ("conditions", "spec", "expected", "message"),
    [
        (WELL, env("A"), ("True", "Captured"), ""),
        (WELL, SECRET, ("True", "NoVariables"), ""),
        (FILTERED, env("A", "B"), ("True", "Captured"), ""),
        (FILTERED, env("A", "C"), ("False", "Withheld"), "withholds C: add the names"),
        (FILTERED, {"evidence": {"env": [{"pattern": "A.*"}]}}, ("False", "Withheld"), "what matches A.*"),
        (
            (said("EnvironmentCaptured", "False", "NotCaptured", "do this"),),
            env("A"),
            ("False", "NotCaptured"),
            "do this",
        ),
        ((said("EnvironmentCaptured", "Unknown"),), env("A"), ("Unknown", "AgentDoesNotSay"), ""),
        ((), env("A"), ("Unknown", "AgentDoesNotSay"), ""),
    ],
)
def test_variables_that_agents_keep_back(conditions: Any, spec: Any, expected: tuple[str, str], message: str) -> None:
    """A filter takes exact names only: what it withholds is said with the change that mends it."""
    at = world(collector("a", conditions=conditions), mappings=(mapped("one", **spec),))
    found = condition(status_of(at, "one"), "EnvCaptured")
    assert found[:2] == expected
    assert message in found[2]


def test_without_collectors_nobody_knows() -> None:
    """A collector that was silent for longer than two heartbeats counts as none."""
    at = world(collector("a", heard=NOW - 1300), mappings=(mapped("one", **env("A")),))
    status = status_of(at, "one")
    assert condition(status, "EnvCaptured")[:2] == ("Unknown", "NoCollector")
    assert status["nodesReporting"] == 0


def test_nodes_that_refuse_a_mapping_do_not_report_it() -> None:
    """Their collectors say so by name; a mapping whose name only begins alike is another one."""
    refused = said(
        "ConfigurationAccepted", "False", "Refused", "<api server>: ClusterIdentityMapping one: spec: is wrong"
    )
    at = world(
        collector("a"),
        collector("b", conditions=(WELL[0], refused)),
        mappings=(mapped("on", **env("A")), mapped("one", **env("B"))),
    )
    assert status_of(at, "one")["nodesReporting"] == 1
    assert status_of(at, "on")["nodesReporting"] == 2


def test_what_does_not_exist_makes_a_mapping_unready() -> None:
    """A ServiceAccount that is not there, a host that DNS does not know; a wildcard is not asked for."""
    spec = {
        "evidence": {"serviceAccounts": [{"namespace": "ml", "name": "chat"}], "serverNames": ["*.example.com"]},
        "allowed": {"destinations": [{"host": "api.example.invalid"}]},
    }
    at = world(collector("a"), mappings=(mapped("one", **spec),), service_accounts=frozenset())
    assert condition(status_of(at, "one"), "Ready")[:2] == ("False", "ServiceAccountMissing")
    at = world(collector("a"), mappings=(mapped("one", **spec),), service_accounts=frozenset({("ml", "chat")}))
    assert condition(status_of(at, "one"), "Ready")[:2] == ("True", "InForce")
    seen = Seen(hosts={"api.example.invalid": False})
    found = condition(status_of(at, "one", seen), "Ready")
    assert found[:2] == ("False", "HostUnknown")
    assert "api.example.invalid" in found[2]


def test_a_shape_that_is_wrong_is_said() -> None:
    """A mapping that an older definition let in: the fault with its field, and that the last good version stays."""
    at = world(collector("a"), mappings=(mapped("one", evidence={"env": [{"name": "A=B"}]}),))
    found = condition(status_of(at, "one"), "Ready")
    assert found[:2] == ("False", "Invalid")
    assert "spec.evidence.env[0].name" in found[2]


# -- sparing


def test_a_quiet_cluster_is_written_nothing() -> None:
    """What was written is what would be written again, by the same operator and by one that has just started."""
    at = world(collector("a"), mappings=tuple(mapped(f"m{number}", **env(f"K{number}")) for number in range(5)))
    memory = Memory()
    first = run(at, memory=memory)
    assert len(first) == 5
    then = after(at, first)
    assert run(then, memory=memory, now=NOW + 5) == []
    assert run(then, now=NOW + 1000) == []


def test_figures_are_written_once_an_hour() -> None:
    """More workloads and a later hour wait; the first use, and a condition, do not. What was used stays used."""
    at = world(collector("a"), mappings=(mapped("one", **env("A")),))
    memory = Memory()
    at = after(at, run(at, memory=memory))

    def use(hour: int, *workloads: str) -> World:
        one = collector("a", heard=NOW + 4000, uses=[("one", f"2026-11-22T{hour}:10:00Z", workloads)])
        return World(collectors={"a": one}, mappings=at.mappings)

    first = run(use(15, "w/Job/1"), memory=memory, now=NOW + 60)
    assert len(first) == 1, "the first use"
    at = after(use(15, "w/Job/1"), first)
    assert run(use(16, "w/Job/1", "w/Job/2"), memory=memory, now=NOW + 600) == []
    later = run(use(16, "w/Job/1", "w/Job/2"), memory=memory, now=NOW + 3700)
    assert [dict(one.status)["lastUsed"] for one in later if isinstance(one, WriteStatus)] == ["2026-11-22T16:00:00Z"]
    at = after(at, later)
    gone = world(collector("a", heard=NOW + 8000), mappings=at.mappings)
    assert [dict(one.status)["lastUsed"] for one in run(gone, now=NOW + 8000) if isinstance(one, WriteStatus)] == [
        "2026-11-22T16:00:00Z"
    ]


def test_an_event_tells_once_that_a_mapping_is_no_longer_ready() -> None:
    """When it turns, and again only for another reason; without end of mappings, twenty at once."""
    at = world(collector("a"), mappings=(mapped("one", "ml", **env("A")), mapped("two", "ml", **env("A"))))
    memory = Memory()
    first = run(at, memory=memory)
    events = [one for one in first if isinstance(one, Create)]
    assert {one.body["involvedObject"]["name"] for one in events} == {"one", "two"}
    assert {one.body["reason"] for one in events} == {"ClaimedTwice"}
    assert {one.body["metadata"]["namespace"] for one in events} == {"ml"}
    assert run(after(at, first), memory=memory, now=NOW + 1000) == []
    many = world(mappings=tuple(mapped(f"m{number}", **env("A")) for number in range(50)))
    assert sum(isinstance(one, Create) for one in run(many)) == 20
