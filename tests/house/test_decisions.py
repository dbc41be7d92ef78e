"""Pages of decisions: one number each, the same in the name and in the title."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

PAGES = sorted((Path(__file__).parents[2] / "docs" / "decisions").glob("*.md"))


def test_each_number_is_given_once() -> None:
    """Two people may have taken the next free one at the same moment."""
    given = Counter(page.name[:4] for page in PAGES)
    assert given
    assert {number for number, times in given.items() if times > 1} == set()


def test_a_page_calls_itself_by_its_number() -> None:
    """So that a reference by number finds it."""
    assert [page.name for page in PAGES if not page.read_text().startswith(f"# {page.name[:4]} ")] == []
