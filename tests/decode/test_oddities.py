"""What a real agent was seen to send: each oddity on recorded bytes."""

from itertools import accumulate, pairwise

import pytest

from keytrail.decode.details import DecodedEvent
from keytrail.domain.event import EventKind, EventType
from keytrail.proto.tetragon import events_pb2
from support.recordings import STREAMS, decoded, decoded_once, in_window, messages, window


def odd(wanted: str) -> list[DecodedEvent]:
    """Execs of one window of odd-input, without the markers around it."""
    return [
        event
        for event in in_window("odd-input", wanted)
        if event.kind is EventKind.EXEC and not event.process.arguments.startswith("tvm-window")
    ]


def test_loader_events_without_time() -> None:
    """All 1,812 library loads come without a time: they take that of the event before them and are marked."""
    last, loads = 0, 0
    for event in decoded_once("policy-library"):
        if event.type is EventType.LOADER:
            assert (event.time_ns, event.time_estimated) == (last, True)
            assert event.details.file is not None
            assert event.details.file.access == "load"
            loads += 1
        else:
            assert not event.time_estimated
            last = event.time_ns
    assert loads == 1812


def test_loader_build_ids() -> None:
    """The build id comes as bytes and leaves as hexadecimal text."""
    loads = [event.details for event in in_window("policy-library", "library-load") if event.type is EventType.LOADER]
    assert loads
    assert all(len(found.build_id) == 40 and int(found.build_id, 16) for found in loads)
    assert any(found.file is not None and "/tmp/" in found.file.path for found in loads)


def test_events_out_of_time_order_keep_the_order_of_the_stream() -> None:
    """The agent's order is not strictly by time; decode neither sorts nor drops."""
    times = [event.time_ns for event in decoded_once("event-flood") if not event.time_estimated]
    earlier = sum(time < newest for time, newest in zip(times, accumulate(times, max), strict=True))
    assert len(decoded_once("event-flood")) == len(messages("event-flood"))
    assert earlier > 3000


def test_processes_older_than_the_agent() -> None:
    """A process from /proc carries no environment although the agent captures them: that is not an empty one."""
    found = {e.process.exec_id: e.process for e in decoded_once("policy-library") if "procFS" in e.process.flags}
    assert len(found) >= 10
    users = [process for process in found.values() if not process.binary.startswith(("[", "<"))]
    assert len(users) == 7
    assert all(process.preexisting and process.environment is None for process in users)


def test_kernel_threads() -> None:
    """A kernel thread has no environment to look at, which is an answer, not a gap."""
    threads = [
        e.process for name in STREAMS for e in decoded_once(name) if e.process.binary.startswith(("[", "<kernel"))
    ]
    assert threads
    assert {process.environment for process in threads} == {()}


def test_invalid_utf8() -> None:
    """Each run of bad bytes is one replacement character, in arguments, names, binaries and directories alike."""
    (arguments,) = odd("argv-non-utf8")
    assert arguments.process.arguments == "caf\ufffd \ufffd \ufffd \ufffd ok"
    (environment,) = odd("env-non-utf8")
    assert environment.process.environment is not None
    assert "N\ufffdM\ufffd" in environment.process.environment
    assert "OPENAI_API_KEY" in environment.process.environment
    assert "/tmp/odd/caf\ufffd" in [event.process.binary for event in odd("binary-name-odd")]
    assert "/tmp/c\ufffd" in [event.process.cwd for event in odd("cwd-odd")]


def test_odd_environment_entries() -> None:
    """Entries without `=` and without a name keep the agent's key, empty values are left out, repeats are one."""
    (event,) = odd("env-odd-entries")
    assert event.process.environment is not None
    assert {"invalid", "", "DUP", "EQ", "NL", "OPENAI_API_KEY"} <= set(event.process.environment)
    assert "EMPTY" not in event.process.environment
    assert len(set(event.process.environment)) == len(event.process.environment)


def test_empty_values_are_no_evidence() -> None:
    """No name is kept whose values were all empty: `KEY=` is set and proves nothing."""
    raw = messages("odd-input")[window("odd-input", "env-odd-entries")["stream_first"] :]
    sent = events_pb2.GetEventsResponse.FromString(raw[2]).process_exec.process.environment_variables
    empty = {entry.Key for entry in sent} - {entry.Key for entry in sent if entry.Value}
    (event,) = odd("env-odd-entries")
    assert empty
    assert not empty & set(event.process.environment or ())


def test_an_empty_environment_is_not_an_unknown_one() -> None:
    """`env -i` was looked at and had nothing."""
    (event,) = odd("env-empty")
    assert event.process.environment == ()
    assert not event.process.truncated


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("argv-long-one", [False, False, False, True]),
        ("argv-long-many", [False, True]),
        ("argv-hides-env", [False, False, False, False, True, False]),
        ("env-over-limit", [False, True]),
    ],
)
def test_padding_hides_the_command_line(wanted: str, expected: list[bool]) -> None:
    """Beyond the ring buffer an exec has neither arguments nor environment: marked, never "looked and found none"."""
    events = odd(wanted)
    assert [event.process.truncated for event in events] == expected
    for event in events:
        assert (event.process.environment is None) is event.process.truncated
        assert (event.process.arguments == "") is event.process.truncated


def test_control_characters_survive() -> None:
    """Decode hands over what was there; it is the outputs that escape it."""
    (event,) = odd("argv-control-chars")
    for text in ("a\nb", "\there", "\x1b[31mred", "\u202e", "back\\slash"):
        assert text in event.process.arguments
    assert "/tmp/odd/new\nline" in [event.process.binary for event in odd("binary-name-odd")]


def test_an_exec_chain_is_its_own_ancestor() -> None:
    """One process that execs four times: each image's parent is its earlier image, of the same pid, now exited."""
    events = odd("exec-chain")
    names = [event.process.name for event in events]
    assert names == ["sh", "sh", "env", "sh", "true"]
    assert len({event.process.pid for event in events}) == 1
    for before, after in pairwise(events):
        assert after.parent is before.process
        assert "clone" not in after.process.flags
    last = [process.exec_id for process in events[-1].ancestors()]
    assert last[:4] == [event.process.exec_id for event in reversed(events[:-1])]
    exits = [event for event in in_window("odd-input", "exec-chain") if event.kind is EventKind.EXIT]
    assert events[-1].process in [event.process for event in exits]
    assert all(event.process.exited for event in events)


def test_memfd() -> None:
    """A program that is in memory only is /dev/fd/N of a file without links."""
    events = [e for e in in_window("policy-library", "memfd-exec") if e.process.binary == "/dev/fd/3"]
    exec_ = next(event for event in events if event.kind is EventKind.EXEC)
    assert exec_.credentials is not None
    assert exec_.credentials.inode_links == 0


def test_symlinks_and_odd_binaries_are_as_executed() -> None:
    """A binary is the path that was used, made absolute, links kept; a script is itself; a descriptor is its path."""
    assert [event.process.binary for event in odd("exec-relative")] == [
        "/tmp/rel/prog",
        "/tmp/rel/prog",
        "/tmp/rel/prog",
        "/tmp/rel/link",
        "/proc/self/fd/4",
    ]
    assert [event.process.name for event in odd("shebang-odd")] == ["s1", "python3", "s2", "python3"]


def test_deleted_working_directory() -> None:
    """The agent says that a directory is gone; the text is kept."""
    assert "/tmp/del (deleted)" in [event.process.cwd for event in odd("cwd-odd")]


def test_failed_execs_have_no_exec_event() -> None:
    """An execve that fails shows only in the exit of the fork, under its parent's command line."""
    events = in_window("odd-input", "exec-fails")
    assert odd("exec-fails") == []
    exits = [event for event in events if event.process.name == "python3" and event.kind is EventKind.EXIT]
    assert exits


def test_socket_hooks_in_interrupts_are_plain_hooks() -> None:
    """tcp_set_state runs in whatever was interrupted: no kind that blames a process is made of it."""
    found = [event for event in decoded_once("policy-library") if event.function == "tcp_set_state"]
    assert {event.kind for event in found} == {EventKind.HOOK}
    assert all(event.details.network is not None for event in found)


def test_throttle_events() -> None:
    """A throttled cgroup has its padding taken off, and no process."""
    found = [event for event in decoded_once("throttle") if event.kind is EventKind.THROTTLE]
    operations = [event.details.operation for event in found]
    assert sorted({operation.name for operation in operations if operation}) == ["start", "stop"]
    assert all(operation and operation.target and "\0" not in operation.target for operation in operations)
    for event in found:
        assert (event.process.exec_id, event.process.pid, event.parent, event.tid) == ("", 0, None, 0)
        assert event.credentials is None
        assert list(event.ancestors()) == []


def test_throttled_exits_have_an_empty_process() -> None:
    """An exit of a throttled exec knows a pid and times; everything else is unknown, not empty, not root."""
    exits = [e for e in decoded("throttle") if e.kind is EventKind.EXIT and not e.process.exec_id]
    assert len(exits) == 496
    for event in exits:
        assert event.process.pid
        assert event.process.start_ns
        assert event.process.environment is None
        assert event.process.uid == -1
        assert event.details.exit is not None
        assert event.details.exit.duration_ns > 0


def test_fork_without_exec_has_its_parents_environment() -> None:
    """A fork that never execs has an exec_id that nobody announced, and what its parent was given."""
    events = in_window("policy-library", "fork-no-exec")
    announced = {event.process.exec_id for event in decoded_once("policy-library") if event.kind is EventKind.EXEC}
    forks = [event for event in events if event.process.exec_id not in announced and event.process.name == "python3"]
    assert forks
    for event in forks:
        assert event.parent is not None
        assert event.process.environment == event.parent.environment
        assert event.process.environment


def test_threads() -> None:
    """A connect of a thread has the thread's id beside its process's."""
    found = [e for e in in_window("policy-library", "thread-connect") if e.function == "tcp_connect"]
    assert [(event.process.pid == event.tid, event.tid > 0) for event in found] == [(False, True)]


def test_unix_sockets_and_mapped_addresses() -> None:
    """AF_UNIX has no address and no port; IPv4 in IPv6 keeps the kernel's spelling."""
    ends = [e.details.network for e in in_window("policy-library", "ipv6-connect") if e.kind is EventKind.CONNECT]
    assert all(found is not None for found in ends)
    unix = [found for found in ends if found and found.family == "AF_UNIX"]
    assert {(found.peer_address, found.peer_port) for found in unix} == {("", 0)}
    mapped = [found for found in ends if found and found.peer_address == "::ffff:127.0.0.1"]
    assert {(found.family, found.peer_port) for found in mapped} == {("AF_INET6", 8000)}


def test_arguments_that_could_not_be_read() -> None:
    """`error_arg` stands for a null pointer: time stamps set to now, mounts without a source."""
    stamps = [e for e in decoded_once("sensors") if e.function == "vfs_utimes"]
    unread = [e for e in stamps if any(a.type == "error" for a in e.arguments)]
    assert len(unread) == 14
    assert all(e.details.file is not None and e.details.file.path for e in unread)


def test_garbled_mount_arguments() -> None:
    """Where the agent could read no text, a mount has no target rather than another argument's."""
    mounts = [e for e in decoded_once("sensors") if e.function == "mount"]
    for event in mounts:
        details = event.details
        assert details.operation is not None
        kinds = [argument.type for argument in event.arguments]
        assert (details.operation.target != "") is (kinds[1] == "string")
        assert (details.operation.type != "") is (kinds[2] == "string")
        assert details.operation.flags == event.arguments[3].value


def test_refused_set_ids() -> None:
    """A refused set*id call came to nothing: what it returned is kept apart from what it asked for."""
    calls = [e.details for e in in_window("policy-library", "setuid-root-syscall") if e.kind is EventKind.PRIVILEGE]
    assert [(call.operation.ids, call.returned) for call in calls if call.operation] == [
        ((0,), 0),
        ((0,), 0),
        ((0, 0, 0), 0),
        ((0,), -1),
    ]


def test_enforcement() -> None:
    """What a policy did beyond posting is named, and the process's exit shows it."""
    events = in_window("policy-library", "canary-kill")
    (touched,) = [event for event in events if event.details.action]
    assert (touched.details.action, touched.process.name) == ("SIGKILL", "cat")
    (end,) = [
        event.details.exit for event in events if event.kind is EventKind.EXIT and event.process is touched.process
    ]
    assert end is not None
    assert (end.signal, end.code) == ("SIGKILL", 0)


def test_exit_codes() -> None:
    """Exit codes are as the processes chose them, also those above 127."""
    ends = [e.details.exit for e in in_window("policy-library", "exit-codes") if e.process.name == "sh"]
    assert [end.code for end in ends if end and end.code] == [1, 3, 127, 255]


def test_setuid_programs() -> None:
    """Sudo is root at its exec, by its file's mode, on behalf of somebody whose login id is kept."""
    exec_ = next(
        e for e in in_window("policy-library", "sudo") if e.kind is EventKind.EXEC and e.process.name == "sudo"
    )
    assert exec_.credentials is not None
    assert exec_.process.uid == 0
    assert exec_.credentials.euid == 0
    assert "setuid" in exec_.credentials.raised
    assert "PRIVILEGES_RAISED_EXEC_FILE_SETUID" in exec_.credentials.raised


def test_capabilities_have_one_spelling() -> None:
    """The agent's table spells one capability without its prefix; events do not."""
    names = {name for e in decoded_once("policy-library")[:300] if e.credentials for name in e.credentials.capabilities}
    assert "CAP_DAC_OVERRIDE" in names
    assert all(name.startswith("CAP_") for name in names)
