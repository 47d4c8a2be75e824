"""`keytrail demo` and what every command says of itself."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from keytrail.commands import replay
from support.commands import keytrail

COMMANDS = [
    "collect", "replay", "record", "watch", "policies", "policies list", "policies load", "policies delete", "config",
    "config show", "demo", "doctor", "fake-tetragon", "otlp-sink",
]  # fmt: skip


def test_demo_shows_identities_and_loses_nothing(tmp_path: Path) -> None:
    """The demo runs the whole path, ends by itself, names identities and destinations, and lost is 0."""
    database = tmp_path / "demo.sqlite"
    command = [sys.executable, "-m", "keytrail", "demo", "--database", str(database)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "lost = 0" in ran.stdout
    for wanted in ("openai_api_key-present", "closedai_api_key-present", "127.0.0.1,::1", "4431"):
        assert wanted in ran.stdout
    assert database.exists()
    assert "test-not-a-real-key" not in ran.stdout
    query = next(line.split("--query ", 1)[1] for line in ran.stdout.splitlines() if "--query " in line)
    answer = keytrail("otlp-sink", "--database", database, "--query", *shlex.split(query))
    assert "curl" in answer.out
    wrong = keytrail("otlp-sink", "--database", tmp_path / "none.sqlite", "--query", "SELECT 1")
    assert (wrong.code, "none.sqlite" in wrong.err) == (2, True)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    """Each command's help ends with a line that can be typed."""
    ran = keytrail(*command.split(), "--help")
    assert ran.code == 0
    assert "example:\n  " in ran.out
    assert "keytrail " in ran.out.partition("example:")[2]


def test_config_show_tells_origins_and_masks_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting is shown with where it comes from; a header's value is not shown."""
    monkeypatch.setenv("KEYTRAIL_QUEUE_CAPACITY", "1234")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=very-secret-value")
    ran = keytrail("config", "show", "--kind", "exec")
    assert ran.code == 0
    assert "1234" in ran.out
    assert "KEYTRAIL_QUEUE_CAPACITY" in ran.out
    assert "api-key" in ran.out
    assert "very-secret-value" not in ran.out


def test_unexpected_error_shows_its_place_and_not_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug ends with exit code 1 and its place in the code; what the error quotes could be a secret."""

    def fail(_args: object) -> int:
        raise ValueError("sk-live-quoted-by-an-error")

    monkeypatch.setattr(replay, "run", fail)
    ran = keytrail("replay", "seed-demo")
    assert ran.code == 1
    assert "ValueError" in ran.err
    assert "in fail" in ran.err
    assert "quoted-by-an-error" not in ran.err.replace('raise ValueError("sk-live-quoted-by-an-error")', "")


def test_wrong_manifest_stops_everything_before_it_starts(tmp_path: Path) -> None:
    """A manifest with a misspelt field ends `config show` with file, line, field and the nearest name."""
    (tmp_path / "m.yaml").write_text(
        "apiVersion: keytrail.io/v1alpha1\nkind: ClusterIdentityMapping\nmetadata: {name: a}\n"
        "spec:\n  evidence:\n    enf: [{name: A}]\n"
    )
    ran = keytrail("config", "show", "--config", tmp_path)
    assert ran.code == 2
    assert "m.yaml:6" in ran.err
    assert "spec.evidence.enf" in ran.err
    assert "env" in ran.err
