"""The operator's file of fingerprints in, a `Book` out; and which variables are worth a fingerprint.

The file is a mounted Secret: one that is not there yet is none, one that is damaged is an error that quotes nothing of
it, for it holds the cluster's key. Composed by `keytrail.configuration`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from keytrail.decode.credential_patterns import looks_like_credential_name
from keytrail.domain.errors import ManifestError, Problem
from keytrail.domain.filters import compile_pattern
from keytrail.domain.fingerprint import MOST_BYTES, Book, read
from keytrail.identify.matcher import Mapping


def read_book(file: Path | None) -> Book:
    """Read the file; empty where none is configured, or none is there. Raises ManifestError for a damaged one."""
    if file is None:
        return Book()
    try:
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return Book()
    except OSError as error:
        raise ManifestError([Problem(str(file), 0, "", f"cannot be read ({error.strerror})")]) from None
    if len(data) > MOST_BYTES:
        raise ManifestError([Problem(str(file), 0, "", f"has more than {MOST_BYTES} bytes")])
    try:
        return read(data)
    except ValueError as error:
        raise ManifestError([Problem(str(file), 0, "", f"no file of fingerprints: {error}")]) from None


def wanted_variables(mappings: Sequence[Mapping], book: Book) -> Callable[[str], bool]:
    """Make the test whether a variable is looked at: mappings name it, a Secret's key, or its name gives it away."""
    items = [item for mapping in mappings for item in mapping.spec.evidence.env]
    names = book.variables | {item.name for item in items if item.name}
    patterns = [compile_pattern(item.pattern, "spec.evidence.env.pattern") for item in items if item.pattern]

    def wanted(name: str) -> bool:
        return name in names or looks_like_credential_name(name) or any(one.fullmatch(name) for one in patterns)

    return wanted
