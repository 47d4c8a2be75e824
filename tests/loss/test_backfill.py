"""Backfill: what the agent's export file has of a gap and the stream had not, once each, in order, within bounds."""

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import zstandard
from google.protobuf.json_format import MessageToDict

from keytrail.decode.decoder import Decoder
from keytrail.decode.redact import Redactor
from keytrail.domain.agent import AgentFacts
from keytrail.domain.event import Event
from keytrail.domain.gap import Gap, GapCause, GapPhase
from keytrail.export.json_line import event_line
from keytrail.loss.backfill import Backfill, Limits
from keytrail.loss.seen import Seen, key_of, raw_event
from keytrail.proto.tetragon.events_pb2 import GetEventsResponse
from keytrail.source.base import Batch
from keytrail.source.export_history import ExportHistory
from keytrail.source.recording import read_recording
from support.processes import wait_until
from support.recordings import CORPUS, decode_each, decoded_once, messages

AT_ONCE = Limits(settle=0, patience=0, before=0, after=0)
SECOND = 1_000_000_000


@cache
def exported(message: bytes) -> str:
    """The line that the agent's exporter writes for an event."""
    event = MessageToDict(GetEventsResponse.FromString(message), preserving_proto_field_name=True)
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False) + "\n"


def write_rotated(path: Path, stream: Sequence[bytes], *, files: int) -> None:
    """Write an export file as an agent does that has rotated it, compressing every other of the files."""
    size = len(stream) // files + 1
    parts = [stream[start : start + size] for start in range(0, len(stream), size)]
    for number, part in enumerate(parts[:-1]):
        last = raw_event(part[-1])
        assert last is not None
        stamp = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime(last.time_ns // SECOND)) + f".{number:03d}"
        content = "".join(map(exported, part)).encode()
        rotated = path.with_name(f"{path.stem}-{stamp}{path.suffix}")
        if number % 2:
            rotated.with_name(f"{rotated.name}.gz").write_bytes(gzip.compress(content))
        else:
            rotated.write_bytes(content)
    path.write_text("".join(map(exported, parts[-1])))


@cache
def decode(stream: tuple[bytes, ...]) -> list[Event]:
    """Decode a stream of its own."""
    decoder = Decoder(Redactor().redact)
    decoder.connect(AgentFacts(captures_environment=True))
    return list(decode_each(decoder, stream))


@cache
def consumer(name: str) -> tuple[bytes, ...]:
    """What one of the three readers of the same burst received."""
    return tuple(read_recording(CORPUS / "slow-consumer" / f"{name}.pb.zst"))


class Filled:
    """A backfill whose batches and reports are kept."""

    def __init__(self, file: Path, gaps: Any, seen: Seen, limits: Limits, queued: Callable[[], int]) -> None:
        self.batches: list[Batch] = []
        self.gaps = gaps
        self.backfill = Backfill(file, seen, self.batches.append, gaps, queued=queued, limits=limits)
        self.backfill.start()

    @property
    def messages(self) -> list[bytes]:
        """What was found."""
        return [message for batch in list(self.batches) for message in batch.messages]

    def fill(self, gap: Gap) -> Gap:
        """Have a gap looked up; return its last record."""
        before = len(self.gaps.all)
        self.backfill.gap(gap)
        assert wait_until(lambda: any(one.phase is GapPhase.BACKFILLED for one in self.gaps.all[before:]))
        closing: Gap = self.gaps.all[-1]
        return closing


@pytest.fixture
def filling(tmp_path: Path, gaps: Any) -> Iterator[Callable[..., Filled]]:
    """Start backfills that end with the test."""
    started: list[Filled] = []

    def start(
        seen: Seen, limits: Limits = AT_ONCE, file: Path = tmp_path / "tetragon.log", queued: Callable[[], int] = int
    ) -> Filled:
        started.append(Filled(file, gaps, seen, limits, queued))
        return started[-1]

    yield start
    for one in started:
        one.backfill.close()


@contextmanager
def whole(stream: Sequence[Event], cause: GapCause = GapCause.READER_SLOW) -> Iterator[Gap]:
    """A gap from the first to the last event."""
    times = [event.time_ns for event in stream]
    yield Gap(cause, min(times), max(times), lost=1)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("slow", 400),
        ("stalled", 400),
        pytest.param("slow", 2000, marks=pytest.mark.long),
        pytest.param("stalled", 2000, marks=pytest.mark.long),
    ],
)
def test_stream_and_backfill_are_all_there_was(
    name: str, most: int, tmp_path: Path, filling: Callable[..., Filled]
) -> None:
    """A real slow reader lost 781 events, a stalled one 1,244: with a file of what was lost each is there once.

    The recording holds no file; its lines are those that the fast reader's messages have in the exporter's format.
    """
    everything = consumer("fast")[-most:]
    seen, times = Seen(), [event.time_ns for event in decode(everything)]
    received = tuple(
        message
        for message, event in zip(consumer(name), decode(consumer(name)), strict=True)
        if min(times) <= event.time_ns <= max(times)
    )
    assert 0 < len(received) < len(everything)
    write_rotated(tmp_path / "tetragon.log", everything, files=5)
    seen.add(decode(received))
    filled = filling(seen)
    gap = Gap(GapCause.READER_SLOW, min(times), max(times), lost=1)
    closing = filled.fill(gap)
    found = len(filled.messages)
    assert closing == replace(gap, phase=GapPhase.BACKFILLED, backfilled=found, detail=closing.detail)
    both = list(map(event_line, decode((*received, *filled.messages))))
    assert len(both) == len(set(both)) == len(everything)
    assert set(both) == set(map(event_line, decode(everything)))
    assert all(batch.backfilled for batch in filled.batches)
    assert [event.time_ns for event in decode(tuple(filled.messages))] == sorted(
        event.time_ns for event in decode(tuple(filled.messages))
    )


@pytest.mark.parametrize("name", ["policy-library", "kubernetes", "sensors", "odd-input"])
def test_a_real_agents_file_gives_back_what_its_stream_is_robbed_of(
    name: str, tmp_path: Path, filling: Callable[..., Filled]
) -> None:
    """Of real streams two of three events are taken out of the middle: the agent's own JSON export has exactly those.

    Library loads, which carry no time, are among them, and nothing comes twice.
    """
    file = tmp_path / "tetragon.log"
    with zstandard.open(
        CORPUS / name / "export.json.zst", dctx=zstandard.ZstdDecompressor(max_window_size=2**27)
    ) as raw:
        file.write_bytes(raw.read())
    stream, events = messages(name), decoded_once(name)
    first, last = len(stream) // 3, 2 * len(stream) // 3
    robbed = {index for index in range(first, last) if index % 3}
    seen = Seen()
    seen.add([event for index, event in enumerate(events) if index not in robbed])
    filled = filling(seen, AT_ONCE)
    times = [event.time_ns for event in events[first:last]]
    closing = filled.fill(Gap(GapCause.READER_SLOW, min(times), max(times)))
    found = {event.key for event in map(raw_event, filled.messages) if event is not None}
    assert found == {key_of(events[index]) for index in robbed}
    assert closing.backfilled == len(robbed) == len(filled.messages)


def test_the_exporters_own_loss_is_told(tmp_path: Path, filling: Callable[..., Filled], gaps: Any) -> None:
    """Where a real exporter kept to its rate limit, its note of 268 events left out becomes a gap of its own."""
    file = tmp_path / "tetragon.log"
    with zstandard.open(CORPUS / "throttle" / "export.json.zst") as raw:
        file.write_bytes(raw.read())
    events = decoded_once("throttle")
    filled = filling(Seen(), replace(AT_ONCE, after=3600))
    with whole(events) as gap:
        filled.fill(gap)
    (limited,) = gaps.of(GapCause.RATE_LIMITED)
    assert (limited.lost, limited.exact) == (268, True)


def test_a_second_gap_over_the_same_time_brings_nothing_twice(tmp_path: Path, filling: Callable[..., Filled]) -> None:
    """Gaps overlap (a slow reader is late, drops, and misses execs): what was backfilled has been seen."""
    everything = messages("seed-demo")
    write_rotated(tmp_path / "tetragon.log", everything, files=2)
    filled = filling(Seen())
    with whole(decode(everything)) as gap:
        assert filled.fill(gap).backfilled == len(everything)
        assert filled.fill(replace(gap, cause=GapCause.INBOX_FULL)).backfilled == 0
    assert len(filled.messages) == len(everything)


def test_only_gaps_that_the_file_can_fill_are_looked_up(
    tmp_path: Path, filling: Callable[..., Filled], gaps: Any
) -> None:
    """An open gap is not over yet, and what the kernel lost or throttled is in no file."""
    everything = messages("seed-demo")
    write_rotated(tmp_path / "tetragon.log", everything, files=1)
    filled = filling(Seen())
    with whole(decode(everything)) as gap:
        filled.backfill.gap(replace(gap, phase=GapPhase.OPEN))
        for cause in (GapCause.KERNEL_OVERFLOW, GapCause.THROTTLED, GapCause.LATE, GapCause.POLICY_SHORTFALL):
            filled.backfill.gap(replace(gap, cause=cause))
        filled.fill(gap)
    assert len(gaps.all) == 1


def test_a_gap_is_worth_so_much_and_no_more(tmp_path: Path, filling: Callable[..., Filled]) -> None:
    """Beyond its limit of events or bytes a backfill ends, and says so."""
    everything = messages("seed-demo")
    write_rotated(tmp_path / "tetragon.log", everything, files=3)
    with whole(decode(everything)) as gap:
        few = filling(Seen(), replace(AT_ONCE, events=10)).fill(gap)
        little = filling(Seen(), replace(AT_ONCE, bytes=10_000)).fill(gap)
    assert few.backfilled == 10
    assert 0 < little.backfilled < 20
    assert "more than one gap is worth" in few.detail


def test_live_events_come_first(tmp_path: Path, filling: Callable[..., Filled]) -> None:
    """While events of the stream wait to be decided on, nothing is added to them."""
    everything = messages("seed-demo")
    write_rotated(tmp_path / "tetragon.log", everything, files=1)
    looked, waiting = threading.Event(), 10_000

    def queued() -> int:
        looked.set()
        return waiting

    filled = filling(Seen(), queued=queued)
    with whole(decode(everything)) as gap:
        filled.backfill.gap(gap)
        assert looked.wait(60)
        assert filled.batches == []
        waiting = 0
        assert wait_until(lambda: len(filled.messages) == len(everything))


def test_the_stream_is_let_past_the_gap_first(
    tmp_path: Path, filling: Callable[..., Filled], event: Callable[..., Event], gaps: Any
) -> None:
    """What is still on its way is not lost: the file is read when an event younger than the gap has arrived."""
    everything = messages("seed-demo")
    now = time.time_ns()
    started = decode(everything)[0].time_ns
    seen = Seen()
    filled = filling(seen, replace(AT_ONCE, patience=3600))
    filled.backfill.gap(Gap(GapCause.AGENT_AWAY, started, now))
    write_rotated(tmp_path / "tetragon.log", everything, files=1)
    seen.add([event("younger", now + SECOND)])
    assert wait_until(lambda: bool(gaps.all))
    assert gaps.all[0].backfilled == len(everything)


def test_close_gives_up_what_waits(tmp_path: Path, gaps: Any) -> None:
    """A stop does not wait for a backfill's patience."""
    filled = Filled(tmp_path / "none.log", gaps, Seen(), replace(AT_ONCE, patience=3600), int)
    filled.backfill.gap(Gap(GapCause.AGENT_AWAY, 0, time.time_ns()))
    filled.backfill.close()
    assert gaps.all == []


def test_a_file_that_is_not_there_is_said(filling: Callable[..., Filled]) -> None:
    """The closing record says that nothing could be read, and why."""
    closing = filling(Seen()).fill(Gap(GapCause.AGENT_AWAY, 0, SECOND))
    assert closing.backfilled == 0
    assert "No such file" in closing.detail


def lines(path: Path, start: int, end: int) -> tuple[list[bytes], ExportHistory]:
    """Search a file; times are seconds of a day in 2026."""
    history = ExportHistory(path)
    day = 1_795_305_600 * SECOND  # 2026-11-22T00:00:00Z
    return list(history.between(day + start * SECOND, day + end * SECOND)), history


def moment(second: int) -> str:
    """A line with only a time."""
    return f'{{"n":{second},"time":"2026-11-22T00:{second // 60:02d}:{second % 60:02d}.5Z"}}\n'


def test_only_lines_of_the_interval_are_given(tmp_path: Path) -> None:
    """Files from before are not opened; a line without a time goes with that before it; an argument is no time."""
    path = tmp_path / "tetragon.log"
    (tmp_path / "tetragon-2026-11-22T00-00-30.000.log").write_bytes(b"\x1f\x8b broken, and never opened")
    (tmp_path / "tetragon-2026-11-22T00-01-00.000.log").write_text(moment(40) + moment(50) + '{"loader":1}\n')
    (tmp_path / "other-2026-11-22T00-01-00.000.log").write_text(moment(50))
    fake = '{"args":"\\"time\\":\\"2030-11-22T00:00:00Z\\"","time": "2026-11-22T00:01:10Z"}\n'
    path.write_text('{"loader":2}\n' + moment(65) + fake + moment(80) + '{"loader":3}\n' + moment(75) + moment(70)[:20])
    found, history = lines(path, 45, 76)
    assert [json.loads(line).get("n", "?") for line in found] == [50, "?", "?", 65, "?", 75]
    assert b"2030" in found[4]
    assert (history.reaches_back, history.problem) == (True, "")


def test_a_history_that_is_too_short_is_noticed(tmp_path: Path) -> None:
    """When the oldest line is younger than the gap's start, the file cannot have all of it."""
    path = tmp_path / "tetragon.log"
    path.write_text(moment(40) + moment(50))
    assert not lines(path, 30, 60)[1].reaches_back
    assert lines(path, 45, 60)[1].reaches_back


def test_damage_in_one_file_leaves_the_others(tmp_path: Path) -> None:
    """A damaged rotated file is said; a line of more than any event is passed over, and the next is read."""
    path = tmp_path / "tetragon.log"
    (tmp_path / "tetragon-2026-11-22T00-01-00.000.log.gz").write_bytes(gzip.compress(moment(50).encode())[:-4])
    path.write_bytes(b"x" * (64 * 1024 * 1024 + 1) + b"\n" + moment(70).encode())
    found, history = lines(path, 0, 90)
    assert moment(70).strip().encode() in found
    assert all(len(line) < 100 for line in found)
    assert "tetragon-2026-11-22T00-01-00.000.log.gz" in history.problem


def test_keys_of_the_past_make_room(event: Callable[..., Event]) -> None:
    """What is remembered of arrivals is bounded; the newest stay."""
    seen = Seen(capacity=10_000)
    events = [event(str(number), number) for number in range(30_000)]
    for start in range(0, len(events), 100):
        seen.add(events[start : start + 100])
    keys = seen.since(0)
    assert 10_000 <= len(keys) <= 15_000
    assert {key_of(one) for one in events[-10_000:]} <= keys
    assert seen.newest_ns == 29_999
