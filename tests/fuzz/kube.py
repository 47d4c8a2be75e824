"""What an API server answers: objects of a watch and of a list, the same however the bytes are cut, or KubeError."""

import json
from collections.abc import Callable, Iterable, Iterator

from fuzz.feed import Feed, cut
from keytrail.domain.errors import KubeError
from keytrail.kube.json_stream import Json, ListReader, objects_of_lines

WORDS = (
    *(
        b'{"kind":"PodList","metadata":{"resourceVersion":"7"},"items":[',
        b'"items":',
        b"null",
        b"[[[[",
        b'{"a":1}',
        b"]}",
    ),
    *(b'{"type":"ADDED","object":{', b'{"type":"BOOKMARK"', b"\n", b"\xff", b"\\ud800", b"1e9", b"-1", b'"metadata":'),
)
_LIST = 1


def seeds() -> Iterator[bytes]:
    """Yield a watch and lists in both orders of their fields."""
    pods = [{"metadata": {"name": f"web-{number}", "labels": {"app": "caf\u00e9"}}} for number in range(3)]
    head = {"kind": "PodList", "metadata": {"resourceVersion": "7", "continue": "x"}}
    yield b"\x00\x05" + b"".join(json.dumps({"type": "ADDED", "object": pod}).encode() + b"\n" for pod in pods)
    yield b"\x00\x05" + b'{"type":"ERROR","object":{"code":410}}\n\n{"cut": '
    for answer in ({**head, "items": pods}, {"items": pods, **head}, {**head, "items": None}, {"number": 12, **head}):
        yield b"\x01\x05" + json.dumps(answer, ensure_ascii=False).encode()
        yield b"\x01\x00" + json.dumps(answer, indent=1).encode()[:-1]


def check(data: bytes) -> None:
    """Read the answer whole and cut elsewhere."""
    feed = Feed(data)
    read = _list if feed.number() & _LIST else _watch
    seed, content = feed.number(), feed.rest()
    assert _read(read, cut(content, seed)) == _read(read, (content,))


def _read(read: Callable[[Iterable[bytes], list[Json]], Json], pieces: Iterable[bytes]) -> tuple[list[Json], Json, str]:
    objects: list[Json] = []
    try:
        metadata = read(pieces, objects)
    except KubeError as error:
        return objects, {}, str(error)
    return objects, metadata, ""


def _watch(pieces: Iterable[bytes], objects: list[Json]) -> Json:
    objects.extend(objects_of_lines(pieces))
    return {}


def _list(pieces: Iterable[bytes], objects: list[Json]) -> Json:
    reader = ListReader(pieces)
    objects.extend(reader)
    return reader.metadata
