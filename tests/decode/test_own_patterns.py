"""Redaction by the user's own expressions: what nobody else can know for a credential."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keytrail.decode.redact import MARK, Redactor

TOKEN = "acme_live_" + "qwertyui" * 2
REDACTOR = Redactor(("acme_live_[a-z]{16}", r"PIN (\d{4})(?: of (\w+))?", r"^-x(\w+)", "é."))
BROAD = Redactor((r"\w+", r"\[.", r"d\] \["))


@pytest.mark.parametrize(
    ("text", "program", "expected"),
    [
        (f"run --with {TOKEN} now", "", "run --with [redacted] now"),
        (f"/srv/{TOKEN}/x", "", "/srv/[redacted]/x"),
        ("say PIN 1234 now", "", "say PIN [redacted] now"),
        ("say PIN 1234 of bob", "", "say PIN [redacted] of [redacted]"),
        ("-xhunter -h db", "mysql", "-x[redacted] -h db"),
        ("été", "", "[redacted]é"),
        ('"acme_live_""qwertyuiqwertyui"', "", '"[redacted]"'),
        ("acme%5Flive%5Fqwertyuiqwertyui", "", "[redacted]"),
        (f"a {base64.b64encode(b'the PIN 1234 is old').decode()} b", "", "a [redacted] b"),
        (f"{TOKEN} --password x", "", "[redacted] --password [redacted]"),
    ],
)
def test_what_fits_goes_as_any_other_credential(text: str, program: str, expected: str) -> None:
    """Match or groups are replaced, also in quotes, escapes and encodings, and named; without them the text stays."""
    shown, names = REDACTOR.redact(text, program)
    assert (shown, "own-pattern" in names) == (expected, True)
    assert Redactor().redact(text.replace(" --password x", ""), program)[0] != expected


def test_a_text_that_nothing_fits_is_the_same_object() -> None:
    """Expressions of one's own make no copy of the texts that they don't fit."""
    text = "run acme_live_short PIN 12"
    assert REDACTOR.redact(text)[0] is text


@pytest.mark.timeout(120)
@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["ab", " ", "[", "]", MARK, "d] [", "é", "--password x"]), max_size=12).map("".join))
def test_redacting_twice_is_redacting_once(text: str) -> None:
    """Even expressions that fit the marks themselves end, and leave whole marks."""
    once, _ = BROAD.redact(text)
    assert BROAD.redact(once)[0] == once
    assert "ab" not in once
