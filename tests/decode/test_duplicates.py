"""One kernel call reported by several policies is one event; two calls are two."""

from collections import Counter

import pytest

from keytrail.decode.duplicates import _DISORDER_NS, HookMerger
from keytrail.domain.event import (
    Details,
    Event,
    EventKind,
    EventType,
    FileAccess,
    HookArgument,
    Network,
    Operation,
    Payload,
)
from keytrail.domain.process import Process
from support.recordings import STREAMS, decoded_once, in_window

MS = 1_000_000
ONE = Process("one", pid=1)
TWO = Process("two", pid=2)
SOCKET = Network("AF_INET", "IPPROTO_TCP", "10.0.0.1", 5000, "10.0.0.2", 443, 0xFFFF01)
OTHER_SOCKET = Network("AF_INET", "IPPROTO_TCP", "10.0.0.1", 5001, "10.0.0.2", 443, 0xFFFF02)


class Made(Event):
    """An event with details made for a test."""

    __slots__ = ("_arguments", "_details")

    def __init__(  # noqa: PLR0917 - a row of a table
        self,
        policy: str,
        at: int,
        details: Details,
        process: Process = ONE,
        tid: int = 1,
        function: str = "f",
        arguments: tuple[HookArgument, ...] = (),
    ) -> None:
        super().__init__(
            EventKind.HOOK, EventType.KPROBE, process, time_ns=100 * MS + at, function=function, policy=policy, tid=tid
        )
        self._details = details
        self._arguments = arguments

    @property
    def details(self) -> Details:
        """As given."""
        return self._details

    @property
    def arguments(self) -> tuple[HookArgument, ...]:
        """As given."""
        return self._arguments


def arguments(*values: int | str | bytes) -> tuple[HookArgument, ...]:
    """Make arguments of the types of their values."""
    types = {int: "int", str: "string", bytes: "bytes"}
    return tuple(HookArgument(index, "", types[type(value)], value) for index, value in enumerate(values))


ON_SOCKET = Details(network=SOCKET)
ON_FILE = Details(file=FileAccess("/etc/shadow", "read"))


def merged(*events: Event) -> list[bool]:
    """Ask about each in order."""
    merger = HookMerger()
    return [merger.is_duplicate(event) for event in events]


def test_recorded_twins() -> None:
    """What is merged in the recordings is what two policies both hooked, tcp_close and sendto, and nothing else."""
    found = {}
    for name in STREAMS:
        merger = HookMerger()
        twins = Counter(e.function for e in decoded_once(name) if e.policy and merger.is_duplicate(e))
        if twins:
            found[name] = dict(twins)
    assert found == {
        "policy-library": {"tcp_close": 4},  # obs-network hooks all, obs-sshd those of sshd
        "event-flood": {"tcp_close": 4},  # the same policies
        "kubernetes": {"sendto": 13},  # obs-net-data hooks all, obs-sni-sys those that begin like a ClientHello
        "kubernetes-late": {"sendto": 3},
    }


def test_recorded_twins_are_one_call() -> None:
    """Each event that was merged has a partner of another policy with the same thread, socket or bytes."""
    merger = HookMerger()
    seen: list[Event] = []
    for event in decoded_once("kubernetes"):
        if event.policy and merger.is_duplicate(event):
            partners = [
                other
                for other in seen[-40:]
                if other.function == event.function
                and other.policy != event.policy
                and other.tid == event.tid
                and other.details.payload == event.details.payload
                and abs(other.time_ns - event.time_ns) <= 5 * MS
            ]
            assert partners
        seen.append(event)


def test_calls_of_one_policy_are_never_merged() -> None:
    """Two reads of one file by one thread are two events, however close."""
    reads = [e for e in in_window("sensors", "unit-enable") if e.function == "security_file_permission"]
    merger = HookMerger()
    assert not any(merger.is_duplicate(event) for event in reads)
    assert merged(Made("a", 0, ON_FILE), Made("a", 1, ON_FILE)) == [False, False]


@pytest.mark.parametrize(
    ("at", "expected"), [(0, True), (5 * MS, True), (-5 * MS, True), (5 * MS + 1, False), (-6 * MS, False)]
)
def test_the_window(at: int, expected: bool) -> None:
    """Twins are at most five milliseconds apart, in either order."""
    assert merged(Made("a", 0, ON_SOCKET), Made("b", at, ON_SOCKET)) == [False, expected]


def test_three_policies() -> None:
    """A third policy's report is merged as well, and a second call has twins of its own."""
    policies = "abcabc"
    events = [Made(policy, index * 1000, ON_SOCKET) for index, policy in enumerate(policies)]
    assert merged(*events) == [False, True, True, False, True, True]
    interleaved = [Made(policy, index * 1000, ON_SOCKET) for index, policy in enumerate("aabbcc")]
    assert merged(*interleaved) == [False, False, True, True, True, True]


@pytest.mark.parametrize(
    "other",
    [
        Made("b", 1, ON_SOCKET, tid=2),
        Made("b", 1, ON_SOCKET, process=TWO),
        Made("b", 1, ON_SOCKET, function="g"),
        Made("b", 1, Details(network=OTHER_SOCKET)),
        Made("b", 1, ON_FILE),
    ],
)
def test_other_calls(other: Event) -> None:
    """Another thread, process, function, socket or subject is another call."""
    assert merged(Made("a", 0, ON_SOCKET), other) == [False, False]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ON_FILE, Details(file=FileAccess("/etc/passwd", "read"))),
        (ON_FILE, Details(file=FileAccess("/etc/shadow", "write"))),
        (Details(operation=Operation("setuid", ids=(0,))), Details(operation=Operation("setuid", ids=(1,)))),
        (Details(network=SOCKET, payload=Payload(517)), Details(network=SOCKET, payload=Payload(80))),
        (Details(file=ON_FILE.file, returned=0), Details(file=ON_FILE.file, returned=-1)),
    ],
)
def test_what_differs_is_kept(first: Details, second: Details) -> None:
    """Different files, ids, sizes or results are different calls."""
    assert merged(Made("a", 0, first), Made("b", 1, second)) == [False, False]


@pytest.mark.parametrize(
    ("details", "first", "second"),
    [
        (Details(), arguments(15, "one"), arguments(15, "two")),
        (Details(), arguments(15), arguments()),
        (Details(payload=Payload(9)), arguments(3, b"x", 9), arguments(3, b"y", 9)),
    ],
)
def test_other_arguments_are_another_call(
    details: Details, first: tuple[HookArgument, ...], second: tuple[HookArgument, ...]
) -> None:
    """Where nothing else tells two calls apart, their arguments do."""
    assert merged(Made("a", 0, details, arguments=first), Made("b", 1, details, arguments=second)) == [False, False]


def test_captured_bytes_are_kept() -> None:
    """A policy that captured what was sent says more than one that captured its size."""
    poor, rich = arguments(5), arguments(b"hello", 5)
    assert merged(Made("a", 0, ON_SOCKET, arguments=poor), Made("b", 1, ON_SOCKET, arguments=rich)) == [False, False]
    assert merged(Made("a", 0, ON_SOCKET, arguments=rich), Made("b", 1, ON_SOCKET, arguments=poor)) == [False, True]


@pytest.mark.parametrize(
    ("poor", "rich"),
    [
        (ON_FILE, Details(file=ON_FILE.file, returned=0)),
        (ON_FILE, Details(file=ON_FILE.file, action="SIGKILL")),
    ],
)
def test_a_richer_report_is_kept(poor: Details, rich: Details) -> None:
    """A policy that captured bytes, a result or an action says something new; one that captured less does not."""
    assert merged(Made("a", 0, poor), Made("b", 1, rich)) == [False, False]
    assert merged(Made("a", 0, rich), Made("b", 1, poor)) == [False, True]


def test_numbers_of_any_width_are_the_same_argument() -> None:
    """A policy chooses whether a size is an int or a size_t."""
    wide = Made("b", 1, ON_SOCKET, arguments=(HookArgument(0, "size", "size", 41),))
    assert merged(Made("a", 0, ON_SOCKET, arguments=arguments(41)), wide) == [False, True]


def test_memory_is_bounded() -> None:
    """Events are let go of when no twin can come any more, and functions are not kept without end."""
    merger = HookMerger()
    for index in range(10_000):
        merger.is_duplicate(Made("a", index * MS, ON_SOCKET))
    (calls,) = merger._functions.values()
    assert len(calls.recent) <= 64
    merger.is_duplicate(Made("a", 10_000 * MS + _DISORDER_NS + 6 * MS, ON_SOCKET))
    assert len(calls.recent) == 1
    for index in range(5_000):
        merger.is_duplicate(Made("a", 0, ON_SOCKET, function=f"f{index}"))
    assert len(merger._functions) <= 1024
