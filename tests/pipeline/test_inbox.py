"""The queue between reading and deciding: never blocks the reader, loses nothing silently."""

import threading

from keytrail.domain.agent import AgentFacts
from keytrail.inbox import Inbox
from keytrail.observe.accounting import Accounting
from keytrail.source.base import MAX_MESSAGE_BYTES, Batch
from support.processes import wait_until


def batch(*messages: bytes, agent: AgentFacts | None = None) -> Batch:
    """A batch that arrived at time 1."""
    return Batch(messages, 1, agent)


def test_single_messages_come_merged_and_in_order() -> None:
    """What waits is handed over together, up to a bound, in stream order."""
    inbox = Inbox(Accounting())
    for number in range(1000):
        inbox.put(batch(b"%d" % number))
    inbox.close()
    taken = [list(found.messages) for found in inbox]
    assert [message for part in taken for message in part] == [b"%d" % number for number in range(1000)]
    assert len(taken) < 5


def test_full_queue_drops_the_newest_and_counts() -> None:
    """What does not fit is counted as queue_full at once; what was there, and the earliest of the batch, stay."""
    accounting = Accounting()
    inbox = Inbox(accounting, capacity=3)
    inbox.put(batch(b"a", b"b"))
    inbox.put(batch(b"c", b"d"))
    inbox.put(batch(b"e"))
    inbox.close()
    assert [list(found.messages) for found in inbox] == [[b"a", b"b", b"c"]]
    summary = accounting.summary()["events"]
    assert (summary["received"], summary["dropped"]) == (2, {"queue_full": 2})


def test_large_events_have_the_room_of_ordinary_ones() -> None:
    """Memory is bounded, too, by 2 KiB for each event that may wait; the largest message has room in any queue."""
    accounting = Accounting()
    inbox = Inbox(accounting, capacity=16_384)
    large = bytes(2 << 20)
    inbox.put(batch(*[large] * 15))
    inbox.put(batch(large))
    inbox.put(batch(b"x", large))
    assert (len(inbox), accounting.summary()["events"]["dropped"]) == (16, {"queue_full": 2})
    smallest = Inbox(accounting, capacity=1)
    smallest.put(batch(bytes(MAX_MESSAGE_BYTES)))
    assert len(smallest) == 1


def test_news_of_the_agent_is_never_dropped_nor_merged() -> None:
    """A new connection's facts arrive even when its messages do not, and start a batch of their own."""
    facts = AgentFacts("v1.7.0")
    inbox = Inbox(Accounting(), capacity=2)
    inbox.put(batch(b"a"))
    inbox.put(batch(b"b", b"c", agent=facts))
    inbox.close()
    assert [(list(found.messages), found.agent) for found in inbox] == [([b"a"], None), ([b"b"], facts)]


def test_waiting_taker_is_woken_by_a_message_and_by_the_end() -> None:
    """The deciding thread sleeps until there is something, and ends when the reader ends."""
    inbox = Inbox(Accounting())
    taken: list[bytes] = []
    taker = threading.Thread(target=lambda: taken.extend(message for found in inbox for message in found.messages))
    taker.start()
    inbox.put(batch(b"x"))
    inbox.close()
    taker.join(60)
    assert not taker.is_alive()
    assert taken == [b"x"]


def test_nothing_that_several_put_is_left_asleep() -> None:
    """Whoever puts wakes the taker: of what four threads put at once, all comes, each one's in its order."""
    inbox = Inbox(Accounting())
    taken: list[bytes] = []
    taker = threading.Thread(target=lambda: taken.extend(message for found in inbox for message in found.messages))
    taker.start()
    putters = [
        threading.Thread(target=lambda name=name: [inbox.put(batch(b"%c%d" % (name, at))) for at in range(1000)])
        for name in b"abcd"
    ]
    for putter in putters:
        putter.start()
    for putter in putters:
        putter.join(60)
    assert wait_until(lambda: len(taken) == 4000)
    for name in b"abcd":
        assert [one for one in taken if one[0] == name] == [b"%c%d" % (name, at) for at in range(1000)]
    inbox.close()
    taker.join(60)
    assert not taker.is_alive()


def test_what_waits_when_it_is_given_up_is_counted() -> None:
    """Events that nobody will take are lost by the shutdown, by number; what was no event keeps its own reason."""
    accounting = Accounting()
    inbox = Inbox(accounting)
    inbox.put(batch(b"a", b"b"))
    inbox.put(Batch([b"c"], 1, too_large=2, malformed=3))
    inbox.give_up()
    assert list(inbox) == []
    events = accounting.summary()["events"]
    assert (events["received"], events["dropped"]) == (8, {"shutdown": 3})
    assert events["undecodable_by_reason"] == {"malformed": 3, "too_large": 2}
    assert len(inbox) == 0


def test_batch_that_comes_after_the_end_is_counted() -> None:
    """What the reader had in hand when it was told to end is lost by the shutdown, not by nobody."""
    accounting = Accounting()
    inbox = Inbox(accounting)
    inbox.close()
    inbox.put(batch(b"late"))
    assert list(inbox) == []
    assert accounting.summary()["events"]["dropped"] == {"shutdown": 1}
