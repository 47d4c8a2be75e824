"""Hosts are asked for in the background, seldom, and only a clear no counts."""

import threading
from collections import Counter

from keytrail_operator.hosts import MOST_HOSTS, Hosts, resolves
from support.processes import wait_until

SECONDS = 30.0


class Dns:
    """A resolver that a test leads."""

    def __init__(self) -> None:
        self.answers: dict[str, bool | None] = {}
        self.asked: Counter[str] = Counter()

    def __call__(self, host: str) -> bool | None:
        """Answer."""
        self.asked[host] += 1
        return self.answers.get(host)


def test_names_are_asked_for_once_an_hour() -> None:
    """Whoever wants to know takes what is known, and is called when that changes; an unclear answer changes nothing."""
    dns, seconds, called = Dns(), [0.0], threading.Event()
    dns.answers = {"a.example": True, "b.example": False, "c.example": None}
    hosts = Hosts(called.set, ask=dns, pause_seconds=0.0, clock=lambda: seconds[0])
    hosts.start()
    assert hosts.known() == {}
    hosts.wanted(["a.example", "b.example", "c.example", "a.example"])
    assert wait_until(lambda: hosts.known() == {"a.example": True, "b.example": False}, SECONDS)
    assert called.wait(SECONDS)
    assert wait_until(lambda: dns.asked["c.example"] == 1, SECONDS)
    dns.answers = {"a.example": None, "b.example": True}
    hosts.wanted(["a.example", "b.example"])
    assert dns.asked["a.example"] == 1
    seconds[0] = 3_601.0
    hosts.wanted(["a.example", "b.example"])
    assert wait_until(lambda: hosts.known() == {"a.example": True, "b.example": True}, SECONDS)
    hosts.wanted(["b.example"])
    assert hosts.known() == {"b.example": True}
    hosts.close()


def test_names_are_bounded() -> None:
    """Of names beyond a thousand nothing is known: mappings are no way to flood DNS."""
    dns = Dns()
    hosts = Hosts(lambda: None, ask=dns, pause_seconds=0.0, clock=lambda: 0.0)
    hosts.wanted(f"h{number}.example" for number in range(MOST_HOSTS + 50))
    hosts.start()
    assert wait_until(lambda: dns.asked.total() >= MOST_HOSTS, SECONDS)
    hosts.close()
    assert len(dns.asked) == MOST_HOSTS


def test_the_systems_resolver() -> None:
    """An address resolves without DNS; text that is no name is not asked for."""
    assert resolves("127.0.0.1") is True
    assert resolves("a" * 300 + ".example") in {None, False}
