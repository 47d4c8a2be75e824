"""Objects out of an answer while it arrives, one at a time.

In flow pieces of bytes as the network brings them; out flow the objects of a watch (one a line) or of a list (one JSON
document that may hold thousands). Never more than one object is parsed at a time: a cluster's pods as Python
dictionaries at once would weigh hundreds of megabytes, and the collector keeps a hundredth of each. Knows no HTTP.
"""

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from keytrail.domain.errors import KubeError

Json = dict[str, Any]

LONGEST: Final = 8 << 20
"""Bytes of one object. etcd takes no more than 1.5 MiB of one, which JSON spells with up to three times as many."""
_decode_json = json.JSONDecoder().raw_decode
_OF_NUMBERS = "0123456789+-.eE"


def objects_of_lines(pieces: Iterable[bytes]) -> Iterator[Json]:
    """Yield the object of each line; what stands behind the last line's end was cut off and is left out."""
    rest = bytearray()
    for piece in pieces:
        begin = len(rest)
        rest += piece
        end = rest.rfind(b"\n", begin)
        if end >= 0:
            whole, rest = bytes(rest[:end]), rest[end + 1 :]
            for line in whole.split(b"\n"):
                if line:
                    yield _object(line)
        if len(rest) > LONGEST:
            raise KubeError(f"the API server sent an object of more than {LONGEST >> 20} MiB")


def _object(line: bytes) -> Json:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise KubeError("the API server sent something that is no JSON object")
    return found


class ListReader:
    """The items of a list, to be iterated over once; `metadata` is complete afterwards.

    Its fields come in either order: kinds of the server itself begin with the metadata, custom ones with the items.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.metadata: Json = {}
        self._pieces = iter(pieces)
        self._text_of = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._text = ""
        self._at = 0

    def __iter__(self) -> Iterator[Json]:
        self._take("{")
        while not self._next_is("}"):
            name = self._value()
            self._take(":")
            if name == "items" and not self._next_is_null():
                yield from self._items()
            elif name == "metadata":
                self.metadata = _object_of(self._value())
            else:
                self._value()
            self._skip_comma()

    def _items(self) -> Iterator[Json]:
        self._take("[")
        while not self._next_is("]"):
            yield _object_of(self._value())
            self._skip_comma()
        self._take("]")

    # -- text

    def _more(self) -> None:
        """Read on, as much again as there is of an incomplete object: parsing it anew costs twice as much, not more."""
        wanted = max(1, len(self._text) - self._at)
        if wanted > LONGEST:
            raise KubeError(f"the API server sent an object of more than {LONGEST >> 20} MiB, or no JSON")
        parts, got = [self._text[self._at :]], 0
        while got < wanted:
            piece = next(self._pieces, None)
            if piece is None:
                if not got:
                    raise _no_list()
                break
            parts.append(self._text_of(piece))
            got += len(piece)
        self._text, self._at = "".join(parts), 0

    def _peek(self) -> str:
        while True:
            while self._at < len(self._text):
                char = self._text[self._at]
                if char not in " \t\r\n":
                    return char
                self._at += 1
            self._more()

    def _next_is(self, char: str) -> bool:
        return self._peek() == char

    def _next_is_null(self) -> bool:
        return self._next_is("n")

    def _take(self, char: str) -> None:
        if self._peek() != char:
            raise _no_list()
        self._at += 1

    def _skip_comma(self) -> None:
        if self._next_is(","):
            self._at += 1

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = _decode_json(self._text, self._at)
            except ValueError:
                self._more()
            except RecursionError:
                raise _no_list() from None
            else:
                # Of all values a number alone does not show where it ends.
                if not isinstance(value, int | float) or self._text[end:].strip(_OF_NUMBERS):
                    self._at = end
                    return value
                self._more()


def _object_of(value: Any) -> Json:
    if not isinstance(value, dict):
        raise _no_list()
    return value


def _no_list() -> KubeError:
    return KubeError("the API server sent a list that is cut off or no JSON")
