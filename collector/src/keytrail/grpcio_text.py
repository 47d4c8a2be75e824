"""What grpcio says of a failed call, without the steps of its own around it: for whoever calls an agent or a backend.

In: the details of a status; out: the system's or the TLS library's own words where it wraps them. Knows no call.
"""

import re
from typing import Final

_WRAPPED: Final = re.compile(
    r"failed to connect to all addresses; last error: [A-Z_]+: \S+: "
    r"(?:Failed to connect to remote host: |connect failed: addr: .* error: "
    r"|Tls handshake failed \S+ SSL_ERROR_SSL: error:\w+:SSL routines:OPENSSL_internal:)?"
    r"(?P<told>.+?)(?:: OK)?"
    r"|errors resolving .*address lookup failed for \S+: (?P<lookup>.+)\]"
)
"""Around them stand the address, which whoever reads this knows, and the steps that led there."""


def unwrapped(text: str) -> str:
    """Return what a text of grpcio's is about; any other as it is."""
    wrapped = _WRAPPED.fullmatch(text)
    return text if wrapped is None else wrapped["told"] or wrapped["lookup"]
