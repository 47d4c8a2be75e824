"""The uid of a record: the same for the same event, another one for every other."""

from hashlib import blake2b

from hypothesis import given, settings
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from export.any_event import SeenEvent, events
from export.otlp_oracle import encoder, record_of
from keytrail.domain.event import Details, Event, EventKind, EventType
from keytrail.domain.identity import Attribution, Evidence, EvidenceKind, Unknown
from keytrail.domain.process import Process


@settings(max_examples=40)
@given(one=events(), other=events())
def test_uid_tells_events_apart(one: SeenEvent, other: SeenEvent) -> None:
    """The same event encoded twice has the same uid; two that differ in time, thread or details have not."""
    first = record_of(one)[1]["log.record.uid"]
    assert record_of(one)[1]["log.record.uid"] == first
    before, one.seen = one.seen, other.seen
    if before != other.seen and (before.message, before.tags) == (other.seen.message, other.seen.tags):
        assert record_of(one)[1]["log.record.uid"] != first
    one.seen = before
    one.tid += 1
    assert record_of(one)[1]["log.record.uid"] != first
    one.tid, one.time_ns = one.tid - 1, one.time_ns ^ 1
    assert record_of(one)[1]["log.record.uid"] != first


def test_uid_is_not_fooled_by_separators() -> None:
    """Two events whose texts differ only in where one ends and the next begins have different uids."""
    uids = set()
    for function, policy in (("a', 'b", ""), ("a", "b"), ("a'", "'b"), ("", "a', 'b"), ("a\x00b", ""), ("a", "\x00b")):
        event = Event(EventKind.HOOK, EventType.KPROBE, Process("x"), time_ns=1, function=function, policy=policy)
        uids.add(record_of(event)[1]["log.record.uid"])
    assert len(uids) == 6


def test_uid_tells_identities_apart() -> None:
    """The same event under another identity, or with another reason for having none, is another record."""
    attributions = [
        Attribution(),
        *(Attribution(unknown=reason) for reason in Unknown),
        *(
            Attribution((Evidence(kind, name, identity, mapping=mapping),))
            for kind in (EvidenceKind.ENV, EvidenceKind.ARGV)
            for name in ("a", "b")
            for identity in ("a", "b")
            for mapping in ("", "a")
        ),
    ]
    uids = set()
    for attribution in attributions:
        process = Process("x", pid=1)
        process.attribution = attribution
        uids.add(record_of(Event(EventKind.EXEC, EventType.EXEC, process, time_ns=1))[1]["log.record.uid"])
    assert len(uids) == len(attributions)


def test_uid_does_not_depend_on_what_was_seen_before() -> None:
    """An encoder with a full memory makes the same uid as a new one: a restarted collector repeats, never renames."""
    event = Event(EventKind.HOOK, EventType.KPROBE, Process("x", pid=1), time_ns=1, function="f", policy="p")
    used = encoder()
    for number in range(5000):
        other = Event(EventKind.HOOK, EventType.KPROBE, Process(f"y{number}"), time_ns=1, function=f"g{number}")
        used.encode(other)
    uids = {
        attribute.value.string_value
        for made in (used.encode(event), encoder().encode(event))
        for attribute in LogRecord.FromString(made[1]).attributes
        if attribute.key == "log.record.uid"
    }
    assert len(uids) == 1


def _plain(details: Details) -> tuple[object, ...]:
    parts: tuple[object, ...] = (details.returned, details.build_id, details.action)
    if (n := details.network) is not None:
        parts += (n.family, n.protocol, n.local_address, n.local_port, n.peer_address, n.peer_port, n.cookie)
    if (f := details.file) is not None:
        parts += ("file", f.path, f.access, f.mode, f.target)
    if (p := details.payload) is not None:
        parts += ("payload", p.size, p.protocol, p.server_name, p.http_method, p.http_host, p.dns_name, p.credential)
    if (o := details.operation) is not None:
        parts += ("operation", o.name, o.target, o.target_pid, o.type, o.ids, o.capabilities, o.flags)
    if (x := details.exit) is not None:
        parts += ("exit", x.code, x.signal, x.duration_ns)
    return parts


@settings(max_examples=30)
@given(event=events())
def test_uid_stays_what_it_was(event: SeenEvent) -> None:
    """An upgraded collector repeats a record under the uid that the one before gave it: digests of plain tuples."""
    attribution = event.process.attribution or Attribution()
    seen = [] if attribution.unknown is None else [(attribution.unknown.value,)]
    items = [(item.kind.value, item.name, item.identity_id, item.mapping) for item in attribution.evidence]
    image = (event.node, event.process.exec_id, event.process.pid, event.process.arguments)
    call = (event.kind.value, event.type.value, event.function, event.policy)
    process = blake2b(f"{image!r}{(*seen, *items)!r}".encode(), digest_size=16).digest()
    text = f"{call!r}{event.tid},{event.time_ns}{_plain(event.seen)!r}"
    assert record_of(event)[1]["log.record.uid"] == blake2b(process + text.encode(), digest_size=16).hexdigest()
