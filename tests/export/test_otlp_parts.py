"""Requests, their halves, and the pauses between them: the parts of the sender that need no backend."""

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs

from export.sending import resource_logs
from keytrail.export.otlp_delivery import Judge
from keytrail.export.otlp_pace import LONGEST_HINT_SECONDS, Pace, SendLimits, pause_seconds
from keytrail.export.otlp_parts import count, encode_request, halves
from keytrail.export.spool.entries import Entry, Lane


def entry(data: bytes, records: int = 1) -> Entry:
    """Make an entry."""
    return Entry(1, Lane.EVENT, 0, records, data)


def test_requests_are_what_protobuf_would_make() -> None:
    """Joined entries of any size equal protobuf's own serialization."""
    entries = [entry(resource_logs("x" * size)) for size in (0, 1, 110, 127, 128, 16_300, 16_384, 70_000)]
    request = ExportLogsServiceRequest(resource_logs=[ResourceLogs.FromString(entry.data) for entry in entries])
    assert encode_request(entries) == request.SerializeToString()


@given(scopes=st.lists(st.lists(st.text(max_size=3), max_size=4), min_size=1, max_size=4))
def test_halving_ends_at_single_records_in_order(scopes: list[list[str]]) -> None:
    """An entry halved again and again gives each of its records once, in order, each with resource and scope."""
    whole = ResourceLogs(schema_url="s")
    whole.resource.attributes.add(key="k")
    for number, texts in enumerate(scopes):
        scope = whole.scope_logs.add()
        scope.scope.name = str(number)
        for text in texts:
            scope.log_records.add().body.string_value = text
    total = sum(map(len, scopes))
    found: list[tuple[str, LogRecord]] = []
    parts = [[entry(whole.SerializeToString(), total)]]
    while parts and total:
        part = parts.pop()
        smaller = halves(part)
        assert sum(map(count, smaller)) in {0, count(part)}
        parts += reversed(smaller)
        if not smaller:
            assert count(part) == 1
            message = ResourceLogs.FromString(part[0].data)
            assert (message.resource, message.schema_url) == (whole.resource, "s")
            ((name, record),) = [(s.scope.name, r) for s in message.scope_logs for r in s.log_records]
            found.append((name, record))
    assert found == [(s.scope.name, r) for s in whole.scope_logs for r in s.log_records]


def test_what_cannot_be_read_is_not_divided() -> None:
    """Damaged bytes, or fewer records than were promised, stay one piece."""
    assert halves([entry(b"\xff\xff", 3)]) == []
    assert halves([entry(resource_logs("a", "b"), 3)]) == []
    assert halves([entry(resource_logs("a"))]) == []


def test_pauses_double_up_to_a_bound_with_jitter_and_honour_hints() -> None:
    """Own pauses lie between half and all of 1, 2, 4 ... 30 s; a hint is a lower bound, itself bounded."""
    assert [pause_seconds(1, 30, attempt, None, 1.0) for attempt in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert [pause_seconds(1, 30, attempt, None, 0.0) for attempt in (0, 1, 1000)] == [0.5, 1, 15]
    assert pause_seconds(1, 30, 0, 7.0, 0.0) == 7.0
    assert 7.0 < pause_seconds(1, 30, 0, 7.0, 0.5) < 8.0
    assert pause_seconds(1, 30, 9, 7.0, 0.0) == 15
    assert pause_seconds(1, 30, 0, 1e9, 0.0) == LONGEST_HINT_SECONDS


def test_credit_comes_from_acceptance_and_is_spent() -> None:
    """Nothing is believed before the first acceptance, and only so much after each."""
    judge = Judge(SendLimits(credit=2))
    assert not judge.believes()
    for _ in range(2):
        judge.accepted()
        judge.accepted()
        assert [judge.believes() for _ in range(4)] == [True, True, False, False]


def test_the_budget_of_bisections_fills_again() -> None:
    """A minute's worth may be spent at once, the rest as time goes by."""
    now = 100.0
    judge = Judge(SendLimits(bisections_a_minute=6), lambda: now)
    assert [judge.may_bisect() for _ in range(8)] == [True] * 6 + [False] * 2
    now += 25
    assert [judge.may_bisect() for _ in range(3)] == [True, True, False]
    now += 3600
    assert sum(judge.may_bisect() for _ in range(20)) == 6


def test_no_attempt_begins_after_the_deadline_or_the_end() -> None:
    """A hold that is longer than what is left of the deadline is the end; requests are given what is left."""
    now = 100.0
    pace = Pace(lambda: now)
    assert pace.may_send()
    assert pace.timeout(10) == 10
    pace.close(4)
    pace.close(400)
    assert pace.closing
    assert pace.may_send()
    assert pace.timeout(10) == 4
    pace.hold(5)
    assert not pace.may_send()
    other = Pace(lambda: now)
    other.end()
    assert not other.may_send()
    other.pause(3600)
