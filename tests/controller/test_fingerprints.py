"""The published fingerprints: keys and their renewal, which Secrets, and that a value is nowhere but in them."""

import base64
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
import urllib3

from keytrail.domain.declared import SecretKey
from keytrail.domain.fingerprint import MOST_BYTES, Book, ClusterKey, read, write
from keytrail.kube.access import Access
from keytrail.kube.api import Api
from keytrail_operator.actions import Apply
from keytrail_operator.reconcile.fingerprints import (
    FILE_NAME,
    OVERLAP_SECONDS,
    RENEW_SECONDS,
    Facts,
    book_of,
    named_secrets,
    publish,
    renewed,
)
from keytrail_operator.secret_reader import SecretReader
from support.canaries import generate
from support.operator_world import NOW, mapped, world

VALUE = "sk-proj-9fX2mQ7bT4vK8cR1wY6z"


def counted() -> Any:
    """Randomness that a test can foresee."""
    numbers = iter(range(1, 100))
    return lambda length: bytes([next(numbers)]) * length


def test_the_key_is_made_once_and_renewed_with_overlap() -> None:
    """One key for a month; then a new one beside it for a week; then the new one alone."""
    random = counted()
    first = renewed((), NOW, random)
    assert len(first) == 1
    assert renewed(first, NOW + RENEW_SECONDS - 1, random) == first
    both = renewed(first, NOW + RENEW_SECONDS, random)
    assert both[1:] == first
    assert both[0].secret != first[0].secret
    assert renewed(both, NOW + RENEW_SECONDS + OVERLAP_SECONDS - 1, random) == both
    assert renewed(both, NOW + RENEW_SECONDS + OVERLAP_SECONDS, random) == both[:1]


def test_only_what_mappings_name() -> None:
    """Keys that they name, or all of a Secret's; a namespaced mapping means its own namespace."""
    mappings = (
        mapped("a", evidence={"secrets": [{"namespace": "ml", "name": "openai", "keys": ["k1"]}]}),
        mapped("b", "ml", evidence={"secrets": [{"name": "openai", "keys": ["k2"]}]}),
        mapped("c", "shop", evidence={"secrets": [{"name": "stripe"}]}),
    )
    named = named_secrets(mappings)
    assert named == {("ml", "openai"): frozenset({"k1", "k2"}), ("shop", "stripe"): frozenset()}
    digests = dict.fromkeys(("k1", "k2", "k3"), (b"d" * 16,))
    facts = {at: Facts(frozenset(digests), digests) for at in (*named, ("other", "secret"))}
    book, left_out = book_of((), named, facts)
    assert {(one.namespace, one.key) for one in book.secrets} == {
        ("ml", "k1"), ("ml", "k2"), ("shop", "k1"), ("shop", "k2"), ("shop", "k3"),
    }  # fmt: skip
    assert left_out == 0


def test_a_book_fits_into_a_secret() -> None:
    """What is too much is left out and counted: the file stays below what the API server takes."""
    names = [("n" * 63, f"{number:05}" + "s" * 240) for number in range(4_000)]
    facts = {at: Facts(frozenset({"k" * 200}), {"k" * 200: (b"d" * 16, b"e" * 16)}) for at in names}
    keys = (ClusterKey("2026-11-22T14:00:00Z", bytes(32)), ClusterKey("2026-10-22T14:00:00Z", bytes(32)))
    book, left_out = book_of(keys, dict.fromkeys(names, frozenset()), facts)
    assert len(book.secrets) + left_out == 4_000
    assert left_out
    assert MOST_BYTES * 0.8 < len(write(book)) <= MOST_BYTES
    assert read(write(book)) == book


def test_nothing_in_what_an_action_prints() -> None:
    """Neither a key nor a fingerprint is in the text of the action that publishes them."""
    book = Book((ClusterKey("x", b"k" * 32),), {SecretKey("a", "b", "c"): (b"d" * 16,)})
    [action] = publish(book, None, "keytrail", None)
    assert isinstance(action, Apply)
    assert publish(book, book, "keytrail", None) == []
    shown = f"{action} {action!r}"
    assert base64.b64encode(b"k" * 32).decode() not in shown
    assert (b"d" * 16).hex() not in shown
    assert "data" not in shown


# -- reading, from a server that has Secrets


class Secrets(BaseHTTPRequestHandler):
    """An API server that knows Secrets by name only."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1

    data: ClassVar[dict[str, Mapping[str, str]]] = {}
    forbidden: ClassVar[set[str]] = set()
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Answer with the Secret."""
        self.asked.append(self.path)
        found = self.data.get(self.path)
        status = 403 if self.path in self.forbidden else 404 if found is None else 200
        encoded = {name: base64.b64encode(value.encode()).decode() for name, value in (found or {}).items()}
        body = json.dumps({"kind": "Secret", "message": "no", "data": encoded}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[Api]:
    """The way to that server."""
    Secrets.data, Secrets.forbidden, Secrets.asked = {}, set(), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Secrets)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    pool = urllib3.PoolManager(retries=False)
    made = Api(lambda: Access(f"http://127.0.0.1:{server.server_port}", pool, dict))
    yield made
    made.close()
    server.shutdown()
    thread.join()
    server.server_close()


def path(namespace: str, name: str) -> str:
    """Where the API has a Secret."""
    return f"/api/v1/namespaces/{namespace}/secrets/{name}"


def naming(*names: str) -> Any:
    """A world with a mapping that names Secrets of the namespace ml."""
    secrets = [{"namespace": "ml", "name": name} for name in names]
    return world(
        mappings=tuple(
            mapped(f"m{start}", evidence={"secrets": secrets[start : start + 50]})
            for start in range(0, len(secrets), 50)
        )
    )


def reader(api: Api, *names: str) -> SecretReader:
    """A reader that may read these Secrets of the namespace ml."""
    return SecretReader(api, "keytrail", frozenset(("ml", name) for name in names), random=counted())


def run(one: SecretReader, at: Any, now: float = NOW) -> Book | None:
    """What is published; None when nothing is."""
    actions = one.reconciler().reconcile(at, None, now).actions
    if not actions:
        return None
    [action] = actions
    assert isinstance(action, Apply)
    text = action.body["data"][FILE_NAME]
    Secrets.data[path("keytrail", "keytrail-fingerprints")] = {FILE_NAME: base64.b64decode(text).decode()}
    return read(base64.b64decode(text))


def test_fingerprints_are_published_and_then_left_alone(api: Api) -> None:
    """Once, and again only when a Secret changed; the key stays, over a restart of the operator, too."""
    Secrets.data[path("ml", "openai")] = {"api-key": VALUE, "user": "chat"}
    one = reader(api, "openai")
    book = run(one, naming("openai"))
    assert book is not None
    digest = book.keys[0].digest(VALUE.encode())
    assert book.secrets == {SecretKey("ml", "openai", "api-key"): (digest,)}
    assert one.known() == {("ml", "openai"): Facts(frozenset({"api-key", "user"}), {"api-key": (digest,)})}
    assert run(one, naming("openai"), NOW + 10) is None
    assert run(reader(api, "openai"), naming("openai"), NOW + 20) is None
    Secrets.data[path("ml", "openai")] = {"api-key": VALUE[::-1]}
    assert run(one, naming("openai"), NOW + 30) is None, "not looked at so soon"
    again = run(one, naming("openai"), NOW + 400)
    assert again is not None
    assert again.keys == book.keys
    assert again.secrets != book.secrets


def test_a_secret_is_looked_at_every_five_minutes_only(api: Api) -> None:
    """However often the cluster changes, and only those that a mapping names and a Role lets be read."""
    Secrets.data[path("ml", "openai")] = {"api-key": VALUE}
    one = reader(api, "openai", "never-named")
    for second in range(100):
        run(one, naming("openai", "not-allowed"), NOW + second)
    assert Secrets.asked.count(path("ml", "openai")) == 1
    assert path("ml", "not-allowed") not in Secrets.asked
    assert path("ml", "never-named") not in Secrets.asked
    assert Secrets.asked.count(path("keytrail", "keytrail-fingerprints")) <= 3


def test_a_secret_that_is_gone_or_forbidden(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """Gone: its fingerprints go. Forbidden for a while: what was known stays, and the log says it once."""
    Secrets.data[path("ml", "openai")] = {"api-key": VALUE}
    one = reader(api, "openai")
    assert run(one, naming("openai")) is not None
    Secrets.forbidden.add(path("ml", "openai"))
    with caplog.at_level(logging.WARNING):
        assert run(one, naming("openai"), NOW + 400) is None
        assert run(one, naming("openai"), NOW + 800) is None
    assert len([each for each in caplog.records if "fingerprints.secrets" in each.message]) == 1
    Secrets.forbidden.clear()
    del Secrets.data[path("ml", "openai")]
    book = run(one, naming("openai"), NOW + 1200)
    assert book is not None
    assert not book.secrets
    assert one.known()["ml", "openai"].exists is False


def test_a_rotation_reads_everything_again(api: Api) -> None:
    """The new book has two fingerprints of each value, by the new key first."""
    Secrets.data[path("ml", "openai")] = {"api-key": VALUE}
    one = reader(api, "openai")
    before = run(one, naming("openai"))
    after = run(one, naming("openai"), NOW + RENEW_SECONDS)
    assert before is not None
    assert after is not None
    assert [key.digest(VALUE.encode()) for key in after.keys] == [*after.secrets[SecretKey("ml", "openai", "api-key")]]
    assert after.keys[1:] == before.keys


def test_many_secrets_are_read_in_turns_and_published_whole(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """250 values, 200 Secrets a run: nothing is published of a part, and no value is in book, log, facts or text."""
    canaries = generate(3, 250)
    names = [f"s{number:03}" for number in range(len(canaries))]
    for name, canary in zip(names, canaries, strict=True):
        Secrets.data[path("ml", name)] = {"key": canary.value}
    one, at = reader(api, *names), naming(*names)
    with caplog.at_level(logging.DEBUG, "keytrail_operator"):
        assert run(one, at) is None
        book = run(one, at, NOW + 1)
    assert book is not None
    assert len(book.secrets) > 200
    text = write(book).decode() + caplog.text + repr(one.known()) + repr(vars(one)) + repr(book)
    assert not [canary.shape for canary in canaries if any(form in text for form in canary.forms() if len(form) > 12)]
