"""Patterns and networks of rules in, tests of one text out: the part of a condition that costs most, made cheap.

Everything is prepared when a rule is loaded. RE2 decides, but is asked only when a text holds the letters without which
the pattern cannot match: a look for a substring costs a fortieth of a call of RE2. Patterns of paths mostly end up
without any expression. Input is capped, as whoever starts a process chooses its length. Knows no rule.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final

import re2

from keytrail.domain.paths import path_expression, plain_path

MATCH_CHARACTERS: Final = 65_536
_REMEMBERED: Final = 4_096
_REMEMBERED_ANSWERS: Final = 256
_REMEMBERED_CHARACTERS: Final = 256
_NEEDED: Final = 12
"""Texts to look for before RE2 is asked; looking for more costs more than asking it."""
_FEW: Final = 4
_RARE: Final = 3
"""Characters of a text that is not in just any command line or path; a mark, or what is hidden, stands for two more."""
_MARKS: Final = frozenset("|<>&;$`@~")
_META: Final = frozenset("\\^$.|?*+()[]{}")

_NO_SPAN: Final = (-1, -1)
"""Where RE2 found nothing."""
_FOLDED: Final = "(?i)"

Test = Callable[[str], bool]


@lru_cache(maxsize=_REMEMBERED)
def searcher(patterns: str | tuple[str, ...]) -> Test:
    """A test whether a pattern, or any of several, is found. Raises re2.error when one is none."""
    each = (patterns,) if isinstance(patterns, str) else patterns
    if not each:
        return lambda _: False
    for pattern in each:
        _compiled(pattern)  # alone: `(?:a)|(?:b)` could make sense where `a` does not
    found = _search(_compiled(each[0] if len(each) == 1 else "|".join(f"(?:{pattern})" for pattern in each)))
    folded = all(pattern.startswith(_FOLDED) for pattern in each)
    needed = [required_texts(pattern.removeprefix(_FOLDED) if folded else pattern) for pattern in each]
    texts = tuple({text for choice in needed for text in choice})
    if not all(needed) or len(texts) > _NEEDED:
        return found
    if folded:
        return _folded(tuple({text.lower() for text in texts}), found)
    if len(texts) == 1:
        only = texts[0]
        return lambda text: only in text and found(text)
    return lambda text: _any_in(texts, text) and found(text)


class Remembered(dict[str, bool]):
    """Answers of a test by text, the latest kept: a node runs the same programs on the same files all day.

    Only for text that may stay in memory: redacted, and not what a process wrote or sent. A dictionary: `known[text]`
    takes a third of what a call that looks for the answer would.
    """

    __slots__ = ("_test",)

    def __init__(self, test: Test) -> None:
        super().__init__()
        self._test = test

    def __missing__(self, text: str) -> bool:
        """Ask."""
        found = self._test(text)
        if len(text) <= _REMEMBERED_CHARACTERS:
            if len(self) >= _REMEMBERED_ANSWERS:
                self.clear()
            self[text] = found
        return found


def _any_in(texts: tuple[str, ...], text: str) -> bool:
    for one in texts:  # noqa: SIM110 - a generator would cost more than the look itself
        if one in text:
            return True
    return False


def _folded(texts: tuple[str, ...], found: Test) -> Test:
    """As above for `(?i)`: for RE2 the Kelvin sign is a K, so that only ASCII text can be judged by its letters."""
    if not all(text.isascii() for text in texts):
        return found
    return lambda text: (not text.isascii() or _any_in(texts, text.lower())) and found(text)


def _compiled(pattern: str) -> "re2._Regexp":
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    # Bytes in and out: for text the wrapper would also translate every offset back to characters.
    return re2.compile(pattern.encode(), options=options)


def _search(compiled: Any) -> Test:
    # The wrapper's `search` goes through a generator and makes a match object, which takes two thirds of its time;
    # what it calls is asked itself, for whether there is a match.
    match, anywhere = compiled._regexp.Match, re2._Anchor.UNANCHORED  # noqa: SLF001 - as said

    def found(text: str) -> bool:
        try:
            data = text.encode()
        except UnicodeEncodeError:  # lone surrogates; naming the handler each time costs as much as encoding
            data = text.encode(errors="replace")
        size = len(data)
        if size > MATCH_CHARACTERS:  # asked of bytes, which are counted anyway: a slice of each text costs a tenth
            data = text[:MATCH_CHARACTERS].encode(errors="replace")
            size = len(data)
        matches: bool = match(anywhere, data, 0, size)[0] != _NO_SPAN
        return matches

    return found


def required_texts(pattern: str) -> tuple[str, ...]:
    """Texts of which one must occur for an expression to match; none when that is not certain.

    Reads plain characters, escaped punctuation, classes of one character, groups and alternatives. Everything else
    ends a piece, and what it does not understand ends the attempt.
    """
    found: list[str] = []
    for alternative in _alternatives(pattern.removeprefix("(?s)")):
        best = _required(alternative)
        if not best:
            return ()
        found += best
    return tuple(found)


def _required(pattern: str) -> tuple[str, ...]:
    """The same for an expression without alternatives at its top level: the choice that tells most."""
    best: tuple[str, ...] = ()
    run, at = "", 0
    while at < len(pattern):
        char, width = _atom(pattern, at)
        if width == 0:
            return ()
        follows = pattern[at + width : at + width + 1]
        optional = follows != "" and follows in "*?{"
        choice: tuple[str, ...] = ()
        if pattern[at] == "(":
            inside = pattern[at + 1 : at + width - 1]
            if inside.startswith("?") and not inside.startswith(("?:", "?s:")):
                return ()  # flags, or a name
            choice = () if optional else required_texts(inside.removeprefix("?:").removeprefix("?s:"))
        at += width
        # Judged where it ends: a longer run tells more. At each character it was a quarter of a library's compilation.
        if char and not optional:
            run += char
        if run and (not char or optional or follows == "+" or at == len(pattern)):
            best, run = max(best, (run,), key=_worth), ""
        if choice:
            best = max(best, choice, key=_worth)
        while at < len(pattern) and pattern[at] in "*+?":
            at += 1
        if at < len(pattern) and pattern[at] == "{":
            at = pattern.find("}", at) + 1 or len(pattern)
    return best


def _worth(choice: tuple[str, ...]) -> tuple[int, bool, int]:
    """What tells most: texts that are rare, then few of them, then long ones."""
    rarity = min(map(_rarity, choice), default=0)
    return rarity, len(choice) <= _FEW, min(map(len, choice), default=0)


def _rarity(text: str) -> int:
    marked = not _MARKS.isdisjoint(text) or "/." in text
    return min(_RARE, len(text) + 2 * marked)


def _alternatives(pattern: str) -> list[str]:
    """The parts between the `|` of the top level; nothing certain is found in one that cannot be read."""
    parts, start, at = [], 0, 0
    while at < len(pattern):
        if pattern[at] == "|":
            parts.append(pattern[start:at])
            start = at = at + 1
            continue
        width = 1 if pattern[at] in "{}*+?)" else _atom(pattern, at)[1]
        if not width:
            return [""]
        at += width
    return [*parts, pattern[start:]]


def _atom(pattern: str, at: int) -> tuple[str, int]:
    """One atom: the character that it stands for (empty: not just one), and its width (0: not understood)."""
    char = pattern[at]
    if char == "\\":
        following = pattern[at + 1 : at + 2]
        if following and not following.isalnum() and following.isascii():
            return following, 2
        return ("", 2) if following and following in "bBdDsSwWAz" else ("", 0)
    if char == "[":
        end = pattern.find("]", at + 2)
        inside = pattern[at + 1 : end]
        if end < 0 or "[" in inside or "\\" in inside:
            return "", 0
        return (inside, end - at + 1) if len(inside) == 1 and inside != "^" else ("", end - at + 1)
    if char == "(":
        return "", _group_width(pattern, at)
    return ("", 1) if char in _META else (char, 1)


def _group_width(pattern: str, at: int) -> int:
    depth, start = 0, at
    while at < len(pattern):
        if pattern[at] in "\\[":
            width = _atom(pattern, at)[1]
            if not width:
                return 0
            at += width
            continue
        depth += (pattern[at] == "(") - (pattern[at] == ")")
        at += 1
        if depth == 0:
            return at - start
    return 0


# -- paths


@lru_cache(maxsize=_REMEMBERED)
def globber(patterns: str | tuple[str, ...]) -> Test:
    """A test of a path against a pattern, or any of several: `*` is any characters but `/`, `**` any characters."""
    given = (patterns,) if isinstance(patterns, str) else patterns
    plain = [plain_path(pattern) for pattern in given]
    exact = frozenset(pattern for pattern in plain if "*" not in pattern)
    below = tuple(pattern[:-2] for pattern in plain if pattern.endswith("**") and "*" not in pattern[:-2])
    rest = [
        pattern for pattern in plain if pattern not in exact and not (pattern.endswith("**") and pattern[:-2] in below)
    ]
    if not rest:
        return lambda path: (one := plain_path(path)) in exact or one.startswith(below)
    found = searcher(tuple(map(path_expression, rest)))
    if len(rest) == len(plain) == 1 and (start := rest[0].partition("*")[0]):
        return lambda path: (one := plain_path(path)).startswith(start) and found(one)
    return lambda path: (one := plain_path(path)) in exact or one.startswith(below) or found(one)


# -- networks


@lru_cache(maxsize=_REMEMBERED)
def networks(texts: str | tuple[str, ...]) -> Test:
    """A test whether an address is in a network, or any of several. Raises ValueError when one is none."""
    each: Iterable[str] = (texts,) if isinstance(texts, str) else texts
    wanted = [ipaddress.ip_network(text, strict=False) for text in each]
    older = [(int(one.netmask), int(one.network_address)) for one in wanted if isinstance(one, ipaddress.IPv4Network)]
    newer = [one for one in wanted if isinstance(one, ipaddress.IPv6Network)]
    known: dict[str, bool] = {}

    def contains(address: str) -> bool:
        found = known.get(address)
        if found is None:
            if len(known) >= _REMEMBERED:
                known.clear()
            found = known[address] = holds(_address(address))
        return found

    def holds(parsed: int | ipaddress.IPv6Address | None) -> bool:
        if isinstance(parsed, int):
            for mask, network in older:  # noqa: SIM110 - a generator would cost more than the look itself
                if parsed & mask == network:
                    return True
            return False
        return parsed is not None and any(parsed in network for network in newer)

    return contains


def _address(text: str) -> int | ipaddress.IPv6Address | None:
    """An address of the older family as its number: nearly all are, and an object of each costs ten times that."""
    try:
        return int.from_bytes(socket.inet_pton(socket.AF_INET, text))
    except (OSError, ValueError):
        pass
    try:
        parsed = ipaddress.IPv6Address(text)
    except ValueError:
        return None
    # Of a socket that serves both families the kernel shows ::ffff:10.0.0.1 on both ends.
    mapped = parsed.ipv4_mapped
    return parsed if mapped is None else int(mapped)


PREPARED: Final[dict[str, Callable[[str | tuple[str, ...]], Test]]] = {
    "matches": searcher,
    "glob": globber,
    "cidr": networks,
    "in_cidrs": networks,
}
"""Functions whose second argument is known when the rule is loaded: from it to a test of the first."""
