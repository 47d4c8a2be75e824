"""What a command says of settings and manifests, without the credentials that somebody wrote into them by mistake."""

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keytrail.decode.redact import Redactor

_own: list[str] = []
"""The user's own expressions, from when the settings are read."""


def redact_too(patterns: Iterable[str]) -> None:
    """Have the user's own expressions count from now on in all that this process says."""
    _own[:] = patterns
    _redactor.cache_clear()


def redacted(text: str) -> str:
    """Return the text without what looks like a credential: for errors, and for the own log."""
    return _redactor().redact(text)[0]


@cache
def _redactor() -> "Redactor":
    from keytrail.decode.redact import Redactor  # its patterns take 0.1 s to compile, and most commands say nothing

    return Redactor(_own)
