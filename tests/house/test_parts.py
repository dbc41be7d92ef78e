"""The parts of a run are all of it."""

from __future__ import annotations

from house.parts import parts
from house.tree import ROOT


def test_every_file_of_tests_is_in_one_part() -> None:
    """Whatever folder is new."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    found = [file for part in parts() for folder in part for file in folder.rglob("test_*.py")]
    assert sorted(found) == files
    assert len(set(found)) == len(found)
