"""A spool's folder taken into possession: locked, tidied, and what an earlier run left in it found.

The folder in, its owner and the segments that still hold something out. What is damaged is counted, then written anew
without the damage, so that it is counted once and not at every start.
"""

import logging
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from keytrail.export.spool.dead import DEAD
from keytrail.export.spool.entries import Lane
from keytrail.export.spool.files import make_folder
from keytrail.export.spool.owner import Owner
from keytrail.export.spool.scan import Segment, Survey, lane_folder, pack, remove, survey_lane, tidy

log = logging.getLogger(__name__)


class Opened(NamedTuple):
    """A folder that is ours."""

    owner: Owner
    found: list[Survey]


def open_folder(folder: Path) -> Opened:
    """Take possession of the folder. Raises SpoolBusyError when another process has it, OSError when it is unusable."""
    make_folder(folder)
    owner = Owner(folder)
    try:
        for path in (*folder.glob("*.tmp"), *folder.glob(f"{DEAD}/*.tmp")):
            path.unlink(missing_ok=True)  # a kill came while it was written
        found = []
        for lane in Lane:
            make_folder(lane_folder(folder, lane))
            tidy(folder, lane)
            found += survey_lane(folder, lane)
        for survey in found:
            _mend(survey)
    except BaseException:
        owner.abandon()
        raise
    return Opened(owner, found)


def _mend(survey: Survey) -> None:
    segment = survey.segment
    if not segment.records:
        segment.gone = True
        with suppress(OSError):
            remove(segment)
        return
    if survey.places:
        log.warning(
            "spool segment %s/%s was damaged in %d places: %d records are lost, the rest is intact",
            segment.path.parent.name, segment.path.name, survey.places, survey.lost,
        )  # fmt: skip
        with suppress(OSError):  # on a full disk: then it will be told again at the next start
            replace_by_pack(segment)


def replace_by_pack(segment: Segment) -> None:
    """Compress a segment that nobody reads, leaving out what is settled. Raises OSError."""
    before = segment.path
    segment.path, segment.end = pack(segment)
    if before != segment.path:
        before.unlink(missing_ok=True)
