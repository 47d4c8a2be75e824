"""A long outage with real findings: everything is kept within the default bounds, of disk and of memory."""

import resource
import time
from collections.abc import Iterator
from hashlib import blake2b
from itertools import cycle, islice
from pathlib import Path

import pytest

from keytrail.decode.credential_patterns import looks_like_credential_name
from keytrail.decode.decoder import Decoder
from keytrail.decode.details import DecodedEvent
from keytrail.decode.redact import Redactor
from keytrail.detect import Engine
from keytrail.detect.library import load_rules
from keytrail.export.otlp_encode import RecordEncoder
from keytrail.export.otlp_finding import FindingEncoder
from keytrail.export.spool.core import SpoolTuning
from keytrail.export.spool.entries import Lane
from keytrail.export.spool.scan import survey_lane
from keytrail.identify.matcher import IdentityMatcher
from keytrail.manifests import builtin_folder, load_builtin_identities
from spool.spool_world import HOUR_NS, World, balanced, files
from support.recordings import decode_each, messages

GIB = 1 << 30
"""The default of the setting spool_bytes."""


Record = tuple[Lane, bytes, bytes]


def findings() -> list[Record]:
    """Lane, resource and record of every finding that the shipped rules make of two recordings."""
    rules, problems = load_rules(builtin_folder() / "rules")
    assert not problems
    engine = Engine.load(rules)
    encoder = FindingEncoder(events_encoder())
    found = [one for event in recorded(1_000_000) for one in engine.detect(event)]
    return [(Lane[one.severity.name], *encoder.encode(one)) for one in found]


def events() -> list[Record]:
    """The same of the first events themselves, which takes no rules and little time."""
    encoder = events_encoder()
    return [(Lane.EVENT, *encoder.encode(event)) for event in recorded(1000)]


def events_encoder() -> RecordEncoder:
    """An encoder with a collector's resource."""
    return RecordEncoder({"service.name": "keytrail", "k8s.node.name": "n1"}, time.time_ns)


def recorded(most: int) -> Iterator[DecodedEvent]:
    """Attributed events of two recordings, the first `most` of each."""
    decoder = Decoder(Redactor().redact)
    matcher = IdentityMatcher((), load_builtin_identities(), looks_like_credential=looks_like_credential_name)
    for name in ("kubernetes", "policy-library"):
        for event in decode_each(decoder, messages(name)[:most]):
            if event.process.attribution is None:
                event.process.attribution = matcher.attribute(event.process)
            yield event


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [20_000, pytest.param(1_800_000, marks=pytest.mark.long)])
def test_outage(tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    """60 minutes at 500 findings a second (in the long form) fit into the default spool, and all come back."""
    made = events() if count < 1_000_000 else findings()
    encoder = RecordEncoder({}, time.time_ns)
    tuning = SpoolTuning(gather=0.01, tidy=0.1, pack_after=0.0)
    spool = World(tmp_path, most_bytes=GIB, longest_ns=72 * HOUR_NS, tuning=tuning)
    spool._writer._resource_logs = encoder.resource_logs  # type: ignore[assignment] # its key is bytes, by a name
    spool.start()
    raw = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, (lane, key, record) in enumerate(islice(cycle(made), count)):
        # What two findings never share compresses worst: another time and another uid.
        own = record + b"\x3a\x28" + blake2b(number.to_bytes(8, "big"), digest_size=20).hexdigest().encode()
        raw += len(own)
        spool.append(lane, key, own)
        if number % 25 == 0:
            spool.flush()
        if number % 5000 == 0:
            assert spool.sync(60)
    assert spool.sync(60)
    spool.when(lambda _: len(files(tmp_path, ".seg")) <= len({lane for lane, _, _ in made}), 120.0)
    state = spool.state()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    with capsys.disabled():
        print(  # noqa: T201 - the answer to a question of the design
            f"\n{count} findings, {raw // count} bytes each: {state.bytes} bytes on disk, "
            f"{state.bytes / count:.0f} each; memory grew by {grown} MiB"
        )
    assert (state.queued, dict(state.dropped)) == (count, {})
    packed = [one.segment for lane in Lane for one in survey_lane(tmp_path, lane) if one.segment.packed]
    assert sum(one.bytes for one in packed) / sum(one.records for one in packed) < GIB / 1_800_000 - 50
    assert state.bytes < GIB
    assert grown < 200
    spool.close(60)
    again = World(tmp_path, most_bytes=GIB)
    assert again.state().recovered == count
    taken = 0
    while taken < count:
        entries = again.take(0, 1, 2048, 4 << 20, 0.0)
        taken += sum(entry.records for entry in entries)
        again.exported(entries)
    assert balanced(again.state())
    assert again.state().exported == count
    again.close(60)
