"""The line for people: what it shows, and that no process can act on the terminal through it."""

import io
import re
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keytrail.decode.decoder import Decoder
from keytrail.domain.event import Details, Event, EventKind, EventType, FileAccess, Network, Operation, Payload
from keytrail.domain.identity import Attribution, Evidence, EvidenceKind, Unknown
from keytrail.domain.process import Pod, Process
from keytrail.export.terminal_line import quote, resolve_color, terminal_line
from support.recordings import messages

ANSI = re.compile(r"\x1b\[\d+m")


class SeenEvent(Event):
    """An event with the details that a test gives it."""

    __slots__ = ("seen",)
    seen: Details

    @property
    def details(self) -> Details:
        """What the test gave."""
        return self.seen


def seen(kind: EventKind, details: Details, process: Process, *, function: str = "") -> SeenEvent:
    """Make an event of a process."""
    event = SeenEvent(kind, EventType.KPROBE, process, time_ns=1754675049979226315, function=function, node="ubuntu")
    event.seen = details
    return event


def curl() -> Process:
    """Make a process with a mapped identity, in a pod."""
    process = Process("x", binary="/usr/bin/curl", arguments="openai.com", pod=Pod("ml", "chat-0"))
    process.attribution = Attribution((Evidence(EvidenceKind.ENV, "OPENAI_API_KEY", "openai-prod"),))
    return process


def test_whole_line() -> None:
    """A connect shows time, kind, pod, command, peer and identity, in that order."""
    event = seen(EventKind.CONNECT, Details(Network("AF_INET", "IPPROTO_TCP", "", 0, "104.18.33.45", 80)), curl())
    assert terminal_line(event, color=False, zone=UTC) == (
        '17:44:09.979 connect   ml/chat-0 /usr/bin/curl "openai.com" -> 104.18.33.45:80 env:openai-prod observed'
    )


@pytest.mark.parametrize(
    ("kind", "details", "shown"),
    [
        (
            EventKind.SEND,
            Details(Network("AF_INET6", "", "", 0, "2001:db8::1", 443), payload=Payload(server_name="api.openai.com")),
            " -> api.openai.com ([2001:db8::1]:443) ",
        ),
        (EventKind.ACCEPT, Details(Network("AF_INET", "", "10.0.0.1", 22, "10.0.0.2", 4000)), " <- 10.0.0.2:4000 "),
        (EventKind.LISTEN, Details(Network("AF_INET", "", "10.0.0.1", 22)), " on 10.0.0.1:22 "),
        (EventKind.FILE, Details(file=FileAccess("/etc/sha dow", "read")), ' read "/etc/sha dow" '),
        (EventKind.MODULE, Details(operation=Operation("load", "dummy")), " load dummy "),
        (EventKind.HOOK, Details(), " do_something "),
    ],
)
def test_targets(kind: EventKind, details: Details, shown: str) -> None:
    """Each kind shows what it was done to."""
    assert shown in terminal_line(seen(kind, details, curl(), function="do_something"), color=False, zone=UTC)


def test_unknown_and_unmapped_identity() -> None:
    """An identity that nobody could look for and a credential that nothing knows are told apart."""
    process = curl()
    process.attribution = Attribution(unknown=Unknown.NOT_CAPTURED)
    assert terminal_line(seen(EventKind.EXEC, Details(), process), color=False).endswith(" unknown (not_captured)")
    process.attribution = Attribution((Evidence(EvidenceKind.ENV, "X_KEY", "x_key-present", mapped=False),))
    assert terminal_line(seen(EventKind.EXEC, Details(), process), color=False).endswith(
        " env:x_key-present observed unmapped"
    )


def test_arguments_cannot_forge_the_rest() -> None:
    """Arguments that look like a peer and an identity stay inside their quotes, with their quotes escaped."""
    process = Process("x", binary="/bin/sh", arguments='a" -> 10.0.0.1:1 env:admin observed')
    line = terminal_line(seen(EventKind.EXEC, Details(), process), color=False)
    assert line.endswith('/bin/sh "a\\" -> 10.0.0.1:1 env:admin observed"')


ANY_TEXT = st.text(st.characters(), max_size=300)


@given(text=ANY_TEXT)
def test_hostile_text(text: str) -> None:
    """No text acts on a terminal: without colour all is printable ASCII, with colour only our own colours are added."""
    process = Process("x", binary=text, arguments=text, pod=Pod(text, text))
    process.attribution = Attribution((Evidence(EvidenceKind.ENV, text, text),))
    details = Details(Network("AF_UNIX", "", text, 0, text), FileAccess(text, text), operation=Operation(text, text))
    event = seen(EventKind.CONNECT, details, process)
    plain = terminal_line(event, color=False, zone=UTC)
    assert plain.isascii()
    assert plain.isprintable()
    assert ANSI.sub("", terminal_line(event, color=True, zone=UTC)) == plain


@given(text=ANY_TEXT, other=ANY_TEXT)
def test_quoting_is_unambiguous(text: str, other: str) -> None:
    """Two different texts are never shown alike, unless one was cut."""
    if text != other and max(len(text), len(other)) <= 300:
        assert quote(text, 300) != quote(other, 300)


def test_cut_is_shown_outside_the_quotes() -> None:
    """A cut text says so where the text itself cannot."""
    assert quote("a b" * 100, 4) == '"a ba"...'
    assert quote("a" * 10, 4) == '"aaaa"...'
    assert quote('"...', 4) == '"\\"..."'


class Stream(io.StringIO):
    """A stream that is a terminal or not."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        """Answer as the test wants."""
        return self.terminal


@pytest.mark.parametrize(
    ("choice", "terminal", "environ", "expected"),
    [
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {"FORCE_COLOR": "1"}, False),
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),
        ("auto", False, {"FORCE_COLOR": "1"}, True),
        ("auto", True, {"TERM": "dumb"}, False),
    ],
)
def test_color_choice(choice: str, terminal: bool, environ: dict[str, str], expected: bool) -> None:
    """The user's choice wins, then NO_COLOR, then FORCE_COLOR, then whether it is a terminal."""
    assert resolve_color(choice, Stream(terminal=terminal), environ) is expected  # type: ignore[arg-type] # parametrized


@pytest.mark.parametrize("recording", ["odd-input", "policy-library", "kubernetes"])
def test_recorded_events(recording: str) -> None:
    """Every recorded event, odd input included, is one printable line."""
    decoder = Decoder(lambda text, *_: (text, ()))
    for raw in messages(recording):
        event = decoder.decode(raw)
        assert isinstance(event, Event)
        assert terminal_line(event, color=False).isprintable()
