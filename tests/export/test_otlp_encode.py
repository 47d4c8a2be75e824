"""Hand-written OTLP bytes: what a receiver parses from them is what the event says, for any event."""

from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs

from keytrail.domain.event import (
    Credentials,
    Details,
    Event,
    EventKind,
    EventType,
    Exit,
    FileAccess,
    HookArgument,
    Network,
    Operation,
    Payload,
)
from keytrail.domain.identity import Attribution, Evidence, EvidenceKind, Strength, Unknown
from keytrail.domain.process import Container, Pod, Process
from keytrail.export import attributes
from keytrail.export.otlp_encode import RecordEncoder
from keytrail.export.otlp_wire import RECORD_ATTRIBUTES, attribute_writer, varint

OBSERVED = 1_800_000_000_000_000_000
SELF = {"service.name": "keytrail", "host.name": "own-host", "k8s.pod.name": "own-pod", "deployment.environment": "x"}


class SeenEvent(Event):
    """An event with the details and credentials that a test gives it."""

    __slots__ = ("held", "raised", "seen")
    seen: Details
    held: tuple[HookArgument, ...]
    raised: Credentials | None

    @property
    def details(self) -> Details:
        """What the test gave."""
        return self.seen

    @property
    def arguments(self) -> tuple[HookArgument, ...]:
        """What the test gave."""
        return self.held

    @property
    def credentials(self) -> Credentials | None:
        """What the test gave."""
        return self.raised


def encoder() -> RecordEncoder:
    """Make an encoder with a clock that stands."""
    return RecordEncoder(SELF, lambda: OBSERVED)


def parse(values: Sequence[KeyValue]) -> dict[str, object]:
    """Turn attributes into plain values; a name that comes twice fails."""
    plain = {item.key: _plain(item.value) for item in values}
    assert len(plain) == len(values)
    return plain


def _plain(value: AnyValue) -> object:
    which = value.WhichOneof("value")
    assert which is not None
    if which == "array_value":
        return [_plain(item) for item in value.array_value.values]
    return getattr(value, which)


def record_of(event: Event) -> tuple[LogRecord, dict[str, object]]:
    """Encode an event and parse it back."""
    record = LogRecord.FromString(encoder().encode(event)[1])
    return record, parse(record.attributes)


# An oracle of the test's own: attribute names and values written down once more, straight from the domain objects.


def clean(value: object) -> object:
    """Say what is left of a value on its way through protobuf: no lone surrogates, integers of 64 bits, lists."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return (value + 2**63) % 2**64 - 2**63
    assert isinstance(value, tuple)
    return [clean(item) for item in value]


def present(values: Mapping[str, object]) -> dict[str, object]:
    """Leave out what is None or empty."""
    return {name: clean(value) for name, value in values.items() if value not in (None, "", ())}


def expected_process(process: Process) -> dict[str, object]:
    """Attributes of the process, without its creation time."""
    partial = process.pod is None and bool(process.container_id)
    return {
        "process.pid": process.pid,
        "process.executable.path": process.binary,
        "process.executable.name": process.binary.split("/")[-1],
        "process.command_line": f"{process.binary} {process.arguments}" if process.arguments else process.binary,
        "process.working_directory": process.cwd,
        "process.user.id": process.uid,
        "keytrail.process.exec_id": process.exec_id,
        "keytrail.process.parent_exec_id": process.parent_exec_id,
        "keytrail.process.auid": None if process.auid < 0 else process.auid,
        "keytrail.process.in_init_tree": process.in_init_tree,
        "keytrail.process.flags": process.flags,
        "keytrail.process.truncated": True if "<enomem>" in (process.cwd, process.binary) else None,
        "keytrail.process.argument_credentials": process.argument_credentials,
        "keytrail.enrichment": "partial" if partial else "full",
        "keytrail.enrichment_reason": "pod_unknown" if partial else None,
    }


def expected_identity(attribution: Attribution) -> dict[str, object]:
    """Attributes of the identity."""
    if not attribution.evidence:
        return {"keytrail.identity.unknown": attribution.unknown and attribution.unknown.value}
    first = attribution.evidence[0]
    return {
        "keytrail.identity.id": first.identity_id,
        "keytrail.identity.kind": first.identity_kind,
        "keytrail.identity.provider": first.provider,
        "keytrail.identity.owner": first.owner,
        "keytrail.identity.mapping": first.mapping,
        "keytrail.identity.strength": first.strength.name.lower(),
        "keytrail.identity.mapped": first.mapped,
        "keytrail.identity.evidence": tuple(f"{e.kind.value}:{e.name}:{e.identity_id}" for e in attribution.evidence),
        "keytrail.credential.source": first.kind.value,
        "keytrail.credential.name": first.name,
    }


def expected_pod(pod: Pod | None) -> dict[str, object]:
    """Attributes that repeat the workload on the record."""
    if pod is None:
        return {}
    return {
        "keytrail.workload.namespace": pod.namespace,
        "keytrail.workload.kind": pod.workload_kind,
        "keytrail.workload.name": pod.workload,
        "keytrail.workload.pod": pod.name,
        "keytrail.workload.container": pod.container.name,
        "keytrail.service_account.namespace": pod.namespace if pod.service_account else None,
        "keytrail.service_account.name": pod.service_account,
    }


def expected_event(event: SeenEvent) -> dict[str, object]:
    """Attributes of the event itself and of its hook."""
    details = event.seen
    values: dict[str, object] = {
        "keytrail.record.kind": "event",
        "keytrail.event.kind": event.kind.value,
        "keytrail.event.type": event.type.value,
        "keytrail.event.function": event.function,
        "keytrail.event.policy": event.policy,
        "keytrail.event.thread_id": event.tid or None,
        "keytrail.event.time_estimated": True if event.time_estimated else None,
        "process.parent_pid": None if event.parent is None else event.parent.pid,
        "keytrail.event.return_value": details.returned,
        "keytrail.event.action": details.action,
        "keytrail.event.message": details.message,
        "keytrail.event.tags": details.tags,
        "keytrail.library.build_id": details.build_id,
    }
    if event.raised is not None and event.kind in {EventKind.EXEC, EventKind.PRIVILEGE}:
        values |= {
            "process.real_user.id": event.raised.uid,
            "keytrail.process.euid": event.raised.euid,
            "keytrail.process.gid": event.raised.gid,
            "keytrail.process.egid": event.raised.egid,
            "keytrail.process.capabilities": event.raised.capabilities,
            "keytrail.process.raised": event.raised.raised,
            "keytrail.process.executable_links": None if event.raised.inode_links < 0 else event.raised.inode_links,
        }
    return values


def expected_details(details: Details) -> dict[str, object]:
    """Attributes of what the event was done to."""
    values: dict[str, object] = {}
    if (network := details.network) is not None:
        transports = {"IPPROTO_TCP": "tcp", "IPPROTO_UDP": "udp", "IPPROTO_ICMP": "icmp", "": ""}
        values |= {
            "network.transport": "unix" if network.family == "AF_UNIX" else transports[network.protocol],
            "network.type": {"AF_INET": "ipv4", "AF_INET6": "ipv6"}.get(network.family),
            "network.peer.address": network.peer_address,
            "network.peer.port": network.peer_port or None,
            "network.local.address": network.local_address,
            "network.local.port": network.local_port or None,
        }
    if (file := details.file) is not None:
        values |= {
            "file.path": file.path,
            "file.name": file.path.split("/")[-1],
            "file.mode": None if file.mode is None else f"{file.mode:o}".zfill(4),
            "keytrail.file.access": file.access,
            "keytrail.file.target": file.target,
        }
    if (payload := details.payload) is not None:
        values |= {
            "server.address": payload.server_name or payload.http_host,
            "network.protocol.name": payload.protocol,
            "http.request.method": {"GET": "GET", "": ""}.get(payload.http_method, "_OTHER"),
            "dns.question.name": payload.dns_name,
            "keytrail.payload.size": payload.size or None,
            "keytrail.payload.credential": payload.credential,
        }
    if (operation := details.operation) is not None:
        values |= {
            "keytrail.operation.name": operation.name,
            "keytrail.operation.target": operation.target,
            "keytrail.operation.target_pid": operation.target_pid or None,
            "keytrail.operation.type": operation.type,
            "keytrail.operation.ids": operation.ids,
            "keytrail.operation.capabilities": operation.capabilities,
            "keytrail.operation.flags": operation.flags or None,
        }
    if (end := details.exit) is not None:
        values |= {
            "process.exit.code": None if end.signal else end.code,
            "keytrail.process.exit_signal": end.signal,
            "keytrail.process.duration": end.duration_ns or None,
        }
    return values


def expected_resource(event: SeenEvent) -> dict[str, object]:
    """Attributes of the resource: our own, less what would be taken for the observed pod."""
    pod = event.process.pod
    values: dict[str, object] = {
        "service.name": "keytrail",
        "deployment.environment": "x",
        "host.name": event.node or "own-host",
        "container.id": (pod.container.id if pod is not None else "") or event.process.container_id,
    }
    if pod is not None:
        values |= {
            "k8s.node.name": event.node,
            "k8s.namespace.name": pod.namespace,
            "k8s.pod.name": pod.name,
            "k8s.pod.uid": pod.uid,
            "k8s.container.name": pod.container.name,
            "container.image.name": "team/app" if pod.container.image else "",
            "container.image.tags": ("1.2",) if pod.container.image else (),
            "container.image.id": pod.container.image_id,
        }
        if pod.workload_kind in {"Deployment", "CronJob"}:
            values[f"k8s.{pod.workload_kind.lower()}.name"] = pod.workload
    return values


TEXT = st.one_of(
    st.sampled_from(["", "/usr/bin/curl", "<enomem>", "\ud800", "caf\ufffd", "x" * 130, "x" * 20_000]),
    st.text(st.characters(), max_size=12),
)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
PID = st.integers(0, 2**32 - 1)
PORT = st.integers(0, 65_535)
ANY_INT = st.integers(-(2**63), 2**64 - 1)
TIME = st.integers(0, 2**64 - 1)
ATTRIBUTIONS = st.one_of(
    st.builds(Attribution, unknown=st.none() | st.sampled_from(Unknown)),
    st.lists(
        st.builds(
            Evidence,
            st.sampled_from(EvidenceKind),
            TEXT,
            TEXT,
            st.sampled_from(Strength),
            *(TEXT, TEXT, TEXT, TEXT),
            mapped=st.booleans(),
        ),
        min_size=1,
        max_size=3,
    ).map(lambda evidence: Attribution(tuple(evidence))),
)
PODS = st.builds(
    Pod,
    *(TEXT, TEXT, TEXT, TEXT),
    st.sampled_from(["", "Deployment", "CronJob", "Unheard"]),
    TEXT,
    st.builds(Container, TEXT, TEXT, st.sampled_from(["", "team/app:1.2"]), TEXT),
)
PROCESSES = st.builds(
    Process,
    TEXT,
    pid=PID,
    binary=TEXT,
    arguments=TEXT,
    cwd=TEXT,
    uid=PID,
    auid=st.integers(-1, 2**32),
    flags=TEXT,
    parent_exec_id=TEXT,
    container_id=TEXT,
    in_init_tree=st.booleans(),
    pod=st.none() | PODS,
    argument_credentials=TEXTS,
)
NETWORKS = st.builds(
    Network,
    st.sampled_from(["", "AF_INET", "AF_INET6", "AF_UNIX"]),
    st.sampled_from(["", "IPPROTO_TCP", "IPPROTO_UDP", "IPPROTO_ICMP"]),
    *(TEXT, PORT, TEXT, PORT, TIME),
)
PAYLOADS = st.builds(
    Payload,
    ANY_INT,
    st.sampled_from(["", "tls", "http", "dns"]),
    TEXT,
    st.sampled_from(["", "GET", "BREW"]),
    st.sampled_from(["", "api.openai.com"]),
    *(TEXT, TEXT),
)
OPERATIONS = st.builds(Operation, TEXT, TEXT, PID, TEXT, st.lists(ANY_INT, max_size=3).map(tuple), TEXTS, ANY_INT)
DETAILS = st.builds(
    Details,
    st.none() | NETWORKS,
    st.none() | st.builds(FileAccess, TEXT, TEXT, st.none() | st.integers(0, 0o7777), TEXT),
    st.none() | PAYLOADS,
    st.none() | OPERATIONS,
    st.none() | st.builds(Exit, st.integers(0, 255), st.sampled_from(["", "SIGKILL"]), ANY_INT),
    TEXT,
    returned=st.none() | ANY_INT,
    action=TEXT,
    message=TEXT,
    tags=TEXTS,
)
CREDENTIALS = st.builds(Credentials, PID, PID, PID, PID, TEXTS, TEXTS, st.integers(-1, 5))


@st.composite
def events(draw: st.DrawFn) -> SeenEvent:
    """Make any event."""
    event = SeenEvent(
        draw(st.sampled_from(EventKind)),
        draw(st.sampled_from(EventType)),
        draw(PROCESSES),
        time_ns=draw(TIME),
        function=draw(TEXT),
        node=draw(TEXT),
        parent=draw(st.none() | PROCESSES),
        policy=draw(TEXT),
        tid=draw(PID),
        time_estimated=draw(st.booleans()),
    )
    event.process.attribution = draw(st.none() | ATTRIBUTIONS)
    event.seen = draw(DETAILS)
    event.raised = draw(st.none() | CREDENTIALS)
    return event


@settings(deadline=None)
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
    assert found.keys() <= attributes.declared().keys()
    assert (record.time_unix_nano, record.observed_time_unix_nano) == (event.time_ns, OBSERVED)
    assert (record.severity_number, record.severity_text, record.event_name) == (9, "INFO", "keytrail.event")
    assert record.body.string_value.isascii()
    assert record.body.string_value.isprintable()
    assert record.body.string_value.startswith(f"{event.kind.value} ")


@settings(deadline=None)
@given(event=events())
def test_resource_says_where_it_was(event: SeenEvent) -> None:
    """A resource names the observed node and workload; attributes of the collector's own pod are not mixed in."""
    used = encoder()
    key, record = used.encode(event)
    whole = ResourceLogs.FromString(used.resource_logs(key, [record, record]))
    assert parse(whole.resource.attributes) == present(expected_resource(event))
    (scope,) = whole.scope_logs
    assert scope.scope.name == "keytrail"
    assert whole.schema_url == scope.schema_url == attributes.SCHEMA_URL
    assert list(scope.log_records) == [LogRecord.FromString(record)] * 2


def test_creation_time() -> None:
    """The start of a process is an ISO 8601 time in UTC."""
    process = Process("x", start_ns=1754675047730801281)
    _, found = record_of(Event(EventKind.EXEC, EventType.EXEC, process, time_ns=1))
    assert found["process.creation.time"] == "2025-08-08T17:44:07.730801281Z"


@settings(deadline=None)
@given(number=st.integers(-(2**70), 2**70), text=st.text(st.characters(), max_size=600))
def test_values_of_any_size(number: int, text: str) -> None:
    """Integers and texts of any size are what protobuf's own parser reads back, from the prefix table or without."""
    for type_, value in (("int", number), ("string", text), ("int", 0), ("string", text[:3])):
        write = attribute_writer(RECORD_ATTRIBUTES, "a.name", type_)  # type: ignore[arg-type] # a literal, in a loop
        for _ in range(2):
            assert parse(LogRecord.FromString(write(value)).attributes) == {"a.name": clean(value)}
    assert len(varint(number)) <= 10


@settings(deadline=None)
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
    used = encoder()
    for number in range(20_000):
        process = Process(f"x{number}", arguments="x" * 5000 if number % 2 else "", pod=Pod("ml", f"pod-{number}"))
        used.encode(Event(EventKind.EXEC, EventType.EXEC, process, time_ns=number))
    assert len(used._memo._known) <= 8192
    assert all(sum(map(len, known[3])) <= 4096 for known in used._memo._known.values())
    assert len(used._resources) <= 4096
