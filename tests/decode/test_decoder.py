"""The decoder: every recorded message becomes an event, hostile ones a reason, and details say what the kernel said."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keytrail.decode.decoder import MALFORMED, UNKNOWN_EVENT, Decoder
from keytrail.decode.details import DecodedEvent
from keytrail.decode.redact import Redactor
from keytrail.decode.scrub import scrub
from keytrail.domain.agent import AgentFacts
from keytrail.domain.drop import Drop
from keytrail.domain.event import Event, EventKind, FileAccess, Network, Operation, Payload
from keytrail.proto.tetragon import events_pb2
from keytrail.proto.tetragon import tetragon_pb2 as pb
from keytrail.testing.fake_tetragon_release import RELEASES, strip_to_release
from support.recordings import STREAMS, decode_each, decoded_once, in_window, messages


def plain(text: str, _program: str = "", /) -> tuple[str, tuple[str, ...]]:
    """Leave the text as it is."""
    return text, ()


def decode_one(message: events_pb2.GetEventsResponse) -> DecodedEvent:
    """Decode one made-up message."""
    return next(decode_each(Decoder(plain), [message.SerializeToString()]))


@pytest.mark.parametrize("name", STREAMS)
def test_every_recorded_message_is_an_event(name: str) -> None:
    """Nothing of any recording is undecodable, and type and process of each event are those of the full message."""
    for raw, event in zip(messages(name), decoded_once(name), strict=True):
        message = events_pb2.GetEventsResponse.FromString(raw)
        which = message.WhichOneof("event")
        assert which == f"process_{event.type}"
        assert event.node == message.node_name
        if which != "process_throttle":
            sent = getattr(message, which).process
            assert (event.process.exec_id, event.process.pid) == (sent.exec_id, sent.pid.value)
            assert event.process.binary == sent.binary
            assert event.tid == sent.tid.value


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", STREAMS)
def test_every_release_of_the_agent(name: str, release: str) -> None:
    """What an older agent does not send is unknown, not wrong, and nothing of its stream is undecodable."""
    decoder = Decoder(plain)
    stripped = [message for raw in messages(name)[:1500] if (message := strip_to_release(raw, release))]
    events = list(decode_each(decoder, stripped))
    for event in events:
        assert event.details is not None
        process = event.process
        if release < "1.7" and not process.binary.startswith(("[", "<kernel")):
            assert process.environment is None
        if release < "1.6" and process.pod is not None:
            assert process.pod.uid == ""
            assert process.pod.name
    kinds = Counter(event.kind for event in events)
    newest = Counter(event.kind for event in decoded_once(name)[:1500])
    if release >= "1.7":
        assert kinds == newest
    else:  # sockaddr_un and error arguments came with 1.7, the functions that have them did not
        assert kinds.keys() == newest.keys()


@pytest.mark.parametrize("raw", [b"\xff", b"\x0a\x7f", b"\x0a\x05\x0a\x7f", b"\x4a\x02\x1a\x01"])
def test_bytes_that_are_no_message(raw: bytes) -> None:
    """A message that cannot be parsed is an undecodable one, with that reason."""
    assert Decoder(plain).decode(raw) == MALFORMED


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        events_pb2.GetEventsResponse(node_name="n").SerializeToString(),
        events_pb2.GetEventsResponse(rate_limit_info={"number_of_dropped_process_events": 3}).SerializeToString(),
        events_pb2.GetEventsResponse(test={"arg0": 1}).SerializeToString(),
        b"\xf2\x01\x02\x0a\x00",  # field 30: the oneof's next
    ],
)
def test_events_that_nobody_declared(raw: bytes) -> None:
    """An event of a newer agent, or one that only export files hold, is counted apart from broken bytes."""
    assert Decoder(plain).decode(raw) == UNKNOWN_EVENT


def test_unknown_numbers_of_enums_and_types() -> None:
    """A newer agent's action, capability or argument type is named by its number or left out, never an error."""
    kprobe = pb.ProcessKprobe(function_name="commit_creds", action=99)  # type: ignore[arg-type] # newer than we know
    kprobe.args.add().MergeFromString(b"\xc2\x3e\x02\x08\x01")  # an argument of type 1000
    kprobe.args.add().process_credentials_arg.caps.effective.append(77)  # type: ignore[arg-type] # newer than we know
    event = decode_one(events_pb2.GetEventsResponse(process_kprobe=kprobe))
    details = event.details
    assert details.action == event.action == "99"
    assert details.operation is not None
    assert details.operation.capabilities == ("CAP_77",)
    assert [argument.index for argument in event.arguments] == [1]


@pytest.mark.parametrize("seconds", [-5, 0, 1 << 40, -(1 << 62)])
def test_times_that_cannot_be(seconds: int) -> None:
    """A time before the epoch or past what 63 bits of nanoseconds hold counts as none, of an event and of a start."""
    message = events_pb2.GetEventsResponse(process_exec={"process": {"exec_id": "a", "pid": {"value": 7}}})
    message.time.seconds = message.process_exec.process.start_time.seconds = seconds
    event = decode_one(message)
    assert (event.time_ns, event.time_estimated, event.process.start_ns) == (0, True, 0)


def test_late_pod_metadata_voids_the_attribution() -> None:
    """A pod that was learned after its process takes its place, and what was concluded without it is concluded anew."""
    decoder = Decoder(plain)
    bare = pb.ProcessKprobe(
        function_name="tcp_connect", process={"exec_id": "a", "pid": {"value": 7}, "docker": "c" * 31}
    )
    known = pb.ProcessKprobe()
    known.CopyFrom(bare)
    known.process.pod.name = "web"
    first, second = decode_each(
        decoder, [events_pb2.GetEventsResponse(process_kprobe=event).SerializeToString() for event in (bare, known)]
    )
    assert first.process is second.process
    assert second.process.pod is not None
    assert second.process.pod.name == "web"
    assert second.process.attribution is None


def test_a_probe_does_not_make_its_container_one() -> None:
    """The mark of a probe's command line belongs to that process, whichever of its container came first."""
    events = [e for e in decoded_once("kubernetes") if e.kind is EventKind.EXEC and e.process.pod]
    marks = {(e.process.pod.container.id, e.process.pod.maybe_exec_probe) for e in events if e.process.pod}
    both = {container for container, _ in marks if {(container, True), (container, False)} <= marks}
    assert len(both) == 1
    for event in events:
        assert event.process.pod is not None
        if event.process.pod.maybe_exec_probe:
            assert event.process.arguments == "/tmp/healthy"


def test_the_dump_fills_the_table_and_knows_what_is_captured() -> None:
    """Connecting enters the agent's process cache, skips what does not parse, and tells an empty environment apart."""
    decoder = Decoder(plain)
    cache = [
        pb.Process(exec_id="a", binary="/bin/a", pid={"value": 1}).SerializeToString(),
        b"\xff",
        pb.Process(binary="/no/id").SerializeToString(),
    ]
    decoder.connect(AgentFacts(captures_environment=True), cache)
    found = decoder.table.get("a")
    assert found is not None
    assert (found.binary, found.environment, len(decoder.table)) == ("/bin/a", (), 1)
    again = Decoder(plain)
    again.connect(AgentFacts(captures_environment=False), cache)
    assert [process.environment for process in again.table] == [None]


def _only(events: tuple[DecodedEvent, ...], kind: EventKind, function: str = "") -> list[Event]:
    return [event for event in events if event.kind is kind and function in ("", event.function)]


def test_sockets() -> None:
    """Connect, accept, close and listen have both ends, the kernel's source being the local one."""
    (connect,) = _only(in_window("policy-library", "connect-refused"), EventKind.CONNECT, "tcp_connect")
    assert connect.details.network == Network(
        "AF_INET", "IPPROTO_TCP", "127.0.0.1", 38122, "127.0.0.1", 9, 18446614810253176064
    )
    listens = _only(in_window("policy-library", "tcp-listen"), EventKind.LISTEN)
    assert [(e.details.network.local_address, e.details.network.local_port) for e in listens if e.details.network] == [
        ("127.0.0.1", 4600),
        ("::", 4601),
    ]
    accepts = [e.details.network for e in decoded_once("sensors") if e.kind is EventKind.ACCEPT]
    assert len(accepts) == 15
    assert all(found and found.peer_port and found.local_port and found.peer_address for found in accepts)
    unreachable = _only(in_window("policy-library", "connect-unreachable"), EventKind.CONNECT)
    peers = [(e.details.network.peer_address, e.details.network.peer_port) for e in unreachable if e.details.network]
    assert ("192.0.2.10", 80) in peers
    assert ("2001:db8::10", 80) in peers
    docker = _only(in_window("sensors", "sock-docker-curl"), EventKind.CONNECT)
    assert "/var/run/docker.sock" in [e.details.network.peer_address for e in docker if e.details.network]


def test_names_in_clear() -> None:
    """Server names of real ClientHellos, HTTP methods and hosts, and DNS names, connected sockets or not."""
    found = {
        (payload.protocol, payload.server_name or payload.http_host or payload.dns_name, payload.http_method)
        for name in ("kubernetes", "sensors", "policy-library")
        for event in decoded_once(name)
        if (payload := event.details.payload) is not None and payload.protocol
    }
    assert {
        ("tls", "api.openai.com", ""),
        ("tls", "api.anthropic.com", ""),
        ("tls", "api.stripe.com", ""),
        ("tls", "c2.evil.example", ""),
        ("tls", "repo.intern.example", ""),
        ("http", "evil.example", "POST"),
        ("http", "repo.intern.example", "GET"),
        ("http", "[::1]", "GET"),
        ("dns", "deb.debian.org", ""),
        ("dns", "_http._tcp.deb.debian.org", ""),
        ("dns", "selector2021-very-long-but-ordinary._domainkey.mail.example.org", ""),
    } <= found
    tunnelled = _only(in_window("sensors", "dns-tunnel-python"), EventKind.SEND)
    assert len(tunnelled) >= 24
    for event in tunnelled:
        assert event.details.network is not None
        assert (event.details.network.peer_address, event.details.network.peer_port) == ("127.0.0.1", 53)
        assert event.details.payload is not None
        assert event.details.payload.dns_name.endswith(".t.evil.example")


def test_credentials_in_clear_are_named() -> None:
    """A key that leaves in plain HTTP is told by the name of its pattern."""
    sent = [e.details.payload for e in in_window("kubernetes", "trainer-evil") if e.details.payload]
    assert [payload.credential for payload in sent if payload.credential] == ["anthropic-key"]
    (upload,) = [e.details.payload for e in in_window("sensors", "http-exfil") if e.details.payload]
    assert upload == Payload(upload.size, "http", "", "POST", "evil.example", "", "authorization-header")
    assert upload.size > 0


@pytest.mark.parametrize(
    ("recording", "wanted", "expected"),
    [
        ("sensors", "log-wipe", FileAccess("/var/log/auth.log", "unlink")),
        ("sensors", "log-wipe", FileAccess("/var/log/wtmp", "truncate")),
        ("sensors", "rename-persist", FileAccess("/root/.cache-c", "rename", None, "/etc/cron.d/sysstat-upd")),
        ("sensors", "link-shadow", FileAccess("/home/alice/notes.txt", "symlink", None, "/etc/shadow")),
        ("sensors", "link-shadow", FileAccess("/etc/shadow", "link", None, "/home/alice/todo.txt")),
        ("sensors", "timestomp", FileAccess("/usr/bin/.lsx", "times")),
        ("sensors", "fcap-python-setxattr", FileAccess("/var/tmp/.v", "xattr", None, "security.capability")),
        ("policy-library", "chmod", FileAccess("/tmp/suid-id", "chmod", 0o4777)),
        ("policy-library", "read-shadow", FileAccess("/etc/shadow", "read")),
        ("policy-library", "read-shadow", FileAccess("/etc/shadow", "open")),
        ("policy-library", "canary-kill", FileAccess("/srv/canary.txt", "read")),
        ("kubernetes", "checkout-shadow", FileAccess("/etc/shadow", "open")),
    ],
)
def test_files(recording: str, wanted: str, expected: FileAccess) -> None:
    """A file event says which file, what was done to it, with which mode, and where it went."""
    assert expected in [event.details.file for event in in_window(recording, wanted)]


@pytest.mark.parametrize(
    ("recording", "wanted", "expected"),
    [
        ("policy-library", "modprobe", Operation("load", "dummy")),
        ("policy-library", "modprobe", Operation("unload", "dummy")),
        ("policy-library", "modprobe", Operation("request", "rtnl-link-dummy")),
        ("policy-library", "ping", Operation("capset", ids=(0, 0, 0, 0), capabilities=("CAP_NET_RAW",))),
        ("policy-library", "setuid-root-syscall", Operation("setresuid", ids=(0, 0, 0))),
        ("policy-library", "userns", Operation("create_user_ns")),
        ("policy-library", "ptrace", Operation("attach", target_pid=1712, flags=0x4206)),
        ("policy-library", "signals", Operation("SIGKILL", target_pid=1689, flags=9)),
        ("policy-library", "bpftool", Operation("map_create", "", type="BPF_MAP_TYPE_ARRAY")),
        ("sensors", "mem-read-other", Operation("read_memory", "/proc/1972/mem", 1972)),
        ("sensors", "mem-read-other", Operation("attach", "python3", 1972, flags=10)),
        ("sensors", "mem-vm-readv", Operation("read_memory", "", 1976)),
        ("sensors", "module-init-mem", Operation("load", "dummy")),
        ("sensors", "mount-host-disk", Operation("mount", "/mnt/h", type="ext4")),
        ("sensors", "mount-host-disk", Operation("setns", flags=0x4000000)),
    ],
)
def test_operations(recording: str, wanted: str, expected: Operation) -> None:
    """Module, bpf, privilege, trace, mount, namespace and kill events say what was done, and to what."""
    found = [event.details.operation for event in in_window(recording, wanted)]
    if expected.name == "map_create":
        assert [op for op in found if op and op.name == "map_create" and op.type]
    elif expected.name == "setns":
        assert [e for e in decoded_once("sensors") if e.details.operation == expected]
    else:
        assert expected in found


def test_parents_and_ancestors() -> None:
    """Every event that names a known parent has it, and ancestors reach from there to the top without a ring."""
    events = in_window("policy-library", "deep-ancestry")
    deepest = max((list(event.ancestors()) for event in events), key=len)
    assert len(deepest) >= 8
    assert deepest[-1].pid in (0, 1)
    assert len({process.exec_id for process in deepest}) == len(deepest)


@pytest.mark.parametrize("name", ["policy-library", "kubernetes", "sensors"])
def test_payload_and_text_of_hooks_stay_in_the_arguments(name: str) -> None:
    """Bytes and strings that a process wrote are in no representation, and in no part that outputs may export."""
    for event in decoded_once(name):
        details = event.details
        sent = [a.value for a in event.arguments if a.type in ("bytes", "truncated_bytes")]
        shown = f"{event!r} {details!r} {details.payload!r}"
        for value in sent:
            assert isinstance(value, bytes)
            for piece in (value[:12], value[-12:]):
                if len(piece) == 12:
                    assert repr(piece)[2:-1] not in shown
        if event.function == "prctl":
            assert (details.operation, details.file, details.payload, details.network) == (None, None, None, None)
            assert str(event.arguments[1].value) not in repr(event.arguments)


def _use(decoder: Decoder, raw: bytes) -> None:
    event = decoder.decode(raw)
    if not isinstance(event, Drop):
        assert repr(event)
        assert event.details is not None
        assert event.tid >= 0
        assert event.time_ns >= 0
        assert event.credentials is None or event.credentials.uid >= 0
        assert len(list(event.ancestors())) <= 64
    scrub(raw, Redactor().redact)


@given(st.binary(max_size=600))
def test_random_bytes_never_raise(raw: bytes) -> None:
    """Whatever arrives, decode answers, and so does everything that is read later."""
    _use(Decoder(plain), raw)


_SAMPLES = sorted(
    {
        len(raw): raw for name in ("policy-library", "sensors", "kubernetes", "throttle") for raw in messages(name)
    }.values(),
    key=len,
)[::12]


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_mutated_messages_never_raise(data: st.DataObject) -> None:
    """Recorded messages with bytes changed, cut out or repeated are decoded or refused, at once or when looked into."""
    raw = bytearray(data.draw(st.sampled_from(_SAMPLES)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, max(0, len(raw) - 1)))
        change = data.draw(st.sampled_from(("set", "cut", "repeat", "end")))
        if change == "set" and raw:
            raw[at] = data.draw(st.integers(0, 255))
        elif change == "cut":
            del raw[at : at + data.draw(st.integers(1, 40))]
        elif change == "repeat":
            raw[at:at] = raw[at : at + data.draw(st.integers(1, 40))]
        else:
            del raw[at:]
    _use(Decoder(plain), bytes(raw))
