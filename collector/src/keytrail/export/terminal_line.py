"""One event as one line for people, and the same words as the body of a log record.

An event with its attribution comes in, a line without its newline goes out. Arguments, paths and names are chosen by
whoever starts a process, so a line holds printable ASCII and, when asked, our own colours, nothing else: ESC, newlines,
bidi controls, look-alike letters and zero-width characters are written as escapes. That also fits every locale.
"""

import re
from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import TextIO

from keytrail.domain.event import NO_DETAILS, Event, EventKind, Network, Payload
from keytrail.domain.identity import NO_IDENTITY, Attribution
from keytrail.domain.process import Process
from keytrail.export.output import LAST_SECOND

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), 127)} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    ord("\\"): "\\\\",
    ord('"'): '\\"',
}
_IS_BARE = re.compile(r"[A-Za-z0-9_./:@%+=,~\[\]-]+").fullmatch
_IS_PLAIN = re.compile(r"[ -~]*").fullmatch
"""Printable ASCII, which most command lines are: nothing in it needs an escape but quotes and backslashes."""
_ARGUMENTS_WIDTH = 100
_TEXT_WIDTH = 200
_RESET = "\x1b[0m"
_DIM, _GREEN, _YELLOW, _CYAN = "\x1b[2m", "\x1b[32m", "\x1b[33m", "\x1b[36m"
# Asked of every event: before Python 3.12 a member of an enum costs four times as much as a global.
_ACCEPT, _HOOK, _LISTEN = EventKind.ACCEPT, EventKind.HOOK, EventKind.LISTEN


def quote(text: str, width: int = _TEXT_WIDTH) -> str:
    """Untrusted text as inert ASCII: bare when it is one plain word, else in double quotes with escapes.

    More than `width` characters are cut, and the cut is shown outside the quotes, where the text cannot forge it.
    """
    if len(text) <= width and _IS_BARE(text):
        return text
    return _quoted(text, width)


def _quoted(text: str, width: int) -> str:
    inert = shown = text[:width]
    if not _IS_PLAIN(shown):
        inert = shown.translate(_ESCAPES).encode("ascii", "backslashreplace").decode("ascii")
    elif '"' in shown or "\\" in shown:  # 0.3 us, `translate` 4.6
        inert = shown.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inert}"...' if len(text) > width else f'"{inert}"'


def process_text(process: Process) -> str:
    """Binary and arguments. Arguments are always quoted, or they could look like the rest of the line."""
    binary = quote(process.binary)
    if not process.arguments:
        return binary
    return f"{binary} {_quoted(process.arguments, _ARGUMENTS_WIDTH)}"


def identity_text(attribution: Attribution) -> str:
    """`env:openai-prod observed`; empty when there is none, `unknown (REASON)` when nobody could look."""
    primary = attribution.primary
    if primary is not None:
        mapped = "" if primary.mapped else " unmapped"
        return f"{primary.kind}:{quote(primary.identity_id)} {primary.strength}{mapped}"
    return "" if attribution.unknown is None else f"unknown ({attribution.unknown})"


def _address(address: str, port: int) -> str:
    if not port:
        return quote(address)
    return f"[{quote(address)}]:{port}" if ":" in address else f"{quote(address)}:{port}"


def _network_text(kind: EventKind, network: Network, payload: Payload | None) -> str:
    if kind is _LISTEN:
        towards, end = "on", _address(network.local_address, network.local_port)
    else:
        towards, end = "<-" if kind is _ACCEPT else "->", _address(network.peer_address, network.peer_port)
    name = "" if payload is None else payload.server_name or payload.http_host or payload.dns_name
    return f"{towards} {quote(name)} ({end})" if name else f"{towards} {end}"


def target_text(event: Event) -> str:
    """Say what the process did it to: `-> 10.0.0.1:443`, `write /etc/passwd`, `SIGKILL`; may be empty."""
    details, kind = event.details, event.kind
    if details is NO_DETAILS and kind is not _HOOK:  # of every exec
        return ""
    words = []
    if details.network is not None:
        words.append(_network_text(kind, details.network, details.payload))
    if details.file is not None:
        words += [quote(details.file.access), quote(details.file.path)]
    if details.operation is not None:
        words += [quote(text) for text in (details.operation.name, details.operation.target) if text]
    if details.exit is not None:
        words.append(quote(details.exit.signal) if details.exit.signal else f"code {details.exit.code}")
    if kind is _HOOK:
        words.append(quote(event.function))
    return " ".join(words)


def terminal_line(event: Event, *, color: bool, zone: tzinfo | None = None) -> str:
    """`17:44:09.979 connect ml/chat-0 /usr/bin/curl "openai.com" -> 104.18.33.45:80 env:openai-prod observed`.

    The time is that of `zone`, or local time.
    """
    process, attribution = event.process, event.process.attribution or NO_IDENTITY
    # A day before the last one: a zone east of Greenwich would carry year 9999 over its end.
    second, nanosecond = divmod(event.time_ns, 1_000_000_000)
    clock = datetime.fromtimestamp(min(max(second, 0), LAST_SECOND - 86_400), zone)
    stamp = f"{clock:%H:%M:%S}.{nanosecond // 1_000_000:03d}"
    place = quote(event.node) if process.pod is None else f"{quote(process.pod.namespace)}/{quote(process.pod.name)}"
    kind = f"{event.kind:<9}"
    identity = identity_text(attribution)
    if color:
        stamp, kind = f"{_DIM}{stamp}{_RESET}", f"{_CYAN}{kind}{_RESET}"
        if identity:
            identity = f"{_identity_color(attribution)}{identity}{_RESET}"
    return " ".join(filter(None, (stamp, kind, place, process_text(process), target_text(event), identity)))


def _identity_color(attribution: Attribution) -> str:
    if attribution.primary is None:
        return _DIM
    return _GREEN if attribution.primary.mapped else _YELLOW


def resolve_color(choice: str, stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether to colour: `always`, `never`, or by NO_COLOR, then FORCE_COLOR (set and not empty), then a terminal.

    See no-color.org and force-color.org; `TERM=dumb` says that escapes would be shown.
    """
    if choice != "auto":
        return choice == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return environ.get("TERM") != "dumb" and stream.isatty()
