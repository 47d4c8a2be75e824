"""What is read piece by piece beside the watches: annotations of ServiceAccounts, and the agent's policies."""

from collections.abc import Mapping, Sequence

import pytest

from keytrail.domain.errors import AgentError
from keytrail.domain.status import PolicyState
from keytrail.kube.accounts import AccountReader
from keytrail.node_status import NodeStatus
from keytrail.observe.snapshot import Snapshot
from keytrail.source.agent import PolicyStatus
from kube.model_server import Collection, ModelServer


def test_accounts_are_read_once_and_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    """An account is read when it is first wanted and every ten minutes; a refusal is told once and tried again soon."""
    now, wanted, told = [0.0], [("ml", "chat")], []

    def tell(namespace: str, name: str, _annotations: Mapping[str, str]) -> None:
        told.append(f"{namespace}/{name}")

    with ModelServer(Collection()) as server:
        reader = AccountReader(server.api(), lambda: wanted, tell, clock=lambda: now[0], uniform=lambda: 0.0)
        steps: list[tuple[float, int]] = [(0, 1), (599, 1), (600, 2), (601, 2)]
        for moment, expected in steps:
            now[0] = moment
            reader._read_due()
            assert len(told) == expected
        wanted.append(("ml", "other"))
        server.collection.refuse = (403, "serviceaccounts is forbidden", {})
        for moment in (602.0, 610.0, 640.0):
            now[0] = moment
            reader._read_due()
        assert len(told) == 2
        assert caplog.text.count("not allowed to get serviceaccounts other in namespace ml") == 1
        server.collection.refuse = None
        now[0] = 680.0
        reader._read_due()
        assert told == ["ml/chat", "ml/chat", "ml/other"]
        wanted.clear()
        reader._read_due()
        wanted.append(("ml", "chat"))
        reader._read_due()
        assert told[3:] == ["ml/chat"]


def test_the_reading_thread_is_woken_and_ends() -> None:
    """What is wanted later is read when somebody says so; closed, the thread ends at once."""
    wanted: list[tuple[str, str]] = []
    with ModelServer(Collection()) as server:
        reader = AccountReader(server.api(), lambda: wanted, lambda *_told: reader.stop())
        reader.start()
        wanted.append(("ml", "chat"))
        reader.look()
        reader._thread.join(20)
        assert not reader._thread.is_alive()
        assert len(server.collection.requests) == 1


class _Probe:
    """A collector of which nothing is known."""

    def snapshot(self) -> Snapshot:
        """Return the state of now."""
        return Snapshot(0, 0, "1.2.3", {})


def policy(name: str, state: str, error: str = "", namespace: str = "") -> PolicyStatus:
    """A policy as the agent lists it."""
    return PolicyStatus(1, name, state, 0, namespace, (), 0, "monitor", 0, 0, 0, error)


def test_the_agents_policies_are_told_in_our_words() -> None:
    """The worst of a name counts, one for other nodes does not; an agent that is away leaves what was known."""
    now, listed = [0.0], [policy("a", "enabled"), policy("a", "load_error", "no\x1bhook", "ml"), policy("b", "skipped")]
    asked: list[float] = []

    def ask() -> Sequence[PolicyStatus]:
        asked.append(now[0])
        if not listed:
            raise AgentError("away")
        return listed

    status = NodeStatus(_Probe(), lambda: None, ask, lambda: ["x"], clock=lambda: now[0])
    picture = status.picture()
    assert [(one.name, one.state, one.message) for one in picture.policies] == [
        ("a", PolicyState.FAILED, "no\\x1bhook")
    ]
    assert picture.problems == ["x"]
    listed.clear()
    for now[0] in (10.0, 29.0, 30.0, 31.0):
        assert status.picture().policies == picture.policies
    assert asked == [0.0, 30.0]
