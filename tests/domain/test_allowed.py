"""Expected use of an identity: what an event has against it, list by list."""

# ruff: noqa: E501 - tables, read row by row

from typing import Any

import pytest

from keytrail.detect.made_event import MadeEvent, made_event
from keytrail.domain.allowed import violations
from keytrail.domain.event import EventKind
from keytrail.domain.resources import Allowed
from keytrail.domain.shape import read

HOST = {"destinations": [{"host": "api.openai.com", "ports": [443]}]}
WILD = {"destinations": [{"host": "*.openai.azure.com"}]}
NETWORK = {"destinations": [{"cidr": "10.0.0.0/8", "ports": [5432]}, {"cidr": "fd00::/8"}]}
MIXED = {"destinations": [{"host": "api.openai.com"}, {"cidr": "10.0.0.0/8"}]}
WORKLOADS = {"workloads": [{"namespace": "ml", "kind": "Deployment", "name": "chat-api"}]}


def allowed(data: dict[str, Any]) -> Allowed:
    """`allowed` of a manifest."""
    made, faults = read(Allowed, data)
    assert made is not None, faults
    return made


def judged(data: dict[str, Any], event: MadeEvent) -> tuple[str, ...]:
    """What an event has against one `allowed`."""
    return violations((allowed(data),), event)


def to(address: str, port: int, *, name: str = "", host: str = "", kind: str = "connect", **more: Any) -> MadeEvent:
    """An event towards an address, with the names that it shows."""
    family = "AF_INET6" if ":" in address else "AF_INET"
    network = {"family": family, "protocol": "IPPROTO_TCP", "peer_address": address, "peer_port": port, **more}
    data: dict[str, Any] = {"event": {"kind": kind}, "network": network if address else {}}
    if name or host:
        data["payload"] = {"protocol": "tls" if name else "http", "server_name": name, "http_host": host}
    return made_event(data, EventKind.CONNECT)


def of(**data: Any) -> MadeEvent:
    """An exec by a process."""
    return made_event(data, EventKind.EXEC)


@pytest.mark.parametrize(
    ("expected", "event", "found"),
    [
        (NETWORK, to("10.1.2.3", 5432), ()),
        (NETWORK, to("10.1.2.3", 5433), ("destination",)),
        (NETWORK, to("11.1.2.3", 5432), ("destination",)),
        (NETWORK, to("::ffff:10.1.2.3", 5432), ()),
        (NETWORK, to("fd00::1", 1), ()),
        (NETWORK, to("2001:db8::1", 1), ("destination",)),
        (NETWORK, to("no address", 5432), ("destination",)),
        (HOST, to("203.0.113.1", 443), ("destination-unverified",)),
        (HOST, to("203.0.113.1", 5432), ("destination-unverified",)),
        (HOST, to("203.0.113.1", 443, name="api.openai.com", kind="send"), ()),
        (HOST, to("203.0.113.1", 443, name="API.openai.com.", kind="send"), ()),
        (HOST, to("203.0.113.1", 8443, name="api.openai.com", kind="send"), ("destination",)),
        (HOST, to("", 0, name="api.openai.com", kind="send"), ()),
        (HOST, to("", 0, name="api.openai.com.drop.example", kind="send"), ("destination",)),
        (HOST, to("", 0, host="drop.example", kind="send"), ("destination",)),
        (WILD, to("", 0, name="east.openai.azure.com", kind="send"), ()),
        (WILD, to("", 0, name="a.b.openai.azure.com", kind="send"), ()),
        (WILD, to("", 0, name="openai.azure.com", kind="send"), ("destination",)),
        (WILD, to("", 0, name="evilopenai.azure.com", kind="send"), ("destination",)),
        (MIXED, to("10.0.0.1", 80), ()),
        (MIXED, to("203.0.113.1", 80), ("destination-unverified",)),
        (MIXED, to("10.0.0.1", 80, host="drop.example", kind="send"), ()),
        (MIXED, to("203.0.113.1", 80, host="drop.example", kind="send"), ("destination",)),
    ],
)  # fmt: skip
def test_destination(expected: dict[str, Any], event: MadeEvent, found: tuple[str, ...]) -> None:
    """Networks by address and port, hosts by the name that was seen; without a name a host is only unverified."""
    assert judged(expected, event) == found


@pytest.mark.parametrize(
    "event",
    [
        to("203.0.113.1", 443, kind="accept"),
        to("203.0.113.1", 443, kind="close"),
        to("203.0.113.1", 443, protocol="IPPROTO_UDP"),
        to("203.0.113.1", 40000, kind="send"),
        to("/run/app.sock", 0, family="AF_UNIX"),
        to("", 0),
        of(process={"binary": "/bin/sh"}),
        made_event(
            {
                "network": {"family": "AF_INET", "protocol": "IPPROTO_UDP", "peer_address": "9.9.9.9", "peer_port": 53},
                "payload": {"protocol": "dns", "dns_name": "drop.example"},
            },
            EventKind.SEND,
        ),
    ],
)
def test_what_goes_nowhere_is_not_judged(event: MadeEvent) -> None:
    """Answers of a server, look-ups, UDP sockets that only connect, unix sockets: none is use towards a place."""
    assert judged(NETWORK, event) == judged(HOST, event) == ()


def test_datagram_is_judged_when_it_is_sent() -> None:
    """A UDP socket needs no connect: what is sent says where to."""
    event = to("203.0.113.1", 443, kind="send", protocol="IPPROTO_UDP")
    assert judged(NETWORK, event) == ("destination",)
    assert judged(HOST, event) == ("destination-unverified",)


@pytest.mark.parametrize(
    ("binary", "fits"),
    [
        ("/usr/bin/python3.11", True),
        ("/usr/bin/python3.11/x", False),
        ("/usr/bin/perl", False),
        ("/opt/app/a/b", True),
        ("/var/run/tool", True),
        ("/run/tool", True),
        ("/run/toolbox", False),
        ("/x/usr/bin/python3", False),
        ("<enomem>", False),
        ("", False),
    ],
)
def test_binary(binary: str, fits: bool) -> None:
    """`*` stops at a slash, `**` does not, /var/run is /run, and a path that was hidden by padding fits nothing."""
    event = of(process={"binary": binary})
    patterns = ["/usr/bin/python3*", "/opt/app/**", "/run/tool"]
    assert (judged({"binaries": patterns}, event) == ()) is fits


@pytest.mark.parametrize(
    ("pod", "fits"),
    [
        ({"namespace": "ml", "name": "a", "workload_kind": "Deployment", "workload": "chat-api"}, True),
        ({"namespace": "web", "name": "a", "workload_kind": "Deployment", "workload": "chat-api"}, False),
        ({"namespace": "ml", "name": "a", "workload_kind": "StatefulSet", "workload": "chat-api"}, False),
        ({"namespace": "ml", "name": "a", "workload_kind": "Deployment", "workload": "chat-api-2"}, False),
        ({"namespace": "ml", "name": "a"}, True),
        ({"namespace": "web", "name": "a"}, False),
        (None, False),
    ],
)
def test_workload(pod: dict[str, Any] | None, fits: bool) -> None:
    """Namespace, kind and name; no pod is no workload; of a pod whose workload is not known yet the namespace decides."""
    event = of(**({"pod": pod} if pod else {}))
    assert (judged(WORKLOADS, event) == ()) is fits


def test_each_list_is_judged_by_itself_and_all_must_hold() -> None:
    """What is left out is not judged; of several expectations each must hold, and the stronger word stands."""
    event = to("203.0.113.1", 443)
    assert judged({}, event) == ()
    assert judged({**HOST, **WORKLOADS, "binaries": ["/bin/app"]}, event) == (
        "workload",
        "binary",
        "destination-unverified",
    )
    assert violations((allowed(HOST), allowed(NETWORK)), event) == ("destination",)
    assert violations((allowed({"destinations": [{"cidr": "0.0.0.0/0"}]}), allowed(NETWORK)), event) == ("destination",)
