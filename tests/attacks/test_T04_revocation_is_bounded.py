"""T4: a crowd that ends is one list, carried once; what is not bound never enters it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from attestor.wire import node as wire
from attestor.wire.node import LiveSet, Signed
from ca import store
from ca.profiles.prepared import Kind
from ca.store import Issued
from fakes.attestor_parts import attestation, parts, wants

RULES = """\
rules:
  - {name: bound, nodes: ["node:*"], when: [unix:uid:9], spiffe_id: /bound, bind: process}
  - {name: free, nodes: ["node:*"], when: [unix:uid:7], spiffe_id: /free}
"""
CROWD = 10_000


async def test_a_crowd_that_ends_at_once_is_one_list(tmp_path: Path) -> None:
    """One report ends them all; the next ones of the same pause wait for the one after."""
    async with parts(tmp_path, RULES) as server:
        node, numbers = await server.join("n"), set[int]()
        await server.lists.tick(server.clock.now())
        for counter in range(1, 7):
            crowd = [attestation("unix:uid:9", counter=counter) for _ in range(50)]
            signed = await server.workloads.sign(node, [wants("/bound", one) for one in crowd], server.clock.now())
            assert all(isinstance(one, Signed) for one in signed)
            await server.instances.report(node, LiveSet(counter=counter, instances=frozenset()), server.clock.now())
            await server.lists.tick(server.clock.now())
            numbers.add(max(one.number for one in server.lists.current))
        assert len(numbers) == 1
        assert len(await server.listed()) == 300


async def test_ten_thousand_entries_are_carried_once(tmp_path: Path) -> None:
    """Forty bytes each; a stream that has them is told of everything else without them."""
    async with parts(tmp_path, RULES) as server:
        issuer = server.authority.issuer(server.clock.now()).key_id
        leaves = [
            Issued(
                issuer_key_id=issuer, serial=2**150 + n, kind=Kind.LEAF, spiffe_id="spiffe://example.org/a",
                instance=None, not_after=server.clock.now() + timedelta(hours=1),
            )
            for n in range(CROWD)
        ]  # fmt: skip
        await server.database.write(partial(store.revoke, leaves=leaves, reason="over", now=server.clock.now()))
        assert len(await server.listed()) == CROWD
        update = wire.Update(
            bundles=(), rules_version="v", live_counter=1, ended=frozenset(), withdrawn_authorities=frozenset(),
            beat=timedelta(seconds=1), grace=timedelta(seconds=15), revocation_lists=server.lists.ders,
        )  # fmt: skip
        assert CROWD * 36 < wire.encode_followed(update).ByteSize() < CROWD * 42
        again = replace(update, rules_version="w")
        assert wire.encode_followed(again, update.revocation_lists).ByteSize() < 500


async def test_one_shot_fetchers_never_enter_a_list(tmp_path: Path) -> None:
    """`svid fetch`, an init container, a daemon that forks twice: the fetcher is gone, and its leaf is in use."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        await server.workloads.sign(node, [wants("/free", attestation("unix:uid:7"))], server.clock.now())
        await server.instances.report(node, LiveSet(counter=2, instances=frozenset()), server.clock.now())
        assert not await server.listed()
        assert await server.lists.named() == 0
