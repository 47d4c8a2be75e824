"""What a collector remembers over its own restart."""

import json
import stat
from pathlib import Path

import pytest

from keytrail.decode import memory
from keytrail.domain.process import Process

BOOT = "8f6a3c1e-0000"


def process(exec_id: str = "a", environment: tuple[str, ...] | None = ("PATH", "OPENAI_API_KEY")) -> Process:
    """Make a running process."""
    return Process(exec_id, pid=7, start_ns=12, binary="/bin/x", arguments="--y \u20ac \udcff", environment=environment)


def test_names_come_back(tmp_path: Path) -> None:
    """Processes whose environment is known, empty or not, come back with the names of their variables."""
    ended = process("d")
    ended.exited = True
    saved = memory.save(tmp_path / "state", BOOT, [process(), process("b", ()), process("c", None), ended])
    found = memory.load(tmp_path / "state", BOOT)
    assert saved == 2
    assert [(p.exec_id, p.pid, p.start_ns, p.binary, p.environment) for p in found] == [
        ("a", 7, 12, "/bin/x", ("PATH", "OPENAI_API_KEY")),
        ("b", 7, 12, "/bin/x", ()),
    ]
    assert found[0].arguments == process().arguments


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    """Folder and file are the owner's alone, also when an interrupted run left a file open to all."""
    folder = tmp_path / "state"
    memory.save(folder, BOOT, [process()])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    left = folder / f".{memory.FILE_NAME}.new"
    left.write_text("half")
    left.chmod(0o666)
    memory.save(folder, BOOT, [process()])
    assert stat.S_IMODE((folder / memory.FILE_NAME).stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == [memory.FILE_NAME]


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    """A link in place of the temporary file is replaced, and what it points to stays as it is."""
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / f".{memory.FILE_NAME}.new").symlink_to(target)
    memory.save(tmp_path, BOOT, [process()])
    assert target.read_text() == "mine"
    assert not (tmp_path / memory.FILE_NAME).is_symlink()


def test_another_boot_is_another_world(tmp_path: Path) -> None:
    """Process ids mean nothing after a reboot, nor when the boot is not known."""
    memory.save(tmp_path, BOOT, [process()])
    memory_of_none = tmp_path / "none"
    memory.save(memory_of_none, "", [process()])
    assert memory.load(tmp_path, "another") == []
    assert memory.load(memory_of_none, "") == []


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    """When a new file cannot be written the old one stays whole."""
    memory.save(tmp_path, BOOT, [process()])
    (tmp_path / f".{memory.FILE_NAME}.new").mkdir()
    with pytest.raises(OSError, match="processes"):
        memory.save(tmp_path, BOOT, [])
    assert len(memory.load(tmp_path, BOOT)) == 1


def _document(**changes: object) -> str:
    rows = [["a", 7, 12, "/bin/x", "", 0]]
    return json.dumps({"version": 1, "boot_id": BOOT, "environments": [["PATH"]], "processes": rows} | changes)


def test_what_processes_were_seen_to_do_comes_back(tmp_path: Path) -> None:
    """Files with credentials that they opened and hosts that they asked for, whether or not they could be looked at."""
    seen = process("a", None)
    seen.opened, seen.reached = (("/etc/key", 5),), ("api.example",)
    assert memory.save(tmp_path, BOOT, [seen, process("b", None)]) == 1
    [found] = memory.load(tmp_path, BOOT)
    assert (found.opened, found.reached, found.environment) == (seen.opened, seen.reached, None)


def test_the_file_of_an_older_version_is_read(tmp_path: Path) -> None:
    """An upgrade forgets no environment."""
    (tmp_path / memory.FILE_NAME).write_text(_document())
    assert [one.environment for one in memory.load(tmp_path, BOOT)] == [("PATH",)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '"\xff"',
        _document(version=3),
        _document(processes=[["a", 7, 12, "", "", 0, [["/x"]], []]]),
        _document(processes=[["a", 7, 12, "", "", 0, [], 1]]),
        _document(processes=[["a", 7, 12, "", "", 0, []]]),
        _document(environments=[]),
        _document(environments=[[1], 5]),
        _document(processes=[["a", 7]]),
        _document(processes=[["a", "x", 12, "", "", 0]]),
        _document(processes=[["a", 7, float("inf"), "", "", 0]]),
        _document(processes=[["a", 7, 12, "", "", -1]]),
        _document(processes=[["a", 7, 12, "", "", []]]),
        _document(processes={"a": 1}),
        _document()[:-20],
    ],
)
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    """Whatever is in the file, the collector starts, and believes none of it."""
    (tmp_path / memory.FILE_NAME).write_text(text, encoding="latin-1")
    assert memory.load(tmp_path, BOOT) == []


def test_no_file(tmp_path: Path) -> None:
    """The first start has nothing to remember."""
    assert memory.load(tmp_path, BOOT) == []
    assert memory.load(tmp_path / "missing", BOOT) == []
