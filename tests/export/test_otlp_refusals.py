"""What a backend refuses: halved until only the poison is set aside, kept when the records are not to blame."""

from collections.abc import Callable
from dataclasses import replace

import grpc
import pytest

from export.sending import QUICK, bodies, both_protocols, resource_logs, running, settings_for, wait_until
from keytrail.export.otlp_health import Trouble
from keytrail.testing.otlp_sink import OtlpSink
from keytrail.testing.otlp_sink_faults import (
    Fault,
    PartialSuccess,
    Refusal,
    forbidden,
    invalid,
    not_found,
    too_large,
    unauthenticated,
)
from keytrail.testing.otlp_sink_receiver import Rule


def poison(*words: str, fault: Callable[[], Fault] = invalid) -> Rule:
    """Refuse each request that holds one of the words."""
    return lambda request: fault() if any(word.encode() in request.raw for word in words) else None


@both_protocols
@pytest.mark.parametrize(("rejected", "counted"), [(0, 0), (2, 2), (9, 3), (-5, 0)])
def test_partial_success_is_counted_and_not_tried_again(protocol: str, rejected: int, counted: int) -> None:
    """Rejected records are counted as such, never more than were sent, and the backend's words are kept."""
    with OtlpSink() as sink:
        sink.script([PartialSuccess(rejected, "bad timestamps")])
        with running(settings_for(sink, protocol)) as (sender, queue):
            queue.put(resource_logs("a", "b", "c"), 3)
            queue.wait(3)
            assert sender.state().last_error == "bad timestamps"
            assert sender.state().reachable
        assert (queue.exported_records, queue.rejected_records) == (3 - counted, counted)
        assert len(sink.requests()) == 1


@both_protocols
def test_only_the_poison_is_set_aside(protocol: str) -> None:
    """Of 256 entries with three poisoned ones the others arrive in order, within 2 log2 requests for each poison."""
    names = [f"record {number:03}" for number in range(256)]
    bad = ["record 017", "record 100", "record 255"]
    with OtlpSink() as sink:
        sink.answer_by(poison(*bad))
        limits = replace(QUICK, linger=20, batch_records=256)
        with running(settings_for(sink, protocol), limits) as (_, queue):
            for name in names:
                queue.put(resource_logs(name))
            queue.wait(256)
        assert bodies(sink) == [name for name in names if name not in bad]
        assert [entry.data for entry, _ in queue.dead] == [resource_logs(name) for name in bad]
        assert all("bad data" in reason for _, reason in queue.dead)
        assert len(sink.requests()) <= 1 + len(bad) * 2 * 8


@both_protocols
def test_poison_inside_an_entry_is_set_aside_alone(protocol: str) -> None:
    """An entry of many records is opened: its poisoned record goes, the rest arrives with the same resource."""
    with OtlpSink() as sink:
        sink.answer_by(poison("poison"))
        with running(settings_for(sink, protocol)) as (_, queue):
            queue.put(resource_logs("a", "b", "poison", "c", "d"), 5)
            queue.wait(5)
        assert bodies(sink) == ["a", "b", "c", "d"]
        assert {resource for (resource,) in sink.rows("SELECT resource FROM records")} == {'{"service.name":"test"}'}
        ((dead, _),) = queue.dead
        assert (dead.records, dead.data) == (1, resource_logs("poison"))


@both_protocols
def test_an_outage_while_an_entry_is_divided_repeats_it_whole(protocol: str) -> None:
    """When half of a divided entry is accepted and the other half gets no answer, nothing of it counts as exported."""
    answers: list[Fault | None] = [invalid(), None, invalid(), Refusal(grpc.StatusCode.UNAVAILABLE, 503)]
    with OtlpSink() as sink:
        sink.script(answers)
        with running(settings_for(sink, protocol)) as (_, queue):
            queue.put(resource_logs("a", "b", "c", "d"), 4)
            queue.wait(4)
        assert bodies(sink) == ["a", "b", "a", "b", "c", "d"]
        assert queue.exported_records == 4


@both_protocols
def test_a_backend_that_refuses_everything_gets_nothing_set_aside(
    protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing was accepted, so nothing is believed: all records stay, the log says so once, and later all arrive."""
    names = [f"record {number}" for number in range(40)]
    with OtlpSink() as sink:
        sink.answer_by(lambda _: invalid("unknown schema"))
        with running(settings_for(sink, protocol)) as (sender, queue):
            for name in names:
                queue.put(resource_logs(name))
            assert wait_until(lambda: sender.state().retries > 3)
            assert wait_until(lambda: sender.state().trouble is Trouble.REJECTING_ALL)
            assert (queue.dead, queue.queued_records) == ([], 40)
            sink.answer_by(None)
            queue.wait(40)
            assert wait_until(lambda: sender.state().trouble is Trouble.NONE)
        # What was refused a moment before comes after what was then accepted.
        assert (sorted(bodies(sink)), queue.dead) == (sorted(names), [])
    assert caplog.text.count("refuses every record") == 1
    assert "unknown schema" in caplog.text


@both_protocols
def test_what_was_refused_just_before_the_backend_recovers_is_asked_about_again(protocol: str) -> None:
    """A backend that takes records from the middle of an attempt on gets them all, and nothing is set aside."""
    with OtlpSink() as sink:
        sink.script([invalid(), invalid(), invalid()])  # all four, the first two, the first
        with running(settings_for(sink, protocol), replace(QUICK, linger=20, batch_records=4)) as (_, queue):
            for name in "abcd":
                queue.put(resource_logs(name))
            queue.wait(4)
        assert (sorted(bodies(sink)), queue.dead) == (list("abcd"), [])


@both_protocols
def test_a_backend_that_begins_to_refuse_everything_costs_a_handful(protocol: str) -> None:
    """After the last acceptance at most as many records as there is credit are set aside; all others wait."""
    with OtlpSink() as sink:
        with running(settings_for(sink, protocol)) as (sender, queue):
            queue.put(resource_logs("good"))
            queue.wait(1)
            sink.answer_by(lambda _: invalid())
            for number in range(100):
                queue.put(resource_logs(f"record {number}"))
            assert wait_until(lambda: sender.state().trouble is Trouble.REJECTING_ALL)
            assert wait_until(lambda: sender.state().retries > 3)
            assert queue.dead_records == QUICK.credit
            sink.answer_by(None)
            queue.wait(101)
        assert queue.exported_records == 101 - QUICK.credit


@both_protocols
def test_a_lone_poison_waits_for_a_good_record(protocol: str) -> None:
    """A single refused record proves nothing about itself; the next one that is accepted convicts it."""
    with OtlpSink() as sink:
        sink.answer_by(poison("poison"))
        with running(settings_for(sink, protocol)) as (sender, queue):
            queue.put(resource_logs("poison"))
            assert wait_until(lambda: sender.state().retries > 1)
            assert queue.dead == []
            queue.put(resource_logs("good"))
            queue.wait(2)
        assert bodies(sink) == ["good"]
        assert [entry.data for entry, _ in queue.dead] == [resource_logs("poison")]


def test_bisections_are_bounded() -> None:
    """When the budget for narrowing down is spent, what is refused is set aside as it is."""
    with OtlpSink() as sink:
        limits = replace(QUICK, bisections_a_minute=0, batch_records=10, linger=20)
        with running(settings_for(sink, "http/protobuf"), limits) as (_, queue):
            queue.put(resource_logs(*"0123456789"), 10)
            queue.wait(10)
            sink.answer_by(poison("poison"))
            for name in ("poison", *"012345678"):
                queue.put(resource_logs(name))
            queue.wait(20)
        assert len(sink.requests()) == 2
        assert queue.dead_records == 10


@both_protocols
def test_a_request_over_the_backends_limit_is_split(protocol: str) -> None:
    """A backend with a smaller limit gets the same records in smaller requests; only what cannot fit is set aside."""
    names = [f"{number:100}" for number in range(16)]
    with OtlpSink(max_request_bytes=500) as sink:
        with running(settings_for(sink, protocol), replace(QUICK, linger=0.2)) as (_, queue):
            queue.put(resource_logs(*names[:7]), 7)
            queue.put(resource_logs("x" * 1000))
            for name in names[7:]:
                queue.put(resource_logs(name))
            queue.wait(17)
        assert bodies(sink) == names
        assert [entry.data for entry, _ in queue.dead] == [resource_logs("x" * 1000)]


@both_protocols
def test_throttling_that_looks_like_a_size_limit_is_waited_out(protocol: str) -> None:
    """RESOURCE_EXHAUSTED or 413 for a small request cannot be about its size: it is tried again as it is."""
    with OtlpSink() as sink:
        sink.script([too_large("quota exceeded")] * 2)
        with running(settings_for(sink, protocol), replace(QUICK, smallest_request=64 * 1024)) as (sender, queue):
            queue.put(resource_logs("a", "b"), 2)
            queue.wait(2)
            assert sender.state().retries == 2
        assert bodies(sink) == ["a", "b"]
        assert [request.records for request in sink.requests()] == [2, 2, 2]


@both_protocols
@pytest.mark.parametrize("denial", [unauthenticated, forbidden, not_found])
def test_a_denial_loses_no_record(
    protocol: str, denial: Callable[[str], Refusal], caplog: pytest.LogCaptureFixture
) -> None:
    """An expired token, a missing right and a wrong path keep the records waiting; the log says why, once."""
    with OtlpSink() as sink:
        sink.answer_by(lambda _: denial("not so"))
        with running(settings_for(sink, protocol), slots=2) as (sender, queue):
            for number in range(10):
                queue.put(resource_logs(f"record {number}"), 1, stream=number)
            assert wait_until(lambda: sender.state().requests.get("denied", 0) > 3)
            assert sender.state().trouble is Trouble.DENIED
            assert queue.queued_records == 10
            sink.answer_by(None)
            queue.wait(10)
        assert sorted(bodies(sink)) == [f"record {number}" for number in range(10)]
    assert caplog.text.count("not so") == 1


CODES = {code: code.name in {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS",
                             "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "UNIMPLEMENTED"}
         for code in grpc.StatusCode if code is not grpc.StatusCode.OK}  # fmt: skip
STATUSES = {400: False, 401: True, 403: True, 404: True, 405: True, 408: True, 415: False, 422: False, 429: True,
            500: False, 501: True, 502: True, 503: True, 504: True}  # fmt: skip


@pytest.mark.parametrize(
    ("protocol", "code", "status", "kept"),
    [("grpc", code, 500, kept) for code, kept in CODES.items()]
    + [("http/protobuf", grpc.StatusCode.UNKNOWN, status, kept) for status, kept in STATUSES.items()],
)
def test_what_becomes_of_a_record_by_status(protocol: str, code: grpc.StatusCode, status: int, kept: bool) -> None:
    """Statuses that are about the record set it aside, by a backend that is known to work; all others keep it."""
    refusal = Refusal(code, status, "as scripted")
    with OtlpSink() as sink, running(settings_for(sink, protocol)) as (sender, queue):
        queue.put(resource_logs("first"))
        queue.wait(1)
        sink.script([refusal])
        queue.put(resource_logs("second"))
        queue.wait(2)
        assert "as scripted" in sender.state().last_error
        assert bodies(sink) == (["first", "second"] if kept else ["first"])
        assert queue.dead_records == (0 if kept else 1)
