"""OTLP over HTTP with protobuf bodies: one request within one deadline, and what the status means.

In flow serialized requests from `otlp_sender`, out come `Answer`s (`otlp_answer`). Knows nothing of batches.
"""

import json
import socket
import threading
import zlib
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

from keytrail import __version__
from keytrail.export.otlp_answer import Accepted, Answer, Denied, Rejected, Retry, TooLarge, read_partial_success
from keytrail.export.otlp_credentials import Credentials
from keytrail.export.otlp_settings import OtlpSettings

ANSWER_LIMIT: Final = 64 * 1024
"""Bytes of an answer that are read. Answers are small; a hostile one need not be."""

_RETRYABLE: Final = frozenset({408, 425, 429, 502, 503, 504})
_DENIED: Final = frozenset({401, 402, 403, 404, 405, 407, 410, 501, 511})
_REDIRECTS: Final = range(300, 400)


class HttpTransport:
    """See otlp_transport.Transport."""

    def __init__(self, settings: OtlpSettings) -> None:
        self._settings = settings
        self._credentials = Credentials(settings)
        self._breakable = _BreakableAdapter()
        self._session = requests.Session()
        # Proxies come from the environment as users expect, but ~/.netrc must not replace an Authorization header.
        self._session.auth = _leave_as_it_is
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._breakable)
        self._connect_as = self._options(settings)
        # They are asked once: for every request the library would look through all variables, for as long as sending.
        self._session.trust_env = False

    def _options(self, settings: OtlpSettings) -> dict[str, Any]:
        """Proxies and certificates, by the settings and the environment."""
        # requests opens the files at each connection and reports a missing one as OSError, as it does the network's.
        pair = (str(settings.client_certificate), str(settings.client_key)) if settings.client_certificate else None
        # A certificate that is given here wins over REQUESTS_CA_BUNDLE.
        verify = str(settings.certificate) if settings.certificate else True
        return {**self._session.merge_environment_settings(settings.endpoint, {}, None, verify, pair), "stream": True}

    def send(self, request: bytes, timeout_seconds: float) -> Answer:
        """See Transport."""
        if self._credentials.tls_changed():
            self._session.close()  # the next connection reads the files
        # The library's timeouts are for each read: an answer that trickles in would take as long as it likes.
        overdue = threading.Event()
        watchdog = threading.Timer(timeout_seconds, self._end, (overdue,))
        watchdog.daemon = True
        watchdog.start()
        try:
            answer = self._post(request, timeout_seconds)
        except Exception as error:  # noqa: BLE001 requests, urllib3, ssl and http.client each have a tree of their own
            place = urlsplit(self._settings.endpoint).netloc.rpartition("@")[2]
            answer = Retry(self._credentials.safe_text(f"{type(error).__name__}: {place}: {_told(error)}"))
        finally:
            watchdog.cancel()
        # http.client takes headers that break off for whole ones: what came by the deadline may look like a success.
        return Retry(f"no whole answer within {timeout_seconds:g} s") if overdue.is_set() else answer

    def _end(self, overdue: threading.Event) -> None:
        overdue.set()
        self._breakable.break_connections()

    def close(self) -> None:
        """See Transport."""
        self._breakable.break_connections()
        self._session.close()

    def _post(self, request: bytes, timeout_seconds: float) -> Answer:
        settings = self._settings
        with self._session.post(
            settings.endpoint,
            data=_gzip(request) if settings.gzip else request,
            headers=self._headers(),
            timeout=timeout_seconds,
            # A redirected POST becomes a GET, and our headers would go to whoever was named.
            allow_redirects=False,
            **self._connect_as,
        ) as response:
            return self._answer(response, _body(response))

    def _headers(self) -> dict[str, str]:
        headers = {"user-agent": f"keytrail/{__version__}", **dict(self._credentials.headers())}
        headers["content-type"] = "application/x-protobuf"
        if self._settings.gzip:
            headers["content-encoding"] = "gzip"
        return headers

    def _answer(self, response: requests.Response, body: bytes) -> Answer:
        status, kind = response.status_code, response.headers.get("content-type", "")
        if status < _REDIRECTS.start and "html" not in kind:
            accepted = read_partial_success(body, is_json="json" in kind)
            return Accepted(accepted.rejected, self._credentials.safe_text(accepted.text))
        if status < _REDIRECTS.stop:
            # A captive portal, a load balancer's login or a moved address: nobody has the records.
            return Retry(f"HTTP {status}: a redirect or a web page instead of an OTLP answer; is the endpoint right?")
        text = self._credentials.safe_text(f"HTTP {status}: {_status_message(kind, body)}")
        if status in _RETRYABLE:
            return Retry(text, _retry_after(response.headers.get("retry-after", ""), response.headers.get("date", "")))
        if status == requests.codes.request_entity_too_large:
            return TooLarge(text)
        return Denied(text) if status in _DENIED else Rejected(text)


class _BreakableAdapter(HTTPAdapter):
    """Lets another thread end whatever the connections are doing; the reading thread then gets an error."""

    def __init__(self) -> None:
        self._connections: list[HTTPConnection] = []
        super().__init__()

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Have the pool, a proxy's too, make connections that are known here once they are open."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if "ConnectionCls" not in vars(pool):
            known = self._connections

            class Known(type(pool).ConnectionCls):  # type: ignore[misc] # the class depends on scheme and proxy
                def connect(self) -> None:
                    super().connect()
                    known[:] = [self]  # one thread, one request: older ones are closed

            pool.ConnectionCls = Known
        return pool

    def break_connections(self) -> None:
        """Shut down the socket that is open, if one is."""
        for connection in list(self._connections):
            opened = connection.sock
            if opened is not None:
                try:
                    # Not the TLS socket's own shutdown: it would take the TLS state from the thread that is reading.
                    socket.socket.shutdown(opened, socket.SHUT_RDWR)
                except OSError:
                    continue  # closed already


def _told(error: Exception) -> str:
    """What an error of requests is about, without the steps of urllib3 around it."""
    inner = getattr(error.args[0] if error.args else None, "reason", None) or error
    cause = inner.__cause__
    return cause.strerror if isinstance(cause, OSError) and cause.strerror else str(inner)


def _body(response: requests.Response) -> bytes:
    # Read to its end: only there does the library notice that an answer broke off.
    body = b""
    while len(body) < ANSWER_LIMIT and (more := response.raw.read(ANSWER_LIMIT - len(body), decode_content=True)):
        body += more
    return body


def _leave_as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _gzip(data: bytes) -> bytes:
    # Level 1: on OTLP records the higher levels cost several times the CPU for a tenth less bytes.
    packer = zlib.compressobj(level=1, wbits=31)
    return packer.compress(data) + packer.flush()


def _retry_after(text: str, date: str) -> float | None:
    """Seconds as the specification has them, or HTTP's date, which is measured by the answer's own clock."""
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, (parsedate_to_datetime(text) - parsedate_to_datetime(date)).total_seconds())
    except (
        ValueError,
        TypeError,
        OverflowError,
    ):  # TypeError: one of the two has no time zone; or a year of ten digits
        return None


def _status_message(kind: str, body: bytes) -> str:
    """Return the text of the google.rpc.Status that error answers carry."""
    try:
        if "protobuf" in kind:
            return str(status_pb2.Status.FromString(body).message)
        if "json" in kind:
            return str(json.loads(body).get("message", ""))
    except (DecodeError, ValueError, AttributeError, RecursionError):
        return ""
    return body.decode(errors="replace") if kind.startswith("text/plain") else ""
