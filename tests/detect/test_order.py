"""The order in which generated code asks: what is at hand first, where the order cannot change the answer."""

from typing import Any

import pytest

from detect.oracle import compiled, engine_answer
from keytrail.detect.analysis import analyse
from keytrail.detect.conditions import check_condition
from keytrail.detect.made_event import MadeEvent, made_event
from keytrail.detect.rule_check import Expression
from keytrail.domain.event import Details, EventKind

SHELL: dict[str, Any] = {
    "event": {"returned": 0},
    "process": {"binary": "/bin/sh"},
    "file": {"path": "/etc/shadow", "access": "read"},
    "identity": {"id": "prod", "allowed": {"binaries": ["/bin/sh"], "destinations": [{"cidr": "10.0.0.0/8"}]}},
    "network": {"family": "AF_INET", "peer_address": "192.0.2.1", "peer_port": 443},
}


class Counting(MadeEvent):
    """An event that counts how often its details are read."""

    __slots__ = ("reads",)
    reads: int

    @property
    def details(self) -> Details:
        """As given."""
        self.reads += 1
        return super().details


def counting() -> Counting:
    """A connection of a shell."""
    made = made_event(SHELL, EventKind.CONNECT)
    found = Counting.__new__(Counting)
    for cls in MadeEvent.__mro__[:2]:
        for name in cls.__slots__:
            setattr(found, name, getattr(made, name))
    found.reads = 0
    return found


def expression(text: str) -> Expression:
    """A condition, checked."""
    condition = check_condition(text, {"on": True, "off": False})
    return Expression(condition, analyse(condition))


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ('file.path == "/etc/shadow" && process.name == "cat"', 0),
        ('file.path.matches("shadow") && process.binary.matches("sh$") && process.name == "cat"', 0),
        ('(file.path != "" && process.name == "cat" || file.access != "" && process.name == "nc")', 0),
        ('file.path == "" || process.name == "sh"', 0),
        ('file.path != "" && file.access == "read" && network.peer_port == 443', 2),
        ('(params.on || file.path == "") && (params.off || process.name == "sh")', 0),
        ('file.path == "" || params.on', 0),
        ('"destination" in identity.violations && "destination" in identity.violations', 1),
        ('"workload" in identity.violations && process.name == "cat"', 0),
    ],
)
def test_cheap_parts_decide_first(text: str, reads: int) -> None:
    """Details are read only when nothing at hand decides, and once; the engine's answer stays."""
    checked, event = expression(text), counting()
    assert compiled(checked)(event) == engine_answer(checked, made_event(SHELL, EventKind.CONNECT))
    assert event.reads == reads


def test_order_stays_where_a_side_can_fail() -> None:
    """A division by zero is absorbed or not exactly as CEL says: such sides are left where the author put them."""
    for text in ('1 / (process.pid - 100) > 0 && file.path == ""', 'file.path != "" && 1 / (process.pid - 100) > 0'):
        checked = expression(text)
        event = made_event(SHELL, EventKind.CONNECT)
        assert compiled(checked)(event) == engine_answer(checked, event)
