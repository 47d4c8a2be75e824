"""Redaction of what a real agent recorded: hardly anything without a credential may be altered."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from keytrail.decode.redact import MARK, Redactor

RECORDINGS = Path(__file__).parent.parent / "corpus" / "recordings"
FAKE = ("not-a-real", "sk-test")
"""Every credential of the recordings has one of these in it, as their README says."""


def _processes(line: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for event in line.values():
        if isinstance(event, dict):
            yield from (event[name] for name in ("process", "parent") if name in event)
            yield from event.get("ancestors", ())


@pytest.fixture(scope="module")
def recorded() -> dict[str, set[str]]:
    """Arguments, paths, working directories and names of variables of every recorded process, each once."""
    found: dict[str, set[str]] = {"arguments": set(), "binary": set(), "cwd": set(), "names": set()}
    for path in sorted(RECORDINGS.glob("*/export.json.zst")):
        with path.open("rb") as file:
            stream = zstandard.ZstdDecompressor(max_window_size=1 << 28).stream_reader(file)
            for line in io.TextIOWrapper(stream, encoding="utf-8"):
                for process in _processes(json.loads(line)):
                    for field in ("arguments", "binary", "cwd"):
                        found[field].add(process.get(field, ""))
                    found["names"].update(entry.get("Key", "") for entry in process.get("environment_variables", ()))
    assert len(found["arguments"]) > 2_000
    return found


def test_credential_free_text_is_left_alone(recorded: dict[str, set[str]]) -> None:
    """Of the recordings' texts without a credential at most one in two hundred is altered."""
    redactor = Redactor()
    for texts in recorded.values():
        plain = {text for text in texts if not any(mark in text for mark in FAKE)}
        altered = {text for text in plain if redactor.redact(text)[0] != text}
        assert len(altered) <= len(plain) * 0.005, altered


def test_recorded_credentials_are_redacted(recorded: dict[str, set[str]]) -> None:
    """Every recorded command line that hands over a credential lost it."""
    redactor = Redactor()
    handed_over = [
        text
        for text in recorded["arguments"]
        if "Bearer not-a" in text or "sk_test" in text or "user:not-a" in text or "sk-test" in text
    ]
    assert len(handed_over) >= 6
    for text in handed_over:
        redacted, names = redactor.redact(text)
        assert MARK in redacted
        assert names
        assert not any(mark in redacted for mark in ("not-a-real", "sk_test", "sk-test"))
