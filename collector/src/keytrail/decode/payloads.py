"""First bytes that a process sent in, what they say in clear out: TLS server name, HTTP method and host, DNS name.

The bytes are attacker-controlled and may end anywhere: every read is bounded and a malformed field ends the parse with
what was found so far. The bytes themselves, and credentials in them, never leave this module.
"""

import re

from keytrail.domain.event import Payload

_TLS_HANDSHAKE = 0x16
_CLIENT_HELLO = 0x01
_EXTENSION_SERVER_NAME = 0
_METHODS = (b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"PATCH ", b"OPTIONS ", b"CONNECT ")
_HEAD_LIMIT = 8_192
_NAME_LIMIT = 253
"""Characters of a host name (RFC 1035, 2.3.4)."""
_DNS_HEADER = 12
_DNS_LABEL_LIMIT = 63


def recognise(data: bytes, size: int, *, dns: bool, credential: str) -> Payload:
    """Read what the bytes say in clear. `size` is what the kernel was asked to send, `dns` whether the port is 53."""
    if dns:
        return Payload(size, "dns", dns_name=dns_name(data), credential=credential)
    if len(data) > 2 and data[0] == _TLS_HANDSHAKE and data[1] == 3:  # noqa: PLR2004 - major version of TLS 1.0 to 1.3
        return Payload(size, "tls", server_name(data), "", "", "", credential)
    if data.startswith(_METHODS):
        method, host = _http(data[:_HEAD_LIMIT])
        return Payload(size, "http", http_method=method, http_host=host, credential=credential)
    return Payload(size, "", "", "", "", "", credential)


def is_clear_metadata(data: bytes) -> bool:
    """Whether the bytes are a TLS ClientHello: sent in clear to everybody on the way, and free of credentials."""
    return len(data) > 5 and data[0] == _TLS_HANDSHAKE and data[1] == 3 and data[5] == _CLIENT_HELLO  # noqa: PLR2004


def clear_part(found: Payload) -> bytes:
    """Write a message that `recognise` reads the same from, and that holds nothing else of the one it was read from."""
    if found.protocol == "dns":
        labels = (_label(text) for text in found.dns_name.split(".") if text)
        return bytes(_DNS_HEADER) + b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    if found.protocol == "http":
        target = found.http_host if found.http_method == "CONNECT" else "/"
        return f"{found.http_method} {target} HTTP/1.1\r\nHost: {found.http_host}\r\n\r\n".encode("ascii", "replace")
    if found.protocol == "tls":
        name = found.server_name.encode("ascii", "replace")
        entry = b"\0" + _sized(2, name)
        extension = _EXTENSION_SERVER_NAME.to_bytes(2, "big") + _sized(2, _sized(2, entry))
        # Version, random, then no session, no cipher suites, no compression.
        hello = b"\x03\x03" + bytes(32) + b"\0" + _sized(2, b"") + b"\0" + _sized(2, extension if name else b"")
        return b"\x16\x03\x01" + _sized(2, bytes([_CLIENT_HELLO]) + _sized(3, hello))
    return b""


def _label(text: str) -> bytes:
    """Write a label with a byte that is not ASCII for each that `dns_name` could not show."""
    return text.replace("\ufffd", "\xff").encode("latin-1", "replace")[:_DNS_LABEL_LIMIT]


def _sized(width: int, data: bytes) -> bytes:
    return len(data).to_bytes(width, "big") + data


def server_name(record: bytes) -> str:
    """Host name of a TLS ClientHello (RFC 8446, 4.1.2 and RFC 6066, 3); empty when it has none or is cut before it."""
    reader = _Reader(record)
    reader.skip(5)  # record: type, version, length
    if reader.number(1) != _CLIENT_HELLO:
        return ""
    reader.skip(3 + 2 + 32)  # length, version, random
    reader.skip(reader.number(1))  # session id
    reader.skip(reader.number(2))  # cipher suites
    reader.skip(reader.number(1))  # compression methods
    reader.skip(2)  # length of all extensions
    while reader.left() >= 4:  # noqa: PLR2004 - type and length of an extension
        extension, length = reader.number(2), reader.number(2)
        if extension == _EXTENSION_SERVER_NAME:
            reader.skip(3)  # list length, name type
            length = reader.number(2)
            name = reader.take(length)
            return _host(name) if len(name) == length else ""  # the rest may make it another name
        reader.skip(length)
    return ""


def dns_name(message: bytes) -> str:
    """Name of the first question of a DNS message (RFC 1035, 4.1.2); empty when there is none or it is cut.

    A byte that is not ASCII becomes U+FFFD, and so does a dot inside a label, which would read as two.
    """
    reader = _Reader(message)
    reader.skip(_DNS_HEADER)
    labels: list[str] = []
    while (length := reader.number(1)) and length <= _DNS_LABEL_LIMIT and len(labels) < _NAME_LIMIT:
        label = reader.take(length)
        if len(label) < length:
            return ""
        labels.append(label.replace(b".", b"\xff").decode("ascii", "replace"))
    return ".".join(labels)[:_NAME_LIMIT].rstrip(".")


def _http(head: bytes) -> tuple[str, str]:
    """Method and host. A proxy goes by the request's target and by no header (RFC 9112, 3.2.2 and 3.2.3).

    What stands behind the last line end is left out: its rest may come with the next write, and with it another name.
    """
    request, *headers = [line.rstrip(b"\r") for line in head.split(b"\n")[:-1]] or [head.partition(b" ")[0]]
    method, target, _ = (*request.split(b" ", 2), b"", b"")[:3]
    scheme, separator, absolute = target.partition(b"://")
    if method == b"CONNECT":
        host = target
    elif separator and scheme.isalpha():
        host = re.split(rb"[/?#]", absolute, maxsplit=1)[0]
    else:
        host = _host_header(headers)
    return method.decode("ascii", "replace"), _host(host)


def _host_header(headers: list[bytes]) -> bytes:
    for header in headers:
        if not header:  # what follows is the body
            break
        name, colon, value = header.partition(b":")
        if colon and name.rstrip().lower() == b"host":  # behind a blank it would go on with the header before
            return value.strip()
    return b""


def _host(name: bytes) -> str:
    """Return the name without port; user information (`user:password@`), which is no part of one, is left out."""
    text = name[: 2 * _NAME_LIMIT].rpartition(b"@")[2].decode("ascii", "replace").lower()
    host = text.partition("]")[0] + "]" if text.startswith("[") else text.partition(":")[0]
    return host[:_NAME_LIMIT] if all(char.isalnum() or char in "-._:[]" for char in host) else ""


class _Reader:
    """A cursor that reads zeros behind the end instead of raising."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def left(self) -> int:
        return len(self._data) - self._at

    def skip(self, count: int) -> None:
        self._at += count

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken
