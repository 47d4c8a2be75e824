"""Which values get a fingerprint, how it is made, and the file that carries them."""

import hashlib
import hmac
import json
import string
from random import Random

import pytest

from keytrail.domain.declared import SecretKey
from keytrail.domain.fingerprint import DIGEST_BYTES, Book, ClusterKey, is_strong, read, write
from support.canaries import RECOGNISABLE

KEY = ClusterKey("2026-11-22T14:00:00Z", bytes(range(32)))
OPENAI = SecretKey("ml", "openai", "api-key")


def test_a_fingerprint_is_the_head_of_a_keyed_hash() -> None:
    """HMAC-SHA256 under the cluster's key, cut to 16 bytes: another key gives another fingerprint."""
    value = b"sk-proj-9fX2mQ7bT4vK8cR1wY6z"
    expected = hmac.new(KEY.secret, value, hashlib.sha256).digest()[:DIGEST_BYTES]
    assert KEY.digest(value) == expected
    assert ClusterKey(KEY.created, bytes(32)).digest(value) != expected


def test_a_last_line_break_is_no_part_of_a_value() -> None:
    """A Secret made from a file ends in a line break, which a shell takes away."""
    value = b"sk-proj-9fX2mQ7bT4vK8cR1wY6z"
    assert KEY.digest(value + b"\n") == KEY.digest(value) == KEY.digest(b" " + value)


@pytest.mark.parametrize("shape", sorted(RECOGNISABLE))
def test_keys_of_providers_are_strong(shape: str) -> None:
    """A hundred credentials of each provider's shape nearly all get a fingerprint, whatever their alphabet."""
    random = Random(shape)  # noqa: S311 - the same values on every run
    made = [RECOGNISABLE[shape](random).encode() for _ in range(100)]
    # Ids of capitals look like words, and are no secret.
    least = 20 if shape.endswith("key-id") else 85
    assert sum(map(is_strong, made)) >= least


@pytest.mark.parametrize("length", [20, 24, 32])
@pytest.mark.parametrize("alphabet", [string.ascii_letters + string.digits, string.hexdigits.lower()[:16]])
def test_random_values_of_the_least_length_are_strong(alphabet: str, length: int) -> None:
    """Nine in ten random values of twenty characters get one; longer ones nearly all."""
    random = Random(length)  # noqa: S311 - the same values on every run
    made = ["".join(random.choices(alphabet, k=length)).encode() for _ in range(1000)]
    assert sum(map(is_strong, made)) >= (900 if length == 20 else 970)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "sk-9fX2mQ7bT4vK8c",
        "a" * 40,
        "ab" * 40,
        "0123456780" + "0" * 20,
        "changeme-changeme-changeme",
        "password-password-password-1",
        "correct horse battery staple",
        "postgresql.default.svc.cluster.local",
        "https://api.internal.example.com/v1/chat/completions",
        "/etc/keytrail/fingerprints/fingerprints.json",
        "The quick brown fox jumps over the lazy dog and everything else that it meets on its way",
        "tcp://10.96.0.1:443",
        "2026-11-22",
    ],
)
def test_values_that_a_person_would_choose_get_none(value: str) -> None:
    """Short ones, repetitions, words, names, addresses: guessed or shared by chance."""
    assert KEY.digest(value.encode()) is None


def test_a_book_outlives_its_file() -> None:
    """What is written is read back, by each of two keys; the same book always gives the same bytes."""
    before = ClusterKey("2026-10-22T14:00:00Z", bytes(32))
    book = Book((KEY, before), {OPENAI: (b"a" * 16, b"b" * 16), SecretKey("ml", "copy", "k"): (b"a" * 16,)})
    again = read(write(book))
    assert again == book
    assert write(again) == write(book)
    assert again.secrets_with(b"a" * 16) == (SecretKey("ml", "copy", "k"), OPENAI)
    assert again.secrets_with(b"b" * 16) == (OPENAI,)
    assert again.secrets_with(b"c" * 16) == ()
    assert again.variables == {"api-key", "k"}


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.update(version=2),
        lambda one: one.pop("keys"),
        lambda one: one["keys"][0].update(key="c2hvcnQ="),
        lambda one: one["keys"][0].update(key="not base64"),
        lambda one: one["keys"].extend(one["keys"] * 2),
        lambda one: one["secrets"][0].update(digests=["00"]),
        lambda one: one["secrets"][0].update(digests=["not hexadecimal"]),
        lambda one: one["secrets"][0].pop("name"),
        lambda one: one.update(secrets="all"),
    ],
)
def test_a_damaged_file_is_refused_without_a_word_of_it(change: object) -> None:
    """The error says what is wrong and quotes neither the key nor a fingerprint."""
    document = json.loads(write(Book((KEY,), {OPENAI: (b"a" * 16,)})))
    change(document)  # type: ignore[operator] # one of the functions above
    with pytest.raises(ValueError, match=r"^(it|a|Only|Incorrect|Invalid|non-hex|Non-base64|not enough)") as raised:
        read(json.dumps(document).encode())
    assert "AAEC" not in str(raised.value)
    assert "6161" not in str(raised.value)


def test_no_key_in_any_text() -> None:
    """Neither a key's nor a book's text shows the key or a fingerprint."""
    book = Book((KEY,), {OPENAI: (b"a" * 16,)})
    assert "secret" not in repr(KEY).lower()
    assert "aaaa" not in repr(book)
