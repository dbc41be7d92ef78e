"""Law: with several servers over one store nothing that was told dead is left out of a list, in any order of commits.

An end at one server and a signature at the other: either the signature is refused, or its leaf is taken back (T6, T15).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attestor.instance import State
from attestor.server.revocation import Revocations
from attestor.wire.node import LiveSet, Refusal, Signed
from ca.revocation import PAUSE
from ca.rotation import Rotation
from ca.runtime.database import open_database
from fakes.attestor_parts import Parts, attestation, parts, wants
from fakes.clock import ManualClock
from fakes.stores import postgres_address

RULES = 'rules: [{name: a, nodes: ["node:*"], when: ["unix:uid:7"], spiffe_id: /a, bind: process}]'
ROUNDS = 25


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Parts, Parts]]:
    """Two servers whose peers were told of the keys of both."""
    address, clock = await postgres_address(tmp_path), ManualClock()
    async with (
        parts(tmp_path, RULES, store=open_database(address), name="one", clock=clock) as one,
        parts(tmp_path, RULES, store=open_database(address), name="two", clock=clock) as other,
    ):
        for _ in range(8):
            await clock.advance(10)
            for server in (one, other):
                await Rotation(server.authority).tick(clock.now())
        yield one, other


async def listed(*servers: Parts) -> set[int]:
    """What the last of them shows once each had its turn."""
    await servers[0].clock.advance(PAUSE.total_seconds())
    for server in (*servers, *servers):
        await server.lists.tick(server.clock.now())
    return {serial for one in servers[-1].lists.revocations for serial in one.serials}


async def test_any_server_takes_the_order_and_the_signer_lists_it(two: tuple[Parts, Parts]) -> None:
    """The one that was asked has no key for the list, and shows it a moment later all the same."""
    one, other = two
    node = await one.join("n")
    (signed,) = await one.workloads.sign(node, [wants("/a", attestation("unix:uid:7"))], one.clock.now())
    assert isinstance(signed, Signed)
    peer = one.peer(signed.chain)
    await listed(one, other)
    await Revocations(other.database, other.instances).leaf(peer.issuer_key_id, peer.serial, other.clock.now())
    await other.clock.advance(PAUSE.total_seconds())
    await other.lists.tick(other.clock.now())
    assert not [one for one in other.lists.revocations if one.serials]
    assert await listed(one, other) == {peer.serial}
    assert other.lists.ders == one.lists.ders
    assert len(other.lists.ders) == 4  # a root and an issuing authority of each


async def test_an_end_and_a_signature_at_once(two: tuple[Parts, Parts]) -> None:
    """Whichever commits first, no leaf of the ended instance is out and unlisted."""
    one, other = two
    node = await one.join("n")
    out: set[int] = set()
    for counter in range(1, ROUNDS):
        of = attestation("unix:uid:7", counter=counter)
        (first,) = await one.workloads.sign(node, [wants("/a", of)], one.clock.now())
        assert isinstance(first, Signed)
        (second,), _ = await asyncio.gather(
            one.workloads.sign(node, [wants("/a", of)], one.clock.now()),
            other.instances.report(node, LiveSet(counter=counter, instances=frozenset()), other.clock.now()),
        )
        assert isinstance(second, Signed | Refusal)
        out |= {one.peer(each.chain).serial for each in (first, second) if isinstance(each, Signed)}
        assert await one.instances.state(of.instance) is State.ENDED
    assert await listed(one, other) >= out
