"""The process table: bounded, in order of use, and right about which image of a pid runs."""

import resource
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keytrail.decode.table import ProcessTable
from keytrail.domain.process import Process
from support.recordings import STREAMS, decoded


def image(exec_id: str, pid: int = 1, parent: str = "", **more: object) -> Process:
    """Make an image."""
    return Process(exec_id, pid=pid, parent_exec_id=parent, **more)  # type: ignore[arg-type] # as the constructor has them


def names(processes: Iterator[Process] | list[Process]) -> list[str]:
    """Ids of images."""
    return [process.exec_id for process in processes]


@pytest.mark.parametrize("millions", [0.2, pytest.param(1, marks=pytest.mark.long)])
def test_many_processes_in_flat_memory(millions: float) -> None:
    """After a million images, half of them without an exit, the table is full and the process no larger than before."""
    table = ProcessTable(4096)

    def fill(start: int, count: int) -> int:
        for number in range(start, start + count):
            process = image(f"node:{number}", pid=number % 30_000, parent=f"node:{number - 1}", arguments="x" * 40)
            table.add(process, announced=True)
            if number % 2:
                table.exit(process)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = fill(0, int(200_000 * millions))
    after = fill(200_000, int(800_000 * millions))
    assert 4096 <= len(table) <= 4096 + 1024
    assert after <= before * 1.05
    assert table.evicted_running
    assert table.evicted_exited


def test_what_a_process_that_had_to_go_was_seen_to_do_is_remembered() -> None:
    """A server that is pushed out by processes whose end nobody saw still has the key that it read."""
    table = ProcessTable(16)
    server = table.add(image("server", pid=1, environment=()), announced=True)
    server.opened, server.reached = (("/etc/key", 1),), ("api.example",)
    for number in range(100):
        table.add(image(f"{number}", pid=number + 2, environment=()), announced=True)
    assert table.get("server") is None
    again = table.add(image("server", pid=1, environment=()), announced=False)
    assert (again.opened, again.reached) == (server.opened, server.reached)


def test_text_is_bounded_too() -> None:
    """Command lines of 128 KiB cannot make the table large: it holds as much text as so many ordinary processes."""
    table = ProcessTable(1024)
    for number in range(5_000):
        process = image(f"{number}", pid=number, arguments="x" * (128 << 10))
        table.add(process, announced=True)
        if number % 3:
            table.exit(process)
    assert sum(len(process.arguments) for process in table) <= (1024 + 256) * 2048
    assert len(table) > 2


def test_one_process_may_be_larger_than_the_bound() -> None:
    """The newest image is always kept: its events are what comes next."""
    table = ProcessTable(1)
    table.add(image("a", arguments="x" * 10_000), announced=True)
    assert table.get("a") is not None


def test_exited_images_go_in_order_of_use() -> None:
    """Of the exited images the one that nobody asked for longest makes room, not the one that ended first."""
    table = ProcessTable(12)
    for name in "abc":
        table.exit(table.add(image(name, pid=ord(name)), announced=True))
    assert table.get("a") is not None
    table.exit(table.add(image("d", pid=4), announced=True))
    assert [table.get(name) is not None for name in "abcd"] == [True, False, True, True]
    assert table.evicted_exited == 1


def test_exec_without_fork() -> None:
    """Only the last image of a process gets an exit event, so a new image ends the one before."""
    table = ProcessTable()
    first = table.add(image("a", pid=5, start_ns=1), announced=True)
    second = table.add(image("b", pid=5, parent="a", start_ns=2), announced=True)
    assert (first.exited, names(table.running())) == (True, ["b"])
    assert names(table.ancestors(second)) == ["a"]
    table.exit(second)
    assert table.running() == []


@pytest.mark.parametrize("flags", ["execve clone", "procFS"])
def test_an_earlier_image_told_of_late_does_not_take_the_pid(flags: str) -> None:
    """An image that was replaced and is named as somebody's ancestor afterwards is entered as exited."""
    table = ProcessTable()
    table.add(image("b", pid=5, parent="a", start_ns=2), announced=True)
    table.add(image("c", pid=5, parent="b", start_ns=3), announced=True)
    late = table.add(image("a", pid=5, start_ns=1, flags=flags), announced=False)
    assert late.exited
    assert names(table.running()) == ["c"]


def test_a_reused_pid() -> None:
    """A process whose exit was never seen gives way when its pid is used again."""
    table = ProcessTable()
    table.add(image("a", pid=5, start_ns=1), announced=True)
    table.add(image("b", pid=5, parent="x", start_ns=2), announced=True)
    assert names(table.running()) == ["b"]


def test_forks_without_exec() -> None:
    """A fork that was never announced has its parent's environment; a process with its own command line has not."""
    table = ProcessTable()
    table.add(image("a", pid=1, binary="/bin/x", arguments="y", environment=("KEY",)), announced=True)
    fork = image("b", pid=2, parent="a", binary="/bin/x", arguments="y")
    other = image("c", pid=3, parent="a", binary="/bin/z", arguments="y")
    announced = image("d", pid=4, parent="a", binary="/bin/x", arguments="y")
    assert table.add(fork, announced=False).environment == ("KEY",)
    assert table.add(other, announced=False).environment is None
    assert table.add(announced, announced=True).environment is None


def test_a_fork_has_what_its_parent_had_read() -> None:
    """A worker that a server forks has the keys that the server read before, not those that it reads later."""
    table = ProcessTable()
    server = table.add(image("a", pid=1, start_ns=1, binary="/bin/x", environment=("KEY",)), announced=True)
    server.opened = (("/etc/before", 10), ("/etc/after", 30))
    worker = table.add(image("b", pid=2, parent="a", start_ns=20, binary="/bin/x", environment=()), announced=False)
    other = table.add(image("c", pid=3, parent="a", start_ns=20, binary="/bin/x", environment=()), announced=True)
    assert (worker.opened, other.opened) == ((("/etc/before", 10),), ())


@pytest.mark.parametrize("ended", [False, True])
def test_an_exec_that_comes_late_forgets_nothing(ended: bool) -> None:
    """The agent holds an exec back while it waits for a pod: files and hosts that later events told of stay known."""
    table = ProcessTable()
    early = table.add(image("a", pid=5, start_ns=1, binary="/bin/x"), announced=False)
    early.opened, early.reached = (("/etc/key", 2),), ("api.example",)
    if ended:
        table.exit(early)
    late = table.add(image("a", pid=5, start_ns=1, binary="/bin/x", environment=("KEY",)), announced=True)
    assert (late.opened, late.reached, late.environment) == (early.opened, early.reached, ("KEY",))
    assert late.exited is ended


def test_hidden_environments_are_not_inherited() -> None:
    """An image whose environment was too large to be read does not pass for its parent's fork."""
    table = ProcessTable()
    table.add(image("a", pid=1, binary="/bin/x", environment=("KEY",)), announced=True)
    hidden = image("b", pid=2, parent="a", binary="/bin/x", cwd="<enomem>")
    assert table.add(hidden, announced=False).environment is None


def test_rings_of_parents_end() -> None:
    """Links that form a ring, of one, two or many, give each image once; a long chain ends after 64."""
    table = ProcessTable()
    kernel = table.add(image("k", pid=0, parent="k"), announced=True)
    assert list(table.ancestors(kernel)) == []
    for number in range(5):
        table.add(image(f"r{number}", pid=number + 1, parent=f"r{(number + 1) % 5}"), announced=True)
    outside = table.add(image("o", pid=50, parent="r0"), announced=True)
    assert names(table.ancestors(outside)) == ["r0", "r1", "r2", "r3", "r4"]
    for number in range(200):
        table.add(image(f"c{number}", pid=number + 100, parent=f"c{number - 1}"), announced=True)
    last = table.get("c199")
    assert last is not None
    assert len(list(table.ancestors(last))) == 64


def test_exit_of_what_is_not_running() -> None:
    """An exit that comes twice, or of an image that was evicted, changes nothing else."""
    table = ProcessTable()
    process = table.add(image("a", pid=5), announced=True)
    table.exit(process)
    table.exit(process)
    stranger = image("z", pid=5)
    table.exit(stranger)
    assert (stranger.exited, len(table)) == (True, 1)


@pytest.mark.parametrize("name", STREAMS)
def test_recorded_streams_leave_one_image_a_pid(name: str) -> None:
    """After a whole recording each pid has one running image, and nothing that exited is among them."""
    decoder = decoded(name)[0]._decoder
    running = decoder.table.running()
    assert len({process.pid for process in running}) == len(running)
    assert not any(process.exited for process in running)
    assert decoder.table.evicted_running == decoder.table.evicted_exited == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("add", "exit", "get")),
            st.integers(0, 30),
            st.integers(0, 6),
            st.integers(0, 30),
            st.integers(0, 9),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_any_order_of_events_keeps_the_table_consistent(steps: list[tuple[str, int, int, int, int, bool]]) -> None:
    """Whatever is entered and ended in whatever order: bounds hold, one running image a pid, ancestors end."""
    table = ProcessTable(8)
    for action, number, pid, parent, start, proc in steps:
        known = table.get(f"{number}")
        if action == "add":
            process = image(f"{number}", pid, f"{parent}", start_ns=start, flags="procFS" if proc else "execve")
            table.add(process, announced=proc)
            assert len(list(table.ancestors(process))) <= 64
        elif action == "exit" and known is not None:
            table.exit(known)
        running = table.running()
        assert len({process.pid for process in running}) == len(running) <= 8
        assert set(table._by_pid.values()) == set(running)
        assert len(table) <= 8 + 2
