"""The page about the fields of manifests says what the shapes are."""

from pathlib import Path

from keytrail.domain.manifest_page import page

PAGE = Path(__file__).parents[2] / "docs" / "manifests.md"


def test_the_page_is_not_stale() -> None:
    """Renewing it would change nothing; `python -m keytrail.domain.manifest_page docs/manifests.md` renews it."""
    assert PAGE.read_text("utf-8") == page()


def test_no_cell_is_broken() -> None:
    """Each row has its four cells, whatever stands in descriptions and examples."""
    rows = [line for line in page().splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {5}
