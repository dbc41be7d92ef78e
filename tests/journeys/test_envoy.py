"""Real Envoys with secrets of a node agent: who is let in, rotation under traffic, revocation lists, wrong names.

The node agent's issuer is the test's, so that a rotation happens when the test says so; the certificates are of the
real time, which is Envoy's. tests/journeys/test_envoy_revoked.py has the same with a real attestor server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from attestor.node_agent.sds import Naming
from ca.spiffe.bundle import BundleSet
from ca.spiffe.x509svid import X509Svid
from fakes.clock import ManualClock
from fakes.issuer import FakeIssuer, identity
from fakes.pki import Oddities, TestAuthority, make_key
from fakes.revocations import make_list
from fakes.tls_ends import CLOCK
from fakes.workload import Agent, workload_api
from journeys.envoys import TAKEN_IN, TAKEN_OUT, knock, service, traffic
from journeys.processes import finished, short_folder
from servers.envoy import Envoy, Sidecar, binary, bootstrap, documented, envoy

WEB, ORDERS = "spiffe://example.org/web", "spiffe://example.org/orders"
DAY = timedelta(days=1)


@pytest.fixture
def folder() -> Iterator[Path]:
    """With room for a socket's name."""
    with short_folder() as one:
        yield one


@pytest.fixture
def partner() -> TestAuthority:
    """A federated domain."""
    return TestAuthority("partner.test", now=CLOCK.now(), ttl=DAY)


@asynccontextmanager
async def node(folder: Path, partner: TestAuthority, *, lists: bool = False) -> AsyncIterator[Agent]:
    """A node agent whose Envoys are `/web` and `/orders`, and federate with `partner`."""
    clock = ManualClock(CLOCK.now())
    issuer = FakeIssuer(TestAuthority(now=CLOCK.now(), ttl=DAY), clock)
    own = issuer.authority
    given = tuple(replace(identity(own.id(path)), federates_with=("partner.test",)) for path in ("/web", "/orders"))
    issuer.given = lambda _: given
    issuer.bundles = BundleSet.of(own.bundle(), partner.bundle())
    if lists:
        issuer.revocation_lists = lists_of(own)
    async with workload_api(folder, issuer=issuer, clock=clock, naming=Naming(revocation_lists=lists)) as agent:
        await agent.tick()
        yield agent


@asynccontextmanager
async def orders(agent: Agent, folder: Path) -> AsyncIterator[Envoy]:
    """The Envoy of `/orders`, which lets in `/web`."""
    async with service() as port:
        sidecar = Sidecar(socket=agent.path, service=port, own=ORDERS, lets_in=WEB)
        async with envoy(bootstrap(sidecar), folder, "orders") as running:
            yield running


def lists_of(authority: TestAuthority, revoked: Sequence[int] = (), number: int = 1) -> tuple[bytes, ...]:
    """A list of the issuing authority and one of the root."""
    now = CLOCK.now()
    of_root = make_list(authority, signer=(authority.root, authority.root_key), now=now, number=number)
    return make_list(authority, revoked, now=now, number=number), of_root


def forged(by: TestAuthority, uri: str) -> X509Svid:
    """A leaf that `by` has no right to sign."""
    key = make_key()
    return X509Svid.of(by.chain(by.certificate("/x", odd=Oddities(uris=[uri], key=key))), key)


async def test_the_documented_bootstrap_is_valid_as_it_stands(folder: Path) -> None:
    """Word for word; the other tests replace addresses and names only."""
    (folder / "envoy.yaml").write_text(yaml.safe_dump(documented()))
    checked = await finished(binary(), "--mode", "validate", "-c", str(folder / "envoy.yaml"), folder=folder)
    assert checked.code == 0, checked.err


async def test_only_the_right_peer_is_let_in(folder: Path, partner: TestAuthority) -> None:
    """mTLS: by certificate, by SPIFFE ID, and by the authorities of the ID's own domain."""
    async with node(folder, partner) as agent, orders(agent, folder) as running:
        own, trusted = agent.issuer.authority, agent.issuer.bundles
        assert WEB in (await knock(running, trusted, own.leaf("/web")) or "")
        assert await knock(running, trusted, None) is None
        assert await knock(running, trusted, own.leaf("/other")) is None
        assert await knock(running, trusted, forged(partner, WEB)) is None
        assert await knock(running, trusted, partner.leaf("/web")) is None
        stranger = TestAuthority(now=CLOCK.now(), ttl=DAY)
        assert await knock(running, trusted, stranger.leaf("/web")) is None


async def test_a_federated_peer_is_judged_by_its_own_domain(folder: Path, partner: TestAuthority) -> None:
    """The same Envoy for a peer of the other domain; ours can't sign for it either."""
    theirs = "spiffe://partner.test/web"
    async with node(folder, partner) as agent, service() as port:
        sidecar = Sidecar(socket=agent.path, service=port, own=ORDERS, lets_in=theirs)
        async with envoy(bootstrap(sidecar), folder) as running:
            own, trusted = agent.issuer.authority, agent.issuer.bundles
            assert theirs in (await knock(running, trusted, partner.leaf("/web")) or "")
            assert await knock(running, trusted, forged(own, theirs)) is None


async def rotate(agent: Agent, step: int) -> None:
    """A new leaf for everybody; half way by a new authority that the bundle has named before."""
    issuer = agent.issuer
    if step == 4:
        fresh = TestAuthority(now=CLOCK.now(), ttl=DAY)
        old = issuer.authority
        both = replace(old.bundle(), x509_authorities=(old.root, fresh.root))
        issuer.bundles = BundleSet.of(both)
        if issuer.revocation_lists:
            issuer.revocation_lists += lists_of(fresh)
        agent.holdings.announce()
        await agent.tick()
        issuer.next = fresh  # type: ignore[attr-defined]
        return
    if step == 5:
        issuer.authority = issuer.next  # type: ignore[attr-defined]
    issuer.withdrawn = frozenset(leaf.authority for held in agent.holdings for leaf in held.leaves.values())
    await agent.tick()


@pytest.mark.parametrize("lists", [False, True], ids=["plain", "lists"])
async def test_ten_rotations_lose_no_request(folder: Path, partner: TestAuthority, lists: bool) -> None:  # noqa: FBT001
    """Two Envoys, every request on a connection of its own, leaves and in between the root replaced."""
    async with node(folder, partner, lists=lists) as agent, orders(agent, folder) as server:
        sidecar = Sidecar(socket=agent.path, peer=await server.port("inbound"), own=WEB, calls=ORDERS)
        async with envoy(bootstrap(sidecar), folder, "web") as client, traffic(client) as seen:
            for step in range(11):
                before, at = await client.counter(TAKEN_OUT), await server.counter(TAKEN_IN)
                await rotate(agent, step)
                await client.reaches(TAKEN_OUT, before + 1)
                await server.reaches(TAKEN_IN, at + 1)
                await seen.more(20)
        assert {(status, WEB in text) for status, text in seen.answers} == {(200, True)}


async def test_what_the_spiffe_validator_does_with_lists(folder: Path, partner: TestAuthority) -> None:
    """The table of docs/envoy.md, row by row, on new connections to one Envoy."""
    async with node(folder, partner, lists=True) as agent, orders(agent, folder) as running:
        own, trusted = agent.issuer.authority, agent.issuer.bundles
        honest, revoked = own.leaf("/web"), own.leaf("/web")
        serial = revoked.chain[0].serial_number
        of_issuer, of_root = lists_of(own, [serial], number=7)
        overdue = make_list(own, [serial], now=CLOCK.now() - 2 * DAY, ttl=DAY, number=8)
        assert await knock(running, trusted, revoked) is not None
        for lists, lets_honest_in in (
            ((of_issuer, of_root), True),
            ((of_issuer,), False),
            ((of_root,), False),
            ((overdue, of_root), False),
            (lists_of(own, [serial], number=9), True),
        ):
            at = await running.counter(TAKEN_IN)
            agent.issuer.revocation_lists = lists
            await agent.clock.advance(4)
            await agent.tick()
            await running.reaches(TAKEN_IN, at + 1)
            assert (await knock(running, trusted, honest) is not None) == lets_honest_in
            assert await knock(running, trusted, revoked) is None


async def test_what_envoy_refuses_is_logged_and_not_sent_again(
    folder: Path, partner: TestAuthority, caplog: pytest.LogCaptureFixture
) -> None:
    """It asks for authorities where a certificate belongs: NACK, in its words; the same name elsewhere goes on."""
    async with node(folder, partner) as agent:
        sidecar = Sidecar(socket=agent.path, own="ROOTCA", lets_in=WEB)
        with caplog.at_level(logging.WARNING):
            async with envoy(bootstrap(sidecar), folder, warm=False) as running:
                await running.reaches("sds.ROOTCA.update_rejected", 1)
                await agent.clock.until(lambda: "incomplete private key" in refusals(caplog))
                for _ in range(5):
                    agent.holdings.announce()
                    await agent.clock.settle()
                fresh = TestAuthority(now=CLOCK.now(), ttl=DAY).bundle()
                agent.issuer.bundles = BundleSet.of(fresh, partner.bundle())
                agent.holdings.announce()
                await running.reaches("sds.ROOTCA.update_rejected", 2)
                await agent.clock.until(lambda: refusals(caplog).count("incomplete private key") == 2)
                assert await running.counter("sds.ROOTCA.update_rejected") == 2


def refusals(caplog: pytest.LogCaptureFixture) -> str:
    """What Envoy said, as the log has it."""
    return str([record.__dict__.get("sojourn_fields", {}).get("reason") for record in caplog.records])


async def told(running: Envoy, text: str) -> None:
    """Wait until it has written that."""
    async with asyncio.timeout(60):
        while text not in running.log():
            await CLOCK.sleep(0.02)


async def test_a_wrong_name_is_told_and_asked_again(folder: Path, partner: TestAuthority) -> None:
    """Envoy's log has the name; when a rule gives that identity later, Envoy gets it by itself."""
    wanted = "spiffe://example.org/later"
    async with node(folder, partner) as agent, service() as port:
        sidecar = Sidecar(socket=agent.path, service=port, own=wanted, lets_in=WEB)
        async with envoy(bootstrap(sidecar), folder, warm=False) as running:
            await told(running, "may ask for no secret")
            assert wanted in running.log()
            given = agent.issuer.given(None)  # type: ignore[arg-type]
            agent.issuer.given = lambda _: (*given, identity(agent.issuer.authority.id("/later")))
            agent.issuer.rules_version = "2"
            await agent.tick()
            await running.warms_up()
            assert await knock(running, agent.issuer.bundles, agent.issuer.authority.leaf("/web")) is not None
