"""The spool as its users see it: append, take, settle, again after a restart."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keytrail.domain.drop import DropReason
from keytrail.export.spool.entries import Lane
from keytrail.export.spool.owner import PreviousRun, SpoolBusyError
from spool.spool_world import HOUR_NS, MIB, QUICK, Clock, World, balanced, files, records_of


@contextmanager
def running(folder: Path | None, **options: Any) -> Iterator[World]:
    """A spool that is started and closed."""
    spool = World(folder, **options)
    spool.start()
    try:
        yield spool
        assert balanced(spool.state()), spool.state()
    finally:
        spool.close(60)


@pytest.fixture(params=["disk", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Where the spool lives: what does not concern the disk is the same without."""
    return tmp_path if request.param == "disk" else None


def test_records_of_a_workload_keep_their_order_across_severities(place: Path | None) -> None:
    """What one resource's records are is sent in the order in which they came, whatever lanes they are stored in."""
    with running(place) as spool:
        for number in range(600):
            lane = (Lane.LOW, Lane.CRITICAL, Lane.EVENT)[number // 7 % 3]
            spool.append(lane, b"resource %d" % (number % 4), b"%d" % number)
        spool.sync(60)
        entries = spool.take_all(records=50)
    for resource in range(4):
        mine = [int(one) for one in records_of(e for e in entries if e.data.startswith(b"resource %d\n" % resource))]
        assert mine == sorted(mine)
        assert len(mine) == 150
    assert len({entry.sequence for entry in entries}) == len(entries)


def test_slots_share_the_streams(place: Path | None) -> None:
    """Each slot gets the streams whose number falls to it, all of them, and none twice."""
    with running(place) as spool:
        for number in range(200):
            spool.append(Lane.LOW, b"resource %d" % number, b"%d" % number)
        spool.sync(60)
        shares = [spool.take_all(slot, 3, records=20) for slot in range(3)]
        assert [{entry.stream % 3 for entry in share} for share in shares] == [{0}, {1}, {2}]
        assert sorted(int(one) for share in shares for one in records_of(share)) == list(range(200))


def test_given_back_comes_first(place: Path | None) -> None:
    """Entries that were not sent are the next that their slot takes, in their order."""
    with running(place) as spool:
        for number in range(30):
            spool.append(Lane.LOW, b"resource %d" % number, b"%d" % number)
        spool.sync(60)
        taken = spool.take(0, 1, 10, MIB, 0.0)
        spool.give_back(taken)
        assert spool.take(0, 1, 10, MIB, 0.0) == taken
        spool.exported(taken[:4])
        spool.give_back(taken[4:])
        assert spool.take(0, 1, 6, MIB, 0.0) == taken[4:]


def test_entries_settle_in_pieces(place: Path | None) -> None:
    """An entry that was divided counts when the pieces add up; given back before, it is whole again."""
    with running(place) as spool:
        for number in range(10):
            spool.append(Lane.LOW, b"resource", b"%d" % number)
        spool.sync(60)
        (whole,) = spool.take(0, 1, 100, MIB, 0.0)
        spool.exported([whole._replace(records=4)])
        assert spool.state().queued == 10
        spool.give_back([whole])
        assert spool.take(0, 1, 100, MIB, 0.0) == [whole]
        spool.refused([whole._replace(records=1)], "poison")
        spool.exported([whole._replace(records=9)], rejected=2)
        state = spool.state()
        assert (state.exported, state.queued, dict(state.dropped)) == (7, 0, {DropReason.EXPORT_REJECTED: 3})


def test_take_waits_lingers_and_is_woken(place: Path | None) -> None:
    """An empty queue makes `take` wait; it returns what has come within the linger, and nothing after `wake`."""
    with running(place) as spool:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(len(records_of(spool.take(0, 1, 100, MIB, 60.0)))))
        thread.start()
        for number in range(100):
            spool.append(Lane.LOW, b"resource", b"%d" % number)
            spool.sync(60)
        thread.join(60)
        assert found == [100]
        assert spool.take_now() == []


def test_take_at_the_end_waits_for_what_is_on_its_way(place: Path | None) -> None:
    """Below zero, linger waits for no record that was not appended before, and for every one that was."""
    with running(place) as spool:
        assert spool.take(0, 1, 100, MIB, -1.0) == []
        for number in range(100):
            spool.append(Lane(number % 6), b"resource %d" % number, b"%d" % number)
        found: list[bytes] = []
        while taken := spool.take(0, 1, 30, MIB, -1.0):
            found += records_of(taken)
        assert sorted(map(int, found)) == list(range(100))


def test_nothing_stays_behind_in_the_inlet(place: Path | None) -> None:
    """Whatever is appended while others are written is committed, with nobody who asks and no other reason to look."""
    with running(place, tuning=replace(QUICK, gather=0.0, tidy=3600.0)) as spool:
        for number in range(3000):
            spool.append(Lane(number % 6), b"resource", b"%d" % number)
        taken = spool.take(0, 1, 3000, MIB, 60.0)
        assert sorted(map(int, records_of(taken))) == list(range(3000))
        assert spool.state().appended == 3000


def test_restart_finds_what_was_not_settled(tmp_path: Path) -> None:
    """What a closed spool held is there for the next, but for what the backend has; sequences rise on."""
    with running(tmp_path) as spool:
        assert spool.previous.last_alive_ns is None
        for number in range(20):
            spool.append(Lane(number % 6), b"resource %d" % number, b"%d" % number)
        assert spool.sync(60)
        taken = spool.take(0, 1, 12, MIB, 0.0)
        spool.exported(taken[:5])
        highest = max(entry.sequence for entry in taken)
    with running(tmp_path) as spool:
        assert spool.previous.clean
        assert spool.previous.last_alive_ns is not None
        assert (spool.state().recovered, spool.listener.found) == (15, 15)
        found = spool.take_all()
        assert {e.sequence for e in found} & {e.sequence for e in taken} == {e.sequence for e in taken[5:]}
        spool.exported(found)
        spool.append(Lane.LOW, b"resource", b"new")
        spool.sync(60)
        (new,) = spool.take_all()
        assert new.sequence > highest
        spool.exported([new])
    assert files(tmp_path, ".seg", ".pack", ".ack") == []


def test_the_time_spent_on_sending_at_the_end_is_time_without_a_collector(tmp_path: Path) -> None:
    """What the next run says of the end before it begins when reading ended, not with the last request."""
    clock = Clock()
    with running(tmp_path, clock=clock) as spool:
        read_until = clock.wall_ns
        spool.last_call()
        clock.pass_ns(4_000_000_000)
    with running(tmp_path, clock=clock) as spool:
        assert spool.previous == PreviousRun(clean=True, last_alive_ns=read_until)


def test_memory_is_lost_with_the_process_and_said(tmp_path: Path) -> None:
    """Without a folder what is not sent at the end is dropped as shutdown, and later records too."""
    spool = World(None)
    spool.append(Lane.HIGH, b"resource", b"1")
    spool.close(60)
    spool.append(Lane.HIGH, b"resource", b"2")
    assert dict(spool.state().dropped) == {DropReason.SHUTDOWN: 2}
    assert not spool.state().durable
    assert spool.state().fault == ""
    assert list(tmp_path.iterdir()) == []


def test_two_spools_on_one_folder_are_refused(tmp_path: Path) -> None:
    """The second owner is told the first one's process; after its end the folder is free."""
    with running(tmp_path), pytest.raises(SpoolBusyError, match=r"in use by process \d+"):
        World(tmp_path)
    with running(tmp_path) as spool:
        assert spool.previous.clean


def test_lowest_severity_makes_room_first(tmp_path: Path) -> None:
    """When the disk's share is full the oldest of the lowest lane goes, and the bound holds at every look."""
    tuning = replace(QUICK, segment_bytes=64 * 1024)
    with running(tmp_path, most_bytes=2 * MIB, tuning=tuning) as spool:
        for number in range(400):
            spool.append(Lane.HIGH, b"resource", b"high %d " % number + bytes(1000).hex().encode())
        spool.append(Lane.EVENT, b"resource", b"event taken")
        assert spool.sync(60)
        everything = spool.take_all()
        taken = [entry for entry in everything if entry.lane is Lane.EVENT]
        spool.give_back([entry for entry in everything if entry.lane is Lane.HIGH])
        for number in range(4000):
            spool.append(Lane.EVENT, b"resource", b"event %d " % number + b"%d" % number * 300)
            if number % 200 == 0:
                spool.sync(60)
                assert spool.state().bytes <= 2 * MIB
        assert spool.sync(60)
        spool.exported(taken)
        state = spool.state()
        assert state.exported == 1
        assert sum(path.stat().st_size for path in files(tmp_path, ".seg", ".pack", ".ack")) <= 2 * MIB
        assert state.queued_by_lane[Lane.HIGH] == 400
        assert state.dropped.keys() == {DropReason.SPOOL_EVICTED}
        events = [int(one.split()[1]) for one in records_of(spool.take_all()) if one.startswith(b"event")]
        late = [number for number in events if number > 1000]  # the segment of what was taken stayed
        assert late == list(range(4000 - len(late), 4000))
        spool.when(lambda _: spool.losses)
    assert sum(loss.records for loss in spool.losses) == spool.listener.dropped[DropReason.SPOOL_EVICTED]


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Without a disk the oldest of the lowest lane goes when memory is full; what is being sent stays."""
    del tmp_path
    with running(None, most_bytes=MIB) as spool:
        spool.append(Lane.EVENT, b"resource", b"first")
        spool.sync(60)
        first = spool.take(0, 1, 1, MIB, 0.0)
        for number in range(3000):
            spool.append(Lane(number % 2), b"resource", b"%d " % number + bytes(1000))
            assert spool.state().bytes <= MIB
        spool.exported(first)
        state = spool.state()
        assert state.exported == 1
        assert state.queued_by_lane[Lane.EVENT] == 0
        assert 900 < state.queued_by_lane[Lane.INFO] < 1050


def test_patient_append_waits_for_the_sender() -> None:
    """A source that ends loses nothing to a slow backend: `append` waits while entries are being settled."""
    with running(None, most_bytes=MIB, patient=True) as spool:
        over = threading.Event()

        def send() -> None:
            while not over.is_set() or spool.state().queued:
                spool.exported(spool.take_now(records=50))

        thread = threading.Thread(target=send)
        thread.start()
        for number in range(5000):
            spool.append(Lane.EVENT, b"resource", b"%d " % number + bytes(1000))
        over.set()
        thread.join(60)
        assert (spool.state().exported, spool.state().queued) == (5000, 0)


def test_patience_ends() -> None:
    """With a backend that takes nothing a patient `append` waits once, then drops as any other."""
    with running(None, most_bytes=MIB, patient=True, tuning=replace(QUICK, patience=0.05)) as spool:
        for number in range(3000):
            spool.append(Lane.EVENT, b"resource", b"%d " % number + bytes(1000))
        assert spool.state().dropped[DropReason.SPOOL_EVICTED] > 1000


def test_outage_is_packed_and_comes_back_in_order(tmp_path: Path) -> None:
    """What waits is compressed on disk, read back piece by piece by slots that run apart, and removed when settled."""
    tuning = replace(QUICK, segment_bytes=256 * 1024, hot_bytes=128 * 1024)
    with running(tmp_path, tuning=tuning) as spool:
        assert spool.take_now(0, 2) == []
        for number in range(6000):
            spool.append(Lane(number // 50 % 3), b"resource %d" % (number % 40), b"%d " % number + b"finding " * 100)
            if number % 500 == 0:
                spool.sync(60)
        spool.sync(60)
        spool.when(lambda state: state.bytes < 6000 * 800 / 2 and len(files(tmp_path, ".pack")) > 10)
        ahead = spool.take_all(1, 2, records=100)
        spool.exported(ahead)
        behind = spool.take_all(0, 2, records=100)
        spool.exported(behind)
        for resource in range(40):
            head = b"resource %d\n" % resource
            mine = [int(one.split()[0]) for one in records_of(e for e in ahead + behind if e.data.startswith(head))]
            assert mine == list(range(resource, 6000, 40))
        assert spool.state().queued == 0
        spool.when(lambda state: state.bytes < 512 * 1024)


def test_backend_that_answers_has_nothing_packed(tmp_path: Path) -> None:
    """Entries that are taken as they come are neither read back from disk nor compressed."""
    tuning = replace(QUICK, segment_bytes=64 * 1024, pack_after=3600.0)
    with running(tmp_path, tuning=tuning) as spool:
        spool.take_now()
        for number in range(2000):
            spool.append(Lane.LOW, b"resource", b"%d " % number + bytes(100).hex().encode())
            if number % 100 == 99:
                assert spool.sync(60)
                for segment in files(tmp_path, ".seg"):
                    with suppress(FileNotFoundError), segment.open("r+b") as file:
                        file.write(bytes(segment.stat().st_size))  # whoever reads it back finds nothing
                spool.exported(spool.take(0, 1, 10_000, 64 * MIB, 0.0))
        assert spool.state().exported == 2000
        assert files(tmp_path, ".pack") == []


def test_records_grow_too_old(tmp_path: Path) -> None:
    """After its longest time a record is dropped as expired, on disk and in memory."""
    clock = Clock()
    for folder in (tmp_path, None):
        with running(folder, clock=clock, longest_ns=HOUR_NS) as spool:
            spool.append(Lane.LOW, b"resource", b"old")
            spool.sync(60)
            clock.pass_ns(HOUR_NS // 2)
            spool.append(Lane.LOW, b"resource", b"young")
            spool.sync(60)
            clock.pass_ns(HOUR_NS // 2 + HOUR_NS // 16)
            state = spool.when(lambda state: state.dropped)
            assert (dict(state.dropped), state.queued) == ({DropReason.SPOOL_EXPIRED: 1}, 1)
            assert records_of(spool.take_all()) == [b"young"]


@pytest.mark.parametrize("years", [-30, 30])
def test_clock_jumps_expire_nothing(tmp_path: Path, years: int) -> None:
    """A wall clock that is set, while running or between two runs, neither expires what waits nor keeps it for ever."""
    clock = Clock()
    with running(tmp_path, clock=clock, longest_ns=HOUR_NS) as spool:
        spool.append(Lane.LOW, b"resource", b"before")
        assert spool.sync(60)
        clock.wall_ns += years * 365 * 24 * HOUR_NS
        spool.append(Lane.LOW, b"resource", b"after")
        assert spool.sync(60)
        assert spool.state().queued == 2
    clock.wall_ns += years * 365 * 24 * HOUR_NS
    with running(tmp_path, clock=clock, longest_ns=HOUR_NS) as spool:
        assert spool.sync(60)
        assert spool.state().queued == 2
        assert records_of(spool.take_all(records=1)) == [b"before", b"after"]
    with running(tmp_path, clock=clock, longest_ns=HOUR_NS) as spool:
        clock.tick_ns += HOUR_NS + HOUR_NS // 16
        state = spool.when(lambda state: not state.queued)
        assert state.dropped[DropReason.SPOOL_EXPIRED] == 2


def test_sync_does_not_wait_to_gather(tmp_path: Path) -> None:
    """`sync` does not wait for the gather time: what was appended is on disk when it returns."""
    with running(tmp_path, tuning=replace(QUICK, gather=3600.0, tidy=3600.0)) as spool:
        spool.append(Lane.LOW, b"resource", b"1")
        spool.append(Lane.HIGH, b"resource", b"2")
        assert spool.sync(60)
        assert sum(path.read_bytes().count(b"resource") for path in files(tmp_path, ".seg")) == 2
        assert spool.state().unsynced == 0


def test_encoder_that_fails_costs_its_batch_only(tmp_path: Path) -> None:
    """An unexpected error of the encoder is survived: the batch is counted as lost, later ones are stored."""
    with running(tmp_path) as spool:
        spool._writer._resource_logs = lambda _key, records: records[7]
        spool.append(Lane.LOW, b"resource", b"1")
        assert spool.sync(60)
        assert dict(spool.state().dropped) == {DropReason.SPOOL_DAMAGED: 1}
        spool._writer._resource_logs = lambda key, records: b"\n".join((key, *records))
        spool.append(Lane.LOW, b"resource", b"2")
        assert spool.sync(60)
        assert records_of(spool.take_all()) == [b"2"]


def test_nothing_is_packed_away_while_it_is_written(tmp_path: Path) -> None:
    """With a tight bound, commits that fill segments and pack others lose nothing: a restart finds every record."""
    tuning = replace(QUICK, segment_bytes=32 * 1024, hot_bytes=0, pack_after=3600.0)
    with running(tmp_path, most_bytes=MIB, tuning=tuning) as spool:
        for number in range(4000):
            spool.append(Lane(number % 2), b"resource %d" % (number % 50), b"%d" % number + b" finding" * 100)
            if number % 300 == 0:
                assert spool.sync(60)
        assert spool.sync(60)
        assert not spool.state().dropped
        assert files(tmp_path, ".pack")
    with running(tmp_path) as spool:
        assert spool.state().recovered == 4000
        assert sorted(int(one.split()[0]) for one in records_of(spool.take_all())) == list(range(4000))


def test_backlog_is_taken_in_full_batches(tmp_path: Path) -> None:
    """What waits on disk is read in pieces; who has time for more gets a batch as large as asked for."""
    tuning = replace(QUICK, pack_after=3600.0)
    with running(tmp_path, tuning=tuning) as spool:
        for number in range(4000):
            spool.append(Lane(number % 2), b"resource", b"%d" % number + b" finding" * 200)
        assert spool.sync(60)
    with running(tmp_path, tuning=tuning) as spool:
        piece = len(records_of(spool.take(0, 1, 3000, 64 * MIB, 0.0)))
        batch = [int(one.split()[0]) for one in records_of(spool.take(0, 1, 3000, 64 * MIB, 60.0))]
        # Full but for what the next entry, of at most 512 records, would have made too much; or all that is left.
        assert 3000 - 512 < len(batch) <= 3000 or len(batch) == 4000 - piece
        assert batch == sorted(batch)
