"""Hooks on sockets: arguments in, `Details` with both ends and what was sent in clear out.

A reader runs only when a rule, an identity or an output asks. All text that may leave the process goes through
`redact`; what stays in `Event.arguments` is for rules to test and is never exported.
"""

from keytrail.decode.arguments import (
    NUMBERS,
    Arguments,
    address,
    first,
    network,
    payload,
    socket,
    texts,
)
from keytrail.decode.payloads import is_clear_metadata, recognise
from keytrail.decode.processes import Redact
from keytrail.decode.redact import MARK, text_credentials
from keytrail.domain.event import Details, Network, Payload

_DNS_PORT = 53
_PIECE = 6
"""Characters of a label that may be a piece of a credential: one has at most 63, a key may have more."""
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
    sock = asked = None
    for which, value in args:
        if which == "sock_arg":
            sock = sock or value
        elif which == "sockaddr_arg":
            asked = value
        elif which == "sockaddrun_arg" and value.family == "AF_UNIX":
            return Details(network=Network("AF_UNIX", peer_address=redact(value.path)[0]))
    ends = None if sock is None else network(sock)
    if asked is None:
        return Details(ends)
    family = asked.family
    if "AF_UNIX" in (family, "" if ends is None else ends.family):
        return Details(Network("AF_UNIX", cookie=0 if ends is None else ends.cookie))
    return Details(_towards(ends or Network(), family, address(asked.addr), asked.port))


def send(_name: str, args: Arguments, redact: Redact) -> Details:
    """Read what was sent: size, peer, and what the first bytes say in clear."""
    ends = _peer(args)
    data = payload(args) or first(texts(args), "").encode("utf-8", "replace")
    dns = ends is not None and _DNS_PORT in (ends.peer_port, ends.local_port)
    if not (data or dns):  # most that are told of: only a policy for payloads has the agent copy them
        return Details(ends, None, Payload(_size(args, 0)))
    if dns and ends is not None and ends.protocol == "IPPROTO_TCP":
        data = data[2:]  # over TCP each message follows its length (RFC 1035, 4.2.2)
    credential = text_credentials(data) if data and not is_clear_metadata(data) else ""
    found = recognise(data, _size(args, len(data)), dns=dns, credential=credential)
    return Details(ends, None, _redacted(found, redact))


def _peer(args: Arguments) -> Network | None:
    ends: Network | None = None
    asked = []
    for which, value in args:
        if which == "sock_arg":
            ends = ends or network(value)
        elif which == "sockaddr_arg":
            asked.append(value)
        elif which == "skb_arg":
            ends = Network(value.family, value.protocol, value.saddr, value.sport, value.daddr, value.dport)
    for to in asked:
        # A call that names an address goes there, whatever a UDP socket is connected to; of one that names none the
        # agent sends AF_UNSPEC. A TCP connection goes where it goes.
        if to.family in _INTERNET and (ends is None or not ends.peer_port or ends.protocol == "IPPROTO_UDP"):
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
    names = (_host(name, redact) for name in (found.server_name, found.http_host, found.dns_name))
    server_name, http_host, dns_name = names
    return Payload(found.size, found.protocol, server_name, found.http_method, http_host, dns_name, found.credential)


def _host(name: str, redact: Redact) -> str:
    """Redact a name. Where one label is a credential, another one may be the rest of it, unless it is too short."""
    shown = redact(name)[0]
    if shown == name:
        return name
    labels = shown.split(".")
    return ".".join([*(MARK if len(label) >= _PIECE else label for label in labels[:-2]), *labels[-2:]])
