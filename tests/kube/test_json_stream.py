"""Objects out of bytes as they arrive: however they are cut, each comes out whole, and nothing is kept."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keytrail.domain.errors import KubeError
from keytrail.kube import json_stream
from keytrail.kube.json_stream import ListReader, objects_of_lines

OBJECTS = st.lists(
    st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(max_size=20), st.none()), max_size=4),
    max_size=6,
)
CUTS = st.lists(st.integers(1, 40), max_size=30)
unhurried = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine may stop anywhere for any time."""


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Yield the bytes in pieces of these sizes, and the rest."""
    for size in sizes:
        yield data[:size]
        data = data[size:]
    yield data


@unhurried
@given(OBJECTS, CUTS, st.booleans())
def test_lines_come_out_whole(objects: list[dict[str, object]], sizes: list[int], ascii_only: bool) -> None:
    """Every line is one object, wherever the network cut it; one without an end was cut off and is none."""
    data = b"".join(json.dumps(one, ensure_ascii=ascii_only).encode() + b"\n" for one in objects)
    assert list(objects_of_lines(cut(data + b'{"cut": "of', sizes))) == objects


@unhurried
@given(OBJECTS, CUTS, st.booleans(), st.booleans())
def test_a_list_comes_out_whole(
    objects: list[dict[str, object]], sizes: list[int], items_first: bool, pretty: bool
) -> None:
    """Items and metadata of a list are those of the document, in either order and with any white space."""
    metadata = {"resourceVersion": "7", "remaining": None}
    parts: list[tuple[str, object]] = [("kind", "List"), ("metadata", metadata), ("items", objects)]
    document = json.dumps(
        dict(reversed(parts) if items_first else parts), indent=2 if pretty else None, ensure_ascii=False
    )
    reader = ListReader(cut(document.encode(), sizes))
    assert list(reader) == objects
    assert reader.metadata == metadata


@pytest.mark.parametrize("number", [b"12", b"-1.5e+9", b"true"])
def test_a_number_beside_the_items_may_be_cut(number: bytes) -> None:
    """A number of which only the first digits have come is not taken for a whole one."""
    document = b'{"count":' + number + b',"items":[{"a":1}]}'
    for at in range(len(document)):
        assert list(ListReader([document[:at], document[at:]])) == [{"a": 1}]


def test_a_list_may_have_no_items() -> None:
    """A null in place of the items is an empty list, as Go writes one."""
    reader = ListReader([b'{"items":null,"metadata":{"resourceVersion":"1"}}'])
    assert list(reader) == []
    assert reader.metadata == {"resourceVersion": "1"}


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"<html>", b"[]", b'{"items":[{"a":1},', b'{"items":[1]}', b'{"items":[{}]', b'{"a" 1}', b'{"a":1'),
        *(b'{"metadata":7}', b'{"items":' + b"[" * 100_000, b'{"a":' * 100_000),
    ],
)
def test_what_is_no_list_is_refused(data: bytes) -> None:
    """A list that is cut off, or no list, is an error: its missing items must not count as deleted."""
    with pytest.raises(KubeError, match="cut off or no JSON"):
        list(ListReader([data]))


@pytest.mark.parametrize("line", [b"<html>\n", b"[1]\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n"])
def test_what_is_no_object_is_refused(line: bytes) -> None:
    """A line that is no JSON object is an error, whose text quotes nothing of it."""
    with pytest.raises(KubeError, match="no JSON object"):
        list(objects_of_lines([line]))


def test_an_endless_object_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object above the bound ends the watch or list instead of filling the memory."""
    monkeypatch.setattr(json_stream, "LONGEST", 1 << 10)
    endless = iter([b'{"items":[{"a":"', *[b"x" * 300] * 20])
    with pytest.raises(KubeError, match="more than"):
        list(ListReader(endless))
    assert list(endless), "it went on reading"
    with pytest.raises(KubeError, match="more than"):
        list(objects_of_lines(iter([b"x" * 300] * 20)))
