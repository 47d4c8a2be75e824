"""The agent's counters: read from real pages, compared over rises, restarts and absences, never trusted in size."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from keytrail.domain.gap import GapCause, GapPhase
from keytrail.loss.agent_metrics import WATCHED, AgentMetrics, fetch_page, read_counters
from keytrail.source.address import Address, parse_metrics_address
from keytrail.testing.fake_tetragon import FakeTetragon
from support.recordings import CORPUS

OVERFLOWED = "tetragon_notify_overflowed_events_total"
MISSED = "tetragon_bpf_missed_events_total"


def at(_address: Address) -> bytes:
    """Stand for a page that nobody asks for."""
    raise AssertionError


@contextmanager
def answering(*pieces: bytes) -> Iterator[Address]:
    """A server that answers one request with these bytes and then keeps the connection open."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                try:
                    for piece in pieces:
                        connection.sendall(piece)
                except OSError:
                    return
                done.wait(60)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Address(host="127.0.0.1", port=server.getsockname()[1])
        finally:
            done.set()
            thread.join()


def pages(*contents: str | Exception) -> Callable[[Address], bytes]:
    """Give one page after the other."""
    waiting = iter(contents)

    def fetch(_address: Address) -> bytes:
        content = next(waiting)
        if isinstance(content, Exception):
            raise content
        return content.encode()

    return fetch


def test_a_real_agents_page_is_read() -> None:
    """Values in Go's notation, labels, and counters that are not there yet, as a real agent wrote them."""
    page = (CORPUS / "policy-library" / "metrics-selected.txt").read_bytes()
    assert read_counters(page, WATCHED) == {OVERFLOWED: 693, MISSED: 124}
    assert read_counters(page, ["tetragon_events_exported_bytes_total"]) == {
        "tetragon_events_exported_bytes_total": 211629407
    }


@pytest.mark.parametrize(
    ("page", "value"),
    [
        (b"c_total 3\n", 3),
        (b'c_total{a="1"} 3\nc_total{a="2"} 4\n', 7),
        (b'c_total{a="} 9",b="{"} 3 1795312336000\n', 3),
        (b"# HELP c_total 5\n# TYPE c_total counter\nc_total 3", 3),
        (b"c_total_more 5\nmore_c_total 6\nc_total\t3\n", 3),
        (b"c_total NaN\nc_total +Inf\nc_total x\nc_total 3\n", 3),
        (b"\xff\xfe\nc_total 3\n", 3),
    ],
)
def test_the_text_format_is_read(page: bytes, value: int) -> None:
    """Labels are summed whatever they hold; comments, other names and what is no number are passed over."""
    assert read_counters(page, ["c_total"]) == {"c_total": value}


def test_rises_are_one_episode_told_at_once_and_in_total(gaps: Any, clock: Any) -> None:
    """The first rise is told with the interval between two looks; the closing record has the sum of all rises."""
    contents = [f"{OVERFLOWED} {value}\n" for value in (7, 7, 107, 110, 110, 110, 110, 110, 110)]
    metrics = AgentMetrics(lambda: Address(host="h"), gaps, now_ns=clock, fetch=pages(*contents))
    began = clock.ns
    for _ in contents:
        metrics.look()
        clock.turn(2)
    opened, closed = gaps.all
    second = 1_000_000_000
    assert (opened.cause, opened.phase, opened.lost, opened.exact) == (
        GapCause.READER_SLOW, GapPhase.OPEN, 100, False,
    )  # fmt: skip
    assert (opened.start_ns, opened.end_ns) == (began + 2 * second, began + 4 * second)
    assert (closed.id, closed.phase, closed.lost) == (opened.id, GapPhase.CLOSED, 103)
    assert (closed.start_ns, closed.end_ns) == (opened.start_ns, began + 6 * second)


def test_counters_of_a_new_agent_begin_at_nothing(gaps: Any, clock: Any) -> None:
    """A counter that fell is a new agent's: all that it shows was lost since. One that first appears rose from 0."""
    contents = [f"{OVERFLOWED} 500\n", f"{OVERFLOWED} 20\n", f'{OVERFLOWED} 20\n{MISSED}{{error="EAGAIN"}} 4\n']
    metrics = AgentMetrics(lambda: Address(host="h"), gaps, now_ns=clock, fetch=pages(*contents))
    for _ in contents:
        metrics.look()
        clock.turn(2)
    metrics.close()
    assert {gap.cause: gap.lost for gap in gaps.all} == {GapCause.READER_SLOW: 20, GapCause.KERNEL_OVERFLOW: 4}


def test_rise_over_a_time_without_the_page_spans_that_time(gaps: Any, clock: Any) -> None:
    """What rose while the page could not be read is reported from the last look that worked."""
    contents = [f"{OVERFLOWED} 1\n", OSError(111, "Connection refused"), f"{OVERFLOWED} 4\n"]
    metrics = AgentMetrics(lambda: Address(host="h"), gaps, now_ns=clock, fetch=pages(*contents))
    began = clock.ns
    for _ in contents:
        metrics.look()
        clock.turn(2)
    assert [(gap.lost, gap.start_ns) for gap in gaps.all] == [(3, began)]


def test_hooks_that_the_kernel_did_not_run(gaps: Any, clock: Any) -> None:
    """A sign, for nobody saw the calls; counted by policy, so that a policy that goes is no new agent."""

    def page(*missed: int) -> str:
        return "".join(
            f'tetragon_missed_prog_probes_total{{policy="{at}"}} {count}\n' for at, count in enumerate(missed)
        )

    contents = [page(5, 7), page(8, 7) + 'tetragon_missed_link_probes_total{policy="0"} 2\n', page(8), page(9)]
    metrics = AgentMetrics(lambda: Address(host="h"), gaps, now_ns=clock, fetch=pages(*contents))
    for _ in contents:
        metrics.look()
        clock.turn(2)
    metrics.close()
    assert [(gap.cause, gap.suspected, gap.lost) for gap in gaps.all] == [
        (GapCause.HOOK_MISSED, True, 5),
        (GapCause.HOOK_MISSED, True, 6),
    ]


def test_a_missing_page_is_said_once(gaps: Any, clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Without the counters there is one warning, not one every two seconds; `problem` has it for status."""
    caplog.set_level("INFO", "keytrail")
    refused = OSError(111, "Connection refused")
    contents: list[str | Exception] = [refused, refused, "", refused, refused]
    metrics = AgentMetrics(lambda: Address(host="h"), gaps, now_ns=clock, fetch=pages(*contents))
    problems = []
    for _ in contents:
        metrics.look()
        problems.append(metrics.problem)
    text = "http://h:54321/metrics: Connection refused"
    assert problems == [text, text, None, text, text]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]
    assert gaps.all == []


def test_an_agent_without_a_page_is_said(gaps: Any, clock: Any) -> None:
    """Where nothing names an address nothing is fetched, and status says why."""
    metrics = AgentMetrics(lambda: None, gaps, now_ns=clock, fetch=at)
    metrics.look()
    assert metrics.problem is not None
    assert "agent_metrics_address" in metrics.problem


def test_the_fakes_page_shows_what_a_real_one_shows(gaps: Any, clock: Any) -> None:
    """Over real HTTP: drops, scripted counters of the kernel, and a page that goes away."""
    with FakeTetragon("127.0.0.1:0", metrics_address="127.0.0.1:0") as agent:
        assert agent.metrics_address is not None
        address = parse_metrics_address(agent.metrics_address)
        metrics = AgentMetrics(lambda: address, gaps, now_ns=clock, fetch=partial(fetch_page, seconds=60.0))
        metrics.look()
        agent.script.counters = {
            f'{MISSED}{{error="EAGAIN",msg_op="24"}}': 3,
            f'{MISSED}{{error="EBUSY",msg_op="5"}}': 2,
        }
        metrics.look()
        assert [(gap.cause, gap.lost) for gap in gaps.all] == [(GapCause.KERNEL_OVERFLOW, 5)]
        agent.script.metrics_status = 503
        metrics.look()
        assert metrics.problem is not None
        agent.script.metrics_status = 200
        metrics.look()
        assert metrics.problem is None


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 300_000),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"c_total 1\n"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",),
        (b"SSH-2.0-OpenSSH\r\n\r\n",),
        (),
    ],
    ids=["too large", "never ends", "error", "no HTTP", "silent"],
)
def test_a_page_is_bounded_in_size_and_time(pieces: tuple[bytes, ...], gaps: Any, clock: Any) -> None:
    """Whatever listens at the address, a look ends and is a problem, never an exception."""
    with answering(*pieces) as address:
        metrics = AgentMetrics(
            lambda: address, gaps, now_ns=clock, fetch=lambda where: fetch_page(where, seconds=0.3, largest=100_000)
        )
        metrics.look()
    assert metrics.problem is not None
    assert str(address) in metrics.problem
