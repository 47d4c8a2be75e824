"""Generated credentials against redaction: none may survive, in any form."""

from collections import Counter

import pytest

from keytrail.decode.redact import Redactor
from support.canaries import NAMED, RECOGNISABLE, generate


@pytest.mark.parametrize("count", [2_000, pytest.param(5_000, marks=pytest.mark.long)])
def test_no_generated_credential_survives(count: int) -> None:
    """Of credentials of over 40 shapes, plain, encoded, in URLs, in JSON and split by quotes, no form is left."""
    redactor = Redactor()
    canaries = generate(seed=20261122, count=count)
    assert len({canary.shape for canary in canaries}) == len(RECOGNISABLE) + len(NAMED) > 40
    survivors: Counter[str] = Counter()
    for canary in canaries:
        redacted, names = redactor.redact(canary.text)
        if not names or any(form in redacted for form in canary.forms()):
            survivors[f"{canary.shape}, {canary.wrapping}"] += 1
    assert not survivors


def test_nor_does_a_part_of_one() -> None:
    """No eight characters of a credential, and nothing that redaction would still change, are left behind."""
    redactor = Redactor()
    for canary in generate(seed=7, count=1_000):
        redacted, _ = redactor.redact(canary.text)
        template = canary.text.replace(canary.value, "")
        pieces = {canary.value[start : start + 8] for start in range(len(canary.value) - 7)}
        assert not [piece for piece in pieces if piece in redacted and piece not in template], canary
        assert redactor.redact(redacted)[0] == redacted


def test_the_generator_is_repeatable_and_its_texts_carry_the_value() -> None:
    """The same seed gives the same canaries, and every text holds one of the forms or pieces that tests look for."""
    canaries = generate(seed=3, count=300)
    assert canaries == generate(seed=3, count=300)
    hidden = {
        "double-quotes",
        "single-quotes",
        "option-split",
        "option-split-single",
        "base64-twice",
        "escaped",
        "url-encoded",
        "basic",
    }
    for canary in canaries:
        assert canary.wrapping in hidden or any(form in canary.text for form in canary.forms()), canary
