"""Traps 28: a pooler takes away what was listened for and prepared; whoever stands there is found out at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from ca.runtime.database import open_database
from ca.runtime.postgres_session import Unsafe
from fakes.stores import postgres_address, through
from fakes.wire_tap import tapped
from servers.postgres import postgres


async def test_a_pooler_is_refused_with_a_sentence(tmp_path: Path) -> None:
    """Traps 28: what is listened for or prepared on one connection must be there for the next statement."""
    address = await postgres_address(tmp_path)
    async with postgres() as server, tapped(server.host, server.port) as tap:
        tap.pooling = True
        with pytest.raises(Unsafe, match="behind a pooler"):
            async with open_database(through(address, server.port, tap)):
                pass
