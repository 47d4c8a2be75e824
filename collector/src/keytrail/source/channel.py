"""A gRPC channel to an agent, with the options that an agent's listener needs.

In: an `Address` and, for TCP, TLS files. Out: a channel that is connected anew each time, never a shared or cached one.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.experimental

from keytrail.domain.errors import SettingsError
from keytrail.source.address import Address
from keytrail.source.base import MAX_MESSAGE_BYTES

SERVICE = "tetragon.FineGuidanceSensors"
RECEIVE_LIMIT = 2 * MAX_MESSAGE_BYTES
"""An event above MAX_MESSAGE_BYTES and below this one costs itself alone: it is received, counted and thrown away. A
larger one costs the stream: grpcio fails the call, and what the agent had queued for it is lost with it."""
_KEEPALIVE_MS = 6 * 60 * 1000
"""The agent's server answers pings that come more often than every five minutes with GOAWAY too_many_pings."""


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """TLS for TCP (agents from 1.8 on, or a proxy); the files are read at every connection, so they may be rotated."""

    ca_file: Path | None = None
    """PEM; None trusts the authorities that grpcio ships."""
    cert_file: Path | None = None
    key_file: Path | None = None
    """Certificate and key of this client (mTLS): both or neither."""
    server_name: str = ""
    """Expected instead of the host: the agent's own certificate is for `*.tetragon-grpc.cilium.io`."""

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files. Raises SettingsError that names the one that cannot be read."""
        if (self.cert_file is None) != (self.key_file is None):
            raise SettingsError("agent TLS: a client certificate needs its key, and a key its certificate")
        return grpc.ssl_channel_credentials(_read(self.ca_file), _read(self.key_file), _read(self.cert_file))


def _read(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SettingsError(f"agent TLS: {file}: {error.strerror}") from None
    if b"-----BEGIN " not in content:
        raise SettingsError(f"agent TLS: {file}: expected PEM")
    return content


def open_channel(address: Address, tls: TlsOptions | None, *, reply_limit: int = RECEIVE_LIMIT) -> grpc.Channel:
    """Return a channel; nothing is sent before the first call.

    `reply_limit` bounds unary replies, in bytes; events have RECEIVE_LIMIT, set by method because grpcio takes a
    channel's limit for all calls alike. Raises SettingsError for unreadable TLS files, or TLS on a unix socket.
    """
    options: list[tuple[str, Any]] = [
        # Half the cost of grpcio's default, which hands every message from a thread of its own to ours.
        (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
        ("grpc.max_receive_message_length", max(reply_limit, RECEIVE_LIMIT)),
        ("grpc.service_config", _SERVICE_CONFIG),
        # Otherwise a new channel inherits the back-off of an earlier one to the same address.
        ("grpc.use_local_subchannel_pool", 1),
        # Reconnecting is the source's business: it must know, to report the gap.
        ("grpc.enable_retries", 0),
        # HTTPS_PROXY is meant for the world outside: the agent is on this node.
        ("grpc.enable_http_proxy", 0),
    ]
    if address.path is not None:
        if tls is not None:
            raise SettingsError(f"agent TLS: {address} is a unix socket, on which an agent speaks no TLS")
        return grpc.insecure_channel(address.target, options=options)
    options.append(("grpc.keepalive_time_ms", _KEEPALIVE_MS))
    if tls is None:
        return grpc.insecure_channel(address.target, options=options)
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return grpc.secure_channel(address.target, tls.credentials(), options=options)


_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {"name": [{"service": SERVICE, "method": "GetEvents"}], "maxResponseMessageBytes": RECEIVE_LIMIT},
        ]
    }
)
