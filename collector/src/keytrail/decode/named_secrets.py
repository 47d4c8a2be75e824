"""Secrets that are known by what stands before them: option, variable, field, header, URL, program.

In: bytes of a command line, path or HTTP head. Out: spans (start, end, name of the finding) of the values alone, so
that a reader still sees which option or header it was. Must not know what a provider's keys look like. Next: `redact`.

An agent joins arguments by spaces and puts double quotes round one that holds a space, without escaping the quotes in
it. A command line can't be split back, so a value's end is a matter of what opened it.
"""

from collections.abc import Callable, Iterator
from typing import Any

from keytrail.decode.credential_patterns import (
    SECRET_WORD,
    compiled,
    is_secret_field,
    is_secret_name,
    is_secret_parameter,
    occurs,
)

Span = tuple[int, int, str]
Match = Any  # re2 has no type for it

TRIGGER = (
    rb"(?:"
    + SECRET_WORD
    + rb""")[\w.-]*["'`\\\]]*[\s,:=]|identified|requirepass|masterauth|sshpass|mysql|mariadb|redis-|ldap"""
    rb"""|:\S+@|[?&][\w.\-\[\]]+=|(?:^|[\s"'])(?:-u|--user|--proxy-user)[\s=]*\S+:"""
)
"""Without regard to case: where this is not found, `find` finds nothing."""

_TRIGGERED = occurs(compiled(TRIGGER, ignore_case=True))
_NAME = rb"[\w.-]*(?:" + SECRET_WORD + rb")[\w.-]*"
_SCHEME = (
    rb"(?:bearer|basic|token|digest|negotiate|apikey|api-key|key|jwt|bot|ssws|splunk|geniekey|oauth|aws4-hmac-sha256)"
)
_EQUALS = rb"""\\*["'`]?\]?\s{0,4}(?:=>|:=|==?|:)\s{0,4}"""

_FIELD = compiled(rb"(" + _NAME + rb")" + _EQUALS + rb"(?:" + _SCHEME + rb"\s+)?", ignore_case=True)
_OPTION = compiled(rb"""(?:^|[\s"'`=,(\[])(--?""" + _NAME + rb""")\\*["'`]?(?:\s+|,\s*)""", ignore_case=True)
_HEADER = compiled(
    rb"(?:proxy-)?(?:authorization|(?:set-)?cookie)"
    rb"""\\*["'`]?\s{0,4}[:=]\s{0,4}\\*(["'`]?)((?:""" + _SCHEME + rb"\s+)?)",
    ignore_case=True,
)
_BEARER = compiled(rb"\bbearer\s+([\w.~+/=-]{16,})", ignore_case=True)
_PARAMETER = compiled(rb"""[?&]([\w.\-\[\]]+)=([^&#\s"'\\<>]+)""")
_USERINFO = compiled(rb"""[A-Za-z][A-Za-z0-9+.-]*://([^\s/?#"'<>]*)@|://([^\s:/@"'\[]*:[^\s@"']+)@""")
_BARE_USERINFO = compiled(
    rb"""(?:^|[\s"'=])([\w.-]{1,64}:[^\s:@/"']{4,})@([\w.-]+)|[\w.-]+:([^\s"']+)@(?:tcp|udp|unix)\("""
)
_USER_OPTION = compiled(rb"""(?:^|[\s"'])(?:-u|--user|-U|--proxy-user)(?:\s*|=)\\*["']?([\w.@+-]*):""")
_STATEMENT = compiled(
    rb"""\bidentified\s+(?:with\s+\S+\s+)?by\s+|\bpassword\s+["'](?:md5)?|\blogin\s+\S+\s+password\s+|\b(?:requirepass|masterauth)\s+""",
    ignore_case=True,
)
_PROGRAM = compiled(
    rb"\b(?:sshpass\b[^;|&]*?\s-p\s*|(?:mysql|mysqldump|mysqladmin|mariadb|mariadb-dump)\b[^;|&]*?\s-p"
    rb"|(?:redis-cli|redis-benchmark)\b[^;|&]*?\s-a\s+|ldap(?:search|modify|add|whoami)\b[^;|&]*?\s-w\s+)"
)

PROGRAMS = frozenset({
    "sshpass", "mysql", "mysqldump", "mysqladmin", "mariadb", "mariadb-dump", "redis-cli", "redis-benchmark",
    "ldapsearch", "ldapmodify", "ldapadd", "ldapwhoami",
})  # fmt: skip
"""Programs whose one-letter options hold a password, by name, as `_PROGRAM` knows them."""

# A quote inside a word goes on with it; one before a space, a comma or a bracket closes something opened further left.
_JOIN = rb"""["'`\\]+[A-Za-z0-9+/=_.~!@#$%^*-]"""
_BARE = rb"""(?:[^\s"'`\\]|""" + _JOIN + rb")+"
_VALUE = compiled(
    rb"(?s)(?:"
    rb"""\\+"(?:[^"\\]|\\+[^"\\])*\\+"|\\+'(?:[^'\\]|\\+[^'\\])*\\+'|"(?:[^"\\]|\\.)*"|'[^']*'|"(?:[^"\\]|\\.)*$|'[^']*$"""
    rb")(?:" + _JOIN + rb"(?:" + _BARE + rb")?|[A-Za-z0-9+/=_~!@#$%^*-](?:" + _BARE + rb")?)*|" + _BARE
)
_JOINED = compiled(rb"""(?:["'\\]+[A-Za-z0-9+/=_.~-]+)+""")
_PAIRS = compiled(rb"""(?:[\w-]+\s*=\s*(?:"[^"]*"|[^\s,"']+)\s*,\s*)+[\w-]+\s*=\s*(?:"[^"]*"|[^\s,"']+)""")
_REST_OF_PAIR = compiled(rb"""[;,)}|&]+$|[;&,]\s*["']?[A-Za-z_][\w .-]{0,40}["']?[=:]""")

# Stands for a value, or for the lack of one: a variable, a command's output, a template, a placeholder, a regular
# expression, a file, a flag. A lower-case word behind a dollar sign may be a password, so such a variable must be named
# like one.
_REFERENCE = compiled(
    rb"\$[A-Z_][A-Z0-9_]*|\$[a-z_]*(?:token|key|pass|password|secret|auth|cred)s?|\$\{\w+\}|\$[0-9@*#?]"
    rb"|\$\(cat|\$\(<[\w./-]*\)?|\{\{?[\sA-Za-z_.]*\}\}?|%[sdrv]|<[A-Za-z_ -]+>|\*+|\.\.\.+|\[redacted\]"
    rb"|\[\^[^\]]*\]{1,2}[*+]?|\[[^\]]*\]{1,2}[*+]|\.[*+]|\\[SwW][*+]"
    rb"|@?(?:file:|fd:)?/?(?:etc|var|run|home|opt|usr|tmp|root|mnt|srv|dev|proc|secrets?|vault|config)/[\w./@:+-]*"
    rb"|(?:file|env|fd):[\w./-]+|@?-|(?i:true|false|null|none|nil|yes|no|on|off|undefined|string)|[01]"
)
_QUOTES = (b'"', b"'", b"`")
_AFTER = b";,&|"
_WINDOW = 4 << 10  # bytes in which nearly every value ends; what does not is read to its end
_LONGEST_REFERENCE = 4 << 10  # the longest path
_SCRIPT = compiled(rb"""-\w*c[\s=]*["'`]$""")  # what follows sh -c "... is a program, not one value
_NEXT_OPTION = compiled(rb"--?[a-z][a-z-]*(?:=.*)?")


def find(data: bytes) -> Iterator[Span]:
    """Yield the span of each value that its surroundings call a secret; spans may overlap."""
    if not _TRIGGERED(data):
        return
    for pattern, judge in _RULES:
        covered = 0
        for match in pattern.finditer(data):
            # What starts inside a value goes with it. Judging it too would make `token=token=token=...` cost a second
            # each time that somebody runs it.
            span = judge(data, match) if match.start() >= covered else None
            if span is not None:
                covered = span[1]
                yield span


def _field(data: bytes, match: Match) -> Span | None:
    name, before = match[1].decode("latin-1"), data[max(0, match.start() - 2) : match.start()]
    if not is_secret_field(name) or before == b"//" or data.startswith(b"//", match.end()):
        return None  # //token:...@host is user-info, token://... a scheme
    quote = before[-1:]
    script = _SCRIPT.search(data[max(0, match.start() - 8) : match.start()])
    if quote in _QUOTES and quote not in match[0] and not script:  # an argument such as "PASSWORD=two words"
        return _span(data, match.end(), _closing(data, match.end(), quote), "named-value")
    return _value(data, match.end(), "password-option" if name.startswith("-") else "named-value")


def _option(data: bytes, match: Match) -> Span | None:
    name = match[1].decode("latin-1")
    if not is_secret_name(name) and not name.lower().endswith(("-auth", "-cookie")):
        return None
    span = _value(data, match.end(), "password-option")
    return None if span is None or _NEXT_OPTION.fullmatch(data[span[0] : span[1]]) else span


def _header(data: bytes, match: Match) -> Span | None:
    kind = "cookie-header" if b"cookie" in match[0].lower() else "authorization-header"
    return _span(data, match.end(), _header_end(data, match.start(), match.end(), match[1]), kind)


def _header_end(data: bytes, header: int, value: int, quote: bytes) -> int:
    """Where a header's value ends: with its quotes, with the line of an HTTP head, else with its word or pairs."""
    before = data[max(0, header - 1) : header]
    quote = quote or before
    if quote in _QUOTES:
        return _closing(data, value, quote)
    if before in (b"", b"\n"):
        end = data.find(b"\n", value)
        return len(data) if end < 0 else end - data.startswith(b"\r", end - 1)
    match = _PAIRS.match(data, value) or _VALUE.match(data, value)
    return match.end() if match else value


def _closing(data: bytes, value: int, quote: bytes) -> int:
    end = data.find(quote, value)
    if end < 0:
        return len(data)
    joined = _JOINED.match(data, end)
    return joined.end() if joined else value + len(data[value:end].rstrip(b"\\"))


def _userinfo(_data: bytes, match: Match) -> Span | None:
    group = 1 if match.start(1) >= 0 else 2
    path = match[2].partition(b":")[2].partition(b"/")[0] if group == 2 else b""  # noqa: PLR2004 - the second group
    if not match[group] or path.isdigit():  # digits up to a slash: a port, and the @ is in the path
        return None
    return match.start(group), match.end(group), "url-userinfo"


def _bare_userinfo(_data: bytes, match: Match) -> Span | None:
    group = 1 if match.start(1) >= 0 else 3
    if match[2] in (b"sha256", b"sha512"):  # image:tag@sha256:...
        return None
    return match.start(group), match.end(group), "url-userinfo"


def _parameter(data: bytes, match: Match) -> Span | None:
    if not is_secret_parameter(match[1].decode("latin-1")):
        return None
    return _span(data, match.start(2), match.end(2), "url-parameter")


def _user_option(data: bytes, match: Match) -> Span | None:
    span = _value(data, match.end(), "user-option")
    digits = span is not None and match[1].isdigit() and data[span[0] : span[1]].isdigit()
    return None if digits else span  # -u 1000:1000 are a user and a group


def _value(data: bytes, position: int, kind: str) -> Span | None:
    """Give the span of the value that begins here: quoted, of several quoted pieces, or up to the next space."""
    match = _VALUE.match(data, position, position + _WINDOW)
    if match is None:
        return None
    rest = _REST_OF_PAIR.search(match[0]) if match[0].lstrip(b"\\")[:1] not in _QUOTES else None
    if match.end() == position + _WINDOW and rest is None:
        match = _VALUE.match(data, position)
    start, end = match.span()
    value = data[start:end]
    opening = value.lstrip(b"\\")[:1]
    if opening in _QUOTES:
        closed = value.rstrip(b"\\")
        inner = start + value.index(opening) + 1
        if closed.endswith(opening) and data.count(opening, inner, end) == 1:  # one quoted piece: its quotes stay
            start, end = inner, start + len(closed[:-1].rstrip(b"\\"))
    elif rest and not _is_reference(value.rstrip(_AFTER)):
        end = start + rest.start()
    return _span(data, start, end, kind)


def _span(data: bytes, start: int, end: int, kind: str) -> Span | None:
    if start >= end or _is_reference(data[start:end].rstrip(_AFTER)):
        return None
    return start, end, kind


def _is_reference(value: bytes) -> bool:
    return len(value) < _LONGEST_REFERENCE and _REFERENCE.fullmatch(value) is not None


_RULES: tuple[tuple[Any, Callable[[bytes, Match], Span | None]], ...] = (
    (_FIELD, _field),
    (_OPTION, _option),
    (_HEADER, _header),
    (_BEARER, lambda _, match: (match.start(1), match.end(1), "authorization-header")),
    (_USERINFO, _userinfo),
    (_BARE_USERINFO, _bare_userinfo),
    (_PARAMETER, _parameter),
    (_USER_OPTION, _user_option),
    (_STATEMENT, lambda data, match: _value(data, match.end(), "password-statement")),
    (_PROGRAM, lambda data, match: _value(data, match.end(), "password-option")),
)
