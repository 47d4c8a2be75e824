"""The builder of the real components: once for each version, whole or not at all, and never in a test's own time."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.components.build import TESTS, BuildFailed, Component, build, built

pytestmark = pytest.mark.cluster("go-server")
building = pytest.mark.timeout(240)
"""For tests that build something themselves, on a machine that may be busy."""
HELLO = 'package main\n\nfunc main() { println("hello") }\n'
SLOW_BUILD_SECONDS = 9
INNER_TIMEOUT_SECONDS = 6
BUILD_IN_A_PROCESS = """
import sys
from pathlib import Path
from support.components.build import Component, build
print(build(Component("small", ("small",), Path(sys.argv[1]), package=".")))
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Component:
    """A program of one line, and a cache of the test's own."""
    monkeypatch.setenv("KEYTRAIL_TEST_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "small"
    source.mkdir()
    (source / "go.mod").write_text("module small\n\ngo 1.24\n")
    (source / "main.go").write_text(HELLO)
    return Component("small", ("small",), source, package=".")


@building
def test_a_version_is_built_once_and_a_change_is_another(small: Component, tmp_path: Path) -> None:
    """The second call finds the folder of the first; a change of any input, or of the flags, is a new folder."""
    first = build(small)
    assert subprocess.check_output([first / "small"], stderr=subprocess.STDOUT) == b"hello\n"
    when = (tmp_path / "cache" / "small.log").stat().st_mtime_ns
    assert build(small) == built(small) == first
    assert (tmp_path / "cache" / "small.log").stat().st_mtime_ns == when
    other_flags = Component(small.name, small.programs, small.source, package=".", link="-s")
    assert built(other_flags) is None
    (small.source / "main.go").write_text(HELLO.replace("hello", "changed"))
    assert built(small) is None
    assert subprocess.check_output([build(small) / "small"], stderr=subprocess.STDOUT) == b"changed\n"
    assert first.is_dir()


@building
def test_two_processes_build_once(small: Component) -> None:
    """Two that want the same at the same time get the same folder, and one of them built it."""
    environ = os.environ | {"PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-c", BUILD_IN_A_PROCESS, str(small.source)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert {out for out, _ in said} == {f"{built(small)}\n"}
    assert "".join(err for _, err in said).count("small: building small") == 1


@building
def test_a_failed_build_keeps_its_output_and_nothing_else(small: Component, tmp_path: Path) -> None:
    """The error and the kept output have the compiler's words; no folder is left that looks like a build."""
    (small.source / "main.go").write_text("package main\n\nfunc main() { nonsense() }\n")
    with pytest.raises(BuildFailed, match="undefined: nonsense"):
        build(small)
    assert "undefined: nonsense" in (tmp_path / "cache" / "small.log").read_text()
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"small.lock", "small.log"}


@building
def test_what_a_killed_build_left_is_removed(small: Component, tmp_path: Path) -> None:
    """A build that was killed in the middle is no build, and the next one clears it away."""
    left = tmp_path / "cache" / "small.partial-1" / "bin"
    left.mkdir(parents=True)
    (left / "small").write_bytes(b"half")
    assert built(small) is None
    build(small)
    assert not left.exists()


def test_the_programs_are_there(programs: Callable[[str], Path]) -> None:
    """What a test names in its mark is built when it runs."""
    assert os.access(programs("go-server") / "go_server", os.X_OK)


@building
def test_a_build_is_not_in_a_tests_time(tmp_path: Path) -> None:
    """With a build that takes longer than a test may, and nothing in the cache, the test before this one passes."""
    go = shutil.which("go")
    slow = tmp_path / "bin" / "go"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\n[ "$1" = build ] && sleep {SLOW_BUILD_SECONDS}\nexec {go} "$@"\n')
    slow.chmod(0o755)
    environ = os.environ | {
        "PATH": f"{slow.parent}:{os.environ['PATH']}",
        "KEYTRAIL_TEST_CACHE": str(tmp_path / "cache"),
        "KEYTRAIL_REQUIRE_CLUSTER": "1",
    }
    test = f"{Path(__file__).relative_to(TESTS.parent)}::{test_the_programs_are_there.__name__}"
    command = [sys.executable, "-m", "pytest", "--cluster", f"--timeout={INNER_TIMEOUT_SECONDS}", test]
    ran = subprocess.run(
        command, check=False, cwd=TESTS.parent, env=environ, capture_output=True, text=True, timeout=200
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "go-server: built in" in ran.stderr
