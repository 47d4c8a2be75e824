"""Redaction: what goes in may hold credentials, what comes out does not.

In: command lines, paths, working directories, names of environment variables, text of hooks, first bytes of payloads.
Out: the same text with each credential replaced by a mark, and the names of what was found. It is the only door by
which text of a process leaves decode. Must not know events or processes.

Four ways of finding, each over the text as it stands, with its escapes decoded, and without its quotes: what stands
before a value (`named_secrets`, `program_secrets`), a provider's shape (`credential_patterns`), the user's own
expressions (`own_patterns`), and runs that no naming scheme would have made (`randomness`), among them encoded text
that holds one of the others. All patterns are RE2: linear time on text that an attacker wrote.
"""

import base64
import string
from binascii import Error
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING

from keytrail.decode import named_secrets, program_secrets, randomness, text_views
from keytrail.decode.credential_patterns import OPEN_TO_THE_LEFT, SHAPES, compiled, compiled_set, occurs
from keytrail.decode.named_secrets import Span
from keytrail.decode.own_patterns import OwnPatterns
from keytrail.decode.text_views import views

if TYPE_CHECKING:
    import re2

MARK = "[redacted]"
CUT = " [cut]"
LIMIT = 32 << 10
"""Bytes of text that are looked at: an agent hands over command lines of up to 128 KiB. What is beyond is cut."""

_PAYLOAD_LIMIT = 8 << 10  # an HTTP head that a server would accept
_DEPTH = 3  # base64 of base64 of a key; deeper is nobody's habit
_ROUNDS = 4

_MARK, _CUT = MARK.encode(), CUT.encode()
_LONGEST_START = 256
_LINE_END = b"-----END"
_KEY_CHARACTERS = (string.ascii_letters + string.digits + "_-~.").encode()

_TRIGGER = (
    named_secrets.TRIGGER + b"|" + text_views.TRIGGER + rb"""|[\w+=-]{20}|[a-z0-9+/]{38}|[\w+/=-]["'`\\]+[\w+/=-]"""
    rb"|-----begin|eyj|xox|[sr]k_(?:live|test)_|ya29\.|hv[sbr]\.|sg\.|dp\.|\dq~|atlasv1|hooks\.slack|discord"
    rb"|\$(?:[\dgy]|2[abxy]|apr1|argon2id?)\$"
)
_TRIGGERED = occurs(compiled(_TRIGGER, ignore_case=True))
# One pass over each text decides that none of the searches below can find anything: most command lines end here.
_HINTED = occurs(compiled(_TRIGGER + b"|" + program_secrets.HINT, ignore_case=True))
_ANY_SHAPE = compiled_set(expression for _, expression in SHAPES)

_RUN = compiled(rb"[A-Za-z0-9+/_=-]{20,}")
_PIECE = compiled(rb"[^/=]+=*$|[^/=]+")
_TEXT = compiled(rb"[\x20-\x7e\t\r\n]+")
_LOGIN = compiled(rb"[^\s:]{1,64}:[^\s:/]{4,}")
_ENCODED_SECRET = -0.8  # bits for each pair of a word that somebody encoded, however short


class Redactor:
    """Finds and replaces credentials; nothing of it changes, so one serves every stage of decode."""

    __slots__ = ("_own",)

    def __init__(self, own: Iterable[str] = ()) -> None:
        """`own` are the user's expressions, valid ones in RE2's syntax."""
        self._own = OwnPatterns(own) if own else None

    def redact(self, text: str, program: str = "") -> tuple[str, tuple[str, ...]]:
        """Return the text without its credentials, and the names of what was found, in order of appearance.

        `program` is the base name of the binary that the arguments belong to, which tells `mysql`'s -p from others'.
        Redacting twice gives the same text; lone surrogates become question marks. Never raises.
        """
        try:
            data = text.encode()
        except UnicodeEncodeError:
            data = text.encode(errors="replace")
        prefix = program.encode() + b" " if program in program_secrets.PROGRAMS else b""
        own = self._own
        if len(data) <= LIMIT and not _may_hold_something(prefix + data) and (own is None or not own.occur(data)):
            return (text if len(data) == len(text) else data.decode()), ()
        names: dict[str, None] = {}
        for _ in range(_ROUNDS):
            data = _shortened(data)
            found = _merged(_find(prefix + data, 0, own, len(prefix)))
            spans = [(max(start, len(prefix)), end, hits) for start, end, hits in found if end > len(prefix)]
            before, data = data, _replaced(prefix + data, spans)[len(prefix) :]
            names.update(dict.fromkeys(name for _, _, hits in spans for name in hits))
            more = len(data) > LIMIT or _may_hold_something(prefix + data) or (own is not None and own.occur(data))
            if data == before or not more:
                return data.decode(errors="replace"), tuple(names)
        return MARK, tuple(names)  # text that keeps showing new credentials as others go is no text to keep


def whole_words(arguments: str, flags: str) -> str:
    """Leave out the last word of arguments that the agent cut off: the first half of a credential has no shape."""
    return arguments.rpartition(" ")[0] + CUT if "truncArgs" in flags else arguments


def _may_hold_something(data: bytes) -> bool:
    return _HINTED(data) and (_TRIGGERED(data) or program_secrets.may_find(data))


def text_credentials(data: bytes) -> str:
    """Name what first looks like a credential in a plain-text payload, such as an HTTP head; empty when nothing does.

    Random runs don't count: a payload may be an image or a cipher text. Only the first 8 KiB are looked at.
    """
    data = data[:_PAYLOAD_LIMIT]
    found = _shapes(data) or [*named_secrets.find(data)]  # a shape tells more than the header that it stands in
    return min(found)[2] if found else ""


def _shortened(data: bytes) -> bytes:
    """Cut at a space, for half a credential would have no shape; the mark tells where."""
    if len(data) <= LIMIT:
        return data
    space = data.rfind(b" ", 0, LIMIT - len(_CUT))
    return data[: max(0, space)] + _CUT


def _find(data: bytes, depth: int, own: OwnPatterns | None = None, first: int = 0) -> Iterator[Span]:
    """Yield all spans in the text and, mapped back, in its views. `depth` counts the encodings it was taken out of.

    Before `first` stands the program's name, which to the user's own expressions is not of the text.
    """
    yield from _explained(data)
    if own is not None:
        yield from own.find(data, first)
    rewritten = views(data)
    for view in rewritten:
        for start, end, name in (*_explained(view.data), *(() if own is None else own.find(view.data))):
            yield *view.origin(start, end), name
    if not rewritten:
        yield from _runs(data, depth, own)
        return
    shell = rewritten[-1]
    for start, end, name in _runs(shell.data, depth, own):
        yield *shell.origin(start, end), name


def _explained(data: bytes) -> Iterator[Span]:
    yield from named_secrets.find(data)
    yield from program_secrets.find(data)
    yield from _shapes(data)


@cache
def _shape(index: int) -> tuple[str, "re2._Regexp[bytes]"]:
    """Name and expression of a provider's shape, compiled when it first occurs: all of them are 0.7 MB."""
    name, expression = SHAPES[index]
    return name, compiled(expression)


def _shapes(data: bytes) -> list[Span]:
    found: list[Span] = []
    for index in sorted(_ANY_SHAPE.Match(data) or ()):
        name, shape = _shape(index)
        earlier = sorted(found)
        for match in shape.finditer(data):
            start, end = match.span()
            if name == "private-key":  # the marks stay, the key between them goes
                start, end = end, data.find(_LINE_END, end)
                end = len(data) if end < 0 else end
            elif name in OPEN_TO_THE_LEFT:
                first = max(0, start - _LONGEST_START)
                start = first + len(data[first:start].rstrip(_KEY_CHARACTERS))
            before = bisect_right(earlier, (start, len(data), "")) - 1
            if before < 0 or earlier[before][1] < end:  # the first shape that fits has named it
                found.append((start, end, name))
    return found


def _runs(data: bytes, depth: int, own: OwnPatterns | None) -> Iterator[Span]:
    for match in _RUN.finditer(data):
        run, origin = match[0], match.start()
        if randomness.is_wordy(run):
            continue
        name = _encoded(run, depth, own)
        shown = randomness.without_public(run)
        if name is None and not _starts_like_a_path(run) and randomness.is_random_throughout(shown):
            name = "high-entropy"
        if name:
            yield *match.span(), name
        elif name is None:
            for piece in _PIECE.finditer(run):
                name = _encoded(piece[0], depth, own)
                if name is None and _is_random(piece[0], shown[piece.start() : piece.end()], depth):
                    name = "high-entropy"
                if name:
                    yield origin + piece.start(), origin + piece.end(), name


def _is_random(piece: bytes, shown: bytes, depth: int) -> bool:
    if randomness.is_hex(piece):
        # Nobody encodes a digest once more: what is hexadecimal inside base64 is a key.
        return randomness.is_random_hex(piece) or (depth > 0 and len(piece) >= randomness.MINIMUM)
    return randomness.is_random(shown)


def _starts_like_a_path(run: bytes) -> bool:
    return run.startswith(b"/") and randomness.mean(run[1:].partition(b"/")[0]) > 0


def _encoded(run: bytes, depth: int, own: OwnPatterns | None) -> str | None:
    """Name the credential in the text that a run of base64 or hexadecimal digits encodes.

    Empty when that text holds none; None when the run encodes no text.
    """
    if depth >= _DEPTH or len(run) < randomness.MINIMUM:
        return None
    for decoded in _decoded(run):
        if _TEXT.fullmatch(decoded):
            name = next((name for _, _, name in _find(decoded, depth + 1, own)), "")
            return name or _bare_secret(decoded)
    return None


def _bare_secret(decoded: bytes) -> str:
    if _LOGIN.fullmatch(decoded) and not decoded.rpartition(b":")[2].isdigit():  # digits: a host and its port
        return "encoded-login"
    return "high-entropy" if b" " not in decoded and randomness.mean(decoded) <= _ENCODED_SECRET else ""


def _decoded(run: bytes) -> Iterator[bytes]:
    if len(run) % 2 == 0 and randomness.is_hex(run):
        yield bytes.fromhex(run.decode())
    digits = run.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    digits = digits[: len(digits) - (len(digits) % 4 == 1)]
    try:
        yield base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except (Error, ValueError):
        return


def _merged(spans: Iterator[Span]) -> list[tuple[int, int, tuple[str, ...]]]:
    merged: list[tuple[int, int, tuple[str, ...]]] = []
    for start, end, name in sorted(spans):
        if merged and start <= merged[-1][1]:
            first, last, names = merged[-1]
            known = tuple(other for other in names if other not in (name, "high-entropy"))
            merged[-1] = first, max(last, end), names if name == "high-entropy" else (*known, name)
        elif start < end:
            merged.append((start, end, (name,)))
    return merged


def _replaced(data: bytes, spans: list[tuple[int, int, tuple[str, ...]]]) -> bytes:
    pieces: list[bytes] = []
    last = 0
    for start, end, _ in spans:
        pieces += (data[last:start], _MARK)
        last = end
    return b"".join((*pieces, data[last:]))
