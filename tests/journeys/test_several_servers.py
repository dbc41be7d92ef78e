"""Two attestor servers over one PostgreSQL: either may be killed at any moment, and no workload notices.

Leaves live for eight seconds here, so signatures are asked for all the time.
"""

from __future__ import annotations

import asyncio
import signal

import pytest

from journeys.servers import NAMES, Several, several


async def _goes_on(found: Several, times: int) -> None:
    """Each stream is shown further leaves; none was ever distrusted, none has expired."""
    await found.renewed(times)
    assert found.distrusted == []
    assert found.expired == []


@pytest.mark.parametrize("victim", NAMES)
async def test_either_is_killed_while_leaves_are_signed(victim: str) -> None:
    """The streams of its node go on at the other; new processes get theirs; it comes back with its own keys."""
    other = next(name for name in NAMES if name != victim)
    async with several() as found:
        key = await found.active(victim, "root")
        await found.servers[victim].end(signal.SIGKILL)
        await _goes_on(found, 2)
        for node in NAMES:
            assert await found.fetch(node)
        await found.start(victim)
        await _goes_on(found, 1)
        assert await found.active(victim, "root") == key
        await found.servers[other].end(signal.SIGKILL)  # now the one that came back has to do everything
        await _goes_on(found, 2)


@pytest.mark.parametrize("victim", NAMES)
async def test_either_is_killed_during_a_forced_rotation(victim: str) -> None:
    """The new root is in every bundle before it signs, and a rotation that was cut in two is finished later."""
    other = next(name for name in NAMES if name != victim)
    async with several() as found:
        before = await found.active("one", "root")
        await found.at("one", "ca", "rotate", "root")
        await found.servers[victim].end(signal.SIGKILL)
        await _goes_on(found, 2)
        assert await found.fetch(victim)
        await found.start(victim)
        async with asyncio.timeout(60):
            while await found.active("one", "root") == before:
                await _goes_on(found, 1)
        await _goes_on(found, 2)
        await found.servers[other].end(signal.SIGKILL)
        await _goes_on(found, 2)
