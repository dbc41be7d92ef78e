"""A clock that is set, and a server that is away for a day: workloads keep what is valid, and it is said until when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest

from attestor.client.workload_api import WorkloadApiClient
from ca.errors import Unavailable
from fakes.workload import Agent, workload_api

HOUR = timedelta(hours=1)
STABLE = 61.0


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """A node agent that listens."""
    async with workload_api(tmp_path) as one:
        yield one


@pytest.fixture
async def client(agent: Agent) -> AsyncIterator[WorkloadApiClient]:
    """A client in this very process."""
    async with WorkloadApiClient(agent.address) as one:
        yield one


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["an hour ahead", "an hour back"])
async def test_a_step_alone_changes_nothing(agent: Agent, client: WorkloadApiClient, step: timedelta) -> None:
    """T 16: until it has held for a minute nothing is dropped, replaced or sent."""
    async with aclosing(client.watch_x509()) as updates:
        await anext(updates)
        agent.clock.step_wall(step)
        await agent.tick()
        assert len(agent.issuer.signed) == 1
        assert len((await client.fetch_x509()).svids) == 1
        agent.clock.step_wall(-step)
        await agent.clock.advance(STABLE)
        await agent.tick()
        assert len(agent.issuer.signed) == 1


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["an hour ahead", "an hour back"])
async def test_a_step_that_stays_brings_new_credentials(
    agent: Agent, client: WorkloadApiClient, step: timedelta
) -> None:
    """Those it made old, and those it made early: a peer with the new time would have neither."""
    async with aclosing(client.watch_x509()) as updates, aclosing(client.watch_wit()) as wits:
        await anext(updates)
        await anext(wits)
        (token,) = await client.fetch_jwt(["a"])
        agent.clock.step_wall(step)
        await agent.clock.advance(STABLE)
        now = agent.clock.now()
        await agent.tick()
        svid = (await anext(updates)).svids[0]
        assert svid.not_before <= now < svid.not_after
        (wit,) = await anext(wits)
        assert now < wit.expires_at <= now + HOUR
        (fresh,) = await client.fetch_jwt(["a"])
        assert fresh.token != token.token
        assert now < fresh.expires_at <= now + HOUR


async def test_while_the_server_is_away_an_early_leaf_goes_on_being_shown(
    agent: Agent, client: WorkloadApiClient
) -> None:
    """A better one can't be had, and most peers' clocks were not set."""
    async with aclosing(client.watch_x509()) as updates:
        await anext(updates)
        agent.issuer.down = True
        agent.clock.step_wall(-HOUR)
        await agent.clock.advance(STABLE)
        with pytest.raises(Unavailable):
            await agent.tick()
        assert len((await client.fetch_x509()).svids) == 1


async def test_a_day_without_the_server(agent: Agent, client: WorkloadApiClient) -> None:
    """Held streams stay, new calls are answered, until the last second; then both say Unavailable, and it recovers."""
    agent.issuer.ttl = timedelta(hours=24)
    async with aclosing(client.watch_x509()) as updates:
        first = await anext(updates)
        agent.issuer.down = True
        for _ in range(23):
            await agent.clock.advance(3600)
            await ticked(agent)
            assert (await client.fetch_x509()).svids[0].chain == first.svids[0].chain
        (held,) = agent.holdings
        await agent.clock.until(lambda: held.users == 1)
        await agent.clock.advance(3600)
        await ticked(agent)
        with pytest.raises(Unavailable, match="expired"):
            await anext(updates)
    with pytest.raises(Unavailable):
        await client.fetch_x509()
    agent.issuer.down = False
    assert (await client.fetch_x509()).svids[0].instance == first.svids[0].instance


async def ticked(agent: Agent) -> None:
    """What the loop does; that the server is away is no news."""
    try:
        await agent.tick()
    except Unavailable:
        return
