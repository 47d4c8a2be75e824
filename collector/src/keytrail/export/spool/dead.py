"""Dead letters: what the backend refused for good, set aside where a person can look at it and send it again.

One file for each refusal, `dead/<first sequence>-<seed>.dead`: a note with the reason, then the entries, in the format
of segments. To send one again it is moved to `resend/`, by whoever likes to: a move is atomic, and the spool that owns
the folder takes it from there. Bounded: the oldest go. They have been counted as dropped when they were refused.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from keytrail.export.spool.entries import Entry, Lane
from keytrail.export.spool.files import make_folder, sync_folder, write_all, write_whole
from keytrail.export.spool.segment import HEADER, Frame, Kind, Scanner, encode_frame

DEAD: Final = "dead"
RESEND: Final = "resend"
_NAME: Final = re.compile(r"0*(\d+)-([0-9a-f]{8})\.dead")
_REASON_LENGTH: Final = 500


class Letter(NamedTuple):
    """One file of dead letters."""

    path: Path
    name: str
    """What a person calls it: the sequence of its first entry, and the seed."""
    seed: int
    reason: str
    time_ns: int
    """When it was refused, wall clock."""
    records: int
    bytes: int


def letters(folder: Path) -> Iterator[Letter]:
    """The dead letters of a spool, oldest first; those that vanish meanwhile are left out."""
    with suppress(FileNotFoundError):
        for path in sorted((folder / DEAD).iterdir()):
            with suppress(FileNotFoundError):
                if (letter := _read(path)) is not None:
                    yield letter


def frames_of(path: Path) -> list[Frame]:
    """The note and the intact entries of a file of dead letters. Raises OSError."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return []
    with path.open("rb") as file:
        file.seek(len(HEADER))
        return list(Scanner(int(match[2], 16), 0).frames(file.read(), final=True))


def _read(path: Path) -> Letter | None:
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    frames = frames_of(path)
    note = next((frame for frame in frames if frame.kind is Kind.NOTE), None)
    return Letter(
        path,
        f"{match[1]}-{match[2]}",
        int(match[2], 16),
        str(json.loads(note.data)["reason"]) if note else "not known: the file is damaged",
        note.time_ns if note else path.stat().st_mtime_ns,
        sum(frame.records for frame in frames if frame.kind is Kind.ENTRY),
        path.stat().st_size,
    )


def move_to_resend(folder: Path, letter: Letter) -> None:
    """Have a dead letter sent again by the spool that owns the folder, now or when it starts. Raises OSError."""
    make_folder(folder / RESEND)
    letter.path.rename(folder / RESEND / letter.path.name)
    sync_folder(folder / RESEND)
    sync_folder(folder / DEAD)


def to_resend(folder: Path) -> list[Path]:
    """Files that wait to be sent again."""
    with suppress(FileNotFoundError):
        return sorted(path for path in (folder / RESEND).iterdir() if _NAME.fullmatch(path.name))
    return []


class DeadLetters:
    """The dead letters of a spool that we own. Called with the lock of the spool's files held."""

    def __init__(self, folder: Path, most_bytes: int, seed: Callable[[], int]) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._seed = seed
        self._changed = -1
        """Of the folder: others move letters out of it."""
        self._known: dict[Path, Letter] = {}
        self.refresh()

    @property
    def records(self) -> int:
        """Set aside now."""
        return sum(letter.records for letter in self._known.values())

    @property
    def bytes(self) -> int:
        """On disk."""
        return sum(letter.bytes for letter in self._known.values())

    def add(self, entries: Sequence[Entry], reason: str, time_ns: int) -> None:
        """Set entries aside. Raises OSError."""
        make_folder(self._folder / DEAD)
        seed = self._seed()

        def write(file: int) -> None:
            note = json.dumps({"reason": reason[:_REASON_LENGTH]}).encode()
            frames = [encode_frame(Frame(Kind.NOTE, Lane.EVENT, 0, 0, 0, time_ns, 0, note), 0, seed)]
            before = 0
            for entry in entries:
                sequence, lane, stream, records, data = entry
                frame = Frame(Kind.ENTRY, lane, stream, records, sequence, time_ns, 0, data)
                frames.append(encode_frame(frame, before, seed))
                before += records
            write_all(file, HEADER + b"".join(frames))

        write_whole(self._folder / DEAD / f"{entries[0].sequence:020d}-{seed:08x}.dead", write)
        self.refresh()

    def refresh(self) -> None:
        """Look at what is there, if that changed, and keep it within its bound."""
        place = self._folder / DEAD
        with suppress(OSError):
            if (changed := place.stat().st_mtime_ns) == self._changed:
                return
            paths = sorted(place.iterdir())
            found = ((path, self._known.get(path) or _read(path)) for path in paths)
            self._known = {path: letter for path, letter in found if letter is not None}
            for path in list(self._known):
                if self.bytes <= self._most_bytes:
                    break
                path.unlink(missing_ok=True)
                del self._known[path]
            self._changed = changed
