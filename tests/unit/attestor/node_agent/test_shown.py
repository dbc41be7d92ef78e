"""What a caller is shown: its own trust domain, those it federates with, and of a strange token only what is safe."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from attestor.client.errors import NoIdentity
from attestor.client.workload_api import WorkloadApiClient
from attestor.node_agent.workload_api import Profiles
from attestor.wire import workload as wire
from ca.errors import Malformed
from ca.spiffe.bundle import BundleSet
from fakes.issuer import identity
from fakes.pki import TestAuthority
from fakes.raw_workload import REQUESTS, opened
from fakes.workload import Agent, workload_api

FRIEND, STRANGER = TestAuthority("friend.org"), TestAuthority("stranger.org")


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    """A node agent whose server federates with two domains."""
    async with workload_api(tmp_path) as one:
        know(one)
        yield one


@pytest.fixture
async def client(agent: Agent) -> AsyncIterator[WorkloadApiClient]:
    """A client in this very process."""
    async with WorkloadApiClient(agent.address) as one:
        yield one


def know(agent: Agent) -> None:
    """Three bundles."""
    agent.issuer.bundles = BundleSet.of(agent.issuer.authority.bundle(), FRIEND.bundle(), STRANGER.bundle())


def federate(agent: Agent, *with_each: tuple[str, ...]) -> None:
    """One identity for each, in this order."""
    named = [replace(identity(agent.issuer.authority.id(f"/{i}")), federates_with=w) for i, w in enumerate(with_each)]
    agent.issuer.given = lambda _: tuple(named)


async def domains(client: WorkloadApiClient) -> list[list[str]]:
    """Which trust domains the three answers with bundles hold."""
    found = ((await client.fetch_x509()).bundles, await client.fetch_x509_bundles(), await client.fetch_jwt_bundles())
    return [sorted(one.trust_domain.name for one in bundles) for bundles in found]


@pytest.mark.clause("WL-13")
@pytest.mark.parametrize(
    ("with_each", "seen"),
    [
        ([()], ["example.org"]),
        ([("friend.org",)], ["example.org", "friend.org"]),
        ([(), ("stranger.org",)], ["example.org", "stranger.org"]),
        ([("*",)], ["example.org", "friend.org", "stranger.org"]),
        ([("nobody.org",)], ["example.org"]),
        ([("example.org", "friend.org.evil")], ["example.org"]),
    ],
)
async def test_only_domains_an_identity_federates_with_are_seen(
    agent: Agent, client: WorkloadApiClient, with_each: list[tuple[str, ...]], seen: list[str]
) -> None:
    """WL-13: the own domain in any case; of the others no name, no key."""
    federate(agent, *with_each)
    assert await domains(client) == [seen, seen, seen]


async def test_the_own_bundle_is_not_among_the_federated_ones(agent: Agent) -> None:
    """It stands with each SVID."""
    federate(agent, ("*",))
    async with opened(agent) as stream:
        message = await stream.next()
        assert sorted(message.federated_bundles) == ["spiffe://friend.org", "spiffe://stranger.org"]


@pytest.mark.clause("WL-4", "WL-7")
async def test_a_foreign_bundle_that_goes_is_taken_off_every_stream(agent: Agent, client: WorkloadApiClient) -> None:
    """WL-4: the whole state without it; who never saw it is not told."""
    federate(agent, ("friend.org",))
    async with aclosing(client.watch_x509()) as x509, aclosing(client.watch_x509_bundles()) as bundles:
        assert len((await anext(x509)).bundles) == len(await anext(bundles)) == 2
        agent.issuer.bundles = agent.issuer.bundles.without(STRANGER.trust_domain)
        agent.holdings.announce()
        agent.issuer.bundles = agent.issuer.bundles.without(FRIEND.trust_domain)
        agent.holdings.announce()
        assert len((await anext(x509)).bundles) == len(await anext(bundles)) == 1


@pytest.mark.clause("WL-9", "WL-16")
async def test_a_token_of_a_domain_it_does_not_federate_with_is_not_valid(
    agent: Agent, client: WorkloadApiClient
) -> None:
    """WL-16: though the node agent has its bundle, this process does not."""
    federate(agent, ("friend.org",))
    now = agent.clock.now()
    assert (await client.validate_jwt(FRIEND.token(now=now), "server")).id == FRIEND.id()
    with pytest.raises(Malformed, match=r"no bundle is known for the trust domain `stranger.org`"):
        await client.validate_jwt(STRANGER.token(now=now), "server")


@pytest.mark.clause("WL-16")
async def test_of_a_stranger_s_token_only_registered_claims_are_told(tmp_path: Path) -> None:
    """And those a setting names; our own server's are told whole."""
    said: dict[str, Any] = {"iss": "them", "role": "admin", "groups": ["a"], "task": "t1"}
    async with workload_api(tmp_path, profiles=Profiles(foreign_claims=frozenset({"groups"}))) as agent:
        know(agent)
        federate(agent, ("friend.org",))
        now = agent.clock.now()
        async with WorkloadApiClient(agent.address) as client:
            foreign = await client.validate_jwt(FRIEND.token(now=now, claims=said), "server")
            own = await client.validate_jwt(agent.issuer.authority.token(now=now, claims=said), "server")
    assert sorted(foreign.claims) == ["aud", "exp", "groups", "iat", "iss", "sub"]
    assert own.claims["role"] == "admin"


@pytest.mark.clause("WL-16")
@pytest.mark.parametrize("audience", ["server", ["server"], ["other", "server"]])
async def test_the_audience_is_told_as_a_list(agent: Agent, client: WorkloadApiClient, audience: Any) -> None:
    """WL-16: whether the token has a text or a list."""
    token = agent.issuer.authority.token(now=agent.clock.now(), claims={"aud": audience})
    found = (await client.validate_jwt(token, "server")).claims["aud"]
    assert found == ([audience] if isinstance(audience, str) else audience)


@pytest.mark.parametrize("claim", [10**400, "\ud800"], ids=["beyond every double", "half a letter"])
async def test_a_claim_that_a_struct_can_t_hold_is_a_bad_token(
    agent: Agent, client: WorkloadApiClient, claim: Any
) -> None:
    """An error for its caller, none for the log."""
    token = agent.issuer.authority.token(now=agent.clock.now(), claims={"odd": claim})
    with pytest.raises(Malformed):
        await client.validate_jwt(token, "server")


async def test_who_has_no_identity_follows_the_own_bundle_when_the_setting_says_so(tmp_path: Path) -> None:
    """Of both kinds, changes included; never an SVID, a token, a foreign bundle or a place in the live set."""
    async with workload_api(tmp_path, profiles=Profiles(bundles_for_anybody=True)) as agent:
        know(agent)
        agent.issuer.given = lambda _: ()
        async with (
            WorkloadApiClient(agent.address) as client,
            aclosing(client.watch_x509_bundles()) as x509,
            aclosing(client.watch_jwt_bundles()) as jwt,
        ):
            assert [one.trust_domain.name for one in await anext(x509)] == ["example.org"]
            assert [one.trust_domain.name for one in await anext(jwt)] == ["example.org"]
            for call in (client.fetch_x509(), client.fetch_jwt(["a"]), client.validate_jwt("a.b.c", "a")):
                with pytest.raises(NoIdentity):
                    await call
            assert agent.holdings.live().instances == frozenset()
            fresh = TestAuthority(now=agent.clock.now())
            agent.issuer.bundles = BundleSet.of(fresh.bundle())
            agent.holdings.announce()
            assert (await anext(x509)).get(fresh.trust_domain) == replace(
                fresh.bundle(), jwt_authorities={}, sequence=None, refresh_hint=None
            )
        await agent.clock.until(lambda: len(agent.holdings) == 0)


async def test_without_the_setting_it_does_not(agent: Agent, client: WorkloadApiClient) -> None:
    """The default."""
    agent.issuer.given = lambda _: ()
    for call in (client.fetch_x509_bundles(), client.fetch_jwt_bundles()):
        with pytest.raises(NoIdentity):
            await call


@pytest.mark.clause("WL-1")
@pytest.mark.parametrize(
    ("profiles", "off"),
    [
        (Profiles(x509=False), [wire.FETCH_X509_SVID, wire.FETCH_X509_BUNDLES]),
        (Profiles(jwt=False), [wire.FETCH_JWT_BUNDLES]),
    ],
)
async def test_a_profile_that_is_off_is_unimplemented(tmp_path: Path, profiles: Profiles, off: list[str]) -> None:
    """WL-1: operators may switch one off; the other goes on."""
    async with workload_api(tmp_path, profiles=profiles) as agent:
        for path in off:
            with pytest.raises(GRPCError) as refused:
                await first_of(agent, path)
            assert refused.value.status is Status.UNIMPLEMENTED
        for path in {*REQUESTS} - {*off}:
            assert await first_of(agent, path) is not None


async def first_of(agent: Agent, path: str) -> Any:
    """Its first message."""
    async with opened(agent, path) as stream:
        return await stream.next()
