"""The spool's recovery: whatever happened to a segment, no crash, no record that never was, and all that is intact.

Segments are damaged by flipped, cut, inserted and repeated bytes, and so are the files that say what is settled. Each
entry whose bytes are all there is found, once and in order; another opening finds the same.
"""

import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from fuzz.feed import Feed
from keytrail.export.spool.entries import Lane
from keytrail.export.spool.opening import open_folder
from keytrail.export.spool.scan import Survey, lane_folder, read_acks, read_piece, segment_path
from keytrail.export.spool.segment import HEADER, Frame, Kind, encode_blocks, encode_frame

WORDS = (b"\xf5KT\xfa", HEADER, bytes(8), b"\xff" * 8)
_SEED, _FIRST, _COUNT = 0x5EED, 7, 12
_CHANGES = 12


class _Stored(NamedTuple):
    content: bytes
    frames: dict[int, bytes]
    """Bytes of each entry's frame, by its sequence."""
    entries: dict[int, Frame]


@cache
def stored(*, packed: bool) -> _Stored:
    """A segment of entries of several records, as the spool writes it."""
    entries, frames, before = {}, {}, 0
    for sequence in range(_FIRST, _FIRST + _COUNT):
        data = b"%d" % sequence + b" finding" * (sequence * 3 % 11)
        entry = Frame(Kind.ENTRY, Lane.LOW, sequence % 3, 1 + sequence % 4, sequence, 10**18 + sequence, sequence, data)
        entries[sequence], frames[sequence] = entry, encode_frame(entry, before, _SEED)
        before += entry.records
    content = encode_blocks(entries.values(), _SEED) if packed else frames.values()
    return _Stored(HEADER + b"".join(content), frames, entries)


def seeds() -> Iterator[bytes]:
    """Yield some damage of each kind, to either form."""
    for packed in (0, 1):
        yield bytes((packed, 0))
        for change in range(5):
            yield bytes((packed, 0, change, 0, 90, 3, 7, 2, 1, 1, 40, 9, 9))
        yield bytes((packed, 4, *_ack(8), *_ack(9)))


def _ack(sequence: int) -> bytes:
    return sequence.to_bytes(8, "little") + zlib.crc32(sequence.to_bytes(8, "little"), _SEED).to_bytes(4, "little")


def check(data: bytes) -> None:
    """Damage a segment, open the folder twice, and compare what is found with what was stored."""
    feed = Feed(data)
    was = stored(packed=bool(feed.number() & 1))
    acks = feed.take(6 * feed.number())
    damaged = _damaged(was.content, feed)
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = segment_path(lane_folder(folder, Lane.LOW), _FIRST, _SEED)
        path = path if was is stored(packed=False) else path.with_suffix(".pack")
        path.parent.mkdir()
        path.write_bytes(damaged)
        if acks:
            path.with_suffix(".ack").write_bytes(acks)
        first, again = _opened(folder), _opened(folder)
    assert again == first, "another opening finds something else"
    found = {entry.sequence for entry in first}
    assert all(was.entries[entry.sequence] == entry for entry in first), "a record that never was"
    if path.suffix == ".seg":
        assert found == _intact(was, damaged[len(HEADER) :]) - _settled(acks), "an intact record was not found"


def _damaged(content: bytes, feed: Feed) -> bytes:
    for _ in range(_CHANGES):
        if not feed.left:
            break
        how, at = feed.number() % 5, feed.number(2) % (len(content) + 1)
        if how == 0:
            content = content[:at]
        elif how == 1:
            content = content[:at] + feed.take(feed.number()) + content[at:]
        elif how == 2:  # overwritten
            new = feed.take(feed.number())
            content = content[:at] + new + content[at + len(new) :]
        elif how == 3:  # left out
            content = content[:at] + content[at + feed.number(2) :]
        else:  # repeated
            content = content[:at] + content[at : at + feed.number(2)] + content[at:]
    return content


def _intact(was: _Stored, damaged: bytes) -> set[int]:
    """Sequences of the entries that are all there, each behind the one before it; what comes out of order is late."""
    places = []
    for sequence, frame in was.frames.items():
        at = damaged.find(frame)
        while at >= 0:
            places.append((at, sequence))
            at = damaged.find(frame, at + 1)
    found = [0]
    for _, sequence in sorted(places):
        if sequence > found[-1]:
            found.append(sequence)
    return set(found[1:])


def _settled(acks: bytes) -> set[int]:
    pairs = (acks[at : at + 12] for at in range(0, len(acks) - len(acks) % 12, 12))
    return {int.from_bytes(pair[:8], "little") for pair in pairs if pair == _ack(int.from_bytes(pair[:8], "little"))}


def _opened(folder: Path) -> list[Frame]:
    """Open the folder; return the entries that wait in it."""
    opened = open_folder(folder)
    try:
        surveys = [survey for survey in opened.found if not survey.segment.gone]
        entries = [entry for survey in surveys for entry in _entries(survey)]
    finally:
        opened.owner.abandon()
    said, found = sum(survey.segment.records for survey in surveys), sum(entry.records for entry in entries)
    # Of a packed segment only the heads are looked at: what is damaged behind them is told when it is read.
    assert said == found or (said > found and any(survey.segment.packed for survey in surveys))
    lost = [survey.lost for survey in surveys]
    assert min(lost, default=0) >= 0
    assert said + sum(lost) <= sum(entry.records for entry in stored(packed=False).entries.values())
    return entries


def _entries(survey: Survey) -> Iterator[Frame]:
    """Read as a lane does, which hands out what is behind the entry before."""
    segment, at, last = survey.segment, len(HEADER), 0
    acked = read_acks(segment)
    while at < segment.end:
        frames, at = read_piece(segment, at, segment.end)
        for frame in frames:
            if frame.sequence > last:
                last = frame.sequence
                if frame.sequence not in acked:
                    yield frame
