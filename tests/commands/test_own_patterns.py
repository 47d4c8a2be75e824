"""The setting `redact_patterns`, from a flag, a variable and a file to all that commands write."""

import threading
from pathlib import Path

import pytest

from keytrail.commands.redaction import redact_too, redacted
from keytrail.source.recording import RecordingWriter, read_recording
from keytrail.testing.fake_tetragon import FakeTetragon
from support.commands import keytrail
from support.synthetic import exec_event, kprobe_event, process

TOKEN = "acme_live_" + "qwertyui" * 2
PATTERN = "acme_live_[a-z]{16}"
ACTING = process(7, binary=f"/srv/{TOKEN}/tool", arguments=f"--with {TOKEN}", cwd=f"/home/{TOKEN}")
EVENTS = [exec_event(ACTING), kprobe_event(ACTING, "security_file_permission", {"file_arg": {"path": f"/{TOKEN}"}})]


@pytest.mark.parametrize("output", ["json", "line"])
def test_replay_and_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    """Binary, arguments, folder and details of an event are without the token, and so is what is said of a mistake."""
    target = tmp_path / "x.pb"
    with RecordingWriter(target) as writer:
        list(map(writer.write, EVENTS))
    monkeypatch.setenv("KEYTRAIL_REDACT_PATTERNS", PATTERN)
    ran = keytrail("replay", target, "--output", output)
    assert (ran.code, ran.err, ran.out.count("\n"), TOKEN in ran.out) == (0, "", 2, False)
    assert ran.out.count("[redacted]") >= 4
    ran = keytrail("replay", target, "--summary", tmp_path / TOKEN / "x.json")
    assert (ran.code, TOKEN in ran.err, "[redacted]" in ran.err) == (2, False, True)
    monkeypatch.delenv("KEYTRAIL_REDACT_PATTERNS")
    assert TOKEN in keytrail("replay", target, "--output", output).out
    assert redacted(TOKEN) == TOKEN


def test_a_recording_is_taken_without_them(tmp_path: Path) -> None:
    """`record` leaves the token out of the file."""
    where, target = f"unix://{tmp_path}/tetragon.sock", tmp_path / "taken.pb"
    with FakeTetragon(where) as agent:

        def publish() -> None:
            agent.wait_for_listeners(timeout=60)
            agent.publish(EVENTS)

        publisher = threading.Thread(target=publish)
        publisher.start()
        ran = keytrail("record", target, "--events", "2", "--agent", where, "--redact-pattern", PATTERN)
        publisher.join()
    taken = list(read_recording(target))
    assert (ran.code, len(taken), any(TOKEN.encode() in message for message in taken)) == (0, 2, False)


def test_a_wrong_one_is_refused_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing starts by an expression that is none: file and line, variable or flag are named."""
    file = tmp_path / "settings.yaml"
    file.write_text("pace: 1\nredact_patterns: ['acme_[']\n", encoding="utf-8")
    assert f"{file}:2: redact_patterns[0]: " in keytrail("config", "show", "--settings", file).err
    ran = keytrail("replay", "seed-demo", "--redact-pattern", "ok", "--redact-pattern", "a(?=b)")
    assert (ran.code, ran.err.startswith("keytrail: --redact-pattern: ")) == (2, True)
    monkeypatch.setenv("KEYTRAIL_REDACT_PATTERNS", "(")
    assert keytrail("collect").err.startswith("keytrail: KEYTRAIL_REDACT_PATTERNS: ")


def test_shown_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """`config show` prints the expressions, and of OpenTelemetry's variables not what they find."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", f"team={TOKEN}")
    ran = keytrail("config", "show", "--redact-pattern", PATTERN)
    assert (ran.code, TOKEN in ran.out, f'redact_patterns: ["{PATTERN}"]' in ran.out) == (0, False, True)


def test_the_own_log_follows_the_settings() -> None:
    """What the process says is redacted by the expressions of its settings, from when they are read."""
    redact_too([PATTERN])
    assert redacted(f"cannot reach {TOKEN}") == "cannot reach [redacted]"
    redact_too([])
    assert redacted(f"cannot reach {TOKEN}") == f"cannot reach {TOKEN}"
