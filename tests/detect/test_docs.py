"""The page about the rule language says what the language is."""

from pathlib import Path

from keytrail.detect import docs

PAGE = Path(__file__).parents[2] / "docs" / "rule-language.md"


def test_the_page_is_not_stale() -> None:
    """Renewing the tables would change nothing; `python -m keytrail.detect.docs docs/rule-language.md` renews them."""
    text = PAGE.read_text("utf-8")
    assert docs.renewed(text) == text
