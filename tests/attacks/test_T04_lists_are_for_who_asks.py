"""T 4: a revocation list pushed to everybody at every exit is gigabytes; a leaf that is listed is replaced at once."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from attestor.node_agent.lists import QUIET
from attestor.wire import workload as wire
from ca.spiffe import der
from fakes.raw_workload import opened
from fakes.revocations import make_list
from fakes.workload import Agent, workload_api

ASKING = [wire.CRL_HEADER]


def leaf_of(svid: bytes) -> x509.Certificate:
    """The first of a chain."""
    return der.certificate(der.split(svid, "a chain", 8)[0], "a chain")


def push(agent: Agent, number: int, *serials: int) -> bytes:
    """The server says that there is a new list."""
    made = make_list(agent.issuer.authority, serials, number=number, now=agent.clock.now())
    agent.issuer.revocation_lists = (made,)
    return made


async def test_only_a_stream_that_asked_carries_lists(tmp_path: Path) -> None:
    """X.509-SVIDs and bundles alike; in another spelling it is no question."""
    async with workload_api(tmp_path) as agent:
        made = push(agent, 1)
        await agent.tick()
        for path in (wire.FETCH_X509_SVID, wire.FETCH_X509_BUNDLES):
            async with opened(agent, path) as plain, opened(agent, path, ASKING) as asking:
                assert list((await plain.next()).crl) == []
                assert list((await asking.next()).crl) == [made]
        async with opened(agent, more=[("sojourn-crl", "yes")]) as other:
            assert list((await other.next()).crl) == []


async def test_who_did_not_ask_hears_nothing_of_a_new_list(tmp_path: Path) -> None:
    """Its next message is the next rotation, however many lists came before it."""
    async with workload_api(tmp_path) as agent, opened(agent) as plain, opened(agent, more=ASKING) as asking:
        first = await plain.next()
        await asking.next()
        for number in range(1, 4):
            await agent.clock.advance(QUIET.total_seconds())
            made = push(agent, number)
            await agent.tick()
            assert list((await asking.next()).crl) == [made]
        await agent.clock.advance(31 * 60)
        await agent.tick()
        second = await plain.next()
        assert second.svids[0].x509_svid != first.svids[0].x509_svid


async def test_however_many_lists_come_a_stream_sees_one_in_a_few_seconds(tmp_path: Path) -> None:
    """The first at once, then the newest when the quiet time is over; those in between are never sent."""
    async with workload_api(tmp_path) as agent, opened(agent, more=ASKING) as asking:
        await asking.next()
        first = push(agent, 1)
        await agent.tick()
        assert list((await asking.next()).crl) == [first]
        for number in range(2, 100):
            newest = push(agent, number, number)
            await agent.tick()
        assert agent.renewal.lists.shown == (first,)
        await agent.clock.advance(QUIET.total_seconds())
        await agent.tick()
        assert list((await asking.next()).crl) == [newest]


async def test_a_held_leaf_that_is_listed_is_replaced_now(tmp_path: Path) -> None:
    """Not at half its life, and without waiting for the quiet time; it happens once."""
    async with workload_api(tmp_path) as agent, opened(agent) as stream:
        before = leaf_of((await stream.next()).svids[0].x509_svid)
        push(agent, 1)
        await agent.tick()
        push(agent, 2, before.serial_number)
        await agent.tick()
        after = leaf_of((await stream.next()).svids[0].x509_svid)
        assert after.serial_number != before.serial_number
        signed = len(agent.issuer.signed)
        await agent.tick()
        assert len(agent.issuer.signed) == signed


async def test_what_is_no_list_is_left_out_and_the_rest_counts(tmp_path: Path) -> None:
    """The server is believed, but no workload is handed bytes that nobody could read."""
    async with workload_api(tmp_path) as agent, opened(agent, more=ASKING) as stream:
        leaf = leaf_of((await stream.next()).svids[0].x509_svid)
        made = push(agent, 1, leaf.serial_number)
        agent.issuer.revocation_lists = (b"junk", made, made + b"\x00")
        await agent.tick()
        message = await stream.next()
        assert list(message.crl) == [made]
        assert leaf_of(message.svids[0].x509_svid).serial_number != leaf.serial_number
