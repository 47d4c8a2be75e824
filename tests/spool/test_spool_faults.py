"""Disks that are full, read-only or damaged: the spool lives, counts, says so, and comes back by itself."""

import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keytrail.domain.drop import DropReason
from keytrail.export.spool.entries import Lane
from spool.small_disk import mounted, remount
from spool.spool_world import MIB, QUICK, World, balanced, files, records_of

SMALL = replace(QUICK, segment_bytes=64 * 1024)


def test_full_disk_drops_the_lowest_and_stores_the_rest(tmp_path: Path) -> None:
    """On a disk smaller than the spool's bound the oldest of the lowest lane makes room; the highest are all kept."""
    with mounted(tmp_path / "small", "size=1m"):
        spool = World(tmp_path / "small" / "spool", tuning=SMALL)
        spool.start()
        for number in range(100):
            spool.append(Lane.CRITICAL, b"resource", b"critical %d " % number + os.urandom(1000).hex().encode())
        assert spool.sync(60)
        for number in range(2000):
            spool.append(Lane.EVENT, b"resource", b"event %d " % number + os.urandom(500).hex().encode())
            if number % 50 == 0:
                assert spool.sync(60)
        assert spool.sync(60)
        state = spool.state()
        assert state.durable
        assert state.queued_by_lane[Lane.CRITICAL] == 100
        assert state.dropped[DropReason.SPOOL_EVICTED] > 1000
        assert balanced(state)
        spool.exported(spool.take_all())
        assert spool.state().queued == 0
        spool.close(60)


def test_disk_filled_by_others(tmp_path: Path) -> None:
    """With no room at all records are kept in memory and the state says why; with room again they reach the disk."""
    place = tmp_path / "small"
    with mounted(place, "size=1m"):
        spool = World(place / "spool", tuning=SMALL)
        spool.start()
        spool.append(Lane.HIGH, b"resource", b"stored")
        assert spool.sync(60)
        with (place / "others").open("wb", buffering=0) as others:
            assert others.write(bytes(2 * MIB)) < MIB  # as much as there was room for
        spool.append(Lane.LOW, b"resource", b"x" * 8000)
        assert not spool.sync(60)
        state = spool.state()
        assert (state.queued, state.unsynced, state.durable) == (2, 1, False)
        assert "No space left on device" in state.fault
        (place / "others").unlink()
        state = spool.when(lambda state: state.durable)
        assert (state.queued, state.unsynced, state.fault) == (2, 0, "")
        spool.close(60)
        again = World(place / "spool")
        assert sorted(map(len, records_of(again.take_all()))) == [6, 8000]
        again.close(60)


def test_disk_that_is_read_only_at_the_start(tmp_path: Path) -> None:
    """The spool starts in memory and delivers from there; when the disk takes files, what it held comes first."""
    place = tmp_path / "small"
    with mounted(place, "size=1m"):
        earlier = World(place / "spool")
        earlier.append(Lane.LOW, b"resource", b"earlier")
        earlier.close(60)
        remount(place, "ro")
        spool = World(place / "spool", tuning=SMALL)
        spool.start()
        spool.append(Lane.LOW, b"resource", b"1")
        spool.append(Lane.LOW, b"resource", b"2")
        assert not spool.sync(60)
        assert "Read-only file system" in spool.state().fault
        taken = spool.take_all()
        assert records_of(taken) == [b"1", b"2"]
        spool.give_back(taken)
        remount(place, "rw")
        state = spool.when(lambda state: state.durable)
        assert (state.unsynced, state.recovered, balanced(state)) == (0, 1, True)
        assert records_of(spool.take_all()) == [b"earlier", b"1", b"2"]
        spool.close(60)
        again = World(place / "spool")
        assert again.previous.clean
        assert records_of(again.take_all()) == [b"earlier", b"1", b"2"]
        again.close(60)


def test_disk_that_becomes_read_only(tmp_path: Path) -> None:
    """What comes while the disk takes nothing is delivered from memory, and stored as soon as it does again."""
    spool = World(tmp_path, tuning=replace(QUICK, segment_bytes=1))
    spool.start()
    spool.append(Lane.LOW, b"resource", b"1")
    assert spool.sync(60)
    with mounted(tmp_path / "low", "size=64k,ro"):
        spool.append(Lane.LOW, b"resource", b"2")
        spool.append(Lane.HIGH, b"resource", b"3")
        assert not spool.sync(60)
        assert "Read-only file system" in spool.state().fault
        assert balanced(spool.state())
    state = spool.when(lambda state: state.durable)
    assert (state.unsynced, state.queued) == (0, 3)
    assert records_of(spool.take_all()) == [b"1", b"2", b"3"]
    spool.close(60)


def test_folder_of_somebody_else(tmp_path: Path) -> None:
    """A process that may not write the folder starts all the same, in memory, and says why."""
    code = (
        "import os, sys, json\n"
        "from pathlib import Path\n"
        "from spool.spool_world import World\n"
        "from keytrail.export.spool.entries import Lane\n"
        "if os.geteuid() == 0: os.chdir('/'); os.setgroups([]); os.setgid(65532); os.setuid(65532)\n"
        "spool = World(Path(sys.argv[1]) / 'spool'); spool.start(); spool.append(Lane.LOW, b'r', b'1')\n"
        "print(json.dumps([spool.sync(60), spool.state().fault, spool.state().queued])); spool.close(60)\n"
    )
    tmp_path.chmod(0o555)
    path = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
    ran = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False, env={"PYTHONPATH": path}
    )
    assert ran.returncode == 0, ran.stderr
    synced, fault, queued = json.loads(ran.stdout)
    assert (synced, queued) == (False, 1)
    assert "Permission denied" in fault


def test_limit_on_file_sizes(tmp_path: Path) -> None:
    """Where a file may not grow any further segments become shorter; where nothing fits, memory takes over."""
    spool = World(tmp_path, tuning=SMALL)
    spool.start()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
        for number in range(20):
            spool.append(Lane.LOW, b"resource", b"%d " % number + bytes(1000).hex().encode())
            assert spool.sync(60)
        assert max(path.stat().st_size for path in files(tmp_path, ".seg")) <= 8192
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        spool.append(Lane.LOW, b"resource", bytes(1000))
        assert not spool.sync(60)
        assert "File too large" in spool.state().fault
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
    spool.when(lambda state: state.durable)
    assert len(records_of(spool.take_all())) == 21
    spool.close(60)


def filled(folder: Path, *, packed: bool) -> list[Path]:
    """A closed spool of 40 entries; its segments."""
    spool = World(folder, tuning=replace(QUICK, segment_bytes=4096) if packed else QUICK)
    spool.start()
    spool.take_now()
    for number in range(40):
        spool.append(Lane.LOW, b"resource %d" % number, b"%d" % number + b" finding" * 20)
        spool.sync(60) if packed else None
    spool.sync(60)
    if packed:
        spool._core.lanes.forget_positions()
        spool.when(lambda _: len(files(folder, ".pack")) > 1)
    spool.close(60)
    return files(folder, ".pack" if packed else ".seg")


@pytest.fixture(scope="module", params=["seg", "pack"])
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Segments of a closed spool, plain and packed."""
    return filled(tmp_path_factory.mktemp("stored"), packed=request.param == "pack")


PLACES = st.integers(0, 9999)
"""Ten-thousandths of a file: the same examples for files of any length."""


@given(which=PLACES, cut=st.none() | PLACES, flips=st.lists(st.tuples(PLACES, st.integers(1, 255)), max_size=4))
@settings(max_examples=25)
def test_damaged_files(stored: list[Path], which: int, cut: int | None, flips: list[tuple[int, int]]) -> None:
    """Wherever bytes flip or a file ends: no crash, no record that never was, the equation, and the intact ones."""
    packed = stored[0].suffix == ".pack"
    with TemporaryDirectory() as name:
        folder = shutil.copytree(stored[0].parent.parent, Path(name) / "spool")
        segment = folder / "low" / stored[which % len(stored)].name
        content = bytearray(segment.read_bytes())
        for place, change in flips:
            content[place * len(content) // 10_000] ^= change
        del content[len(content) if cut is None else cut * len(content) // 10_000 :]
        segment.write_bytes(content)
        spool = World(folder)
        spool.start()
        assert balanced(spool.state())
        found = records_of(spool.take_all())
        numbers = [int(one.split()[0]) for one in found]
        assert numbers == sorted(set(numbers))
        assert all(record == b"%d" % number + b" finding" * 20 for number, record in zip(numbers, found, strict=True))
        state = spool.when(lambda state: state.queued == len(found))
        assert state.recovered - state.queued == state.dropped.get(DropReason.SPOOL_DAMAGED, 0)
        if cut is None and not packed:
            assert len(found) >= 40 - len(flips)
        if cut is None and (len(flips) < 2 if packed else 39 in numbers):
            assert state.recovered == 40
        if state.dropped:
            spool.when(lambda _: spool.losses)
        spool.close(60)
        again = World(folder)
        assert again.state().recovered == len(found)
        assert not again.state().dropped
        again.close(60)


def test_damage_while_running(tmp_path: Path) -> None:
    """A file that changes under a running spool costs what it held, counted; the rest is delivered."""
    spool = World(tmp_path, tuning=replace(QUICK, segment_bytes=8192, pack_after=3600.0))
    spool.start()
    for number in range(100):
        spool.append(Lane.LOW, b"resource", b"%d" % number + b" finding" * 50)
        spool.sync(60)
    first, second, third, *_ = files(tmp_path, ".seg")
    first.unlink()
    second.write_bytes(second.read_bytes()[:4000])
    third.write_bytes(bytes(third.stat().st_size))
    entries = spool.take_all()
    spool.exported(entries)
    state = spool.when(lambda state: not state.queued)
    assert state.dropped.keys() == {DropReason.SPOOL_DAMAGED}
    assert state.exported == len(records_of(entries)) > 40
    assert balanced(state)
    spool.close(60)
    assert not files(tmp_path, ".seg", ".ack", ".pack")


def test_zeros_settle_nothing(tmp_path: Path) -> None:
    """Acknowledgements that a power cut turned into zeros, or cut short, leave their entries queued."""
    spool = World(tmp_path)
    spool.start()
    for number in range(10):
        spool.append(Lane.LOW, b"resource %d" % number, b"%d" % number)
    spool.sync(60)
    spool.exported(spool.take(0, 1, 4, MIB, 0.0))
    spool.close(60)
    (acks,) = files(tmp_path, ".ack")
    acks.write_bytes(acks.read_bytes()[:24] + bytes(24 + 5))
    spool = World(tmp_path)
    spool.start()
    assert spool.state().recovered == 8
    spool.exported(spool.take(0, 1, 1, MIB, 0.0))
    spool.close(60)
    spool = World(tmp_path)
    assert spool.state().recovered == 7
    spool.close(60)


@pytest.mark.parametrize(
    ("packed", "part"), [(False, (0.2, 0.5)), (False, (0.31, 0.33)), (False, (0.0, 1.0)), (True, (0.0, 1.0))]
)
def test_a_part_of_a_file_that_is_there_twice(packed: bool, part: tuple[float, float], tmp_path: Path) -> None:
    """What a file system hands out twice counts once: nothing is sent again, and no record is told as lost."""
    filled(tmp_path, packed=packed)
    for segment in files(tmp_path, ".seg", ".pack"):
        content = segment.read_bytes()
        start, end = (8 + int(share * (len(content) - 8)) for share in part)
        segment.write_bytes(content[:end] + content[start:end] + content[end:])
    spool = World(tmp_path)
    spool.start()
    found = spool.take_all()
    assert [int(one.split()[0]) for one in records_of(found)] == list(range(40))
    assert (spool.state().recovered, spool.state().queued) == (40, 40)
    spool.exported(found)
    assert spool.state().queued == 0
    assert sum(loss.records for loss in spool.losses) == 0
    spool.close(60)


@pytest.mark.parametrize("change", [b"", b"some bytes more"])
def test_an_entry_that_became_shorter_or_longer_costs_only_itself(change: bytes, tmp_path: Path) -> None:
    """The entry behind one that lost or gained bytes is found, although it is not where the one before ends."""
    (segment,) = filled(tmp_path, packed=False)
    content = segment.read_bytes()
    at = content.index(b"20 finding") + 30
    segment.write_bytes(content[:at] + change + content[at + 5 :])
    spool = World(tmp_path)
    spool.start()
    assert [int(one.split()[0]) for one in records_of(spool.take_all())] == [*range(20), *range(21, 40)]
    state = spool.state()
    assert (state.recovered, state.queued, dict(state.dropped)) == (40, 39, {DropReason.SPOOL_DAMAGED: 1})
    spool.close(60)
