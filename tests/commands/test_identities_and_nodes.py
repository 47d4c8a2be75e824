"""What `keytrail identities` and `keytrail nodes` make of objects."""

from typing import Any

import pytest

from keytrail.cli import main
from keytrail.commands.cluster_access import age, cell
from keytrail.commands.identities import mapping_rows, unused_rows, usage_rows
from keytrail.commands.nodes import node_rows
from keytrail.domain.use import Use

NOW = 1_795_359_600.0
"""2026-11-22T15:00:00Z."""
DAY = 86_400.0


def mapping(name: str, namespace: str = "", *, used: str = "", created: str = "2026-01-01T00:00:00Z") -> Any:
    """A mapping as the API server has it."""
    ready = {"type": "Ready", "status": "True", "reason": "InForce"}
    return {
        "metadata": {"name": name, "creationTimestamp": created, **({"namespace": namespace} if namespace else {})},
        "spec": {"identity": {"provider": "openai"}, "evidence": {}},
        "status": {"conditions": [ready], "workloadsUsing": 2, **({"lastUsed": used} if used else {})},
    }


def test_mappings_by_namespace_and_name() -> None:
    """The cluster's come first; an identity of a namespace carries it; one that nobody judged yet says so."""
    rows = mapping_rows([mapping("b", "ml"), mapping("a", "ml"), mapping("z"), {"metadata": {"name": "new"}}])
    assert [(one["id"], one["ready"], one["reason"]) for one in rows] == [
        ("new", "Unknown", "NotJudged"),
        ("z", "True", "InForce"),
        ("ml/a", "True", "InForce"),
        ("ml/b", "True", "InForce"),
    ]


def test_use_the_latest_first() -> None:
    """Identities without a mapping are there, too; so is one that was asked for and that nobody used."""
    uses = {"z": Use("2026-11-22T14:00:00Z", ("n/Job/a",), ("n1",)), "other": Use("2026-11-22T14:30:00Z", (), ("n2",))}
    rows = usage_rows(uses, mapping_rows([mapping("z")]))
    assert [(one["id"], one["mapping"]) for one in rows] == [("other", ""), ("z", "z")]
    rows = usage_rows(uses, [], ["z", "never"])
    assert [(one["id"], one["nodes"]) for one in rows] == [("z", ["n1"]), ("never", [])]


def test_unused_by_what_nodes_and_the_status_say() -> None:
    """The later of both counts; a mapping that is younger than that is not told of."""
    mappings = [
        mapping("old", used="2026-09-01T00:00:00Z"),
        mapping("never"),
        mapping("young", created="2026-11-20T00:00:00Z"),
        mapping("active", used="2026-09-01T00:00:00Z"),
    ]
    uses = {"active": Use("2026-11-22T14:00:00Z")}
    assert [one["name"] for one in unused_rows(mappings, uses, NOW, 30 * DAY)] == ["never", "old"]
    assert [one["name"] for one in unused_rows(mappings, uses, NOW, 100 * DAY)] == ["never"]


def test_nodes_that_need_attention() -> None:
    """Silent for two heartbeats, or a condition that is not true; what to do stands in the message."""

    def node(name: str, heard: str, *conditions: Any) -> Any:
        return {"metadata": {"name": name}, "status": {"heartbeatTime": heard, "conditions": list(conditions)}}

    wrong = {"type": "BackendReachable", "status": "False", "reason": "Denied", "message": "check the token"}
    fine = {"type": "AgentConnected", "status": "True", "reason": "Connected", "message": ""}
    rows = node_rows(
        [
            node("c", "2026-11-22T14:59:00Z", fine),
            node("b", "2026-11-22T14:30:00Z"),
            node("a", "2026-11-22T14:59:00Z", wrong),
            {"metadata": {"name": "new"}},
        ],
        NOW,
    )
    assert [(one["node"], one["attention"]) for one in rows] == [
        ("a", ["Denied"]), ("b", ["Silent"]), ("c", []), ("new", ["Silent"]),
    ]  # fmt: skip
    assert rows[0]["messages"] == ["BackendReachable: check the token"]


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        ("2026-11-22T14:59:30Z", "30s"),
        ("2026-11-22T14:58:30Z", "90s"),
        ("2026-11-22T14:30:00Z", "30m"),
        ("2026-11-22T05:00:00Z", "10h"),
        ("2026-11-01T15:00:00Z", "21d"),
        ("2026-11-22T16:00:00Z", "0s"),
        ("", ""),
        ("soon", ""),
    ],
)
def test_ages_as_kubectl_shows_them(time: str, shown: str) -> None:
    """Whole units, two of a unit at least; nothing for what is no time."""
    assert age(time, NOW) == shown


def test_what_objects_say_cannot_act_on_a_terminal() -> None:
    """Whoever may write an object may not write to the screen of who reads it."""
    assert cell("\x1b[31mred") == "\\x1b[31mred"
    assert cell("") == "-"


@pytest.mark.parametrize(
    "command", [["identities", "list"], ["identities", "usage"], ["identities", "unused"], ["nodes"]]
)
def test_no_cluster_is_an_error_of_the_caller(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and what is missing."""
    assert main([*command, "--kubeconfig", "/nonexistent/config"]) == 2
    assert "no such file" in capsys.readouterr().err
