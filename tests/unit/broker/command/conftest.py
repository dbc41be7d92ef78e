"""A broker and a Workload API for commands to meet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.place import Place
from fakes.place import place as standing


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """Both, for as long as the test runs."""
    async with standing(tmp_path) as found:
        yield found
