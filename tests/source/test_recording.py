"""Recordings: what is written is read, at any pace, and what is damaged is said to be."""

import contextlib
import json
import os
import stat
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from keytrail.domain.agent import AgentFacts
from keytrail.domain.errors import RecordingError, UsageError
from keytrail.proto.tetragon.events_pb2 import GetEventsResponse
from keytrail.source.base import MAX_MESSAGE_BYTES, Batch
from keytrail.source.recording import RecordingSource, RecordingWriter, read_recording, recording_facts
from support.recordings import CORPUS, STREAMS, folder, messages

FULL = AgentFacts("v1.7.0", captures_environment=True, environment_filter=(), captures_credentials=True)


def event(seconds: float | None, flags: str = "") -> bytes:
    """Make an exec event; None is one without a time, as library loads are."""
    response = GetEventsResponse()
    response.process_exec.process.flags = flags
    if seconds is not None:
        response.time.FromNanoseconds(round(seconds * 1e9))
    return response.SerializeToString()


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.now += seconds


@pytest.mark.parametrize("name", STREAMS)
def test_every_recording_reads_as_whole_events(name: str) -> None:
    """Each recorded stream gives as many messages as were counted when it was taken, each of them an event."""
    got = messages(name)
    if (counts := CORPUS / name / "counts.json").exists():
        assert len(got) == json.loads(counts.read_text())["grpc_total"]
    assert all(GetEventsResponse.FromString(m).WhichOneof("event") for m in got[:50])


@pytest.mark.parametrize("name", ["r.pb", "r.pb.zst"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    """A recording comes back message for message, appears only when complete, and is its owner's alone."""
    path = tmp_path / name
    sent = [*messages("seed-demo"), b"", b"x" * 300_000]
    with RecordingWriter(path) as writer:
        for message in sent:
            writer.write(message)
        assert not path.exists()
    writer.close()
    assert list(read_recording(path)) == sent
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_keeps_what_it_has_when_its_user_fails(tmp_path: Path) -> None:
    """An interrupted recording session leaves a whole recording, not nothing."""
    path = tmp_path / "r.pb.zst"
    with contextlib.suppress(KeyboardInterrupt), RecordingWriter(path) as writer:
        writer.write(b"one")
        raise KeyboardInterrupt
    assert list(read_recording(path)) == [b"one"]


def test_a_full_disk_is_said_with_where_the_rest_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A disk that takes no more is a RecordingError, not a traceback, and the target keeps its name free."""
    opened = os.open
    monkeypatch.setattr(os, "open", lambda *_: opened("/dev/full", os.O_WRONLY))
    writer = RecordingWriter(tmp_path / "r.pb")
    writer.write(b"one")
    with pytest.raises(RecordingError, match=r"No space left on device; what was written is in .*\.partial"):
        writer.close()


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """A missing folder shows at once, before anything was recorded."""
    with pytest.raises(UsageError, match="No such file"):
        RecordingWriter(tmp_path / "missing" / "r.pb")


def test_facts_are_those_of_the_recorded_agent() -> None:
    """Flags come from the stored GetInfo, and absent facts are unknown rather than off."""
    assert recording_facts(folder("seed-demo")) == FULL
    assert recording_facts(folder("seed-demo") / "grpc.pb.zst") == FULL
    defaults = recording_facts(folder("seed-demo-default-flags"))
    assert defaults == AgentFacts("v1.7.0", captures_environment=False, captures_credentials=False)
    assert recording_facts(folder("event-flood")) is None


def test_facts_know_the_environment_filter_in_both_spellings(tmp_path: Path) -> None:
    """The list of variables is a list, or one string where it came through a ConfigMap."""
    kinds = {"ListValue": ["A", "B"], "StringValue": "A B"}
    for kind, value in kinds.items():
        conf = [
            {"key": "filter-environment-variables", "value": {"@type": f"x/google.protobuf.{kind}", "value": value}}
        ]
        (tmp_path / "GetInfo.json").write_text(json.dumps({"version": "v1.7.0", "conf": conf}))
        facts = recording_facts(tmp_path)
        assert facts is not None
        assert facts.environment_filter == ("A", "B")
        assert facts.captures_environment is False
    (tmp_path / "GetInfo.json").write_text("{")
    with pytest.raises(RecordingError, match=r"GetInfo\.json"):
        recording_facts(tmp_path)


def test_full_speed_comes_in_batches() -> None:
    """A recording is handed over 512 messages at a time, its agent first, nothing lost or reordered."""
    batches = list(RecordingSource(folder("policy-library")).batches())
    assert batches[0].agent == FULL
    assert all(batch.agent is None for batch in batches[1:])
    assert {len(batch.messages) for batch in batches[1:-1]} == {512}
    assert [m for batch in batches for m in batch.messages] == list(messages("policy-library"))


def paced(path: Path, pace: float) -> Iterator[tuple[float, Batch]]:
    """Replay with a clock of our own; yields when each batch came."""
    clock = Clock()
    for batch in RecordingSource(path, pace, clock=clock, sleep=clock.sleep).batches():
        yield clock.now, batch


@pytest.mark.parametrize(("pace", "times"), [(1.0, [0, 2, 5]), (10.0, [0, 0.2, 0.5])])
def test_a_paced_replay_keeps_the_distances(tmp_path: Path, pace: float, times: list[float]) -> None:
    """Events come as far apart as they happened; those without a time, out of order or older than the agent at once."""
    path = tmp_path / "r.pb"
    with RecordingWriter(path) as writer:
        for message in (
            event(-9_000, "procFS"),
            event(1000),
            event(None),
            event(1002),
            event(1001.9),
            event(1005),
            b"\xff",
        ):
            writer.write(message)
    got = [(when, len(batch.messages)) for when, batch in paced(path, pace) if batch.messages]
    assert [when for when, _ in got] == pytest.approx(times)
    assert [count for _, count in got] == [3, 2, 2]


def test_a_paced_replay_of_a_real_session_takes_its_time() -> None:
    """The recorded demo session, replayed by a clock that only sleeping moves, lasts as long as it did."""
    path = folder("seed-demo")
    events = map(GetEventsResponse.FromString, messages("seed-demo"))
    stamps = [event.time.ToNanoseconds() / 1e9 for event in events if "procFS" not in event.process_exec.process.flags]
    came = [when for when, batch in paced(path, 1.0) for _ in batch.messages]
    assert came[-1] == pytest.approx(max(stamps) - stamps[0], abs=0.05)
    assert all(earlier <= later for earlier, later in pairwise(came))


def test_close_ends_a_replay_between_two_events(tmp_path: Path) -> None:
    """A replay that waits an hour for its next event ends when it is closed, with no event too many."""
    path = tmp_path / "r.pb"
    with RecordingWriter(path) as writer:
        for at in (0, 3600):
            writer.write(event(at))
    source = RecordingSource(path, 1.0, sleep=lambda _: source.close())
    assert sum(len(batch.messages) for batch in source.batches()) == 1
    assert not [batch for batch in source.batches() if batch.messages]


def test_a_truncated_recording_delivers_what_is_whole_then_says_so(tmp_path: Path) -> None:
    """All messages before the cut arrive, then the error names file and byte, with compression and without."""
    whole = list(messages("seed-demo"))
    plain = tmp_path / "r.pb"
    with RecordingWriter(plain) as writer:
        for message in whole:
            writer.write(message)
    plain.write_bytes(plain.read_bytes()[:-1])
    assert until_error(plain, rf"^{plain}: byte \d+: the input ends inside a message") == whole[:-1]
    compressed = tmp_path / "r.pb.zst"
    compressed.write_bytes((folder("policy-library") / "grpc.pb.zst").read_bytes()[:50_000])
    got = until_error(compressed, f"^{compressed}: truncated")
    assert got
    assert got == list(messages("policy-library"))[: len(got)]


def until_error(path: Path, error: str) -> list[bytes]:
    """Read a recording that ends with an error; return what came before it."""
    got: list[bytes] = []
    batches = RecordingSource(path).batches()
    with pytest.raises(RecordingError, match=error):
        got.extend(message for batch in batches for message in batch.messages)
    return got


def test_too_large_and_malformed_are_counted_not_delivered(tmp_path: Path) -> None:
    """An oversized message and a bad JSON line show in the batches' counts; the others arrive."""
    path = tmp_path / "r.pb"
    with RecordingWriter(path) as writer:
        for message in (b"a", bytes(MAX_MESSAGE_BYTES + 1), b"b"):
            writer.write(message)
    batches = list(RecordingSource(path).batches())
    assert [m for batch in batches for m in batch.messages] == [b"a", b"b"] == list(read_recording(path))
    assert sum(batch.too_large for batch in batches) == 1
    lines = tmp_path / "export.json"
    lines.write_text('{"process_exec":{}}\nnonsense\n')
    batches = list(RecordingSource(lines).batches())
    assert (sum(len(b.messages) for b in batches), sum(b.malformed for b in batches)) == (1, 1)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("missing.pb", None, "missing.pb: No such file"),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(200), "byte"),
        ("text.txt", b"hello world, this is no recording", "byte 0: the input ends inside a message"),
        ("noise", b"\xff" * 100, "byte 0: no message length here"),
        ("r.pb.zst", b"\x28\xb5\x2f\xfd" + b"\xff" * 100, "damaged"),
    ],
)
def test_what_is_no_recording_is_said_to_be_none(tmp_path: Path, name: str, content: bytes | None, error: str) -> None:
    """A missing file and files of other kinds are refused with their name and, where it helps, the byte."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordingError, match=error):
        list(read_recording(path))


def test_a_folder_without_a_recording_says_what_it_expected(tmp_path: Path) -> None:
    """A folder must hold a stream under one of its two names."""
    with pytest.raises(UsageError, match=r"expected grpc.pb.zst or grpc.pb"):
        list(read_recording(tmp_path))
    with RecordingWriter(tmp_path / "grpc.pb") as writer:
        writer.write(b"x")
    assert list(read_recording(tmp_path)) == [b"x"]


def test_without_the_zstd_library_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A node's installation has no zstd: reading and writing such a recording names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(RecordingError, match=r"pip install keytrail\[demo\]"):
        list(read_recording(folder("seed-demo")))
    with pytest.raises(RecordingError, match=r"pip install keytrail\[demo\]"):
        RecordingWriter(tmp_path / "r.pb.zst")
