"""Plain data to dataclass: every problem is found, with its path, and nothing raises."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keytrail.domain.resources import KINDS
from keytrail.domain.shape import RE2_EXPRESSION, Doc, Rules, dotted, fields_of, quoted, read
from keytrail.settings import Settings


class Size(StrEnum):
    """A closed set of words."""

    SMALL = "small"
    LARGE = "large"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A nested shape."""

    part_name: Annotated[str, Doc("Name.", "wheel", max_length=8, pattern="^[a-z]+$", expected="a lower-case word")]
    other: Annotated[str, Doc("Other.", "x")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One field of each type."""

    text: Annotated[str, Doc("Text.", "x")] = ""
    count: Annotated[int, Doc("Count.", 1, unit="events", minimum=1, maximum=9)] = 1
    share: Annotated[float | None, Doc("Share.", 0.5, minimum=0, maximum=1)] = None
    on: Annotated[bool, Doc("On.", example=True)] = False
    size: Annotated[Size, Doc("Size.", "small")] = Size.SMALL
    place: Annotated[Path | None, Doc("Place.", "/x")] = None
    parts: Annotated[tuple[Part, ...], Doc("Parts.", (), max_items=2)] = ()
    labels: Annotated[Mapping[str, str] | None, Doc("Labels.", {}, max_items=2)] = None
    free: Annotated[object, Doc("Free.", {})] = None
    expression: Annotated[str, Doc("RE2.", "a+", format=RE2_EXPRESSION)] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Either:
    """A shape with rules between its fields."""

    left: Annotated[str, Doc("Left.", "x")] = ""
    right_side: Annotated[str, Doc("Right.", "x")] = ""
    RULES: ClassVar[Rules] = Rules(exactly_one_of=("left", "rightSide"), ignored=frozenset({"status"}))


RE2_MESSAGE = "expected a regular expression in RE2's syntax, found '(a': missing ) '(a'"


def problems(cls: type, data: object) -> list[tuple[str, str]]:
    """Return what is wrong as (field, message)."""
    made, faults = read(cls, data)
    assert (made is None) == bool(faults)
    return [(fault.field, fault.message) for fault in faults]


def test_reads_every_type() -> None:
    """Each supported type arrives as its Python value, under its Python name."""
    data = {"text": "a", "count": 2, "share": 1, "on": True, "size": "large", "place": "/p", "free": [1, {"x": None}]}
    made, faults = read(Thing, {**data, "parts": [{"partName": "hub"}], "expression": "a{1,2}"})
    assert faults == []
    assert made == Thing(
        text="a", count=2, share=1.0, on=True, size=Size.LARGE, place=Path("/p"), free=[1, {"x": None}],
        parts=(Part(part_name="hub"),), expression="a{1,2}",
    )  # fmt: skip


def test_all_problems_at_once() -> None:
    """One reading finds the problems of every level."""
    data = {"count": 0, "on": "yes", "size": "lagre", "parts": [{"partName": "UP"}, {"partname": "a"}], "txt": "a"}
    assert problems(Thing, data) == [
        ("txt", "unknown field, did you mean text?"),
        ("count", "expected a whole number of events from 1 to 9, found the number 0"),
        ("on", "expected true or false, found text 'yes'"),
        ("size", "unknown value 'lagre', did you mean large?"),
        ("parts[0].partName", "expected a lower-case word, found 'UP'"),
        ("parts[1].partname", "unknown field, did you mean partName?"),
        ("parts[1].partName", "is required, for example wheel"),
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([], ("", "expected a mapping, found a list")),
        ({"text": 5}, ("text", "expected text, found the number 5")),
        ({"text": ""}, ("text", "expected text, found nothing")),
        ({"text": "\ud800"}, ("text", "expected text, found half of a surrogate pair, which no encoding can carry")),
        ({"count": True}, ("count", "expected a whole number of events from 1 to 9, found the boolean true")),
        ({"count": 1.0}, ("count", "expected a whole number of events from 1 to 9, found the number 1.0")),
        ({"count": 10**5000}, ("count", "expected a whole number of events from 1 to 9, found a very large number")),
        ({"share": float("nan")}, ("share", "expected a number from 0 to 1, found the number nan")),
        ({"parts": "wheel"}, ("parts", "expected a list, found text 'wheel'")),
        ({"parts": [{}, {}, {}]}, ("parts", "expected at most 2 items, found 3")),
        ({"parts": [{"partName": "abcdefghi"}]}, ("parts[0].partName", "expected at most 8 characters, found 9")),
        ({"size": "gigantic"}, ("size", "unknown value 'gigantic', expected one of small, large")),
        ({"expression": "(a"}, ("expression", RE2_MESSAGE)),
    ],
)  # fmt: skip
def test_message(data: object, expected: tuple[str, str]) -> None:
    """Each kind of mistake has one exact message."""
    assert problems(Thing, data) == [expected]


def test_null_is_absent() -> None:
    """A null is an absent field, as it is to the API server: default, or still required."""
    assert read(Thing, {"count": None})[0] == Thing()
    assert problems(Part, {"partName": None}) == [("partName", "is required, for example wheel")]


def test_exactly_one_of() -> None:
    """Neither and both are refused; ignored fields are neither read nor refused."""
    assert problems(Either, {}) == [("", "expected exactly one of left, rightSide, found none")]
    assert problems(Either, {"left": "a", "rightSide": "b"}) == [
        ("", "expected exactly one of left, rightSide, found left and rightSide")
    ]
    assert read(Either, {"rightSide": "b", "status": 5})[0] == Either(right_side="b")


def test_unknown_fields_are_bounded() -> None:
    """An object of thousands of unknown fields makes a short answer."""
    found = problems(Either, {"left": "a", **{f"x{number}": 1 for number in range(5000)}})
    assert len(found) == 21
    assert found[-1] == ("", "4980 more unknown fields")


def test_messages_hold_no_credential() -> None:
    """A credential pasted into a wrong field does not travel on in the message, nor in the path."""
    key = "sk-proj-Zq81mXv20PqLw93nRt56"
    for data in ({"partName": key}, {"partName": f"OPENAI_API_KEY={key}"}, {key: 1}, {"partName": [key]}):
        text = str(problems(Part, data))
        assert key[:12] not in text
        assert key[-12:] not in text


def test_path_and_quote() -> None:
    """Paths read as people write them; what is no plain name is quoted and escaped."""
    assert dotted(("spec", "env", 0, "name")) == "spec.env[0].name"
    assert dotted(("labels", "a.b/c")) == "labels['a.b/c']"
    assert quoted("a\x1b[31m") == r"'a\x1b[31m'"


JSON_LIKE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=())),  # surrogates and control characters too
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


def filled(cls: type) -> st.SearchStrategy[object]:
    """Return data with a shape's own field names around arbitrary values, so that reading gets below the surface."""
    leaves = JSON_LIKE | st.sampled_from(["a", "10.0.0.0/8", "(", "api.openai.com", "/x"])
    names = st.sampled_from(sorted(_names(cls)))
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=20)


def _names(cls: type) -> set[str]:
    found = {"kind", "apiVersion"}
    for field in fields_of(cls):
        found.add(field.name)
        for type_ in (field.type, *getattr(field.type, "__args__", ())):
            if isinstance(type_, type) and hasattr(type_, "__dataclass_fields__"):
                found |= _names(type_)
    return found


@pytest.mark.parametrize("cls", [Thing, Settings, *KINDS.values()])
def test_never_raises(cls: type) -> None:
    """Whatever the data, the answer is an object or problems that can be printed."""

    @settings(max_examples=25, database=None)
    @given(filled(cls))
    def reads(data: object) -> None:
        for field, message in problems(cls, data):
            (field + message).encode()

    reads()
