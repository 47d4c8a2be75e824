"""What the documentation shows to users is taken as it stands there."""

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from keytrail.domain.rules import DetectionRule
from keytrail.manifests import load_folder
from support.commands import keytrail, replay

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/identities.md", "docs/rule-language.md", "docs/manifests.md", "docs/tour.md")
_BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def shown(page: str, folder: Path) -> Path:
    """Write the whole manifests of a page into a folder, each in a file of its own."""
    blocks = _BLOCK.findall((ROOT / page).read_text("utf-8"))
    for number, block in enumerate(one for one in blocks if "\nspec:" in one):
        if "apiVersion: keytrail.io/" in block:
            (folder / f"{number}.yaml").write_text(block, encoding="utf-8")
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_manifests_are_taken(tmp_path: Path, page: str) -> None:
    """Each manifest is without a mistake; each rule can run, and passes the tests that it has."""
    manifests = load_folder(shown(page, tmp_path))
    if any(isinstance(one, DetectionRule) for one in manifests.resources):
        checked = keytrail("rules", "check", tmp_path)
        assert (checked.code, "0 problems" in checked.out) == (0, True), checked.out
        tested = keytrail("rules", "test", tmp_path)
        assert (tested.code, ", 0 failed" in tested.out, "has no test" in tested.out) == (0, True, False), tested.out


def test_the_mapping_of_the_recorded_cluster(tmp_path: Path) -> None:
    """The findings that docs/identities.md shows are those that its mapping makes of the recorded cluster."""
    page = (ROOT / "docs" / "identities.md").read_text("utf-8")
    rows = Counter(re.findall(r"^\| (\w+) \| (identity-[a-z-]+) \| (.+) \|$", page, re.MULTILINE))
    assert len(rows) == 3
    config, rules = tmp_path / "config", tmp_path / "rules"
    config.mkdir()
    rules.mkdir()
    for _, rule, _ in rows:  # only these: all would take seconds to compile
        shutil.copy(ROOT / "policies" / "rules" / f"{rule}.yaml", rules)
    shown("docs/identities.md", config)
    found = replay("kubernetes", "--config", config, "--rules", rules, "--output", "findings").records
    made = Counter((one["severity"], one["rule"], one["message"]) for one in found)
    assert rows.keys() <= made.keys()


def test_counts() -> None:
    """README counts rules and policies as the made pages do."""
    readme = (ROOT / "README.md").read_text("utf-8")
    shipped, stable = re.findall(
        r"(\d+) rules are shipped\. The (\d+) stable", (ROOT / "docs" / "rules.md").read_text()
    )[0]
    assert f"{shipped} rules, {stable} of them on" in readme
    assert f"each of the {len(list((ROOT / 'policies' / 'tracing').glob('*.yaml')))} shipped TracingPolicies" in readme


def test_links() -> None:
    """Every relative link of a page leads to a file, and to a heading of it where it names one."""
    pages = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("*/README.md"),
        *ROOT.glob("deploy/helm/*/README.md"),
    ]
    broken = [f"{page.relative_to(ROOT)}: {link}" for page in pages for link in _links(page) if not _leads(page, link)]
    assert not broken


def _links(page: Path) -> list[str]:
    text = re.sub(r"(?ms)^ *```.*?^ *```$|`[^`\n]*`", "", page.read_text("utf-8"))
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


def _leads(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    if not anchor or target.suffix != ".md":
        return target.exists()
    headings = re.findall(r"(?m)^#+ (.*)$", target.read_text("utf-8")) if target.exists() else []
    return anchor in {re.sub(r"[^\w\- ]", "", one.strip().lower()).replace(" ", "-") for one in headings}
