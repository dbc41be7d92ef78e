"""Sources: always the current SVID, dropped when withdrawn, kept when the issuer is merely away."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from attestor.client.errors import NoIdentity, Unreachable
from attestor.client.source import JwtSource, X509Source
from attestor.client.workload_api import SOCKET_VARIABLE, WorkloadApiClient, endpoint_of
from ca.errors import Malformed, Problem, Unavailable
from ca.spiffe.endpoint import UnixEndpoint
from ca.spiffe.x509svid import Revoked, Untrusted, verify
from fakes.clock import ManualClock
from fakes.issuer import identity
from fakes.pki import der_chain
from fakes.revocations import make_list
from fakes.workload import START, issuer_at, workload_api


async def test_a_source_follows_rotations_and_tells_of_them(tmp_path: Path) -> None:
    """By callback and by iteration; each SVID is whole."""
    async with workload_api(tmp_path) as agent, X509Source.open(agent.address, agent.clock) as source:
        told: list[int] = []
        end = source.subscribe(lambda: told.append(source.svid.chain[0].serial_number))
        changes = source.changed()
        await anext(changes)
        first = source.svid
        await agent.clock.advance(31 * 60)
        await agent.tick()
        await anext(changes)
        assert source.svid.chain[0].serial_number != first.chain[0].serial_number
        assert told == [source.svid.chain[0].serial_number]
        assert source.svid.instance == first.instance
        end()
        end()


@pytest.mark.clause("WL-7", "WL-11")
async def test_a_withdrawn_identity_is_dropped_and_comes_back(tmp_path: Path) -> None:
    """WL-11: not used any more, bundles neither; when there is one again it is taken up without a word."""
    async with workload_api(tmp_path) as agent, X509Source.open(agent.address, agent.clock) as source:
        agent.issuer.given, agent.issuer.rules_version = (lambda _: ()), "2"
        await agent.tick()
        await agent.clock.until(lambda: not source.svids)
        with pytest.raises(NoIdentity):
            _ = source.svid
        assert len(source.bundles) == 0
        agent.issuer.given = lambda _: (identity(agent.issuer.authority.id("/back")),)
        agent.issuer.rules_version = "3"
        await agent.clock.until(lambda: bool(source.svids), step=0.1)
        assert source.svid.id.path == "/back"


@pytest.mark.clause("WL-7")
async def test_what_was_taken_back_comes_with_the_identity(tmp_path: Path) -> None:
    """An open connection's peer is good until a list names it, and the lists are not read again while they stay."""
    async with workload_api(tmp_path) as agent, X509Source.open(agent.address, agent.clock) as source:
        authority = agent.issuer.authority
        leaf = authority.leaf("/peer", now=agent.clock.now())
        peer = verify(der_chain(leaf.chain), source.bundles, agent.clock.now())
        assert len(source.revocations) == 0
        source.still_good(peer, agent.clock.now())
        agent.issuer.revocation_lists = (make_list(authority, [peer.serial], now=agent.clock.now()),)
        await agent.clock.advance(5)
        await agent.tick()
        await agent.clock.until(lambda: len(source.revocations) == 1, step=0.1)
        with pytest.raises(Revoked, match="/peer"):
            source.still_good(peer, agent.clock.now())
        source.still_good(verify(der_chain(authority.leaf("/peer").chain), source.bundles, START), START)
        lists, first = source.revocations, source.svid
        await agent.clock.advance(31 * 60)
        await agent.tick()
        await agent.clock.until(lambda: source.svid is not first, step=0.1)
        assert source.revocations is lists


async def test_a_peer_that_expired_or_lost_its_authority_is_good_no_more(tmp_path: Path) -> None:
    """Although its connection stays open; nobody is once we have no identity ourselves."""
    async with workload_api(tmp_path) as agent, X509Source.open(agent.address, agent.clock) as source:
        leaf = agent.issuer.authority.leaf("/peer", now=agent.clock.now())
        peer = verify(der_chain(leaf.chain), source.bundles, agent.clock.now())
        with pytest.raises(Untrusted, match="expired"):
            source.still_good(peer, peer.not_after + timedelta(seconds=1))
        agent.issuer.given, agent.issuer.rules_version = (lambda _: ()), "2"
        await agent.tick()
        await agent.clock.until(lambda: not source.svids)
        with pytest.raises(Untrusted, match="no longer"):
            source.still_good(peer, agent.clock.now())


@pytest.mark.clause("WL-3")
async def test_an_issuer_that_is_away_takes_nothing(tmp_path: Path) -> None:
    """What is held stays; the source comes back by itself, and asks less and less often meanwhile."""
    clock = ManualClock(START)
    issuer = issuer_at(clock)
    waited: list[Problem] = []
    async with AsyncExitStack() as stack:
        async with workload_api(tmp_path, issuer=issuer, clock=clock) as agent:
            source = await stack.enter_async_context(X509Source.open(agent.address, clock, waiting=waited.append))
            before = source.svid
        for _ in range(40):
            await clock.advance(1)
            await asyncio.get_running_loop().run_in_executor(None, int)
        assert source.svid is before
        assert 3 < len(waited) < 20
        async with workload_api(tmp_path, issuer=issuer, clock=clock):
            await clock.until(lambda: source.svid is not before, step=0.1)


async def test_opening_waits_for_the_first_identity_and_says_for_what(tmp_path: Path) -> None:
    """Started before the node agent, and before its rule: both are waited for, and named."""
    clock = ManualClock(START)
    issuer = issuer_at(clock)
    issuer.given = lambda _: ()
    waited: list[Problem] = []

    async def opened() -> str:
        address = f"unix://{tmp_path / 'workload.sock'}"
        async with X509Source.open(address, clock, waiting=waited.append) as source:
            return source.svid.id.path

    async with asyncio.TaskGroup() as group:
        opening = group.create_task(opened())
        await clock.until(lambda: bool(waited), step=0.1)
        assert isinstance(waited[0], Unreachable)
        async with workload_api(tmp_path, issuer=issuer, clock=clock):
            await clock.until(lambda: any(isinstance(one, NoIdentity) for one in waited), step=0.1)
            issuer.given, issuer.rules_version = (lambda _: (identity(issuer.authority.id("/late")),)), "2"
            await clock.until(opening.done, step=0.1)
    assert opening.result() == "/late"


async def test_an_error_in_the_body_leaves_as_itself(tmp_path: Path) -> None:
    """Not in a group: whoever opens a source need not know what runs beside it."""
    async with workload_api(tmp_path) as agent:
        with pytest.raises(KeyError, match="mine"):
            async with X509Source.open(agent.address, agent.clock):
                raise KeyError("mine")


async def test_a_token_is_fetched_anew_at_half_its_life(tmp_path: Path) -> None:
    """Per audience and identity; while the issuer is away the old one is given as long as it is valid."""
    async with workload_api(tmp_path) as agent, JwtSource.open(agent.address, agent.clock) as source:
        first = await source.fetch(["a"])
        assert await source.fetch(["a"]) is first
        assert await source.fetch(["b"]) is not first
        await agent.clock.advance(151)
        second = await source.fetch(["a"])
        assert second.expires_at > first.expires_at
        agent.issuer.down = True
        await agent.clock.advance(200)
        assert await source.fetch(["a"]) is second
        await agent.clock.advance(101)
        with pytest.raises(Unavailable):
            await source.fetch(["a"])


async def test_a_withdrawn_identity_takes_its_tokens(tmp_path: Path) -> None:
    """A cached one is not given either."""
    async with workload_api(tmp_path) as agent, JwtSource.open(agent.address, agent.clock) as source:
        await source.fetch(["a"])
        agent.issuer.given, agent.issuer.rules_version = (lambda _: ()), "2"
        await agent.tick()
        await agent.clock.until(lambda: len(source.bundles) == 0)
        with pytest.raises(NoIdentity):
            await source.fetch(["a"])


@pytest.mark.clause("EP-7")
def test_the_endpoint_comes_from_the_argument_or_the_environment() -> None:
    """Workload Endpoint 4: what is said explicitly wins; nothing said anywhere is a sentence with the variable."""
    for nothing in ({}, {SOCKET_VARIABLE: ""}):
        with pytest.raises(Malformed, match=SOCKET_VARIABLE):
            endpoint_of(None, nothing)
    environment = {SOCKET_VARIABLE: "unix:///run/a.sock"}
    assert endpoint_of(None, environment) == UnixEndpoint("/run/a.sock")
    assert endpoint_of("unix:///run/b.sock", environment) == UnixEndpoint("/run/b.sock")


async def test_nothing_that_listens_is_unreachable(tmp_path: Path) -> None:
    """With the address."""
    async with WorkloadApiClient(f"unix://{tmp_path}/none.sock") as client:
        with pytest.raises(Unreachable, match=r"none\.sock"):
            await client.fetch_x509()


async def test_the_first_of_several_identities_is_the_default(tmp_path: Path) -> None:
    """WL-17; the others are found by their hint."""
    async with workload_api(tmp_path) as agent:
        authority = agent.issuer.authority
        agent.issuer.given = lambda _: (identity(authority.id("/a")), identity(authority.id("/b"), "second"))
        async with X509Source.open(agent.address, agent.clock) as source:
            assert source.svid.id.path == "/a"
            assert source.by_hint("second").id.path == "/b"
            with pytest.raises(NoIdentity):
                source.by_hint("third")
            assert source.svid.not_after - agent.clock.now() <= timedelta(hours=1)
