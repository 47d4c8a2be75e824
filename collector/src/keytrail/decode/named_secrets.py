"""Secrets that are known by what stands before them: option, variable, field, element, header, URL, statement.

In: bytes of a command line, path or HTTP head. Out: spans (start, end, name of the finding) of the values alone, so
that a reader still sees which option or header it was. Must not know what a provider's keys look like, nor programs and
what these take secrets by, which `program_secrets` does. Next: `redact`.

An agent joins arguments by spaces and puts double quotes round one that holds a space, without escaping the quotes in
it. A command line can't be split back, so a value's end is a matter of what opened it.
"""

from collections.abc import Callable, Iterator
from typing import Any

from keytrail.decode.credential_patterns import (
    SECRET_WORD,
    WORKING_DIRECTORIES,
    compiled,
    is_secret_field,
    is_secret_name,
    is_secret_parameter,
    occurs,
)

Span = tuple[int, int, str]
Match = Any  # re2 has no type for it

_USER = rb"(?:-u|--user|-U|--proxy-user|--login|--userpwd)"

TRIGGER = (
    rb"(?:"
    + SECRET_WORD
    + rb""")[\w.-]*["'`\\\]]*[\s,:=>(})]|identified|requirepass|masterauth|:\S+@|[?&][\w.\-\[\]]+="""
    rb"""|(?:^|[\s"'])""" + _USER + rb"[\s=]*\S+:"
)
"""Without regard to case: where this is not found, `find` finds nothing."""

_TRIGGERED = occurs(compiled(TRIGGER, ignore_case=True))
_NAME = rb"[\w.-]*(?:" + SECRET_WORD + rb")[\w.-]*"
_SCHEME = (
    rb"(?:bearer|basic|token|digest|negotiate|apikey|api-key|key|jwt|bot|ssws|splunk|geniekey|oauth|aws4-hmac-sha256)"
)
_EQUALS = rb"""\\*["'`]?\]?\s*(?:[=-]>|:=|==?|:)\s*"""

_FIELD = compiled(rb"(" + _NAME + rb")" + _EQUALS + rb"(?:([|>][+-]?\s*\n\s*)|" + _SCHEME + rb"\s+)?", ignore_case=True)
_ELEMENT = compiled(rb"<(" + _NAME + rb")(?:\s[^<>]*)?>(?:<!\[CDATA\[)?([^<]+?)(?:\]\]>|<|$)", ignore_case=True)
_ARGUMENT = compiled(rb"(" + _NAME + rb""")\(\s*(\\*["'])""", ignore_case=True)
# A variable in a container's spec, a setting in XML: its name and its value are two fields.
_NAME_FIELD = rb"""\b(?:name|key)\\*["']?\s*[:=]\s*\\*["']?(""" + _NAME + rb""")\\*["']?"""
_VALUE_FIELD = rb"""\bvalue\\*["']?\s*[:=]\s*"""
_NAMED = compiled(_NAME_FIELD + rb"""[\s,;]+\\*["']?""" + _VALUE_FIELD, ignore_case=True)
_VALUED = compiled(_VALUE_FIELD + rb"""(\\*["'][^"']*["']|[^\s"',]+)[\s,;]+\\*["']?""" + _NAME_FIELD, ignore_case=True)
_SETTING = compiled(
    rb"\b(?:set|setx|setenv|config|--global|--system)\s+(?:--?[a-z][\w-]*\s+)?(?:[^\s\"']*[:/])?(" + _NAME + rb")\s+",
    ignore_case=True,
)
_OPTION = compiled(rb"""\B(--?""" + _NAME + rb""")\\*["'`]?(?:\s+|,\s*)""", ignore_case=True)
_HEADER = compiled(
    rb"(?:proxy-)?(?:authorization|(?:set-)?cookie)"
    rb"""\\*["'`]?\s{0,4}[:=]\s{0,4}\\*(["'`]?)((?:""" + _SCHEME + rb"\s+)?)",
    ignore_case=True,
)
_BEARER = compiled(rb"\bbearer\s+([\w.~+/=-]{16,})", ignore_case=True)
_PARAMETER = compiled(rb"""[?&]([\w.\-\[\]]+)=([^&#\s"'\\<>]+)""")
_USERINFO = compiled(rb"""[A-Za-z][A-Za-z0-9+.-]*://([^\s/?#"'<>]*)@|://([^\s:/@"'\[]*:[^\s@"']+)@""")
_BARE_USERINFO = compiled(
    rb"""(?:^|[\s"'=]|//|[A-Za-z]/)([\w.-]{1,64}:[^\s:@/"']{4,})@([\w.-]+)|[\w.-]+:([^\s"']+)@(?:tcp|udp|unix)\(|:thin:\w+/([^\s"'@]+)@"""
)
_USER_OPTION = compiled(rb"""(?:^|[\s"'])""" + _USER + rb"""(?:\s*|=)\\*["']?([\w.@+-]*):""")
_STATEMENT = compiled(
    rb"""\bidentified\s+(?:with\s+\S+\s+)?by\s+|\bpassword\s+["'](?:md5)?|\blogin\s+\S+\s+password\s+|\b(?:requirepass|masterauth)\s+""",
    ignore_case=True,
)
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
    rb"|[\w./+-]+\.(?:pem|key|crt|cer|p12|pfx|jks|json|ya?ml|txt)"
    rb"|(?:file|env|fd):[\w./-]+|@?-|(?i:true|false|null|none|nil|yes|no|on|off|undefined|string)|[01]"
)
_QUOTES = (b'"', b"'", b"`")
_AFTER = b";,&|"
_WINDOW = 4 << 10  # bytes in which nearly every value ends; what does not is read to its end
_LONGEST_REFERENCE = 4 << 10  # the longest path
_SCRIPT = compiled(rb"""-\w*c[\s=]*["'`]$""")  # what follows sh -c "... is a program, not one value
_PATH = compiled(rb"""["']?(?:[/~$`.]|[A-Za-z]:\\)""")
_DEDENTED = compiled(rb"\n[^\s]")
_READING = ("get", "read", "load", "fetch", "find", "list", "describe", "delete", "has", "is", "check", "test")
_NO_SETTING = (b"", b"-", b"<", b">", b"=", b"|", b"&", b";")
_BRACKETS = {b"(": b")", b"[": b"]", b"{": b"}"}
_NEXT_OPTION = compiled(rb"--?[a-z][A-Za-z-]*(?:=.*)?")


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
    if name.lower() in WORKING_DIRECTORIES and _PATH.match(data, match.end()):
        return None
    if match[2]:  # YAML's block of lines: to where it is dedented, or all that is left
        end = _DEDENTED.search(data, match.end())
        return literal(data, match.end(), end.start() if end else len(data), "named-value")
    quote = before[-1:]
    script = _SCRIPT.search(data[max(0, match.start() - 8) : match.start()])
    if quote in _QUOTES and quote not in match[0] and not script:  # an argument such as "PASSWORD=two words"
        return literal(data, match.end(), _closing(data, match.end(), quote), "named-value")
    span = value(data, match.end(), "password-option" if name.startswith("-") else "named-value")
    nested = span is not None and data[match.end() - 1 : match.end()].isspace() and data[: span[1]].endswith(b":")
    return None if nested else span  # what follows is a name itself, in a mapping below this one


def _option(data: bytes, match: Match) -> Span | None:
    name = match[1].decode("latin-1")
    if not is_secret_name(name) and not name.lower().endswith(("-auth", "-cookie")):
        return None
    span = value(data, match.end(), "password-option")
    return None if span is None or _NEXT_OPTION.fullmatch(data[span[0] : span[1]]) else span


def _header(data: bytes, match: Match) -> Span | None:
    kind = "cookie-header" if b"cookie" in match[0].lower() else "authorization-header"
    return literal(data, match.end(), _header_end(data, match.start(), match.end(), match[1]), kind)


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
    group = next(group for group in (1, 3, 4) if match.start(group) >= 0)
    if match[2] in (b"sha256", b"sha512"):  # image:tag@sha256:...
        return None
    return match.start(group), match.end(group), "url-userinfo"


def _parameter(data: bytes, match: Match) -> Span | None:
    if not is_secret_parameter(match[1].decode("latin-1")):
        return None
    return literal(data, match.start(2), match.end(2), "url-parameter")


def _element(data: bytes, match: Match) -> Span | None:
    if not is_secret_field(match[1].decode("latin-1")):
        return None
    return literal(data, match.start(2), match.end(2), "named-value")


def _argument(data: bytes, match: Match) -> Span | None:
    """Judge what a function is called with: `setPassword("...")`, not `get_secret("name")`."""
    name = match[1].decode("latin-1")
    if not is_secret_name(name) or name.lower().startswith(_READING):
        return None
    return value(data, match.start(2), "named-value")


def _named(data: bytes, match: Match) -> Span | None:
    return value(data, match.end(), "named-value") if is_secret_name(match[1].decode("latin-1")) else None


def _valued(data: bytes, match: Match) -> Span | None:
    return value(data, match.start(1), "named-value") if is_secret_name(match[2].decode("latin-1")) else None


def _setting(data: bytes, match: Match) -> Span | None:
    """Judge `config set api_token VALUE`, not `config set-credentials NAME`."""
    name = match[1].decode("latin-1")
    is_secret = is_secret_name(name) or name.lower().endswith("_auth")
    if not is_secret or name.lower().startswith("set-") or data[match.end() : match.end() + 1] in _NO_SETTING:
        return None
    return value(data, match.end(), "named-value")


def _user_option(data: bytes, match: Match) -> Span | None:
    span = value(data, match.end(), "user-option")
    digits = span is not None and match[1].isdigit() and data[span[0] : span[1]].isdigit()
    return None if digits else span  # -u 1000:1000 are a user and a group


def value(data: bytes, position: int, kind: str) -> Span | None:
    """Give the span of the value that begins here: quoted, of several quoted pieces, or up to the next space."""
    match = _VALUE.match(data, position, position + _WINDOW)
    if match is None:
        return None
    rest = _REST_OF_PAIR.search(match[0]) if match[0].lstrip(b"\\")[:1] not in _QUOTES else None
    if match.end() == position + _WINDOW and rest is None:
        match = _VALUE.match(data, position)
    start, end = match.span()
    text = data[start:end]
    opening = text.lstrip(b"\\")[:1]
    if opening in _QUOTES:
        closed = text.rstrip(b"\\")
        inner = start + text.index(opening) + 1
        if closed.endswith(opening) and data.count(opening, inner, end) == 1:  # one quoted piece: its quotes stay
            start, end = inner, start + len(closed[:-1].rstrip(b"\\"))
    elif opening in _BRACKETS and not text.startswith(b"[redacted]"):
        close = data.find(_BRACKETS[opening], start, start + _WINDOW)
        end = max(end, close + 1)
    elif rest and not _is_reference(text.rstrip(_AFTER)):
        end = start + rest.start()
    return literal(data, start, end, kind)


def literal(data: bytes, start: int, end: int, kind: str) -> Span | None:
    """Give this span, unless what stands there only stands for a value."""
    if start >= end or _is_reference(data[start:end].rstrip(_AFTER)):
        return None
    return start, end, kind


def _is_reference(text: bytes) -> bool:
    return len(text) < _LONGEST_REFERENCE and _REFERENCE.fullmatch(text) is not None


_RULES: tuple[tuple[Any, Callable[[bytes, Match], Span | None]], ...] = (
    (_FIELD, _field),
    (_OPTION, _option),
    (_HEADER, _header),
    (_BEARER, lambda _, match: (match.start(1), match.end(1), "authorization-header")),
    (_USERINFO, _userinfo),
    (_BARE_USERINFO, _bare_userinfo),
    (_PARAMETER, _parameter),
    (_USER_OPTION, _user_option),
    (_ELEMENT, _element),
    (_ARGUMENT, _argument),
    (_NAMED, _named),
    (_VALUED, _valued),
    (_SETTING, _setting),
    (_STATEMENT, lambda data, match: value(data, match.end(), "password-statement")),
)
