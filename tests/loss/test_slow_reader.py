"""The parts together against a running agent: a full queue, an agent that goes away, the file that makes up for it."""

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import zstandard

from keytrail.decode.decoder import Decoder
from keytrail.decode.redact import Redactor
from keytrail.domain.errors import SettingsError
from keytrail.domain.event import Event
from keytrail.domain.gap import Gap, GapCause, GapPhase
from keytrail.export.json_line import event_line
from keytrail.loss.agent_metrics import AgentMetrics, fetch_page
from keytrail.loss.backfill import Backfill, Limits
from keytrail.loss.monitor import LossMonitor
from keytrail.loss.seen import Seen
from keytrail.loss.watch import LossWatch
from keytrail.source.address import Address, find_metrics, parse_address, parse_metrics_address
from keytrail.source.base import Batch
from keytrail.source.grpc_stream import Backoff, GrpcSource
from keytrail.testing.fake_tetragon import FakeTetragon
from support.processes import wait_until
from support.recordings import CORPUS, decode_each, messages

SECONDS = 60.0
QUEUE = 300
DECOMPRESSOR = zstandard.ZstdDecompressor(max_window_size=2**27)


class Collector:
    """Source, decoder and everything that watches for loss, wired as the collector has them."""

    def __init__(self, agent: FakeTetragon, root: Path, gaps: Any, export_file: Path) -> None:
        self.events: list[Event] = []
        self.decoder = Decoder(Redactor().redact)
        self.lock = threading.Lock()
        self.gaps = gaps
        seen = Seen()
        limits = Limits(settle=0, patience=0, before=1e9, after=0)
        self.backfill = Backfill(export_file, seen, self.process, self.report, queued=int, limits=limits)
        self.watch = LossWatch(self.report, seen=seen)
        began = time.time_ns()  # and stays: an episode must not end while the test looks elsewhere
        fetch = partial(fetch_page, seconds=SECONDS)
        metrics = AgentMetrics(lambda: find_metrics(root), self.watch.report, now_ns=lambda: began, fetch=fetch)
        self.monitor = LossMonitor(self.watch, metrics, every_seconds=0.05)
        self.source = GrpcSource(
            parse_address(agent.address),
            on_transition=self.watch.transition,
            backoff=Backoff(first=0.02, limit=0.1),
        )
        self.metrics = metrics
        self.reading = threading.Thread(target=self.read)

    def start(self) -> None:
        """Begin to read and to watch."""
        self.backfill.start()
        self.monitor.start()
        self.reading.start()

    def report(self, gap: Gap) -> None:
        """Take a gap."""
        self.gaps(gap)
        self.backfill.gap(gap)

    def read(self) -> None:
        """Read to the end."""
        for batch in self.source.batches():
            self.process(batch)

    def process(self, batch: Batch) -> None:
        """Take a batch from the stream or from the file."""
        with self.lock:
            events = list(decode_each(self.decoder, batch.messages))
            self.watch.batch(events, batch)
            self.events += events

    def close(self) -> None:
        """End it."""
        self.source.close()
        self.reading.join(SECONDS)
        self.monitor.close()
        self.backfill.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeTetragon]:
    """An agent whose queues are short, with its info file where a host has it."""
    info = tmp_path / "var/run/tetragon/tetragon-info.json"
    info.parent.mkdir(parents=True)
    with FakeTetragon(
        f"unix://{tmp_path}/agent.sock", queue_size=QUEUE, metrics_address="127.0.0.1:0", info_file=info
    ) as agent:
        yield agent


@pytest.fixture
def collecting(agent: FakeTetragon, tmp_path: Path, gaps: Any) -> Iterator[Callable[[Path], Collector]]:
    """Start a collector that ends with the test."""
    with ExitStack() as stack:

        def start(export_file: Path) -> Collector:
            collector = Collector(agent, tmp_path, gaps, export_file)
            stack.callback(collector.close)
            collector.start()
            assert agent.wait_for_listeners(timeout=SECONDS)
            assert wait_until(lambda: collector.metrics.problem is None)
            return collector

        yield start


def test_full_queue_is_a_gap_with_the_agents_count_and_is_filled_in(
    agent: FakeTetragon, collecting: Callable[[Path], Collector], tmp_path: Path, gaps: Any
) -> None:
    """Of a burst beyond the queue the gap has exactly what the agent dropped, at the next look at its counters.

    The closing record has the total, and the agent's export file gives back every event, each once.
    """
    stream = messages("burst")[:600]
    file = tmp_path / "tetragon.log"
    with zstandard.open(CORPUS / "burst" / "export.json.zst", "rb", dctx=DECOMPRESSOR) as lines_of_a_real_agent:
        file.write_bytes(b"".join(islice(io.BufferedReader(lines_of_a_real_agent), 700)))
    collector = collecting(file)
    agent.publish(stream[:200], lossless=True)
    assert wait_until(lambda: len(collector.events) == 200)
    agent.stall()
    agent.publish(stream[200:])
    assert agent.overflowed == len(stream) - 200 - QUEUE
    assert wait_until(lambda: bool(gaps.of(GapCause.READER_SLOW, GapPhase.OPEN)))
    agent.resume()
    assert wait_until(lambda: len(collector.events) == 200 + QUEUE)
    collector.monitor.close()
    assert wait_until(lambda: bool(gaps.of(GapCause.READER_SLOW, GapPhase.BACKFILLED)))
    closed = gaps.of(GapCause.READER_SLOW, GapPhase.CLOSED)
    assert [(gap.lost, gap.exact, gap.node) for gap in closed] == [(len(stream) - 200 - QUEUE, False, "tvm")]
    expected = {event_line(event) for event in decode_each(Decoder(Redactor().redact), stream)}
    lines = [event_line(event) for event in collector.events]
    assert len(lines) == len(set(lines))
    assert expected <= set(lines)


def test_agent_that_goes_away_is_one_gap(
    agent: FakeTetragon, collecting: Callable[[Path], Collector], tmp_path: Path, gaps: Any
) -> None:
    """A killed agent is told at once; when it is back the gap is closed, and its new counters begin at nothing."""
    collector = collecting(tmp_path / "none.log")
    stream = messages("seed-demo")
    agent.publish(stream[:20])
    assert wait_until(lambda: len(collector.events) == 20)
    agent.kill()
    assert wait_until(lambda: bool(gaps.of(GapCause.AGENT_AWAY, GapPhase.OPEN)))
    agent.start()
    assert wait_until(lambda: bool(gaps.of(GapCause.AGENT_AWAY, GapPhase.CLOSED)))
    assert agent.wait_for_listeners(timeout=SECONDS)
    agent.publish(stream[20:])
    assert wait_until(lambda: len(collector.events) == len(stream))
    opened, closed = gaps.of(GapCause.AGENT_AWAY, GapPhase.OPEN), gaps.of(GapCause.AGENT_AWAY, GapPhase.CLOSED)
    assert [gap.id for gap in opened] == [gap.id for gap in closed]
    assert closed[0].end_ns > opened[0].start_ns
    assert gaps.of(GapCause.READER_SLOW) == []


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (":2112", "localhost", 2112),
        ("0.0.0.0:2112", "localhost", 2112),
        ("[::]:9000", "localhost", 9000),
        ("10.0.0.7:2113", "10.0.0.7", 2113),
        ("[fd00::1]:2112", "fd00::1", 2112),
        ("metrics.local", "metrics.local", 2112),
    ],
)
def test_metrics_address_is_read_as_the_agent_writes_it(text: str, host: str, port: int, tmp_path: Path) -> None:
    """What an agent listens on everywhere is looked for on this machine; the info file and the setting agree."""
    assert parse_metrics_address(text) == Address(host=host, port=port)
    info = tmp_path / "run/tetragon/tetragon-info.json"
    info.parent.mkdir(parents=True)
    info.write_text(json.dumps({"metrics_address": text}))
    assert find_metrics(tmp_path) == Address(host=host, port=port)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"metrics_address":""}', '{"metrics_address":"a b"}'])
def test_info_file_without_metrics_names_none(content: str, tmp_path: Path) -> None:
    """Half written, without metrics or nonsense: there is no address, and no error."""
    info = tmp_path / "var/run/tetragon/tetragon-info.json"
    info.parent.mkdir(parents=True)
    info.write_text(content)
    assert find_metrics(tmp_path) is None


@pytest.mark.parametrize("text", ["", "unix:///run/x.sock", "host:0", "host:70000", "a b:1"])
def test_wrong_metrics_address_is_refused(text: str) -> None:
    """A user's wrong setting is said with what was expected."""
    with pytest.raises(SettingsError, match=r"expected HOST:PORT"):
        parse_metrics_address(text)
