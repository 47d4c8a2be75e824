"""Commands as people get them wrong: each says what is wrong and what to do, by exit code and without a traceback."""

import errno
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from keytrail.commands.live import _log_transition
from keytrail.commands.options import check_state_dir
from keytrail.detect.conditions import uninterrupted
from keytrail.domain.errors import SettingsError
from keytrail.settings_sources import load_settings
from keytrail.source.grpc_stream import State, Transition
from keytrail.source.status import Reason
from support.commands import keytrail, replay

SECONDS = 60.0
POLICY = Path(__file__).parents[2] / "policies" / "tracing" / "tcp-connect.yaml"


def _process(*argv: str | Path, stdout: int = subprocess.PIPE) -> "subprocess.Popen[str]":
    """The command as a process of its own, with its output buffered as it is by default."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "keytrail", *map(str, argv)]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environ)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("record", "x.pb", "--seconds", "-1"), "expected a number from 0.0 on, found '-1'"),
        (("record", "x.pb", "--events", "0"), "expected a whole number from 1 on, found '0'"),
        (("record", "x.pb", "--seconds", "inf"), "expected a number from 0.0 on, found 'inf'"),
        (("policies", "load", "x.yaml", "--wait", "soon"), "expected a number from 0.0 on, found 'soon'"),
        (("spool", "show", "--queued", "--limit", "-5"), "expected a whole number from 1 on, found '-5'"),
        (("fake-tetragon", "seed-demo", "--release", "2.0"), "expected one of 1.4, 1.5"),
        (("demo", "--database", "/nonexistent/x"), "--database /nonexistent/x: cannot be used as an SQLite database"),
        (("collect", "--output", "json", "--summary", "/nonexistent/x"), "--summary /nonexistent/x: No such file"),
        (("record", "/nonexistent/x", "--agent", "localhost:1"), "/nonexistent/x: No such file or directory"),
        (("replay", "/sys"), "/sys: no recording here: expected"),
    ],
)
def test_what_is_asked_for_is_wrong(argv: tuple[str, ...], said: str) -> None:
    """Numbers that make no sense and files that cannot be made are refused before anything is begun."""
    ran = keytrail(*argv)
    assert ran.code == 2
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_a_summary_that_cannot_be_written_is_known_at_once() -> None:
    """Nothing is replayed for an accounting that could not be written at its end."""
    ran = replay("seed-demo", "--summary", "/nonexistent/summary.json")
    assert (ran.code, ran.out) == (2, "")


def test_a_state_folder_that_cannot_be_written_is_known_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collector that would lose its records with its process does not start; where it got the folder from is said."""
    file, settings = tmp_path / "file", tmp_path / "settings.yaml"
    file.touch()
    settings.write_text(f"pace: 1\nstate_dir: {file}/state\n", encoding="utf-8")
    for argv, said in (
        (("--state-dir", file), f"--state-dir {file}: cannot be written: it is no folder"),
        (("--settings", settings), f"{settings}:2: state_dir {file}/state: cannot be written: Not a directory"),
        ((), "KEYTRAIL_STATE_DIR /proc/none: cannot be written: No such file or directory"),
    ):
        monkeypatch.setenv("KEYTRAIL_STATE_DIR", "/proc/none" if not argv else "")
        ran = keytrail("collect", "--output", "findings", "--agent", "localhost:1", *argv)
        assert (ran.code, ran.out, ran.err) == (2, "", f"keytrail: {said}\n")


def test_what_is_wrong_with_the_disk_itself_is_no_reason_not_to_collect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full or read-only disk may be mended meanwhile; a folder that the system refuses is a mistake."""
    for number, refused in ((errno.ENOSPC, False), (errno.EROFS, False), (errno.EACCES, True)):

        def fail(*_: object, number: int = number, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(Path, "mkdir", fail)
        settings = load_settings({"state_dir": tmp_path / "state"}, {})
        with pytest.raises(SettingsError) if refused else nullcontext():
            check_state_dir(settings)


def test_a_recording_that_is_not_there() -> None:
    """The names of the shipped recordings are said, as one of them was probably meant."""
    for command in (("replay", "seed-dmeo"), ("fake-tetragon", "seed-dmeo", "--listen", "localhost:0")):
        ran = keytrail(*command)
        assert (ran.code, ran.out) == (2, "")
        assert "shipped recordings policy-library and seed-demo" in ran.err


@pytest.mark.parametrize("variable", ["HTTP_ADDRESS", "AGENT_ADDRESS"])
def test_a_wrong_address_is_no_setting_to_show(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`keytrail config show` refuses an address that `keytrail collect` would refuse."""
    monkeypatch.setenv(f"KEYTRAIL_{variable}", "x:y:z")
    ran = keytrail("config", "show")
    assert ran.code == 2
    assert "'x:y:z': expected" in ran.err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user who may do nothing, and only root can become one")
def test_a_folder_of_rules_that_may_not_be_read(tmp_path: Path) -> None:
    """It is not taken for a folder without rules: `keytrail rules check` says that it cannot be read."""
    rules = tmp_path / "rules"
    rules.mkdir(mode=0)
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "keytrail", "rules", "check"]
    ran = subprocess.run([*command, rules], check=False, capture_output=True, text=True, timeout=SECONDS)
    assert ran.returncode == 2
    assert f"{rules}: cannot be read: Permission denied" in ran.stdout


def test_the_reader_leaves() -> None:
    """`keytrail ... | head -1` ends well, also when all was still buffered as the reader left."""
    reading, writing = os.pipe()
    with _process("policies", "check", POLICY, stdout=writing) as process:
        os.close(writing)
        os.close(reading)
        _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (0, "")


def test_a_full_disk_takes_the_answer() -> None:
    """An answer that could not be written is a failure, in a sentence."""
    with Path("/dev/full").open("w") as full, _process("policies", "check", POLICY, stdout=full.fileno()) as process:
        _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (1, "keytrail: standard output: No space left on device\n")


def test_closed_streams() -> None:
    """Started without standard streams, as some supervisors do it, a command works."""
    command = f"exec {sys.executable} -m keytrail policies check {POLICY} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False, timeout=SECONDS).returncode == 0


def test_ctrl_c() -> None:
    """An interrupt ends a command silently, with 130."""
    with _process("replay", "policy-library", "--pace", "1") as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (130, "")


def test_an_interrupt_is_no_mistake_in_a_rule() -> None:
    """While the CEL engine, which would take it for one, compiles a condition, an interrupt waits."""
    compiled: list[bool] = []

    def compile_() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            compiled.append(True)

    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            compile_()
    finally:
        signal.signal(signal.SIGINT, earlier)
    assert compiled


def test_main_is_soon_ready_for_an_interrupt() -> None:
    """Before `main` an interrupt is a traceback: nothing of ours is imported by then, and for help nothing heavy."""
    script = """
import sys
from keytrail import cli
print(*(name for name in sys.modules if name.startswith("keytrail.") or name in ("argparse", "traceback", "typing")))
cli.build_parser()
print(*(name for name in ("grpc", "google.protobuf", "yaml", "opentelemetry") if name in sys.modules))
"""
    printed = subprocess.check_output([sys.executable, "-c", script], text=True, timeout=SECONDS)
    assert printed == "keytrail.cli\n\n"


def test_what_prints_findings_loads_nothing_that_sends() -> None:
    """Encoder, spool, sender and SQLite are 4 MB of every node's memory: they come with the output that needs them."""
    script = """
import sys
from keytrail import app, cli, outputs, own_telemetry, probe
cli.build_parser()
print(*(name for name in ("keytrail.delivery", "keytrail.export.otlp_encode", "sqlite3") if name in sys.modules))
"""
    assert subprocess.check_output([sys.executable, "-c", script], text=True, timeout=SECONDS) == "\n"


def test_an_agent_that_denies(caplog: pytest.LogCaptureFixture) -> None:
    """The log says what would help, not only that the agent cannot be asked."""
    _log_transition(Transition(State.AWAY, Reason.DENIED, "unix:///t.sock", 1, "[Errno 13] Permission denied", 0))
    assert "run as root or in its group); trying again" in caplog.text


@pytest.mark.parametrize("command", [("doctor",), ("collect", "--output", "json")])
def test_a_password_in_an_address_is_not_said_back(command: tuple[str, ...]) -> None:
    """An address that is refused is quoted without the credentials that somebody wrote into it."""
    ran = keytrail(*command, "--agent", "https://bob:hunter2@agent:54321")
    assert ran.code == 2
    assert "agent address 'https://[redacted]@agent:54321'" in ran.err
