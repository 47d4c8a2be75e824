"""The worker: gathers changes, keeps reconcilers apart, waits for what is not known yet."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import urllib3

from keytrail.kube.access import Access
from keytrail.kube.api import Api
from keytrail.observe.watchdog import Watchdog
from keytrail_operator.actions import TRACING_POLICIES, Create
from keytrail_operator.reconcile import Outcome, Reconciler
from keytrail_operator.stores import Stores
from keytrail_operator.worker import Worker
from keytrail_operator.world import World
from support.processes import wait_until

EMPTY = json.dumps({"kind": "List", "metadata": {"resourceVersion": "5"}, "items": []}).encode()


class Lists:
    """An API server in which there is nothing, and which may refuse to say so."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        """Kinds of which nothing is said."""
        self.lists = self.conflicts = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.lists += 1
                refused = any(f"/{kind}" in self.path for kind in outer.refused)
                self.answer(503 if refused else 200)

            def do_POST(self) -> None:
                """Whatever is to be made has been made by somebody else."""
                outer.conflicts += 1
                self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(409)

            def answer(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(EMPTY)))
                self.end_headers()
                self.wfile.write(EMPTY)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        url = f"http://127.0.0.1:{self.http.server_port}"
        self.api = Api(lambda: Access(url, urllib3.PoolManager(retries=False), dict))


@pytest.fixture
def lists() -> Iterator[Lists]:
    """A server of the test's own."""
    made = Lists()
    yield made
    made.api.close()
    made.http.shutdown()
    made.thread.join()
    made.http.server_close()


Run = Callable[..., Worker]


@pytest.fixture
def work(lists: Lists) -> Iterator[Run]:
    """Start a worker with some functions as its reconcilers."""
    started: list[Worker] = []

    def start(*functions: Callable[[World, Any, float], Outcome[Any]], **options: Any) -> Worker:
        worker = Worker(
            lists.api,
            lambda changed: Stores(changed, shipped_rules=(), sensors=()),
            [Reconciler(str(number), one, 0) for number, one in enumerate(functions)],
            Watchdog().watch("worker", 60.0),
            quiet_seconds=0.05,
            longest_seconds=0.2,
            **options,
        )
        worker.start()
        started.append(worker)
        return worker

    yield start
    for one in started:
        one.close()


def counting(_: World, memory: int, __: float) -> Outcome[int]:
    """Remember how often it was called."""
    return Outcome([], memory + 1)


def test_memory_goes_round(work: Run) -> None:
    """What a reconciler remembers comes back; changes that follow each other closely are one run."""
    worker = work(counting)
    assert wait_until(lambda: worker.figures.synced)
    for _ in range(200):
        worker.changed()
    runs = worker.figures.runs
    worker.changed()
    assert wait_until(lambda: worker.figures.runs > runs)
    assert worker.figures.runs < 20
    assert wait_until(lambda: worker._memories["0"] == worker.figures.runs)


def test_one_that_fails_stops_no_other(work: Run, caplog: pytest.LogCaptureFixture) -> None:
    """An error in one reconciler is counted and named without its text, and the next one runs all the same."""

    def failing(_: World, __: int, ___: float) -> Outcome[int]:
        raise ValueError("sk-secret")

    worker = work(failing, counting)
    assert wait_until(lambda: worker._memories["1"] > 0)
    assert worker.figures.failures > 0
    assert not worker.figures.synced
    assert "ValueError at test_app_worker.py" in caplog.text
    assert "sk-secret" not in caplog.text


def test_nothing_is_done_half_blind(work: Run, lists: Lists) -> None:
    """Until every kind that is needed was listed nothing is reconciled; one that is optional is not waited for."""
    lists.refused = {"collectorstatuses", "tracingpolicies"}
    worker = work(counting)
    assert wait_until(lambda: "CollectorStatus" in worker.stores.trouble)
    assert worker.figures.runs == 0
    lists.refused = {"tracingpolicies"}
    assert wait_until(lambda: worker.figures.runs > 0)


def test_asked_for_again(work: Run) -> None:
    """A reconciler that asks to be called again is, without any change."""

    def impatient(_: World, memory: int, __: float) -> Outcome[int]:
        return Outcome([], memory + 1, again=0.01)

    worker = work(impatient)
    assert wait_until(lambda: worker._memories["0"] > 3)


def test_overtaken_by_what_no_watch_told_of(work: Run, lists: Lists) -> None:
    """After a conflict everything is listed again soon: the watch may know nothing of a kind that has just come."""

    def blind(_: World, memory: int, __: float) -> Outcome[int]:
        body = {"metadata": {"name": "ours"}}
        return Outcome([] if memory else [Create(TRACING_POLICIES, body)], memory + 1)

    worker = work(blind)
    assert wait_until(lambda: lists.conflicts == 1)
    once = len(worker.stores.shelves)
    assert wait_until(lambda: lists.lists >= 2 * once)


def test_a_replica_that_stands_by(work: Run) -> None:
    """Who does not lead looks, and does nothing until it does."""
    leads = threading.Event()
    worker = work(counting, may_act=leads.is_set)
    assert wait_until(lambda: worker.stores.shelves["Node"].listed)
    assert worker.figures.runs == 0
    leads.set()
    worker.changed()
    assert wait_until(lambda: worker.figures.runs > 0)
