"""First bytes of payloads: never an exception, names that are names, and nothing else of the bytes in what is written.

A credential somewhere in the payload is not in what was recognised, nor in the clear part that a scrubbed recording
keeps; and what is read from the clear part is the same once more.
"""

from collections.abc import Iterator

from fuzz.feed import Feed
from keytrail.decode.arguments import payload as payload_of
from keytrail.decode.payloads import clear_part, is_clear_metadata, recognise
from keytrail.decode.redact import text_credentials
from keytrail.domain.event import EventType
from support.recordings import decoded_once

WORDS = (
    *(b"GET / HTTP/1.1\r\n", b"CONNECT ", b"\r\nHost: ", b"\r\n\r\n", b"user:password@", b"[::1]:443", b"example.org"),
    *(b"\x16\x03\x01", b"\x03\x03", b"\x00\x00\x00\x0e", b"\x07example\x03org\x00", b"\xc0\x0c", bytes(12)),
)
_NAME_LIMIT = 253
_CANARY = "can/ary+7f3a9c=="
"""Of characters that no name has: whatever is read as a name, this is not all in it."""


def seeds() -> Iterator[bytes]:
    """Yield first bytes that processes of the recordings sent."""
    found: dict[bytes, None] = {}
    for event in decoded_once("sensors"):
        if event.type is EventType.KPROBE and (sent := payload_of(event.hook_args())):
            found.setdefault(sent[:600], None)
    for sent in list(found)[:60]:
        yield b"\x00" + sent
        yield b"\x01\x04" + sent
    yield b"\x00GET / HTTP/1.1\r\nhOsT:  Example.ORG:8080 \r\n\r\nbody"
    yield b"\x00CONNECT api.example:443 HTTP/1.1\r\n\r\n"
    yield b"\x02" + bytes(12) + b"\x03api\x07example\x03org\x00\x00\x01\x00\x01"


def check(data: bytes) -> None:
    """Recognise bytes, some with a credential among them."""
    feed = Feed(data)
    form = feed.number()
    at = feed.number(2) if form & 1 else None
    content, dns = feed.rest(), bool(form & 2)
    if at is not None:
        at %= len(content) + 1
        content = content[:at] + _CANARY.encode() + content[at:]
    is_clear_metadata(content)
    assert _CANARY not in text_credentials(content)
    found = recognise(content, len(content), dns=dns, credential="")
    assert max(map(len, (found.server_name, found.http_host, found.dns_name))) <= _NAME_LIMIT
    clear = clear_part(found)
    if not dns:
        assert _CANARY.encode() not in clear
        assert _CANARY not in repr(found)
    assert recognise(clear, found.size, dns=dns, credential="") == found
