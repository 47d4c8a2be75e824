"""Hand-written OTLP bytes: what a receiver parses from them is what the event says, for any event."""

from hypothesis import given
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs

from export.any_event import SeenEvent, events
from export.otlp_oracle import (
    OBSERVED,
    encoder,
    expected_details,
    expected_event,
    expected_identity,
    expected_pod,
    expected_process,
    expected_resource,
    parse,
    present,
    record_of,
)
from keytrail.domain.event import Details, Event, EventKind, EventType, HookArgument, Network, Payload
from keytrail.domain.identity import Attribution, Evidence, EvidenceKind
from keytrail.domain.peer import Peer, PeerKind
from keytrail.domain.process import Pod, Process
from keytrail.export.attributes import SCHEMA_URL
from keytrail.export.attributes_page import declared
from keytrail.export.otlp_known import KnownProcesses


@given(event=events())
def test_record_says_what_the_event_says(event: SeenEvent) -> None:
    """A receiver parses exactly the attributes, times, severity and names that follow from the event, for any event."""
    record, found = record_of(event)
    uid = found.pop("log.record.uid")
    assert isinstance(uid, str)
    assert len(uid) == 32
    assert found == present(
        expected_event(event)
        | expected_process(event.process)
        | expected_identity(event.process.attribution or Attribution())
        | expected_pod(event.process.pod)
        | expected_details(event.seen)
    )
    assert found.keys() <= declared().keys()
    assert (record.time_unix_nano, record.observed_time_unix_nano) == (event.time_ns, OBSERVED)
    assert (record.severity_number, record.severity_text, record.event_name) == (9, "INFO", "keytrail.event")
    assert record.body.string_value.isascii()
    assert record.body.string_value.isprintable()
    assert record.body.string_value.startswith(f"{event.kind.value} ")


@given(event=events())
def test_resource_says_where_it_was(event: SeenEvent) -> None:
    """A resource names the observed node and workload; attributes of the collector's own pod are not mixed in."""
    used = encoder()
    key, record = used.encode(event)
    whole = ResourceLogs.FromString(used.resource_logs(key, [record, record]))
    assert parse(whole.resource.attributes) == present(expected_resource(event))
    (scope,) = whole.scope_logs
    assert scope.scope.name == "keytrail"
    assert whole.schema_url == scope.schema_url == SCHEMA_URL
    assert list(scope.log_records) == [LogRecord.FromString(record)] * 2


def test_creation_time() -> None:
    """The start of a process is an ISO 8601 time in UTC."""
    process = Process("x", start_ns=1754675047730801281)
    _, found = record_of(Event(EventKind.EXEC, EventType.EXEC, process, time_ns=1))
    assert found["process.creation.time"] == "2025-08-08T17:44:07.730801281Z"


def test_thread_and_parent() -> None:
    """The thread is said whether it is its process's first or another one, and the parent whatever its number."""
    used, process = encoder(), Process("x", pid=300)
    for tid in (0, 300, 301, 300):
        for parent in (None, Process("p", pid=1), Process("q", pid=70_000), Process("r", pid=0)):
            event = Event(EventKind.EXEC, EventType.EXEC, process, time_ns=1, tid=tid, parent=parent)
            found = parse(LogRecord.FromString(used.encode(event)[1]).attributes)
            assert found.get("keytrail.event.thread_id") == (tid or None)
            assert found.get("process.parent_pid") == (None if parent is None else parent.pid)


class Connection(SeenEvent):
    """An event with a peer."""

    __slots__ = ("other",)
    other: Peer | None

    @property
    def peer(self) -> Peer | None:
        """What the test gave."""
        return self.other


def test_one_server_address() -> None:
    """The peer is told with its event; a name that the event itself carries outranks one that was remembered."""
    used = encoder()
    event = Connection(EventKind.SEND, EventType.KPROBE, Process("x"), time_ns=1)
    event.raised = None
    event.other = Peer(PeerKind.SERVICE, "ml", "chat", host="remembered.example")
    for payload, host in ((None, "remembered.example"), (Payload(server_name="seen.example"), "seen.example")):
        event.seen = Details(Network("AF_INET", "IPPROTO_TCP"), payload=payload)
        record = LogRecord.FromString(used.encode(event)[1])
        assert [one.value.string_value for one in record.attributes if one.key == "server.address"] == [host]
        assert parse(record.attributes)["keytrail.peer.name"] == "chat"


def test_hook_arguments_are_not_exported() -> None:
    """What a process wrote changes no byte of its record: neither as text nor through a digest of it."""
    event = SeenEvent(EventKind.HOOK, EventType.KPROBE, Process("x"), time_ns=1, function="sys_write")
    event.raised = None
    records = set()
    for written in (b"Authorization: Bearer x", "other text"):
        event.seen = Details()
        event.held = (HookArgument(1, "buffer", "char_buf", written),)
        records.add(encoder().encode(event)[1])
    assert len(records) == 1


def test_memory_is_bounded() -> None:
    """Any number of processes and pods, with arguments of any length, leave only so much remembered."""
    used = KnownProcesses({})
    for number in range(20_000):
        process = Process(f"x{number}", arguments="x" * 5000 if number % 2 else "", pod=Pod("ml", f"pod-{number}"))
        known = used.of(Event(EventKind.EXEC, EventType.EXEC, process, time_ns=number))
        assert f"x{number}" in known.attributes
    assert 1000 < len(used._memo._known) <= 8192
    assert all(len(known.attributes) <= 4096 for known in used._memo._known.values())
    assert len(used._subjects) <= 4096


def test_shared_objects_are_known_by_what_they_are() -> None:
    """Pods, attributions and hooks that come and go, at the same addresses, never lend their bytes to others."""
    used = encoder()
    for number in range(3000):
        process = Process("x", pod=Pod("ml", f"pod-{number}"))
        process.attribution = Attribution((Evidence(EvidenceKind.ENV, f"KEY_{number}", f"id-{number}"),))
        event = Event(EventKind.HOOK, EventType.KPROBE, process, time_ns=1, function=f"f{number}", node=f"n{number}")
        key, record = used.encode(event)
        resource = parse(ResourceLogs.FromString(used.resource_logs(key, [record])).resource.attributes)
        found = parse(LogRecord.FromString(record).attributes)
        assert (resource["k8s.pod.name"], resource["host.name"]) == (f"pod-{number}", f"n{number}")
        assert found["keytrail.identity.id"] == f"id-{number}"
        assert found["keytrail.event.function"] == f"f{number}"
