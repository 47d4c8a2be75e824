"""Processes that outlive their agent: met again under another exec_id, and known for what they were."""

import json

import pytest

from keytrail.decode.decoder import Decoder
from keytrail.decode.redact import Redactor
from keytrail.decode.survivors import is_survivor
from keytrail.decode.table import ProcessTable
from keytrail.domain.agent import AgentFacts
from keytrail.domain.event import EventKind
from keytrail.domain.identity import Attribution
from keytrail.domain.process import Process
from keytrail.source.protojson import event_from_json
from support.recordings import decode_each, export_lines, messages

EXEC_NS = 1_795_316_420_552_119_908
FORK_NS = 1_795_316_420_445_711_740
NAMES = ("PATH", "OPENAI_API_KEY")


def test_a_recorded_restart() -> None:
    """The old agent's shell is the new agent's: same pid, /bin/bash now /usr/bin/bash, started by the fork's clock."""
    decoder = Decoder(Redactor().redact)
    decoder.connect(AgentFacts(captures_environment=True))
    list(decode_each(decoder, messages("kubernetes-restart")))
    before = {process.pid: process for process in decoder.table.running()}
    decoder.connect(AgentFacts(captures_environment=True))
    lines = (event_from_json(json.dumps(line).encode()) for line in export_lines("kubernetes-restart"))
    listed = [e.process for e in decode_each(decoder, lines) if e.kind is EventKind.EXEC and e.process.preexisting]
    known = {process.pid: process for process in listed if process.environment}
    assert list(known) == [12964]
    assert known[12964].environment == before[12964].environment
    assert known[12964].exec_id != before[12964].exec_id
    assert before[12964].exited
    assert decoder.table.survivors == 1
    # sshd changed its own command line: what /proc shows is not what was executed, so nothing is taken over.
    assert before[12958].environment
    assert [process.environment for process in listed if process.pid == 12958] == [None]


def image(  # noqa: PLR0917 - a row of a table
    exec_id: str,
    binary: str,
    arguments: str = "a b",
    start_ns: int = EXEC_NS,
    flags: str = "execve clone",
    pid: int = 71,
) -> Process:
    """Make an image."""
    return Process(exec_id, pid=pid, binary=binary, arguments=arguments, start_ns=start_ns, flags=flags)


def found(
    binary: str, arguments: str = "a b", start_ns: int = FORK_NS, flags: str = "procFS", pid: int = 71
) -> Process:
    """Make an image as a restarted agent lists it."""
    return image("new", binary, arguments, start_ns, flags, pid)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (image("old", "/usr/bin/curl"), found("/usr/bin/curl")),
        (image("old", "/bin/sh"), found("/usr/bin/dash")),
        (image("old", "/usr/bin/python3"), found("/usr/bin/python3.11")),
        (image("old", "/srv/run.sh", "/srv/run.sh x"), found("/usr/bin/dash", "/srv/run.sh x")),
        (image("old", "/srv/run.sh", "-e ./run.sh x"), found("/usr/bin/bash", "-e ./run.sh x")),
        (image("old", "/usr/bin/curl"), found("/usr/bin/curl", start_ns=EXEC_NS + 9_000_000)),
        (image("old", "/usr/bin/curl", start_ns=FORK_NS + 3, flags="procFS"), found("/usr/bin/curl")),
    ],
)
def test_survivors(before: Process, now: Process) -> None:
    """Links, versions and interpreters change the name; a start time from /proc is the fork's, in ticks."""
    assert is_survivor(before, now)


@pytest.mark.parametrize(
    "now",
    [
        found("/usr/bin/curl", start_ns=EXEC_NS + 20_000_000),  # the pid was used again
        found("/usr/bin/curl", "a c"),
        found("/usr/bin/wget"),
        found("/usr/bin/curl", pid=72),
        found("/usr/bin/curl", start_ns=0),
        found("/usr/bin/curl", flags="execve"),  # not from /proc: a new exec of the same command
        image("old", "/usr/bin/curl", flags="procFS"),
    ],
)
def test_no_survivors(now: Process) -> None:
    """A later start, another command, pid or source is another process."""
    assert not is_survivor(image("old", "/usr/bin/curl"), now)


def test_an_exited_process_does_not_survive() -> None:
    """What was seen to end is never met again."""
    before = image("old", "/usr/bin/curl")
    before.exited = True
    assert not is_survivor(before, found("/usr/bin/curl"))


def test_a_survivor_keeps_its_attribution() -> None:
    """Names of the environment and what was concluded from them pass to the new image, which takes the pid."""
    table = ProcessTable()
    before = image("old", "/usr/bin/curl")
    before.environment, before.attribution = NAMES, Attribution()
    before.opened, before.reached = (("/etc/key", 1),), ("api.example",)
    table.add(before, announced=True)
    now = table.add(found("/usr/bin/curl"), announced=True)
    assert (now.environment, now.attribution) == (NAMES, before.attribution)
    assert (now.opened, now.reached) == (before.opened, before.reached)
    assert (before.exited, table.running(), table.survivors) == (True, [now], 1)


def test_listed_twice() -> None:
    """The same image announced again, without an environment, keeps what is known of it."""
    table = ProcessTable()
    before = image("old", "/usr/bin/curl")
    before.environment = NAMES
    table.add(before, announced=True)
    again = table.add(image("old", "/usr/bin/curl", flags="procFS"), announced=True)
    assert (again.environment, again.exited, table.survivors, len(table)) == (NAMES, False, 0, 1)


def test_the_child_of_a_survivor_that_was_itself_found_in_proc() -> None:
    """A process from /proc has an environment of its own, which nobody saw: its parent's is not it."""
    table = ProcessTable()
    parent = Process("p", pid=70, binary="/bin/sh", arguments="a b", environment=NAMES)
    table.add(parent, announced=True)
    child = Process("c", pid=71, binary="/bin/sh", arguments="a b", flags="procFS", parent_exec_id="p")
    assert table.add(child, announced=False).environment is None


@pytest.mark.parametrize("environment", [None, NAMES])
def test_files_that_were_opened_before_the_collector_restarted(environment: tuple[str, ...] | None) -> None:
    """Keys are mostly read once, at the start: whoever read one before a restart of the collector has it still."""
    remembered = image("old", "/usr/bin/python3")
    remembered.opened, remembered.reached = (("/etc/key", 1),), ("api.example",)
    table = ProcessTable()
    table.remember([remembered])
    met = image("old", "/usr/bin/python3")
    met.environment = environment
    table.add(met, announced=True)
    assert (met.opened, met.reached, met.environment) == (remembered.opened, remembered.reached, environment)


def test_a_collector_that_restarted() -> None:
    """What an earlier run remembered serves when the process is met again, under its old id or a new one."""
    remembered = Process("old", pid=71, binary="/usr/bin/python3", arguments="a b", start_ns=EXEC_NS, environment=NAMES)
    for met, expected in (
        (found("/usr/bin/python3.11"), NAMES),
        (image("old", "/usr/bin/python3"), NAMES),
        (found("/usr/bin/python3.11", start_ns=EXEC_NS + 20_000_000), None),
    ):
        table = ProcessTable()
        table.remember([remembered])
        assert table.add(met, announced=True).environment == expected
