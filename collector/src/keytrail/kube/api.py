"""Requests to the API server, as plain JSON: each with a timeout, a bound on its size, and counted.

In flow places and objects; out flow objects, answers that go on (`Stream`), or an error out of `KubeError`'s tree whose
message a person understands. Retries nothing: whoever asks knows how long the answer is worth waiting for. For any
thread. Next: `watch`.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlencode

import urllib3
from urllib3.connection import HTTPConnection

from keytrail import __version__
from keytrail.domain.errors import KeytrailError, KubeError
from keytrail.kube.access import Access, from_kubeconfig, from_pod
from keytrail.kube.answers import UNAUTHORIZED, Asked, error_of, unreachable
from keytrail.kube.json_stream import Json
from keytrail.kube.places import Place
from keytrail.kube.surroundings import ACCOUNT_FOLDER

_CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 20.0
"""Until an answer begins, and between its pieces unless the caller says otherwise."""
_PIECE: Final = 64 << 10
_MOST_BYTES: Final = 16 << 20
"""Of an answer that is read as a whole; lists are not."""
_MOST_ERROR_BYTES: Final = 64 << 10
_REDIRECT: Final = 300


@dataclass(frozen=True, slots=True)
class Usage:
    """What one kind of request took so far. Bytes are those of bodies, as they went over the wire."""

    requests: int = 0
    failed: int = 0
    sent: int = 0
    received: int = 0


@dataclass(frozen=True, slots=True)
class _Request:
    verb: str
    """As a Role names it."""
    method: str
    at: Place
    query: Mapping[str, str]
    body: Json | None = None
    content_type: str = ""


class Api:
    """One API server."""

    def __init__(self, open_access: Callable[[], Access]) -> None:
        """`open_access` is called at once, and again when the server no longer knows who asks."""
        self._open = open_access
        self._access = open_access()
        self._lock = threading.Lock()
        self._usage: dict[tuple[str, str], list[int]] = {}

    @classmethod
    def open(
        cls, kubeconfig: Path | None, context: str, environ: Mapping[str, str], folder: Path = ACCOUNT_FOLDER
    ) -> "Api":
        """Ask as a kubeconfig says; without one, as the Pod that this runs in. Raises SettingsError."""
        if kubeconfig is None:
            return cls(lambda: from_pod(environ, folder))
        return cls(lambda: from_kubeconfig(kubeconfig, context))

    @property
    def url(self) -> str:
        """Address of the server."""
        return self._access.url

    def get(self, at: Place, **query: str) -> Json:
        """Return an object, or a short list."""
        return self._object(_Request("get" if at.name else "list", "GET", at, query))

    def create(self, at: Place, body: Json, **query: str) -> Json:
        """Create an object in a collection."""
        return self._object(_Request("create", "POST", at, query, body, "application/json"))

    def replace(self, at: Place, body: Json, **query: str) -> Json:
        """Put another version of an object in place; a conflict when its resourceVersion is not the latest."""
        return self._object(_Request("update", "PUT", at, query, body, "application/json"))

    def patch(self, at: Place, body: Json, **query: str) -> Json:
        """Merge fields into an object; null takes one away."""
        return self._object(_Request("patch", "PATCH", at, query, body, "application/merge-patch+json"))

    def apply(self, at: Place, body: Json, *, manager: str, **query: str) -> Json:
        """Server-side apply: have exactly these fields as this manager's, whoever had them before."""
        query = {"fieldManager": manager, "force": "true", **query}
        return self._object(_Request("patch", "PATCH", at, query, body, "application/apply-patch+yaml"))

    def delete(self, at: Place, *, uid: str) -> Json:
        """Delete an object if it is still the one with this uid; a conflict otherwise."""
        body: Json = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}}
        return self._object(_Request("delete", "DELETE", at, {}, body, "application/json"))

    def stream(self, verb: str, at: Place, *, silence_seconds: float = ANSWER_SECONDS, **query: str) -> "Stream":
        """Begin an answer that goes on, for the verbs list and watch. It fails after so long without a byte."""
        answer = self._send(_Request(verb, "GET", at, query))
        answer.allow_silence(silence_seconds)
        return answer

    def usage(self) -> dict[tuple[str, str], Usage]:
        """What was asked so far, by verb and resource."""
        with self._lock:
            return {key: Usage(*counts) for key, counts in sorted(self._usage.items())}

    def close(self) -> None:
        """Let go of connections that nobody uses."""
        self._access.pool.clear()

    # -- one request

    def _object(self, request: "_Request") -> Json:
        with self._send(request) as answer:
            text = answer.read(_MOST_BYTES)
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise KubeError(f"the API server at {self.url} answered {request.verb} {request.at} with no JSON object")
        return found

    def _send(self, request: "_Request") -> "Stream":
        access, at = self._access, request.at
        payload = None if request.body is None else json.dumps(request.body).encode()
        count = self._counter(request.verb, at)
        count(1, 0, len(payload or b""), 0)
        headers = {"Accept": "application/json", "User-Agent": f"keytrail/{__version__}", **access.headers()}
        try:
            response = access.pool.request(
                request.method,
                f"{access.url}{at.path}" + (f"?{urlencode(request.query)}" if request.query else ""),
                body=payload,
                headers=headers | ({"Content-Type": request.content_type} if request.content_type else {}),
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=ANSWER_SECONDS),
                preload_content=False,
                decode_content=False,
                redirect=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            count(0, 1, 0, 0)
            raise unreachable(access.url, error) from None
        answer = Stream(response, access.url, lambda received: count(0, 0, 0, received))
        if response.status < _REDIRECT:
            return answer
        count(0, 1, 0, 0)
        with answer:
            text = answer.read(_MOST_ERROR_BYTES, whole=False)
        if response.status == UNAUTHORIZED:
            self._reopen()
        asked = Asked(request.verb, at, access.url)
        raise error_of(asked, response.status, text, response.headers.get("Retry-After"))

    def _reopen(self) -> None:
        """Read again who we are: a token may have been taken back, or a kubeconfig rewritten."""
        with suppress(KeytrailError):
            before, self._access = self._access, self._open()
            before.pool.clear()

    def _counter(self, verb: str, at: Place) -> Callable[[int, int, int, int], None]:
        def count(*amounts: int) -> None:
            with self._lock:
                counts = self._usage.setdefault((verb, at.resource), [0, 0, 0, 0])
                counts[:] = [before + more for before, more in zip(counts, amounts, strict=True)]

        return count


class Stream:
    """An answer as it arrives. `stop` is for any thread, everything else for the one that reads."""

    def __init__(self, response: urllib3.BaseHTTPResponse, url: str, received: Callable[[int], None]) -> None:
        self._response = response
        self._url = url
        self._received = received

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._response.close()

    def __iter__(self) -> Iterator[bytes]:
        """Yield pieces as they come. Raises KubeUnreachableError when they stop coming before the end."""
        try:
            for piece in self._response.stream(_PIECE, decode_content=False):
                self._received(len(piece))
                yield piece
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise unreachable(self._url, error) from None

    def read(self, most: int, *, whole: bool = True) -> bytes:
        """Return the answer, which may have so many bytes; cut off there when it need not be `whole`."""
        found = bytearray()
        for piece in self:
            found += piece
            if len(found) > most:
                if whole:
                    raise KubeError(f"the API server at {self._url} sent an answer of more than {most >> 20} MiB")
                break
        return bytes(found[:most])

    def allow_silence(self, seconds: float) -> None:
        """Wait so long for each further piece. An answer whose connection ends with it keeps the usual time."""
        connection = self._response.connection
        if isinstance(connection, HTTPConnection) and connection.sock is not None:
            connection.sock.settimeout(seconds)

    def stop(self) -> None:
        """End it: a thread that waits for its next piece finds that there is none."""
        with suppress(OSError, ValueError, RuntimeError):  # it has ended by itself
            self._response.shutdown()
