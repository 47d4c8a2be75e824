"""Hooks on sockets: arguments in, `Details` with both ends and what was sent in clear out.

A reader runs only when a rule, an identity or an output asks. All text that may leave the process goes through
`redact`; what stays in `Event.arguments` is for rules to test and is never exported.
"""

from dataclasses import replace

from keytrail.decode.arguments import (
    NUMBERS,
    Arguments,
    address,
    first,
    of_type,
    payload,
    socket,
    texts,
)
from keytrail.decode.payloads import is_clear_metadata, recognise
from keytrail.decode.processes import Redact
from keytrail.decode.redact import text_credentials
from keytrail.domain.event import Details, Network, Payload

_DNS_PORT = 53
_INTERNET = ("AF_INET", "AF_INET6")
_SENT = ("bytes_arg", "truncated_bytes_arg", "string_arg", "sock_arg")


def other(_name: str, args: Arguments, _redact: Redact) -> Details:
    """Read a hook that Keytrail has no words for: its arguments, and its socket where it has one."""
    return Details(network=socket(args))


def connect(_name: str, args: Arguments, redact: Redact) -> Details:
    """Read a connect, close or listen: the socket, or for security_socket_connect the address asked for.

    At security_socket_connect the socket has no peer yet; the address is an argument of its own, of a unix socket
    a path, and one of the wrong family holds rubbish when a policy reads both.
    """
    ends = socket(args)
    if len(args) == 1 and ends is not None:  # as nearly always
        return Details(ends)
    for asked in of_type(args, "sockaddrun_arg"):
        if asked.family == "AF_UNIX":
            return Details(network=Network("AF_UNIX", peer_address=redact(asked.path)[0]))
    for asked in of_type(args, "sockaddr_arg"):
        if "AF_UNIX" in (asked.family, ends.family if ends is not None else ""):
            return Details(network=Network("AF_UNIX", cookie=ends.cookie if ends is not None else 0))
        ends = _towards(ends or Network(), asked.family, address(asked.addr), asked.port)
    return Details(network=ends)


def send(_name: str, args: Arguments, redact: Redact) -> Details:
    """Read what was sent: size, peer, and what the first bytes say in clear."""
    ends = _peer(args)
    data = payload(args) or first(texts(args), "").encode("utf-8", "replace")
    dns = ends is not None and _DNS_PORT in (ends.peer_port, ends.local_port)
    if dns and ends is not None and ends.protocol == "IPPROTO_TCP":
        data = data[2:]  # over TCP each message follows its length (RFC 1035, 4.2.2)
    credential = "" if is_clear_metadata(data) else text_credentials(data)
    found = recognise(data, _size(args, len(data)), dns=dns, credential=credential)
    return Details(network=ends, payload=_redacted(found, redact))


def _peer(args: Arguments) -> Network | None:
    ends = socket(args)
    for skb in of_type(args, "skb_arg"):
        ends = Network(skb.family, skb.protocol, skb.saddr, skb.sport, skb.daddr, skb.dport)
    for to in of_type(args, "sockaddr_arg"):
        # A connected UDP socket has its peer in the socket; an unconnected one in the address (AF_UNSPEC otherwise).
        if to.family in _INTERNET and (ends is None or not ends.peer_port):
            ends = _towards(ends or Network(), to.family, to.addr, to.port)
    return ends


def _towards(ends: Network, family: str, address_: str, port: int) -> Network:
    """The same with another peer, without the detour through names that `replace` takes."""
    return Network(family, ends.protocol, ends.local_address, ends.local_port, address_, port, ends.cookie)


def _size(args: Arguments, captured: int) -> int:
    """Return the bytes asked to be sent: the last number behind socket or buffer; before may stand a descriptor."""
    found, behind = 0, False
    for which, value in args:
        if which == "skb_arg":
            return int(value.len)
        if which in _SENT:
            behind = True
        elif behind and which in NUMBERS:
            found = value
    return max(found, 0) or captured


def _redacted(found: Payload, redact: Redact) -> Payload:
    """A name that is looked up or asked for may be a secret itself: data leaves through DNS that way."""
    if not (found.server_name or found.http_host or found.dns_name):
        return found
    return replace(
        found,
        server_name=redact(found.server_name)[0],
        http_host=redact(found.http_host)[0],
        dns_name=redact(found.dns_name)[0],
    )
