"""How random a piece of text looks: the catch-all behind the known shapes of credentials.

In: runs of characters that may occur in a key. Out: which of them no person and no naming scheme would have made. Knows
nothing of names, options or providers. Next: `redact`, which asks for runs that no pattern explains.

Entropy alone does not do: twenty different letters of a kernel module's name score like twenty random ones. What tells
them apart is which character follows which, so a run is scored pair by pair against the names of files and the words of
manuals, and is random when some stretch of it is far too unlikely to be either.
"""

from collections.abc import Iterator
from operator import getitem

from keytrail.decode.credential_patterns import compiled

MINIMUM = 20
"""Shorter runs say nothing: a random one of 16 scores like a product number."""

_STRETCH = -20
"""Bits of surprise, as a sum over neighbouring pairs. One file name in a thousand of a Debian system with runs of 20 or
more has a stretch below -18, each of them a test vector or a register name; a random base62 run of 24 averages -50."""

_MEAN = -0.55
"""Bits for each pair over the whole run. Random ones average -2.1, names +1.3."""

_WORDY = -9
"""Bits, as `_STRETCH`: base64 of any text of 15 or more bytes has a stretch below this."""

_DISTINCT = 8
"""A random run of 20 hexadecimal digits has at least this many different ones; padding and rulers have two or three."""

# Rows: a letter; columns: the letter that follows it, both without case. Digit minus five = log2 of how much more often
# the pair occurs in the names of files of a Debian system and in the text of licences and manuals than by chance.
_FOLLOWS = (
    "15651250504766050667434131", "72538241641643632463601432", "61426115405741770636410140",
    "74358341712443641553522020", "53654331201556242777243530", "61436522803633720555501040",
    "41717033501424730553300018", "81327000501330930425400022", "56645450000557640466040303",
    "71457110401142752281413000", "63448541600553431474612011", "62247220801511860154530030",
    "76367110601651670252412020", "62667561513335530177540020", "34550340323668450744733230",
    "52346126402533640545500080", "32323211200823311443931000", "62548340705343630476452040",
    "51627225603433653268532150", "71428317701331630654414450", "35486240400556260667100401",
    "73328250802253550134200200", "71336114702324830573011040", "52546401502372360348321431",
    "41822010600263350258101001", "70348344600441730464401045",
)  # fmt: skip

_A, _CASE = ord("a"), 0x20
_LOWER, _UPPER, _DIGIT, _OTHER = range(4)
_KIND = bytes(
    _LOWER if 97 <= c <= 122 else _UPPER if 65 <= c <= 90 else _DIGIT if 48 <= c <= 57 else _OTHER  # noqa: PLR2004 - ASCII
    for c in range(256)
)


def _pair_score(first: int, second: int) -> int:
    kinds = (_KIND[first], _KIND[second])
    if kinds == (_DIGIT, _DIGIT):
        return 0  # as separators, numbers are in every name
    if _DIGIT in kinds:
        return -3 if _UPPER in kinds else -2
    if kinds == (_LOWER, _UPPER):
        return -3
    return int(_FOLLOWS[(first | _CASE) - _A][(second | _CASE) - _A]) - 5


_ZERO = 128
_NO_SCORES = bytes((_ZERO,)) * 256
_SCORED = bytes(c for c in range(256) if _KIND[c] != _OTHER)


def _scores_after(first: int) -> bytes:
    row = bytearray(_NO_SCORES)
    for second in _SCORED:
        row[second] = _pair_score(first, second) + _ZERO
    return bytes(row)


# Every process makes it when it starts: all 65,536 pairs, of which letters and digits are a seventeenth, took 20 ms.
_SCORE = tuple(_scores_after(first) if first in _SCORED else _NO_SCORES for first in range(256))

# Long random-looking text that is public by nature: digests, UUIDs, container and machine ids, trace ids (hexadecimal),
# integrity hashes, public SSH keys, Nix store paths, the ends of Pods' names (k8s.io/apimachinery/pkg/util/rand). What
# is hexadecimal and encodes text is judged before this.
_PUBLIC = compiled(
    rb"(?i:[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{16,})"
    rb"|sha(?:256|384|512)-[A-Za-z0-9+/=]+|AAAA(?:[BC]3NzaC1|E2VjZHNhL)[A-Za-z0-9+/=]+|store/[0-9a-df-np-sv-z]{32}"
    rb"|-[b-df-hj-np-tv-xz2456789]{6,10}-[b-df-hj-np-tv-xz2456789]{5}\b"
)
_HEX = compiled(rb"[0-9a-fA-F]+")
_DIGEST_LENGTHS = frozenset({32, 40, 56, 64, 96, 128})
_LONGEST_ID = 31


def without_public(run: bytes) -> bytes:
    """Return the run with digests, UUIDs and other public identifiers blanked out."""
    shown: bytes = _PUBLIC.sub(lambda match: b" " * len(match[0]), run)
    return shown


def is_hex(run: bytes) -> bool:
    """Whether the run is nothing but hexadecimal digits."""
    return _HEX.fullmatch(run) is not None


def is_random_hex(run: bytes) -> bool:
    """Whether a hexadecimal run is of a length that no digest and no id has."""
    return len(run) > _LONGEST_ID and len(run) not in _DIGEST_LENGTHS and len(set(run)) >= _DISTINCT


def is_wordy(run: bytes) -> bool:
    """Whether nothing in the run is unlike words, so that it can be neither random nor an encoding of text."""
    return not _has_stretch(run, _WORDY) and not is_hex(run)


def is_random(run: bytes) -> bool:
    """Whether no naming scheme would have made this run; public identifiers should have been taken out before."""
    return len(run) >= MINIMUM and len(set(run)) >= _DISTINCT and (mean(run) <= _MEAN or _has_stretch(run, _STRETCH))


def is_random_throughout(run: bytes) -> bool:
    """Whether the run as a whole looks random, rather than a stretch of it."""
    return len(run) >= MINIMUM and len(set(run)) >= _DISTINCT and mean(run) <= _MEAN


def mean(run: bytes) -> float:
    """Bits for each pair of neighbours that says anything; below zero is unlike any name."""
    pairs = len(run) - 1
    return (sum(_scores(run)) - _ZERO * pairs) / pairs if pairs > 0 else 0.0


def _has_stretch(run: bytes, bits: int) -> bool:
    """Whether the pairs of some stretch of the run add up to so few bits, below zero."""
    total = 0
    for score in _scores(run):
        total += score - _ZERO
        if total > 0:
            total = 0
        elif total <= bits:  # in a random run after some five pairs
            return True
    return False


def _scores(run: bytes) -> Iterator[int]:
    """Scores of neighbouring pairs, above `_ZERO`."""
    return map(getitem, map(_SCORE.__getitem__, run), run[1:])
