"""`keytrail policies check`: its lines and its exit codes."""

from pathlib import Path

import pytest

from keytrail.cli import main
from keytrail.tracing import sensors
from keytrail.tracing.schema import newer_fields


def run(*argv: str | Path) -> int:
    """The command with these arguments."""
    return main(["policies", "check", *map(str, argv)])


def test_shipped_library_passes(capsys: pytest.CaptureFixture[str]) -> None:
    """The whole library in one call: no problem, no warning, exit code 0; what an old agent refuses is noted."""
    assert run("--observe-only", *(policy.path for policy in sensors().values())) == 0
    *notes, summary = capsys.readouterr().out.splitlines()
    assert summary == f"{len(sensors())} checked, 0 problems, 0 warnings"
    newer = {str(policy.path) for policy in sensors().values() if newer_fields(policy.data)}
    assert newer
    assert {note.partition(":")[0] for note in notes} == newer
    assert all(note.endswith(" (note)") and ": an agent 1.4 refuses " in note for note in notes)


def test_problems_and_warnings_are_one_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each problem stands in the form that editors link; warnings say so; the exit code is 2."""
    file = tmp_path / "a.yaml"
    file.write_text(
        "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {name: a}\nspec:\n  kprobes:\n"
        "    - call: tcp_connect\n    - {call: __x64_sys_read}\n"
    )
    assert run(file) == 2
    first, second, summary = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{file}:6: spec.kprobes[0].call: 'tcp_connect' is no system call")
    assert second.startswith(f"{file}:7: spec.kprobes[1].call: names one processor architecture")
    assert second.endswith(" (warning)")
    assert summary == "1 checked, 1 problem, 1 warning"


def test_warnings_alone_are_no_failure(tmp_path: Path) -> None:
    """A policy that loads is no failure, whatever is ignored of it."""
    file = tmp_path / "a.yaml"
    file.write_text(
        "apiVersion: cilium.io/v1alpha1\nkind: TracingPolicy\nmetadata: {name: a}\n"
        "spec: {kprobes: [{call: __x64_sys_read}]}\n"
    )
    assert run(file) == 0


def test_file_that_cannot_be_read_or_holds_nothing_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing and an empty file are named; text from outside is escaped."""
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert run(tmp_path / "empty.yaml", tmp_path / "no\x1b.yaml") == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("empty.yaml: expected a TracingPolicy, found nothing")
    assert lines[1].endswith("no\\x1b.yaml: cannot be read: No such file or directory")
