"""What the README, the guides and the reports link to is there: files, and headings in them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "reports").rglob("*.md"))
# Made by a run, and no part of a clone.
MADE = ("reports/latest",)


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings: lower case, words, hyphens for spaces."""
    headings = [
        line.lstrip("#").strip() for line in page.read_text().splitlines() if line[:1] == "#"
    ]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        file, _, anchor = link.partition("#")
        if link.startswith(("http:", "https:")) or file.startswith(MADE):
            continue
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken
