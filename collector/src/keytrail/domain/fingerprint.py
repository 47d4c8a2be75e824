"""Keyed fingerprints of credential values: which values get one, how it is made, and the file that carries them.

The operator makes them of the Secrets that mappings name and publishes them with the key; a collector's decode makes
them of variables and finds the same 16 bytes again. In flow a cluster key and values, out flow digests, and a `Book` to
look them up in. A value is never kept, here or by whoever asks; a digest is never exported, for whoever may start a
process could use it to find out whether a guess is right.
"""

import base64
import hmac
import json
import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from keytrail.domain.declared import SecretKey

KEY_BYTES: Final = 32
DIGEST_BYTES: Final = 16
SHORTEST: Final = 20
"""Characters of a value that gets a fingerprint."""
LONGEST: Final = 128 << 10
"""The kernel's limit for one variable."""
MOST_KEYS: Final = 2
"""The cluster key of now, and the one before it while processes run that were started under it."""
MOST_BYTES: Final = 900_000
"""Of a book; the API server takes a Secret of 1 MiB."""
_VERSION: Final = 1

_LEAST_BITS: Final = 45.0
_JUDGED: Final = 256
"""Characters that decide: what is not random in so many is no key."""
_WORD: Final = re.compile(rb"[A-Z]?[a-z]{4,}|[A-Z]{6,}|(?<![A-Za-z0-9])(?:[A-Z]?[a-z]+|[A-Z]+)(?![A-Za-z0-9])")
_DIGITS: Final = string.digits.encode()
_OTHERS: Final = bytes(set(range(256)) - set((string.ascii_letters + string.digits).encode()))
_WORD_BITS, _DIGIT_BITS, _LETTER_BITS, _DISTINCT_BITS = 0.5, 3.3, 4.7, 5.0
"""Of one character: in a word, of ten digits, of letters in one case; and most for each different one."""
_MOST_WORD_BITS: Final = 10.0


def normal(value: bytes) -> bytes:
    """Return the value as it is fingerprinted: a file's last line break is no part of the credential in it."""
    return value.strip(b" \t\r\n")


def is_strong(value: bytes) -> bool:
    """Whether nobody could find a normal value by guessing, nor two people choose it by chance.

    Letters in runs are taken for words, which a list of words would give away: a host name, a sentence or a placeholder
    is no fingerprint's business. A random key has letters, digits and cases mixed.
    """
    if not SHORTEST <= len(value) <= LONGEST:
        return False
    judged = value[:_JUDGED]
    rest = _WORD.sub(b"", judged)
    of_words = min(_MOST_WORD_BITS, _WORD_BITS * (len(judged) - len(rest)))
    mixed = rest.translate(None, _OTHERS)
    letters = len(mixed.translate(None, _DIGITS))
    of_mixed = _LETTER_BITS * letters + _DIGIT_BITS * (len(mixed) - letters)
    # A repetition adds characters, and nothing that one would have to guess.
    return of_words + min(of_mixed, _DISTINCT_BITS * len(set(mixed))) > _LEAST_BITS


@dataclass(frozen=True, slots=True, order=True)
class ClusterKey:
    """A key of the cluster. Neither its text nor an error shows it."""

    created: str
    """When it was made, as Kubernetes writes times: sorts as it is."""
    secret: bytes = field(repr=False)

    def digest(self, value: bytes) -> bytes | None:
        """Return the fingerprint of a value; None for one that gets none."""
        value = normal(value)
        if not is_strong(value):
            return None
        return hmac.digest(self.secret, value, "sha256")[:DIGEST_BYTES]


@dataclass(frozen=True)
class Book:
    """Fingerprints of the Secrets that mappings name, by each key that counts. Empty without a key."""

    keys: tuple[ClusterKey, ...] = ()
    """The one that is in use first."""
    secrets: Mapping[SecretKey, tuple[bytes, ...]] = field(default_factory=dict, repr=False)

    @cached_property
    def _by_digest(self) -> Mapping[bytes, tuple[SecretKey, ...]]:
        found: dict[bytes, tuple[SecretKey, ...]] = {}
        for secret in sorted(self.secrets, key=_place):
            for digest in self.secrets[secret]:
                found[digest] = (*found.get(digest, ()), secret)
        return found

    @cached_property
    def variables(self) -> frozenset[str]:
        """Keys of the Secrets: with `envFrom` each is the name of a variable."""
        return frozenset(one.key for one in self.secrets)

    def secrets_with(self, digest: bytes) -> tuple[SecretKey, ...]:
        """Return the Secrets' keys that hold this value; copies of a Secret hold the same."""
        return self._by_digest.get(digest, ())


def _place(one: SecretKey) -> tuple[str, str, str]:
    return one.namespace, one.name, one.key


def write(book: Book) -> bytes:
    """Return the book as its file; the same book gives the same bytes."""
    rows = [
        {"namespace": at.namespace, "name": at.name, "key": at.key, "digests": [one.hex() for one in book.secrets[at]]}
        for at in sorted(book.secrets, key=_place)
    ]
    keys = [{"created": key.created, "key": base64.b64encode(key.secret).decode()} for key in book.keys]
    return json.dumps({"version": _VERSION, "keys": keys, "secrets": rows}, separators=(",", ":")).encode()


def read(data: bytes) -> Book:
    """Read a file. Raises ValueError, which says what is wrong and quotes nothing of it."""
    try:
        document = json.loads(data)
        if document["version"] != _VERSION:
            raise ValueError("it is of a version that this program does not know")
        keys = tuple(_key(one) for one in document["keys"])
        secrets = dict(map(_row, document["secrets"]))
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON (line {error.lineno})") from None
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it has not the form of fingerprints ({type(error).__name__})") from None
    if len(keys) > MOST_KEYS:
        raise ValueError(f"it has more than {MOST_KEYS} keys")
    return Book(keys, secrets)


def _key(given: Any) -> ClusterKey:
    secret = base64.b64decode(given["key"], validate=True)
    if len(secret) != KEY_BYTES:
        raise ValueError(f"a key has not {KEY_BYTES} bytes")
    return ClusterKey(str(given["created"]), secret)


def _row(given: Any) -> tuple[SecretKey, tuple[bytes, ...]]:
    digests: Iterable[str] = given["digests"]
    found = tuple(map(bytes.fromhex, digests))
    if any(len(one) != DIGEST_BYTES for one in found):
        raise ValueError(f"a fingerprint has not {DIGEST_BYTES} bytes")
    return SecretKey(str(given["namespace"]), str(given["name"]), str(given["key"])), found
