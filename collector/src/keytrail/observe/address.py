"""`http_address`: where the collector's own pages are served, and where to ask for them."""

from typing import Final

_LAST_PORT: Final = 65535
_ANY: Final = {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask, when all are served


def parse_address(address: str) -> tuple[str, int] | None:
    """Split `host:port`, `[ipv6]:port` or `:port`; None for `off` or nothing. Raises ValueError."""
    if address in {"", "off"}:
        return None
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    digits = port.isascii() and port.isdigit()
    if not colon or not digits or int(port[:6]) > _LAST_PORT or (":" in host and not bracketed):
        raise ValueError("expected host:port, [ipv6]:port, :port or off")
    return host[1:-1] if bracketed else host, int(port)


def where_to_ask(address: tuple[str, int]) -> tuple[str, int]:
    """Return the address of this machine at which a server that listens there answers."""
    host, port = address
    return _ANY.get(host, host), port
