"""What an answer that is no success means, in words for the person who has to mend it.

In flow status codes, the API server's own words and urllib3's errors; out flow errors of `KubeError`'s tree. Pure.
"""

import json
import ssl
from dataclasses import dataclass
from typing import Final

import urllib3

from keytrail.domain.errors import (
    KubeConflictError,
    KubeError,
    KubeForbiddenError,
    KubeGoneError,
    KubeInvalidError,
    KubeNotFoundError,
    KubeUnreachableError,
)
from keytrail.kube.places import Place

UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_TOO_MANY: Final = 429
_SERVER: Final = 500
_LONGEST_WORDS: Final = 512
_LONGEST_WAIT: Final = 60.0
_ERRORS: Final[dict[int, type[KubeError]]] = {
    400: KubeInvalidError,
    _NOT_FOUND: KubeNotFoundError,
    405: KubeInvalidError,
    409: KubeConflictError,
    410: KubeGoneError,
    413: KubeInvalidError,
    415: KubeInvalidError,
    422: KubeInvalidError,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of whom."""

    verb: str
    """As a Role names it."""
    at: Place
    url: str

    def __str__(self) -> str:
        """What it is, for a person."""
        return f"{self.verb} {self.at}"


def error_of(asked: Asked, status: int, body: bytes, retry_after: str | None = None) -> KubeError:
    """Return the error that an HTTP answer is."""
    url, words = asked.url, _words(body) or f"status {status}"
    if status == UNAUTHORIZED:
        return KubeForbiddenError(f"the API server at {url} does not know who asks ({words}): the token has expired")
    if status == _FORBIDDEN:
        return _forbidden(asked, words)
    if status == _TOO_MANY or status >= _SERVER:
        return KubeUnreachableError(f"the API server at {url} cannot {asked} now: {words}", _seconds(retry_after))
    if status == _NOT_FOUND and not asked.at.name:
        return KubeNotFoundError(f"the API server does not know {asked.at}: its definition is not installed")
    return _ERRORS.get(status, KubeError)(f"cannot {asked}: {words}")


def error_of_status(asked: Asked, status: object) -> KubeError:
    """Return the error that an object of kind Status is, which a watch may send instead of an event."""
    given = status if isinstance(status, dict) else {}
    code = given.get("code")
    return error_of(asked, code if isinstance(code, int) else _SERVER, json.dumps(given).encode())


def _forbidden(asked: Asked, words: str) -> KubeForbiddenError:
    """Return the error, with the rule that a Role lacks."""
    at = asked.at
    rule = f'{{apiGroups: ["{at.group}"], resources: ["{at.resource}"], verbs: ["{asked.verb}"]}}'
    kind = "Role" if at.namespace else "ClusterRole"
    return KubeForbiddenError(f"not allowed to {asked}: {words}; its {kind} lacks {rule}")


def unreachable(url: str, error: Exception) -> KubeUnreachableError:
    """Return the error for an answer that did not come, or not to its end."""
    cause: BaseException = error
    while isinstance(cause, urllib3.exceptions.HTTPError):
        # Some of them carry what they wrap as a cause, others as an argument.
        inner = (one for one in (cause.__cause__, *cause.args) if isinstance(one, BaseException))
        cause = next(inner, OSError())
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = f"its certificate is not trusted ({cause.verify_message})"
    elif isinstance(cause, OSError) and cause.strerror:
        why = cause.strerror.lower()
    elif isinstance(error, urllib3.exceptions.TimeoutError):  # also the name of a connection that was refused
        why = "no answer in time"
    else:
        why = f"the connection failed ({type(error).__name__})"
    return KubeUnreachableError(f"the API server at {url} cannot be reached: {why}")


def _words(body: bytes) -> str:
    """Return the message of a Status object; empty when it is none, such as a proxy's page."""
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    message = found.get("message") if isinstance(found, dict) else None
    return message[:_LONGEST_WORDS] if isinstance(message, str) else ""


def _seconds(retry_after: str | None) -> float:
    try:
        return min(_LONGEST_WAIT, max(0.0, float(retry_after or 0)))
    except ValueError:  # a date: nobody's clocks agree well enough
        return 0.0
