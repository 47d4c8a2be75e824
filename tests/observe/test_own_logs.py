"""The collector's own log: one harmless line an entry, nothing twice, nothing that only a library may know."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from keytrail.commands.redaction import redacted
from keytrail.observe.log_gate import SHARE, WINDOW_SECONDS, LogGate
from keytrail.observe.logs import set_level, set_up_logs

EVIL = "\x1b[2J\x1b]0;owned\x07\r\nINFO all is well\u202e\u200b\x00\ud800"
log = logging.getLogger("keytrail.source")


@pytest.fixture
def _as_before() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("keytrail")
    before = list(root.handlers), root.level, own.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])


class Clock:
    """A time that stands until the test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return it."""
        return self.now


def entry(text: str, *args: object, level: int = logging.WARNING, name: str = "keytrail.x") -> logging.LogRecord:
    """A record as logging makes it."""
    return logging.LogRecord(name, level, "file.py", 1, text, args, None)


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("form", ["text", "json"])
def test_no_raw_control_character_and_one_line(form: str) -> None:
    """Whatever a message, its arguments, a logger's or a thread's name hold: an entry is one line of printable text."""
    out = io.StringIO()
    set_up_logs("info", form, out)
    log.warning("agent said %s", EVIL)
    log.warning(EVIL)
    logging.getLogger(f"keytrail.{EVIL}").error("named")
    lines = out.getvalue().split("\n")
    assert len(lines) == 4
    assert lines.pop() == ""
    assert all(line.isprintable() for line in lines)


@pytest.mark.usefixtures("_as_before")
def test_json_entries_have_their_own_fields() -> None:
    """An entry says when, how bad, from which part, logger and thread, beside the message."""
    out = io.StringIO()
    set_up_logs("info", "json", out)
    log.warning("no events from %s", "agent")
    found = json.loads(out.getvalue())
    assert found.pop("ts").endswith("Z")
    assert found == {
        "level": "warning",
        "component": "source",
        "message": "no events from agent",
        "logger": "keytrail.source",
        "thread": "MainThread",
    }


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exceptions_text_stays_inside(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exceptions quote what they failed on: only the type is written. Nor is an entry whose arguments are wrong."""
    out = io.StringIO()
    set_up_logs("info", form, out)
    secret = "sk-live-0123456789abcdef"  # noqa: S105 - what must not be seen
    try:
        int(secret)
    except ValueError:
        log.exception("cannot read it")
    log.error("%d and %d", secret)  # noqa: PLE1206 - the mistake
    log.error("%d", secret)
    captured = capsys.readouterr()
    assert "cannot read it (ValueError)" in out.getvalue()
    assert secret not in out.getvalue() + captured.err + captured.out


@pytest.mark.usefixtures("_as_before")
def test_level_changes_at_run_time() -> None:
    """`set_level` takes effect for the next entry; libraries stay at warning whatever it is."""
    out = io.StringIO()
    set_up_logs("warning", "text", out)
    log.info("one")
    set_level("debug")
    log.debug("two")
    logging.getLogger("urllib3").info("three")
    set_level("error")
    log.warning("four")
    assert [line.rsplit(" ", 1)[1] for line in out.getvalue().splitlines()] == ["two"]


def test_repeats_are_held_back_and_told() -> None:
    """The same entry is written once a window; the next that is written says how many were not."""
    clock = Clock()
    gate = LogGate(clock)
    assert [gate.filter(entry("full: %s", "a")) for _ in range(1000)] == [True, *[False] * 999]
    clock.now += WINDOW_SECONDS
    last = entry("full: %s", "a")
    assert gate.filter(last)
    assert last.repeats == 999  # type: ignore[attr-defined]  # set by the gate
    part = gate.part()
    assert (part.entries, part.held_back) == ({"warning": 1001}, 999)


def test_what_goes_up_and_down_is_told_each_time() -> None:
    """The last line is never a lie: the same entry is written again when another of its part came between."""
    gate = LogGate(Clock())
    down, up = ("no events", logging.WARNING), ("connected", logging.INFO)
    written = [
        gate.filter(entry(text, level=level)) for text, level in [down, down, up, down, up, up] for _ in range(2)
    ]
    assert written == [True, False, False, False, True, False, True, False, True, False, False, False]
    assert sum(gate.filter(entry(text)) for text in ("no events", "connected") * 100) <= 2 * SHARE


def test_one_place_cannot_flood_with_different_texts() -> None:
    """A place in the code has its share of a window for different texts; other places are not affected."""
    clock = Clock()
    gate = LogGate(clock)
    assert sum(gate.filter(entry("rule %s failed", number)) for number in range(500)) == SHARE
    assert gate.filter(entry("something else"))
    assert gate.filter(entry("rule %s failed", 1, name="keytrail.y"))
    clock.now += WINDOW_SECONDS
    again = entry("rule %s failed", 7)
    assert gate.filter(again)
    assert again.repeats == 500 - SHARE  # type: ignore[attr-defined]  # set by the gate


def test_memory_is_bounded_and_debug_passes() -> None:
    """Ten thousand different texts are forgotten again; debug entries are never held back or counted."""
    gate = LogGate(Clock())
    for number in range(10_000):
        gate.filter(entry(f"text {number}"))
    assert len(gate._places) <= 512
    assert all(gate.filter(entry("detail", level=logging.DEBUG)) for _ in range(3))
    assert gate.part().entries == {"warning": 10_000}


def test_a_wrong_entry_never_raises_into_its_caller() -> None:
    """Arguments that do not fit their text are no reason to fail for whoever wanted to log."""
    gate = LogGate(Clock())
    assert gate.filter(entry("%d", "x", level=logging.ERROR))
    assert gate.part().entries == {"error": 1}


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("form", ["text", "json"])
def test_an_entry_is_redacted(form: str) -> None:
    """What an entry quotes of a setting or of a backend's answer loses its credentials, and JSON stays JSON."""
    stream = io.StringIO()
    set_up_logs("debug", form, stream, redact=redacted)
    log.warning('agent address %r: expected HOST; not sent: {"api_key":"%s"}', "https://u:hunter2@h", "hunter2")
    written = stream.getvalue()
    assert "hunter2" not in written
    assert "agent address" in (json.loads(written)["message"] if form == "json" else written)
