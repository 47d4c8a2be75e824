"""`keytrail spool`: what waits, what was refused, sent again or deleted, beside a running collector and without one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from keytrail.domain.drop import DropReason
from keytrail.export.otlp_encode import RecordEncoder
from keytrail.export.otlp_known import ResourceKey
from keytrail.export.spool.entries import Lane
from spool.spool_world import MIB, World
from support.commands import Ran, keytrail


def attribute(name: str, text: str) -> KeyValue:
    """One string attribute."""
    return KeyValue(key=name, value=AnyValue(string_value=text))


def resource(pod: str) -> bytes:
    """A serialized Resource."""
    names = {"k8s.namespace.name": "ml", "k8s.pod.name": pod}
    return Resource(attributes=[attribute(*one) for one in names.items()]).SerializeToString()


def record(body: str) -> bytes:
    """A serialized LogRecord."""
    made = LogRecord(time_unix_nano=1_795_000_000_000_000_000, severity_text="HIGH", event_name="keytrail.finding")
    made.body.string_value = body
    made.attributes.append(attribute("security_rule.name", "shell-in-container"))
    return made.SerializeToString()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[World]:
    """A running spool with one dead letter and two records that wait."""
    made = World(tmp_path / "spool")
    made._writer._resource_logs = lambda key, records: RecordEncoder.resource_logs(
        RecordEncoder({}, lambda: 0), ResourceKey(key), records
    )
    made.start()
    made.append(Lane.HIGH, resource("chat-0"), record("poison \x1b[31m"))
    made.sync(60)
    made.refused(made.take(0, 1, 10, MIB, 0.0), "field \x07 too long")
    made.append(Lane.HIGH, resource("chat-1"), record("shell started"))
    made.append(Lane.LOW, resource("chat-1"), record("\u202eodd"))
    made.sync(60)
    yield made
    made.close(60)


def run(spool: World, *words: str) -> Ran:
    """The command on that spool's folder."""
    folder = spool._writer._folder
    assert folder is not None
    return keytrail("spool", *words, "--state-dir", folder.parent)


def dead(spool: World) -> str:
    """The name of the one dead letter."""
    lines = run(spool, "list").out.partition("DEAD LETTER")[2].splitlines()
    return lines[1].split()[0]


def test_list(spool: World) -> None:
    """Lanes with records, segments, bytes and age; dead letters with their reason, harmless on a terminal."""
    ran = run(spool, "list")
    assert ran.code == 0, ran.err
    lanes = {line.split()[0]: line.split()[1:3] for line in ran.out.partition("\n\n")[0].splitlines()}
    assert list(lanes) == ["LANE", "critical", "high", "medium", "low", "info", "event"]
    assert (lanes["high"], lanes["low"], lanes["event"]) == (["1", "1"], ["1", "1"], ["0", "0"])
    assert '"field \\x07 too long"' in ran.out
    assert "\x07" not in ran.out


def test_show(spool: World) -> None:
    """Records as lines: time, severity, workload, rule, and a quoted text."""
    line = "2026-11-18T11:06:40Z HIGH ml/chat-{} shell-in-container {}\n"
    assert run(spool, "show", dead(spool)).out == line.format(0, '"poison \\x1b[31m"')
    queued = line.format(1, '"shell started"') + line.format(1, '"\\u202eodd"')
    assert run(spool, "show", "--queued").out == queued
    assert "more follow" in run(spool, "show", "--queued", "--limit", "1").out


def test_resend_beside_a_running_collector(spool: World) -> None:
    """A dead letter that is sent again is queued within seconds, and is no dead letter any more."""
    name = dead(spool)
    assert run(spool, "resend", name).out == f"{name}: 1 records will be sent again\n"
    state = spool.when(lambda state: state.recovered == 1 and not state.unsynced and not state.set_aside)
    assert (state.queued, dict(state.dropped)) == (3, {DropReason.EXPORT_REJECTED: 1})
    taken = spool.take_all()
    assert sum(b"poison" in entry.data for entry in taken) == 1
    spool.exported(taken)
    assert "DEAD" not in run(spool, "list").out


def test_resend_without_a_collector(spool: World) -> None:
    """What is resent while no collector runs is queued by the next one, once."""
    spool.close(60)
    assert run(spool, "resend", "--all").code == 0
    assert "1 dead letters will be queued again" in run(spool, "list").out
    folder = spool._writer._folder
    for _ in range(2):
        again = World(folder)
        again.start()
        assert again.when(lambda state: state.queued == 3 and not state.unsynced)
        again.close(60)


def test_purge(spool: World) -> None:
    """Dead letters may go at any time; what is queued only while no collector runs."""
    refused = run(spool, "purge", "--queued")
    assert (refused.code, "in use by process" in refused.err) == (2, True)
    assert run(spool, "purge", "--all").out.endswith(": 1 records deleted\n")
    assert spool.when(lambda state: not state.set_aside).queued == 2
    spool.close(60)
    assert run(spool, "purge", "--queued").out == "2 queued records deleted\n"
    assert run(spool, "show", "--queued").out == ""
    assert World(spool._writer._folder).previous.clean


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["show"], "name one dead letter"),
        (["show", "7"], "no such dead letter"),
        (["resend"], "name one dead letter"),
        (["resend", "1", "--all"], "name one dead letter"),
        (["purge", "--all", "--queued"], "--queued stands alone"),
    ],
)
def test_what_is_asked_wrongly(spool: World, words: list[str], wrong: str) -> None:
    """A wrong question gets exit code 2 and an answer that says what is right."""
    ran = run(spool, *words)
    assert ran.code == 2
    assert wrong in ran.err


def test_no_spool(tmp_path: Path) -> None:
    """Without a state folder, or without a spool in it, the answer says so."""
    assert "no state_dir is set" in keytrail("spool", "list").err
    assert "there is no spool" in keytrail("spool", "list", "--state-dir", tmp_path).err


def test_dead_letters_are_bounded(tmp_path: Path) -> None:
    """The oldest dead letters make room for new ones; all of them were counted."""
    spool = World(tmp_path, most_bytes=MIB)
    spool.start()
    for number in range(60):
        spool.append(Lane.LOW, b"resource", b"%d " % number + bytes(10_000))
        spool.sync(60)
        spool.refused(spool.take(0, 1, 10, MIB, 0.0), "no")
    state = spool.state()
    assert state.dropped[DropReason.EXPORT_REJECTED] == 60
    assert 20 <= state.set_aside <= 26
    assert sum(path.stat().st_size for path in (tmp_path / "dead").iterdir()) <= MIB // 4
    spool.close(60)


def test_unreadable_entries_are_shown_as_such(tmp_path: Path) -> None:
    """Bytes that are no ResourceLogs are said to be none."""
    spool = World(tmp_path / "spool")
    spool.append(Lane.LOW, b"resource", b"\xff\xff")
    spool.close(60)
    assert run(spool, "show", "--queued").out == "(not readable: 11 bytes)\n"


def test_lines_need_no_attributes(tmp_path: Path) -> None:
    """A record with nothing in it is shown all the same."""
    spool = World(tmp_path / "spool")
    empty = ResourceLogs(scope_logs=[ScopeLogs(log_records=[LogRecord()])]).SerializeToString()
    spool._writer._resource_logs = lambda _key, _records: empty
    spool.append(Lane.LOW, b"resource", b"")
    spool.close(60)
    assert run(spool, "show", "--queued").out == '- "" - "" ""\n'
