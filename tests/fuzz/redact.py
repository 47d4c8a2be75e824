"""The redactor: never an exception, the same text when it is redacted twice, and no credential left that has a shape.

A credential is put between any two characters of any text, as words of its own, plain or in one of the ways that people
encode, escape and quote it, and must be gone from what comes out, in each of its forms.
"""

import re
from collections.abc import Iterator
from random import Random

from fuzz.feed import Feed
from keytrail.decode.program_secrets import PROGRAMS
from keytrail.decode.redact import Redactor, text_credentials
from support.canaries import ENCODED, RECOGNISABLE, Canary, generate
from support.recordings import decoded_once

WORDS = (
    *(b"--password ", b"password=", b"PASSWORD:", b"Authorization: Bearer ", b"Cookie: ", b"-u ops:", b"://u:p@"),
    *(b"?sig=", b"identified by ", b"\\x", b"%25", b"%41", b"-----BEGIN PRIVATE KEY-----", b"-----END", b"[redacted]"),
    *(b"${", b"$(", b"sk-", b"ghp_", b"AKIA", b"eyJ", b"xoxb-", b"\\u00", b"''", b'""', b'\\"', b"sh -c '", b"sha256-"),
    *(b"AAAAB3NzaC1", b"mysql -p", b" -c ", b"=", b"\n"),
)
SHAPED = (
    *("aws-access-key-id", "github-personal", "gitlab-personal", "slack-bot", "openai-project", "anthropic", "jwt"),
    *("stripe-live", "google-api", "npm", "sendgrid", "vault", "huggingface", "digitalocean"),
)
"""Credentials with a prefix of their own: to be found wherever they stand."""
_PROGRAMS = ("", "", "", *sorted(PROGRAMS))
_ESCAPE = re.compile(r"\\+x([0-9a-f]{2})")
_QUOTES = re.compile(r"""["'`\\]""")
_redact = Redactor().redact


def seeds() -> Iterator[bytes]:
    """Yield command lines of the recordings, and of generated credentials in each wrapping."""
    lines = {event.process.arguments[:400]: None for event in decoded_once("policy-library") if event.process.arguments}
    for line in list(lines)[:60]:
        yield b"\x00\x00\x09" + line.encode()
    for number, canary in enumerate(generate(1, 150)):
        yield bytes((number % 256, 0, 1)) + canary.text.encode()


def check(data: bytes) -> None:
    """Redact a text, the result once more, and the text with a credential in it."""
    feed = Feed(data)
    program, at = _PROGRAMS[feed.below(len(_PROGRAMS))], feed.number(2)
    content = feed.rest()
    text_credentials(content)
    text = content.decode("utf-8", "surrogateescape")
    once, _ = _redact(text, program)
    assert _redact(once, program)[0] == once, "another text when it is redacted twice"
    rng, value = Random(data), shaped(data)  # noqa: S311 - reproducible
    wrapping = rng.choice(sorted(ENCODED))
    at %= len(text) + 1
    shown, names = _redact(f"{text[:at]} {ENCODED[wrapping](value, rng)} {text[at:]}", program)
    forms = (value[: len(value) // 2], value[len(value) // 2 :], *Canary(value, "", "", "").forms())
    assert not any(form in seen for seen in (shown, _unquoted(shown)) for form in forms), f"left: {wrapping}"
    assert names, "a credential without a name"


def _unquoted(text: str) -> str:
    """Read a text as a shell does."""
    return _QUOTES.sub("", _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text))


def shaped(data: bytes) -> str:
    """Make a credential that cannot be in the input: it depends on all of it."""
    rng = Random(data)  # noqa: S311 - reproducible
    return RECOGNISABLE[rng.choice(SHAPED)](rng)
