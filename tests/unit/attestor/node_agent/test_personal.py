"""Identities of one process besides those of the rules, such as a task's: on the same stream, never a moment longer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from attestor.client.errors import NoIdentity
from attestor.client.workload_api import WorkloadApiClient
from attestor.node_agent.renewal import MOST_PERSONAL
from attestor.wire.attestation import Attestation, Identity
from ca.errors import Problem
from fakes.issuer import identity
from fakes.workload import Agent, workload_api


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


def of_task(agent: Agent, name: str, life: timedelta) -> Identity:
    """What the server gives for a task."""
    return replace(identity(agent.issuer.authority.id(f"/task/{name}"), name), ends_at=agent.clock.now() + life)


def give(agent: Agent, *tasks: Identity, version: str) -> None:
    """The server's word for the one process there is."""
    agent.issuer.given = lambda _: (*tasks, identity(agent.issuer.authority.id("/agent")))
    (held,) = agent.holdings
    agent.issuer.personal = {held.instance: version}


@pytest.mark.clause("WL-4", "WL-6", "WL-17")
async def test_it_comes_on_the_open_stream_and_goes_with_the_servers_word(
    agent: Agent, client: WorkloadApiClient
) -> None:
    """Behind the rules' identities, with the task as its hint; another version is asked for, the same is not."""
    agent.issuer.ttl = timedelta(minutes=5)
    async with aclosing(client.watch_x509()) as updates:
        await anext(updates)
        give(agent, of_task(agent, "t1", timedelta(minutes=10)), version="1")
        await agent.tick()
        second = await anext(updates)
        assert [(one.id.path, one.hint) for one in second.svids] == [("/agent", ""), ("/task/t1", "t1")]
        asked = len(agent.issuer.resolved)
        await agent.tick()
        assert len(agent.issuer.resolved) == asked
        agent.issuer.given, agent.issuer.personal = (lambda _: (identity(agent.issuer.authority.id("/agent")),)), {}
        await agent.tick()
        third = await anext(updates)
        assert [one.id.path for one in third.svids] == ["/agent"]
        assert third.svids[0].chain == second.svids[0].chain


async def test_it_is_dropped_when_its_end_has_come_whatever_the_server_says(
    agent: Agent, client: WorkloadApiClient
) -> None:
    """The server is out of reach and the certificate would be valid for longer: the end is the end."""
    agent.issuer.ttl = timedelta(minutes=2)
    async with aclosing(client.watch_x509()) as updates:
        await anext(updates)
        give(agent, of_task(agent, "t1", timedelta(minutes=2)), version="1")
        await agent.tick()
        await anext(updates)
        agent.issuer.down = True
        await agent.clock.advance(119)
        with pytest.raises(Problem):
            await agent.tick()
        agent.issuer.down, agent.issuer.ttl = False, timedelta(hours=1)
        await agent.clock.advance(1)
        await agent.tick()
        assert [one.id.path for one in (await anext(updates)).svids] == ["/agent"]
        with pytest.raises(NoIdentity):
            await client.fetch_jwt(["a"], agent.issuer.authority.id("/task/t1"))


async def test_a_certificate_that_outlives_it_is_not_handed_over(agent: Agent, client: WorkloadApiClient) -> None:
    """A server that signs longer than the task lives is not believed."""
    async with aclosing(client.watch_x509()) as updates:
        await anext(updates)
        give(agent, of_task(agent, "t1", timedelta(minutes=2)), version="1")
        await agent.tick()
        (held,) = agent.holdings
        assert [one.path for one in held.leaves] == ["/agent"]


@pytest.mark.clause("WL-17")
async def test_no_more_than_so_many_are_shown(agent: Agent, client: WorkloadApiClient) -> None:
    """64, and the default identity stays the first however many there are."""
    agent.issuer.ttl = timedelta(minutes=1)
    async with aclosing(client.watch_x509()) as updates:
        await anext(updates)
        tasks = [of_task(agent, f"t{number}", timedelta(hours=1)) for number in range(MOST_PERSONAL + 6)]
        give(agent, *tasks, version="1")
        await agent.tick()
        svids = (await anext(updates)).svids
        assert [one.id.path for one in svids] == ["/agent", *(f"/task/t{number}" for number in range(MOST_PERSONAL))]


async def test_the_next_of_its_kind_does_not_get_it(agent: Agent, client: WorkloadApiClient, tmp_path: Path) -> None:
    """What one process has for itself is never remembered for others that look the same."""
    from attestor.node_agent.peer import peer_of
    from fakes.caller import caller

    agent.issuer.ttl = timedelta(minutes=5)
    own = await client.fetch_x509()
    task = of_task(agent, "t1", timedelta(hours=1))
    plain = identity(agent.issuer.authority.id("/agent"))

    def given(asked: Attestation) -> tuple[Identity, ...]:
        return (plain, task) if asked.instance == own.svids[0].instance else (plain,)

    agent.issuer.given, agent.issuer.personal = given, {str(own.svids[0].instance): "1"}
    assert len((await client.fetch_x509()).svids) == 2
    with caller(tmp_path) as other:
        async with agent.renewal.admitted(peer_of(other.connection)) as held:
            assert [one.id.path for one in held.identities] == ["/agent"]
    assert len((await client.fetch_x509()).svids) == 2


async def test_its_tokens_are_short(agent: Agent, client: WorkloadApiClient) -> None:
    """Traps 34: 60 seconds at most and never beyond its end; a longer one is not handed over."""
    agent.issuer.ttl = timedelta(minutes=5)
    await client.fetch_x509()
    give(agent, of_task(agent, "t1", timedelta(minutes=10)), version="1")
    task = agent.issuer.authority.id("/task/t1")
    with pytest.raises(Problem):
        await client.fetch_jwt(["a"], task)
    agent.issuer.token_ttl = timedelta(seconds=60)
    (first,) = await client.fetch_jwt(["a"], task)
    assert (await client.fetch_jwt(["a"], task))[0].token == first.token
    await agent.clock.advance(31)
    assert (await client.fetch_jwt(["a"], task))[0].token != first.token
    await agent.clock.advance(9 * 60)
    with pytest.raises(Problem):
        await client.fetch_jwt(["a"], task)


async def test_another_instance_s_version_concerns_nobody_else(agent: Agent, client: WorkloadApiClient) -> None:
    """Nobody is asked for."""
    async with aclosing(client.watch_x509()) as updates:
        await anext(updates)
        asked = len(agent.issuer.resolved)
        agent.issuer.personal = {"0" * 32: "7"}
        await agent.tick()
        assert len(agent.issuer.resolved) == asked
