"""Rules that ask who is at the other end of a connection, with the CEL engine as the judge of their answers."""

import pytest

from detect.oracle import compiled, engine_answer
from keytrail.detect.analysis import analyse
from keytrail.detect.conditions import check_condition
from keytrail.detect.made_event import made_event
from keytrail.detect.rule_check import Expression
from keytrail.domain.event import EventKind

SERVICE = {"kind": "service", "namespace": "payments", "name": "ledger"}
POD = {"kind": "pod", "namespace": "ml", "name": "chat-1", "service": "chat", "workload_kind": "Deployment"}


@pytest.mark.parametrize(
    ("condition", "peer", "answer"),
    [
        ('peer.kind == "service" && peer.namespace != pod.namespace', SERVICE, True),
        ('peer.service == "chat" && peer.workload_kind == "Deployment"', POD, True),
        ("has(peer.kind)", None, False),
        ("has(peer.kind)", {"host": "api.openai.com"}, False),
        ('peer.host.endsWith(".openai.com")', {"host": "api.openai.com"}, True),
        ('peer.kind in ["outside", "link-local"]', {"kind": "outside"}, True),
        ('peer.name == ""', None, True),
    ],
)
def test_a_condition_on_the_peer(condition: str, peer: dict[str, str] | None, answer: bool) -> None:
    """Its fields are there with the address's owner, and have their types' defaults where nobody knows it."""
    data = {"network": {"peer_address": "10.96.0.9", "family": "AF_INET"}, "pod": {"namespace": "ml", "name": "a"}}
    event = made_event(data if peer is None else {**data, "peer": peer}, EventKind.CONNECT)
    checked = check_condition(condition, {})
    expression = Expression(checked, analyse(checked))
    assert compiled(expression)(event) is answer
    assert engine_answer(expression, event) is answer
