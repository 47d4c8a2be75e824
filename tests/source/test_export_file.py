"""The agent's export file: followed through rotations as the agent makes them, read back with its backups."""

import gzip
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from keytrail.domain.errors import SourceError
from keytrail.proto.tetragon.events_pb2 import GetEventsResponse
from keytrail.source.base import Batch
from keytrail.source.export_file import ExportFileSource


def line(number: int) -> str:
    """Make an event's line."""
    return f'{{"process_exec":{{"process":{{"pid":{number}}}}},"time":"2026-11-22T01:02:03Z"}}\n'


def numbers(batches: list[Batch]) -> list[int]:
    """Return which events came, in order."""
    events = (GetEventsResponse.FromString(message) for batch in batches for message in batch.messages)
    return [event.process_exec.process.pid.value for event in events]


class Exporter:
    """Writes a file as the agent does: rotation renames it, perhaps compresses that, and starts a new one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rotations = 0

    def write(self, *what: int) -> None:
        """Append events."""
        with self.path.open("a") as file:
            file.write("".join(map(line, what)))

    def rotate(self, *, compress: bool = False) -> Path:
        """Rotate; return the backup."""
        self._rotations += 1
        backup = self.path.with_name(f"tetragon-2026-11-22T01-02-03.{self._rotations:03}.log")
        self.path.rename(backup)
        self.path.touch()
        if not compress:
            return backup
        packed = backup.with_name(backup.name + ".gz")
        packed.write_bytes(gzip.compress(backup.read_bytes()))
        backup.unlink()
        return packed


class Follower:
    """Follows a file on this thread: whenever the source has read all that there is, the next step happens."""

    def __init__(self, path: Path, steps: list[Callable[[], object]], *, from_start: bool = False) -> None:
        self._steps = iter(steps)
        self._source = ExportFileSource(path, follow=True, from_start=from_start, sleep=self._next)
        self.batches = list(self._source.batches())

    def _next(self, _seconds: float) -> None:
        step = next(self._steps, None)
        if step is None:
            self._source.close()
        else:
            step()


@pytest.fixture
def exporter(tmp_path: Path) -> Exporter:
    """Make an exporter with one event in its file."""
    made = Exporter(tmp_path / "tetragon.log")
    made.write(1)
    return made


def test_without_follow_the_file_is_read_to_its_end(exporter: Exporter) -> None:
    """One pass over the file; a last line without a newline counts if it is whole."""
    with exporter.path.open("a") as file:
        file.write(line(2).rstrip())
    batches = list(ExportFileSource(exporter.path, follow=False).batches())
    assert numbers(batches) == [1, 2]
    assert batches[0].agent is not None


def test_from_start_reads_backups_oldest_first(exporter: Exporter) -> None:
    """Rotated files come first, in the order of their times, compressed or not; foreign files are left alone."""
    exporter.rotate(compress=True)
    exporter.write(2)
    exporter.rotate()
    exporter.write(3)
    (exporter.path.parent / "tetragon-notes.log").write_text(line(99))
    (exporter.path.parent / "other-2026-11-22T01-02-03.001.log").write_text(line(99))
    assert numbers(list(ExportFileSource(exporter.path, follow=False, from_start=True).batches())) == [1, 2, 3]
    assert numbers(list(ExportFileSource(exporter.path, follow=False).batches())) == [3]


def test_a_half_compressed_backup_is_read_from_its_original(exporter: Exporter) -> None:
    """While the agent compresses a backup both files exist, and the compressed one is incomplete."""
    backup = exporter.rotate()
    backup.with_name(backup.name + ".gz").write_bytes(gzip.compress(backup.read_bytes())[:20])
    exporter.write(2)
    batches = list(ExportFileSource(exporter.path, follow=False, from_start=True).batches())
    assert (numbers(batches), sum(batch.malformed for batch in batches)) == ([1, 2], 0)


def test_a_damaged_backup_is_counted_and_passed_over(exporter: Exporter) -> None:
    """A backup that cannot be read does not hide those after it, and does not go unnoticed."""
    packed = exporter.rotate(compress=True)
    packed.write_bytes(packed.read_bytes()[:-9])
    exporter.write(2)
    batches = list(ExportFileSource(exporter.path, follow=False, from_start=True).batches())
    assert numbers(batches)[-1] == 2
    assert sum(batch.malformed for batch in batches) == 1


def test_following_begins_at_the_end(exporter: Exporter) -> None:
    """Only what comes after the start is delivered, and a line that was half written by then is delivered whole."""
    text = line(2)
    with exporter.path.open("a") as file:
        file.write(text[:20])

    def complete() -> None:
        with exporter.path.open("a") as file:
            file.write(text[20:])

    followed = Follower(exporter.path, [complete, lambda: exporter.write(3)])
    assert numbers(followed.batches) == [2, 3]
    assert sum(batch.malformed for batch in followed.batches) == 0


def test_following_finds_the_end_of_long_lines(exporter: Exporter) -> None:
    """The start of a half-written line is found however far back it is."""
    long = '{"process_exec":{"process":{"pid":2,"arguments":"' + "x" * 600_000 + '"}}}\n'
    with exporter.path.open("a") as file:
        file.write(long[:-5])

    def complete() -> None:
        with exporter.path.open("a") as file:
            file.write(long[-5:])

    assert numbers(Follower(exporter.path, [complete]).batches) == [2]


@pytest.mark.parametrize("compress", [False, True])
def test_rotation_loses_and_repeats_nothing(exporter: Exporter, compress: bool) -> None:
    """Lines written just before a rotation, unread by then, come before those of the new file."""

    def rotate() -> None:
        exporter.write(2)
        exporter.rotate(compress=compress)
        exporter.write(3)

    followed = Follower(exporter.path, [rotate, lambda: exporter.write(4)], from_start=True)
    assert numbers(followed.batches) == [1, 2, 3, 4]


@pytest.mark.parametrize("compress", [False, True])
def test_several_rotations_between_two_looks_lose_nothing(exporter: Exporter, compress: bool) -> None:
    """Files that came and went while nobody looked are read as backups, in order, each once."""

    def storm() -> None:
        for number in (2, 3, 4):
            exporter.write(number)
            exporter.rotate(compress=compress)
        exporter.write(5)

    older = exporter.rotate(compress=compress)
    assert older.exists()
    exporter.write(10)
    followed = Follower(exporter.path, [storm, lambda: exporter.write(6)])
    assert numbers(followed.batches) == [2, 3, 4, 5, 6]
    assert sum(batch.malformed for batch in followed.batches) == 0


def test_the_moment_without_a_file_is_waited_through(exporter: Exporter) -> None:
    """Between the rename and the new file there is none under the name: no error, no loss."""

    def rename() -> None:
        exporter.path.rename(exporter.path.with_name("tetragon-2026-11-22T01-02-03.001.log"))

    followed = Follower(exporter.path, [rename, lambda: exporter.write(2)], from_start=True)
    assert numbers(followed.batches) == [1, 2]


def test_a_file_that_somebody_emptied_is_read_anew(exporter: Exporter) -> None:
    """The agent never truncates, an administrator may."""

    def empty() -> None:
        exporter.path.write_text("")

    assert numbers(Follower(exporter.path, [empty, lambda: exporter.write(2)], from_start=True).batches) == [1, 2]


def test_lines_that_are_no_event_are_counted(exporter: Exporter) -> None:
    """Bad lines show in the counts, the good ones around them arrive."""

    def scribble() -> None:
        with exporter.path.open("a") as file:
            file.write("not json\n{}\n")
        exporter.write(2)

    followed = Follower(exporter.path, [scribble])
    assert numbers(followed.batches) == [2]
    assert sum(batch.malformed for batch in followed.batches) == 2


def test_a_missing_file_is_an_error_unless_it_may_come(tmp_path: Path) -> None:
    """One pass over a missing file fails; following waits for an agent to create it, but not for a missing folder."""
    path = tmp_path / "tetragon.log"
    for wrong in (ExportFileSource(path, follow=False), ExportFileSource(tmp_path / "no" / "file.log", follow=True)):
        with pytest.raises(SourceError, match="no such file"):
            list(wrong.batches())
    exporter = Exporter(path)
    assert numbers(Follower(path, [lambda: exporter.write(1)], from_start=True).batches) == [1]


def test_close_ends_following_from_another_thread(exporter: Exporter) -> None:
    """A follower that waits for lines ends soon after close, without being woken by one."""
    source = ExportFileSource(exporter.path)
    reader = threading.Thread(target=lambda: list(source.batches()))
    reader.start()
    source.close()
    reader.join(timeout=60)
    assert not reader.is_alive()
