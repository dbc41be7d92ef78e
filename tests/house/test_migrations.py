"""Migrations are numbered without a gap or a double, in every package that has any."""

from __future__ import annotations

from pathlib import Path

import pytest

from house.tree import ROOT, shown

FOLDERS = sorted({path.parent for top in ("ca", "attestor", "broker") for path in (ROOT / top).rglob("*.sql")})


@pytest.mark.parametrize("folder", FOLDERS, ids=shown)
def test_numbers_are_dense(folder: Path) -> None:
    """A store is brought up to date one number after the other."""
    numbers = [int(path.name[:4]) for path in sorted(folder.glob("*.sql"))]
    assert numbers == list(range(1, len(numbers) + 1))
