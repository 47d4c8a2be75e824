"""OTLP settings from the standard environment variables.

In flows an environment (a mapping), out comes one frozen `OtlpSettings`, or a SettingsError that names the variable,
what was expected and what was found. Knows nothing of requests, queues or records; `otlp_transport` opens what this
describes.

The rules are those of the OpenTelemetry specification ("OpenTelemetry Protocol Exporter", "Environment Variables"):
a variable of the logs signal wins over the general one as a whole, an empty variable counts as unset, and header and
resource values are percent-decoded. Where this differs from the specification or from its Python SDK:

- An endpoint must be given. The specification's default is localhost, where on a node nobody listens.
- The timeout is in milliseconds, as the specification has it. The Python SDK reads the same variable as seconds; a
  value below 100 is therefore refused instead of failing every request.
- With no protocol given, port 4318 or a path means `http/protobuf` and anything else `grpc`.
- What the specification ignores (a path on a gRPC endpoint, certificates for a plain-text one) is an error here.
- `KEYTRAIL_OTLP_HEADERS_FILE` names a file with headers in the same form, one or more a line. It wins over both header
  variables: the agent reports the environment of every process, so a key in ours would be in the event stream. It is
  read again when it changes (`read_headers`), so that a token may be rotated.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from keytrail.domain.errors import SettingsError

_T = TypeVar("_T")

HEADERS_FILE = "KEYTRAIL_OTLP_HEADERS_FILE"
DEFAULT_TIMEOUT_MS = 10_000
SHORTEST_TIMEOUT_MS = 100
LONGEST_TIMEOUT_MS = 600_000
HTTP_PORT = 4318
"""OTLP/HTTP's default port by the OTLP specification; gRPC's is 4317."""

# What gRPC accepts as a metadata key is also a valid HTTP header name; values as RFC 9110 without obs-text.
_HEADER_NAME = re.compile(r"[0-9a-z_.-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


class Protocol(StrEnum):
    """OTLP's transports that Keytrail speaks."""

    GRPC = "grpc"
    HTTP = "http/protobuf"


class Signal(StrEnum):
    """What is sent: each has variables, an HTTP path and a gRPC service of its own."""

    LOGS = "logs"
    METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class OtlpSettings:
    """Where and how one signal is sent."""

    endpoint: str
    """A gRPC target such as `collector:4317`, or the full URL for `http/protobuf`."""
    protocol: Protocol = Protocol.GRPC
    signal: Signal = Signal.LOGS
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Lower-case names and values. The values are credentials: kept out of repr, errors and logs."""
    headers_file: Path | None = None
    """Where `headers` were read from, to be read again when it changes."""
    timeout_seconds: float = DEFAULT_TIMEOUT_MS / 1000
    """The longest that one request may take."""
    gzip: bool = False
    insecure: bool = False
    """Plain text instead of TLS."""
    certificate: Path | None = None
    """Trusted authorities (PEM); None means the client library's own bundle."""
    client_key: Path | None = None
    client_certificate: Path | None = None
    service_name: str = "keytrail"
    resource_attributes: tuple[tuple[str, str], ...] = ()
    """For the resource of every record; holds no `service.name`."""


def otlp_settings(environ: Mapping[str, str], signal: Signal = Signal.LOGS) -> OtlpSettings:
    """Read and check a signal's OTLP variables; raises SettingsError for the first that is wrong."""
    read = _Variables(environ, signal)
    address = _endpoint(read)
    protocol = _protocol(read, address)
    endpoint, insecure = _grpc_target(read, address) if protocol is Protocol.GRPC else _http_url(read, address)
    certificate = _certificate_file(read, "CERTIFICATE", insecure=insecure)
    client_key = _certificate_file(read, "CLIENT_KEY", insecure=insecure)
    client_certificate = _certificate_file(read, "CLIENT_CERTIFICATE", insecure=insecure)
    if (client_key is None) != (client_certificate is None):
        given, missing = ("CLIENT_KEY", "CLIENT_CERTIFICATE") if client_key else ("CLIENT_CERTIFICATE", "CLIENT_KEY")
        raise SettingsError(f"{read.signal(given)[0]}: expected OTEL_EXPORTER_OTLP_{missing} beside it, found none")
    service_name, attributes = _resource(read)
    file = read.get(HEADERS_FILE)
    return OtlpSettings(
        endpoint=endpoint,
        protocol=protocol,
        signal=signal,
        headers=read_headers(Path(file), protocol) if file else _headers(*read.signal("HEADERS"), protocol),
        headers_file=Path(file) if file else None,
        timeout_seconds=_timeout_ms(read) / 1000,
        gzip=_choice(read, "COMPRESSION", {"gzip": True, "none": False}, default=False),
        insecure=insecure,
        certificate=certificate,
        client_key=client_key,
        client_certificate=client_certificate,
        service_name=service_name,
        resource_attributes=attributes,
    )


@dataclass(frozen=True, slots=True)
class _Variables:
    environ: Mapping[str, str]
    of: Signal

    def get(self, name: str) -> str:
        """Value without surrounding space; empty for unset."""
        return self.environ.get(name, "").strip()

    def signal(self, option: str) -> tuple[str, str]:
        """Name and value of the variable that decides an option: the signal's own, else the general one."""
        specific, general = f"OTEL_EXPORTER_OTLP_{self.of.upper()}_{option}", f"OTEL_EXPORTER_OTLP_{option}"
        value = self.get(specific)
        return (specific, value) if value else (general, self.get(general))


@dataclass(frozen=True, slots=True)
class _Address:
    """An endpoint as it was given. Errors about it never repeat it: people put keys into URLs."""

    variable: str
    text: str
    parts: SplitResult
    port: int | None

    @property
    def is_url(self) -> bool:
        return self.parts.scheme in {"http", "https"}

    @property
    def path(self) -> str:
        return self.parts.path if self.is_url else ""


def _endpoint(read: _Variables) -> _Address:
    variable, text = read.signal("ENDPOINT")
    if not text:
        raise SettingsError(
            "OTEL_EXPORTER_OTLP_ENDPOINT: expected where to send records, such as http://localhost:4317, found nothing "
            "(--output findings writes them to standard output instead)"
        )
    # `collector:4317` would parse as scheme "collector".
    url = text if "://" in text else f"//{text}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Not chained: the original error quotes what it could not read.
        raise SettingsError(f"{variable}: expected host and port, found an address that is no URL") from None
    if parts.username is not None or parts.query or parts.fragment or any(c.isspace() for c in text):
        raise SettingsError(
            f"{variable}: expected scheme, host, port and path only, found user information, a query or spaces; "
            "credentials belong into OTEL_EXPORTER_OTLP_HEADERS"
        )
    address = _Address(variable, text, parts, port)
    if address.is_url and not parts.hostname:
        raise SettingsError(f"{variable}: expected a host after {parts.scheme}://, found none")
    return address


def _protocol(read: _Variables, address: _Address) -> Protocol:
    says_http = address.port == HTTP_PORT or address.path.strip("/")
    default = Protocol.HTTP if says_http else Protocol.GRPC
    return _choice(read, "PROTOCOL", {str(protocol): protocol for protocol in Protocol}, default=default)


def _grpc_target(read: _Variables, address: _Address) -> tuple[str, bool]:
    """Target and whether it is plain text. A URL's scheme decides; without one the INSECURE variables do."""
    if address.is_url:
        if address.path.strip("/"):
            raise SettingsError(f"{address.variable}: expected no path with protocol grpc, found one")
        # gRPC itself would take 443 for both schemes.
        port = "" if address.port else f":{443 if address.parts.scheme == 'https' else 80}"
        return address.parts.netloc + port, address.parts.scheme == "http"
    if address.parts.scheme and address.parts.scheme not in {"unix", "dns", "ipv4", "ipv6"}:
        raise SettingsError(f"{address.variable}: expected http or https, found scheme {address.parts.scheme!r}")
    return address.text, _choice(read, "INSECURE", {"true": True, "false": False}, default=False)


def _http_url(read: _Variables, address: _Address) -> tuple[str, bool]:
    """URL and whether it is plain text. Only the general endpoint gets the signal's path appended."""
    if not address.is_url:
        raise SettingsError(f"{address.variable}: expected http:// or https:// with protocol http/protobuf, found none")
    if address.variable.endswith(f"_{read.of.upper()}_ENDPOINT"):
        # A URL without any path is the one of the root, by RFC 3986 and by the specification.
        url = address.text if address.path else f"{address.text}/"
    else:
        url = f"{address.text.rstrip('/')}/v1/{read.of}"
    return url, address.parts.scheme == "http"


def _choice(read: _Variables, option: str, choices: Mapping[str, _T], *, default: _T) -> _T:
    variable, text = read.signal(option)
    if not text:
        return default
    if text.lower() not in choices:
        raise SettingsError(f"{variable}: expected {' or '.join(choices)}, found {text!r}")
    return choices[text.lower()]


def _timeout_ms(read: _Variables) -> int:
    variable, text = read.signal("TIMEOUT")
    if not text:
        return DEFAULT_TIMEOUT_MS
    if not (text.isascii() and text.isdigit() and SHORTEST_TIMEOUT_MS <= int(text[:9]) <= LONGEST_TIMEOUT_MS):
        wanted = f"milliseconds from {SHORTEST_TIMEOUT_MS} to {LONGEST_TIMEOUT_MS}"
        raise SettingsError(f"{variable}: expected {wanted}, found {text!r}")
    return int(text)


def _certificate_file(read: _Variables, option: str, *, insecure: bool) -> Path | None:
    variable, text = read.signal(option)
    if not text:
        return None
    if insecure:
        raise SettingsError(f"{variable}: expected an https endpoint beside it, found one without TLS")
    try:
        with Path(text).open("rb"):
            return Path(text)
    except OSError as error:
        # Not chained, as the text of the original error would show a key given instead of a path.
        found = "the PEM text itself" if "-----" in text else f"{text!r}: {error.strerror}"
        raise SettingsError(f"{variable}: expected the path of a readable PEM file, found {found}") from None


def read_headers(file: Path, protocol: Protocol) -> tuple[tuple[str, str], ...]:
    """Read the headers file, one or more headers a line; raises SettingsError that quotes nothing of it."""
    try:
        text = ",".join(file.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeError):
        # Neither shown nor chained: the path may be the header itself, given instead of one.
        raise SettingsError(f"{HEADERS_FILE}: expected the path of a readable text file, found none") from None
    return _headers(HEADERS_FILE, text, protocol)


def _headers(variable: str, text: str, protocol: Protocol) -> tuple[tuple[str, str], ...]:
    headers: dict[str, str] = {}
    for position, (name, value) in enumerate(_pairs(variable, text), start=1):
        key = name.lower()
        # Keys ending in -bin carry binary values in gRPC, and grpc-* are gRPC's own.
        reserved = protocol is Protocol.GRPC and (key.endswith("-bin") or key.startswith("grpc-"))
        if reserved or not _HEADER_NAME.fullmatch(key) or not _HEADER_VALUE.fullmatch(value):
            raise SettingsError(f"{variable}: expected name and value of a header, found neither in pair {position}")
        headers[key] = value
    return tuple(headers.items())


def _resource(read: _Variables) -> tuple[str, tuple[tuple[str, str], ...]]:
    attributes = dict(_pairs("OTEL_RESOURCE_ATTRIBUTES", read.get("OTEL_RESOURCE_ATTRIBUTES")))
    listed = attributes.pop("service.name", "")
    return read.get("OTEL_SERVICE_NAME") or listed or "keytrail", tuple(attributes.items())


def _pairs(variable: str, text: str) -> list[tuple[str, str]]:
    """Split `k1=v1,k2=v2`, percent-decoded. Errors give a pair's position: its text may be a credential."""
    pairs = []
    for position, item in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
        name, equals, value = item.partition("=")
        try:
            name, value = (unquote_to_bytes(part.strip()).decode() for part in (name, value))
        except UnicodeError:
            raise SettingsError(f"{variable}: expected UTF-8 after percent-decoding, pair {position} is not") from None
        if not name or not equals:
            raise SettingsError(f"{variable}: expected name=value,name=value, found no pair at position {position}")
        pairs.append((name, value))
    return pairs
