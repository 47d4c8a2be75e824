"""A gap outside: as a JSON line, as an OTLP record, as a sentence, for every cause and phase."""

import json
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from keytrail.domain.gap import Gap, GapCause, GapPhase
from keytrail.export.attributes_page import declared
from keytrail.export.gap_line import gap_line, gap_sentence
from keytrail.export.otlp_encode import RecordEncoder
from keytrail.export.otlp_gap import GapEncoder, gap_lane
from keytrail.export.spool.entries import Lane
from keytrail.observe.gap_log import GapLog

GAP = Gap(
    GapCause.READER_SLOW,
    1_795_312_350_000_000_000,
    1_795_312_354_500_000_000,
    lost=2186,
    node="tvm",
    detail="the agent's queue for a reader was full",
)


def encoded(gap: Gap) -> tuple[Resource, LogRecord, dict[str, Any]]:
    """Encode and read back."""
    encoder = GapEncoder(RecordEncoder({"service.name": "keytrail", "host.name": "ours"}, lambda: 9), lambda: 9)
    key, raw = encoder.encode(gap)
    record = LogRecord.FromString(raw)
    values: dict[str, Any] = {item.key: _plain(item.value) for item in record.attributes}
    return Resource.FromString(_resource(key)), record, values


def _resource(key: bytes) -> bytes:
    return bytes(key)


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return [_plain(item) for item in value.array_value.values] if kind == "array_value" else getattr(value, str(kind))


def test_line_has_stable_keys() -> None:
    """The line is an object with `ts` and `gap`, in this order, and leaves out what the gap does not have."""
    assert json.loads(gap_line(GAP)) == {
        "ts": "2026-11-22T01:52:30.000000000Z",
        "gap": {
            "cause": "reader_slow",
            "id": GAP.id,
            "phase": "closed",
            "start": "2026-11-22T01:52:30.000000000Z",
            "end": "2026-11-22T01:52:34.500000000Z",
            "suspected": False,
            "lost": 2186,
            "exact": False,
            "node": "tvm",
            "message": "the agent dropped events for a slow reader, for 4.5 s from 2026-11-22T01:52:30.000000000Z, "
            "about 2186 events: the agent's queue for a reader was full",
        },
    }


@pytest.mark.parametrize("cause", GapCause)
@pytest.mark.parametrize("phase", GapPhase)
def test_every_cause_and_phase_can_be_told(cause: GapCause, phase: GapPhase) -> None:
    """No cause is without words, a record, a uid or a lane; attributes are declared."""
    gap = replace(GAP, cause=cause, phase=phase, policy="p", facts=(("cgroup", "c"),), lag_ns=5, suspected=True)
    assert json.loads(gap_line(gap))["gap"]["cause"] == cause
    _, record, values = encoded(gap)
    assert record.event_name == "keytrail.gap"
    assert record.body.string_value == gap_sentence(gap)
    assert set(values) <= set(declared())
    assert gap_lane(gap) is Lane.INFO


def test_record_is_the_nodes_own() -> None:
    """Time, severity, kind and attributes of the record; the resource is that of the node the gap is about."""
    resource, record, values = encoded(GAP)
    assert {item.key: item.value.string_value for item in resource.attributes} == {
        "service.name": "keytrail",
        "host.name": "tvm",
    }
    assert (record.time_unix_nano, record.observed_time_unix_nano) == (GAP.start_ns, 9)
    assert (record.severity_number, record.severity_text) == (13, "WARN")
    assert len(values.pop("log.record.uid")) == 32
    assert values == {
        "keytrail.record.kind": "gap",
        "keytrail.gap.cause": "reader_slow",
        "keytrail.gap.id": GAP.id,
        "keytrail.gap.phase": "closed",
        "keytrail.gap.start": "2026-11-22T01:52:30.000000000Z",
        "keytrail.gap.end": "2026-11-22T01:52:34.500000000Z",
        "keytrail.gap.lost": 2186,
        "keytrail.gap.exact": False,
        "keytrail.gap.node": "tvm",
    }
    assert gap_lane(GAP) is Lane.MEDIUM


def test_records_of_an_episode_share_an_id_and_have_uids_of_their_own() -> None:
    """Open, closed and backfilled record are told apart by uid, tied by id; the same record has the same uid again."""
    phases = [
        replace(GAP, phase=GapPhase.OPEN, end_ns=GAP.start_ns + 1, lost=3),
        GAP,
        replace(GAP, phase=GapPhase.BACKFILLED, backfilled=2000),
    ]
    uids = [encoded(gap)[2]["log.record.uid"] for gap in phases]
    assert len(set(uids)) == 3
    assert uids == [encoded(gap)[2]["log.record.uid"] for gap in phases]
    assert len({gap.id for gap in phases}) == 1
    assert replace(GAP, start_ns=GAP.start_ns + 1).id != GAP.id
    assert [encoded(gap)[1].severity_number for gap in phases] == [13, 13, 9]
    assert encoded(phases[2])[2]["keytrail.gap.backfilled"] == 2000


@pytest.mark.parametrize("cause", [GapCause.RECORDS_EVICTED, GapCause.SPOOL_DAMAGED])
def test_losses_of_records_that_were_stored_together_add_up(cause: GapCause) -> None:
    """Of two lanes that began in one commit the lower goes first: the later record is no correction of the first."""
    first, second = Gap(cause, 1, 2, lost=30, exact=True), Gap(cause, 1, 90, lost=5, exact=True)
    log = GapLog()
    log.add(first)
    log.add(second)
    assert log.part().lost[cause] == 35
    assert first.id != second.id


@pytest.mark.parametrize("text", ["a\x1b[31m", "a\nb", "a\x7f", "a\u202eb", "\ud800", "a\x00b"])
def test_hostile_text_is_inert(text: str) -> None:
    """A cgroup's or policy's name cannot move a cursor, break a line or hide text, in any form."""
    gap = replace(GAP, policy=text, facts=(("cgroup", text),), detail=text)
    for shown in (gap_line(gap), gap_sentence(gap)):
        assert shown.isascii()
        assert shown.isprintable()
    assert encoded(gap)[1].body.string_value.isprintable()
