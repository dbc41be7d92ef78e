"""WIT-SVIDs over the Workload API: a key made here, named by the server, replaced in time, nothing without a proof."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from attestor.client.errors import NoIdentity, Unsupported
from attestor.client.workload_api import WorkloadApiClient
from attestor.errors import NotEntitled
from attestor.node_agent.workload_api import Profiles
from attestor.wire import wit
from ca.errors import Problem, Unavailable
from ca.spiffe import jose, proof
from ca.spiffe.bundle import BundleSet
from ca.spiffe.proof import ReplayCache
from ca.spiffe.witsvid import WitSvid
from fakes.issuer import identity
from fakes.pki import make_key
from fakes.raw_workload import opened
from fakes.wits import HERE
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


def two(agent: Agent) -> None:
    """The process has two identities of one hint."""
    agent.issuer.given = lambda _: tuple(identity(agent.issuer.authority.id(path), "same") for path in ("/a", "/b"))


async def first_of(agent: Agent, path: str, **request: str) -> Any:
    """The first message of a stream."""
    async with opened(agent, path, (), **request) as stream:
        return await stream.next()


@pytest.mark.clause("WL-19")
async def test_a_token_with_its_key_proves_who_it_is(agent: Agent, client: WorkloadApiClient) -> None:
    """End to end: fetched, shown with a proof, verified by the bundle of the same API; it names the instance."""
    (svid,) = await client.fetch_wit()
    bundles, now = await client.fetch_wit_bundles(), agent.clock.now()
    shown = proof.mint(svid, HERE, now)
    peer = proof.verify(svid.token, shown, audiences=[HERE], bundles=bundles, now=now, seen=ReplayCache())
    assert peer.id == svid.id == agent.issuer.authority.id("/agent")
    (held,) = agent.holdings
    assert jose.instance_of(jose.take_apart(svid.token, "a token")[1]) == held.instance


@pytest.mark.clause("WL-12", "WL-15", "WL-20")
async def test_the_bundles_hold_only_keys_of_their_kind(agent: Agent, client: WorkloadApiClient) -> None:
    """WL-12, WL-13, WL-15: WIT keys here, JWT keys there, nothing of X.509 in either; foreign ones by federation."""
    (own,) = list(await client.fetch_wit_bundles())
    assert (set(own.wit_authorities), dict(own.jwt_authorities), own.x509_authorities) == ({"wit-1"}, {}, ())
    (jwt,) = list(await client.fetch_jwt_bundles())
    assert (set(jwt.jwt_authorities), dict(jwt.wit_authorities)) == ({"jwt-1"}, {})


@pytest.mark.clause("WL-19")
async def test_one_of_each_identity_or_only_of_the_one_named(agent: Agent, client: WorkloadApiClient) -> None:
    """In the order of the identities, no hint twice; another's is refused, what is no SPIFFE ID is malformed."""
    two(agent)
    assert [(one.id.path, one.hint) for one in await client.fetch_wit()] == [("/a", "same"), ("/b", "")]
    assert [one.id.path for one in await client.fetch_wit(agent.issuer.authority.id("/b"))] == ["/b"]
    with pytest.raises(NoIdentity):
        await client.fetch_wit(agent.issuer.authority.id("/c"))
    with pytest.raises(GRPCError) as refused:
        await first_of(agent, wit.FETCH_WIT_SVID, spiffe_id="spiffe://Example.org/a")
    assert refused.value.status is Status.INVALID_ARGUMENT


async def test_every_process_has_its_own_key_and_asks_once(agent: Agent, client: WorkloadApiClient) -> None:
    """The same token for the same process while it is fresh."""
    (first,) = await client.fetch_wit()
    (second,) = await client.fetch_wit()
    assert first.token == second.token
    assert agent.issuer.wits == 1


@pytest.mark.clause("WL-4", "WL-6")
async def test_a_new_one_is_pushed_at_half_its_life(agent: Agent, client: WorkloadApiClient) -> None:
    """With another key; nothing is sent before."""
    async with aclosing(client.watch_wit()) as updates:
        (first,) = await anext(updates)
        await agent.clock.advance(149)
        await agent.tick()
        await agent.clock.settle()
        assert agent.issuer.wits == 1
        await agent.clock.advance(2)
        await agent.tick()
        (second,) = await anext(updates)
    assert second.expires_at > first.expires_at
    assert second.private_key.public_key() != first.private_key.public_key()


async def test_a_withdrawn_key_s_tokens_are_replaced_now(agent: Agent, client: WorkloadApiClient) -> None:
    """Named by its key id, as the server names certificates' authorities."""
    key_id = bytes.fromhex("ab" * 20)
    agent.issuer.wit.key_id = key_id.hex()
    agent.issuer.bundles = BundleSet.of(agent.issuer.wit.bundle())
    async with aclosing(client.watch_wit()) as updates:
        (first,) = await anext(updates)
        agent.issuer.wit.key_id, agent.issuer.wit.key = "cd" * 20, make_key()
        agent.issuer.withdrawn = frozenset({key_id})
        await agent.tick()
        (second,) = await anext(updates)
    assert second.token != first.token


async def test_while_the_server_is_away_the_old_one_is_served_until_it_expires(
    agent: Agent, client: WorkloadApiClient
) -> None:
    """Then the stream ends with Unavailable: there is nothing left of it."""
    async with aclosing(client.watch_wit()) as updates:
        (first,) = await anext(updates)
        agent.issuer.down = True
        await agent.clock.advance(200)
        await agent.tick()
        assert (await client.fetch_wit())[0].token == first.token
        await agent.clock.advance(101)
        await agent.tick()
        with pytest.raises(Unavailable):
            await anext(updates)


async def test_one_that_could_not_be_had_comes_later(agent: Agent, client: WorkloadApiClient) -> None:
    """The stream begins with what there is; one the server refuses is not asked for again and again."""
    two(agent)
    honest, asked, refusal = agent.issuer.sign_wit, [], Unavailable("the store is away")

    async def half(item: Any) -> str:
        asked.append(item.id.path)
        if item.id.path == "/b":
            raise refusal
        return await honest(item)

    agent.issuer.sign_wit = half  # type: ignore[method-assign]
    async with aclosing(client.watch_wit()) as updates:
        assert [one.id.path for one in await anext(updates)] == ["/a"]
        refusal = NotEntitled("not this one")  # type: ignore[assignment]
        await agent.tick()
        await agent.clock.until(lambda: asked == ["/a", "/b", "/b"])
        for _ in range(3):
            await agent.tick()
            await agent.clock.settle()
        assert asked == ["/a", "/b", "/b"]
    refusal, agent.issuer.rules_version = Unavailable("again"), "2"
    async with aclosing(client.watch_wit()) as updates:
        assert [one.id.path for one in await anext(updates)] == ["/a"]
        agent.issuer.sign_wit = honest  # type: ignore[method-assign]
        await agent.tick()
        assert [one.id.path for one in await anext(updates)] == ["/a", "/b"]


@pytest.mark.clause("WL-11")
async def test_a_withdrawn_identity_takes_its_token_along(agent: Agent, client: WorkloadApiClient) -> None:
    """WL-11: the other stays; with the last the stream ends with PermissionDenied."""
    two(agent)
    async with aclosing(client.watch_wit()) as updates:
        assert len(await anext(updates)) == 2
        agent.issuer.given, agent.issuer.rules_version = (lambda _: (identity(agent.issuer.authority.id("/b")),)), "2"
        await agent.tick()
        assert [one.id.path for one in await anext(updates)] == ["/b"]
        agent.issuer.given, agent.issuer.rules_version = (lambda _: ()), "3"
        await agent.tick()
        with pytest.raises(NoIdentity):
            await anext(updates)


async def test_a_task_s_token_ends_with_the_task(agent: Agent, client: WorkloadApiClient) -> None:
    """A longer one is not handed over, and at its end it is gone."""
    agent.issuer.ttl = timedelta(minutes=1)
    ends_at = agent.clock.now() + timedelta(minutes=2)
    plain, task = (identity(agent.issuer.authority.id(path)) for path in ("/agent", "/task/t1"))
    agent.issuer.given = lambda _: (plain, replace(task, ends_at=ends_at))
    async with aclosing(client.watch_wit()) as updates:
        assert [one.id.path for one in await anext(updates)] == ["/agent"]
    agent.issuer.token_ttl = timedelta(minutes=2)
    async with aclosing(client.watch_wit()) as updates:
        assert [one.id.path for one in await anext(updates)] == ["/agent", "/task/t1"]
        await agent.clock.advance(120)
        await agent.tick()
        assert [one.id.path for one in await anext(updates)] == ["/agent"]


async def test_a_server_that_signs_something_else_is_not_believed(agent: Agent, client: WorkloadApiClient) -> None:
    """Another name, another key, another instance, a bearer token: the process gets nothing."""
    honest = agent.issuer.sign_wit

    async def other_key(_: Any) -> str:
        return agent.issuer.wit.token(now=agent.clock.now())

    async def other_name(item: Any) -> str:
        agent.issuer.given = lambda _: (identity(agent.issuer.authority.id("/x")),)
        return await honest(replace(item, id=agent.issuer.authority.id("/x")))

    async def other_instance(item: Any) -> str:
        return await honest(replace(item, attestation=replace(item.attestation, instance="0" * 32)))

    async def bearer(_: Any) -> str:
        return agent.issuer.authority.token(now=agent.clock.now())

    for crooked in (other_key, other_instance, bearer, other_name):
        agent.issuer.sign_wit = crooked  # type: ignore[method-assign, assignment]
        with pytest.raises(Problem):
            await client.fetch_wit()


@pytest.mark.clause("WL-1")
async def test_a_server_without_wit_and_a_node_agent_without_it(tmp_path: Path) -> None:
    """WL-1: both are Unimplemented to the caller, and the rest goes on."""
    async with workload_api(tmp_path) as agent, WorkloadApiClient(agent.address) as client:
        agent.issuer.signs_no_wit = True
        with pytest.raises(Unsupported):
            await client.fetch_wit()
        assert (await client.fetch_x509()).svids
    (tmp_path / "other").mkdir()
    async with workload_api(tmp_path / "other", profiles=Profiles(wit=False)) as agent:
        for path in (wit.FETCH_WIT_SVID, wit.FETCH_WIT_BUNDLES):
            with pytest.raises(GRPCError) as refused:
                await first_of(agent, path)
            assert refused.value.status is Status.UNIMPLEMENTED


async def test_the_key_is_not_in_what_is_logged(agent: Agent, client: WorkloadApiClient) -> None:
    """Neither it nor the token stands in a repr of what is held."""
    (svid,) = await client.fetch_wit()
    (held,) = agent.holdings
    (kept,) = held.wits.values()
    shown = repr(held) + repr(kept) + repr(svid)
    assert svid.token not in shown
    assert WitSvid.parse(svid.token, kept.key).private_key.private_numbers() == svid.private_key.private_numbers()
    assert kept.key not in shown
