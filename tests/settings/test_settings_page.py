"""The page about settings says what the settings are."""

from pathlib import Path

from keytrail.settings_page import page

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_not_stale() -> None:
    """Renewing it would change nothing; `python -m keytrail.settings_page docs/settings.md` renews it."""
    assert PAGE.read_text("utf-8") == page()
