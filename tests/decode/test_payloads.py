"""First bytes of what a process sent: names in clear, from any bytes, in bounded time, and nothing else."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keytrail.decode.payloads import clear_part, dns_name, is_clear_metadata, recognise, server_name
from keytrail.domain.event import Payload
from support.recordings import decoded_once


def client_hello(host: str | None) -> bytes:
    """Bytes that a real TLS client sends first."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = False
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=host).do_handshake()
    return outgoing.read()


def question(name: str) -> bytes:
    """Make a DNS message that asks for a name."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\0\x00\x01\x00\x01"


def read(data: bytes, *, dns: bool = False) -> Payload:
    """Recognise."""
    return recognise(data, len(data), dns=dns, credential="")


def test_real_client_hellos() -> None:
    """The server name is found in a real handshake, and in each prefix that holds it; without a name there is none."""
    hello = client_hello("api.openai.com")
    assert read(hello) == Payload(len(hello), "tls", "api.openai.com")
    assert server_name(client_hello(None)) == ""
    found = [server_name(hello[:size]) for size in range(len(hello) + 1)]
    assert set(found) == {"", "api.openai.com"}
    assert is_clear_metadata(hello)


@pytest.mark.parametrize(
    ("data", "method", "host"),
    [
        (b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", "GET", "example.org"),
        (b"POST /x HTTP/1.1\r\naccept: a\r\nhOsT:  Example.ORG:8080 \r\n\r\nbody", "POST", "example.org"),
        (b"PUT / HTTP/1.1\r\nHost: [::1]:8001\r\n\r\n", "PUT", "[::1]"),
        (b"CONNECT api.example:443 HTTP/1.1\r\n\r\n", "CONNECT", "api.example"),
        (b"GET / HTTP/1.0\r\n\r\n", "GET", ""),
        (b"GET / HTTP/1.1\r\nHost: user:secret@example.org\r\n\r\n", "GET", "example.org"),
        (b"GET / HTTP/1.1\r\nHost: \x1b[31m\xff\r\n\r\n", "GET", ""),
        (b"GET / HTTP/1.1\r\n\r\nHost: body.example\r\n", "GET", ""),
        (b"GET / HTTP/1.1\nHost: example.org\n\n", "GET", "example.org"),
        (b"GET / HTTP/1.1\r\nX: a\r\n Host: folded.example\r\nHost: example.org\r\n\r\n", "GET", "example.org"),
    ],
)
def test_http(data: bytes, method: str, host: str) -> None:
    """Method and host of a request head: without port, user information, or what is no host."""
    assert read(data) == Payload(len(data), "http", "", method, host)


@pytest.mark.parametrize(
    "data",
    [
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: api.stripe.com\r\n\r\n",
        b"GET http://evil.example/x?u=http://a/ HTTP/1.1\r\nHost: api.stripe.com\r\n\r\n",
        b"POST HTTP://u:p@evil.example:80?x HTTP/1.1\r\nHost: api.stripe.com\r\n\r\n",
    ],
)
def test_a_proxy_is_asked_for_the_target_whatever_the_host_header_says(data: bytes) -> None:
    """A process that goes through a proxy cannot pass for one that goes to an expected host by a header."""
    assert read(data).http_host == "evil.example"
    assert read(b"GET /?u=http://evil.example HTTP/1.1\r\nHost: a.example\r\n\r\n").http_host == "a.example"


def test_name_that_is_cut_is_no_name() -> None:
    """Whoever writes `api.stripe.com` and then `.evil.example` went to neither as far as the first write tells."""
    for whole in (
        b"GET / HTTP/1.1\r\nHost: api.stripe.com.evil.example\r\n",
        b"CONNECT api.stripe.com.evil.example:443 HTTP/1.1\r\n",
        b"GET http://api.stripe.com.evil.example/ HTTP/1.1\r\n",
        client_hello("api.stripe.com.evil.example"),
    ):
        names = {(found := read(whole[:size])).server_name or found.http_host for size in range(len(whole) + 1)}
        assert names == {"", "api.stripe.com.evil.example"}


def test_dns() -> None:
    """The first question's name, whole or nothing; escapes from the message by pointer end it."""
    asked = question("deb.debian.org")
    assert read(asked, dns=True) == Payload(len(asked), "dns", dns_name="deb.debian.org")
    assert dns_name(asked[:20]) == ""
    assert dns_name(bytes(12) + b"\xc0\x0c" * 200) == ""
    reverse = ".".join("0123456789abcdef" * 2) + ".ip6.arpa"
    assert dns_name(question(reverse)) == reverse


@pytest.mark.parametrize("data", [b"", b"\x16", b"\x16\x03", b"GET", b"\x16\x03\x01\x00\x05\x02", b"SSH-2.0-x\r\n"])
def test_what_is_none_of_them(data: bytes) -> None:
    """Too short or something else: a size, at most a protocol, no name."""
    found = read(data)
    assert (found.server_name, found.http_method, found.http_host, found.dns_name) == ("", "", "", "")


@pytest.mark.parametrize(
    "found",
    [
        Payload(0, "tls", "api.openai.com"),
        Payload(0, "tls"),
        Payload(0, "http", "", "POST", "example.org"),
        Payload(0, "http", "", "GET", "[::1]"),
        Payload(0, "dns", dns_name="_http._tcp.deb.debian.org"),
    ],
)
def test_the_clear_part_reads_the_same(found: Payload) -> None:
    """What a scrubbed recording holds instead of the bytes gives the same names."""
    written = clear_part(found)
    assert recognise(written, 0, dns=found.protocol == "dns", credential="") == found


def test_the_clear_part_of_every_recorded_payload() -> None:
    """So it is for all payloads of the recordings, and what is not recognised has no clear part."""
    seen = {e.details.payload for name in ("kubernetes", "sensors") for e in decoded_once(name) if e.details.payload}
    for found in seen:
        again = recognise(clear_part(found), found.size, dns=found.protocol == "dns", credential=found.credential)
        assert again == found


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ([b"\xc0\x0c\xff", b"org"], "\ufffd\x0c\ufffd.org"),
        ([b"api.example", b"org"], "api\ufffdexample.org"),
        ([b".", b"a."], "\ufffd.a\ufffd"),
        ([b"x" * 63] * 3 + [b"y" * 60, b"z"], ".".join(["x" * 63] * 3 + ["y" * 60])),
    ],
)
def test_labels_of_any_bytes_stay_as_many(labels: list[bytes], name: str) -> None:
    """A dot or a byte that is no text inside a label is shown as such, and the clear part reads the same."""
    asked = bytes(12) + b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    found = read(asked, dns=True)
    assert found.dns_name == name
    assert recognise(clear_part(found), len(asked), dns=True, credential="") == found


_HELLO = client_hello("api.example.org")


@given(st.one_of(st.binary(max_size=400), st.binary(max_size=400).map(lambda rest: _HELLO[:60] + rest)), st.booleans())
def test_any_bytes(data: bytes, dns: bool) -> None:
    """Random and half-right bytes never raise, and no name is longer than a host name may be."""
    found = read(data, dns=dns)
    assert max(map(len, (found.server_name, found.http_host, found.dns_name))) <= 253
    assert found.size == len(data)
    assert isinstance(clear_part(found), bytes)


def test_long_input_is_bounded() -> None:
    """Megabytes of labels, extensions or header lines cost no more than what a name can need."""
    labels = bytes(12) + b"\x01a" * 500_000
    assert len(dns_name(labels)) <= 253
    head = b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200_000 + b"Host: late.example\r\n\r\n"
    assert read(head).http_host == ""
