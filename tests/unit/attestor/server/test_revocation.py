"""Taking back: what an operator's word hits, what ends with it, and what a list then names."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from attestor.errors import Banned, InstanceEnded, LeafRevoked, UnknownNode
from attestor.instance import State, new_id
from attestor.server.revocation import REASON, Revocations
from attestor.server.store import instances
from attestor.server.store.nodes import Node, NodeState
from attestor.wire.node import LiveSet, Signed
from ca.errors import Malformed, NotFound
from ca.spiffe.x509svid import X509Peer
from fakes.attestor_parts import DOMAIN, Parts, attestation, parts, wants
from fakes.stores import on_every_store  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("on_every_store")

RULES = """\
rules:
  - {name: free, nodes: ["node:*"], when: [unix:uid:7], spiffe_id: /team/free}
  - {name: also, nodes: ["node:*"], when: [unix:uid:7], spiffe_id: /other}
  - {name: near, nodes: ["node:*"], when: [unix:uid:8], spiffe_id: /teams}
  - {name: bound, nodes: ["node:*"], when: [unix:uid:9], spiffe_id: /team/bound, bind: process}
  - {name: short, nodes: ["node:*"], when: [unix:uid:6], spiffe_id: /short, bind: process, x509_ttl: 50s}
"""


@dataclass(frozen=True)
class Given:
    """An instance and the leaf it got."""

    instance: str
    peer: X509Peer


async def give(server: Parts, node: Node, uid: int, path: str, instance: str | None = None) -> Given:
    """A leaf for a process of that user."""
    of = attestation(f"unix:uid:{uid}", instance=instance)
    (result,) = await server.workloads.sign(node, [wants(path, of)], server.clock.now())
    assert isinstance(result, Signed), result
    return Given(of.instance, server.peer(result.chain))


async def report(server: Parts, node: Node, counter: int, *live: str) -> None:
    """The node's whole live set."""
    await server.instances.report(node, LiveSet(counter=counter, instances=frozenset(live)), server.clock.now())


def verbs(server: Parts) -> Revocations:
    """What an operator may ask for."""
    return Revocations(server.database, server.instances)


async def test_the_end_of_a_bound_instance_takes_its_leaves_back(tmp_path: Path) -> None:
    """And that of one that is not bound lets them live out their short life (traps 4)."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        bound, free = await give(server, node, 9, "/team/bound"), await give(server, node, 7, "/team/free")
        again = await give(server, node, 9, "/team/bound", bound.instance)
        await report(server, node, 2)
        assert await server.listed() == {bound.peer.serial, again.peer.serial}
        assert free.peer.serial not in await server.listed()


async def test_a_task_binds(tmp_path: Path) -> None:
    """Whatever the rule says of it: what opened a task is revoked when it ends."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        free = await give(server, node, 7, "/team/free")
        await server.instances.bind(free.instance)
        await report(server, node, 2)
        assert await server.listed() == {free.peer.serial}


@pytest.mark.parametrize("state", [NodeState.EVICTED, NodeState.BANNED])
async def test_a_node_sent_away_takes_what_is_bound_along(tmp_path: Path, state: NodeState) -> None:
    """And its own leaf, whoever else than this server is shown it."""
    async with parts(tmp_path, RULES) as server:
        own = server.peer((await server.admit("n")).chain)
        node = await server.node(server.peer_id("n"))
        bound = await give(server, node, 9, "/team/bound")
        await give(server, node, 7, "/team/free")
        await server.admission.send_away("n", state, server.clock.now())
        assert await server.listed() == {bound.peer.serial, own.serial}


async def test_silence_takes_back(tmp_path: Path) -> None:
    """When it has lasted for so long that the instance ends."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        bound = await give(server, node, 9, "/team/bound")
        await server.clock.advance(20)
        await server.instances.tick(server.clock.now())
        assert not await server.listed()
        await server.clock.advance(60)
        await server.instances.tick(server.clock.now())
        assert await server.listed() == {bound.peer.serial}


async def test_what_is_about_to_expire_is_let_expire(tmp_path: Path) -> None:
    """A list is not made longer for the sake of seconds; an operator's word does not ask how long it is."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        ended, revoked = await give(server, node, 6, "/short"), await give(server, node, 6, "/short")
        await report(server, node, 2, revoked.instance)
        await verbs(server).instance(revoked.instance, server.clock.now())
        assert ended.instance != revoked.instance
        assert await server.listed() == {revoked.peer.serial}


async def test_one_leaf_goes_and_its_instance_lives(tmp_path: Path) -> None:
    """It gets another; a second order changes nothing."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        given = await give(server, node, 7, "/team/free")
        order = verbs(server)
        dry = await order.leaf(given.peer.issuer_key_id, given.peer.serial, server.clock.now(), dry_run=True)
        assert not await server.listed()
        done = await order.leaf(given.peer.issuer_key_id, given.peer.serial, server.clock.now())
        assert dry == done
        assert ([one.serial for one in done.leaves], done.instances) == ([given.peer.serial], ())
        again = await order.leaf(given.peer.issuer_key_id, given.peer.serial, server.clock.now())
        assert not again.leaves
        assert await server.listed() == {given.peer.serial}
        assert await server.instances.state(given.instance) is State.LIVE
        other = await give(server, node, 7, "/team/free", given.instance)
        assert other.peer.serial not in await server.listed()


async def test_a_leaf_nobody_signed_is_not_found(tmp_path: Path) -> None:
    """Neither a made-up number nor the serial of another authority; and nothing is on any list."""
    async with parts(tmp_path, RULES) as server:
        given = await give(server, await server.join("n"), 7, "/team/free")
        for issuer, serial in ((given.peer.issuer_key_id, 5), (b"\x01" * 20, given.peer.serial)):
            with pytest.raises(NotFound):
                await verbs(server).leaf(issuer, serial, server.clock.now())
        assert not await server.listed()


async def test_an_instance_ends_for_good_with_every_leaf(tmp_path: Path) -> None:
    """Bound or not; who watches is told once, and nothing more is signed."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        first = await give(server, node, 7, "/team/free")
        second = await give(server, node, 7, "/other", first.instance)
        dry = await verbs(server).instance(first.instance, server.clock.now(), dry_run=True)
        assert await server.instances.state(first.instance) is State.LIVE
        assert await verbs(server).instance(first.instance, server.clock.now()) == dry
        assert {one.serial for one in dry.leaves} == {first.peer.serial, second.peer.serial}
        assert await server.listed() == {first.peer.serial, second.peer.serial}
        assert await server.instances.state(first.instance) is State.ENDED
        again = await verbs(server).instance(first.instance, server.clock.now())
        assert not again.instances
        assert not again.leaves
        told = await server.instances.since(0)
        assert [(one.cursor, one.instance, one.reason) for one in told] == [(1, first.instance, REASON)]
        of = attestation("unix:uid:7", instance=first.instance)
        (refused,) = await server.workloads.sign(node, [wants("/other", of)], server.clock.now())
        assert not isinstance(refused, Signed)


async def test_an_ended_instance_still_has_leaves_to_take_back(tmp_path: Path) -> None:
    """Those it was let have when it ended by itself."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        free = await give(server, node, 7, "/team/free")
        await report(server, node, 2)
        assert not await server.listed()
        hit = await verbs(server).instance(free.instance, server.clock.now())
        assert (hit.instances, len(hit.leaves)) == ((), 1)
        assert await server.listed() == {free.peer.serial}
        with pytest.raises(NotFound):
            await verbs(server).instance(new_id(), server.clock.now())


async def test_a_node_goes_with_everything_it_holds(tmp_path: Path) -> None:
    """Its own leaf and those of all its instances, ended ones included; another node's are not touched."""
    async with parts(tmp_path, RULES) as server:
        own = server.peer((await server.admit("n")).chain)
        node, other = await server.node(server.peer_id("n")), await server.join("m")
        bound, free = await give(server, node, 9, "/team/bound"), await give(server, node, 7, "/team/free")
        spared = await give(server, other, 7, "/team/free")
        await report(server, node, 2, bound.instance)
        dry = await verbs(server).node("n", server.clock.now(), dry_run=True)
        assert await server.admission.recognise(own, server.clock.now()) == await server.node(server.peer_id("n"))
        assert await verbs(server).node("n", server.clock.now()) == dry
        assert (dry.node, dry.instances) == ("n", (bound.instance,))
        assert await server.listed() == {own.serial, bound.peer.serial, free.peer.serial}
        assert await server.instances.state(spared.instance) is State.LIVE
        with pytest.raises(Banned):
            await server.admission.recognise(own, server.clock.now())
        with pytest.raises(UnknownNode):
            await verbs(server).node("nobody", server.clock.now())


async def test_below_a_path_by_whole_segments(tmp_path: Path) -> None:
    """`/team` is not `/teams`; who has one such identity ends with the others it has."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        free, bound = await give(server, node, 7, "/team/free"), await give(server, node, 9, "/team/bound")
        also = await give(server, node, 7, "/other", free.instance)
        near = await give(server, node, 8, "/teams")
        dry = await verbs(server).under(DOMAIN.member("/team"), server.clock.now(), dry_run=True)
        assert await verbs(server).under(DOMAIN.member("/team"), server.clock.now()) == dry
        assert set(dry.instances) == {free.instance, bound.instance}
        assert await server.listed() == {one.peer.serial for one in (free, bound, also)}
        assert await server.instances.state(near.instance) is State.LIVE
        assert not (await verbs(server).under(DOMAIN.member("/team"), server.clock.now())).leaves
        exact = await verbs(server).under(DOMAIN.member("/teams"), server.clock.now())
        assert exact.instances == (near.instance,)


async def test_a_whole_trust_domain_is_not_below_a_path(tmp_path: Path) -> None:
    """A slip of the finger must not end everything: that is an authority's end."""
    async with parts(tmp_path, RULES) as server:
        with pytest.raises(Malformed, match="authority"):
            await verbs(server).under(DOMAIN.id, server.clock.now())


async def test_an_order_ends_what_changed_since_it_was_looked_up(tmp_path: Path) -> None:
    """Another server may have found its node silent meanwhile: that is no reason to let it live."""
    async with parts(tmp_path, RULES) as server:
        given = await give(server, await server.join("n"), 9, "/team/bound")
        stale = await server.database.read(lambda tx: instances.get(tx, given.instance))
        assert stale is not None
        await server.clock.advance(20)
        await server.instances.tick(server.clock.now())
        assert await server.instances.state(given.instance) is State.UNOBSERVED
        now = server.clock.now()
        await server.database.write(lambda tx: server.instances.end(tx, [stale], REASON, now))
        assert await server.instances.state(given.instance) is State.ENDED
        assert await server.listed() == {given.peer.serial}
        assert [one.cursor for one in await server.instances.since(0)] == [1, 2]


async def test_nothing_is_signed_for_an_instance_that_ends_meanwhile(tmp_path: Path) -> None:
    """Between being let in and the signature: the transaction that records a leaf finds the end."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        given = await give(server, node, 9, "/team/bound")
        await report(server, node, 2)
        with pytest.raises(InstanceEnded):
            await server.database.write(lambda tx: server.instances.still_lives(tx, [given.instance]))


async def test_a_revoked_leaf_opens_nothing_at_the_server(tmp_path: Path) -> None:
    """Also on a connection that is open, and before any list names it."""
    async with parts(tmp_path, RULES) as server:
        own = server.peer((await server.admit("n")).chain)
        await server.admission.recognise(own, server.clock.now())
        await verbs(server).leaf(own.issuer_key_id, own.serial, server.clock.now())
        with pytest.raises(LeafRevoked):
            await server.admission.recognise(own, server.clock.now())
        given = await give(server, await server.node(server.peer_id("n")), 7, "/team/free")
        assert await server.instances.state_of(given.peer) is State.LIVE
        await verbs(server).leaf(given.peer.issuer_key_id, given.peer.serial, server.clock.now())
        with pytest.raises(LeafRevoked):
            await server.instances.state_of(given.peer)


async def test_an_expired_leaf_is_not_worth_a_line(tmp_path: Path) -> None:
    """Asking for it is no error."""
    async with parts(tmp_path, RULES) as server:
        given = await give(server, await server.join("n"), 7, "/team/free")
        later = given.peer.not_after + timedelta(seconds=1)
        assert not (await verbs(server).leaf(given.peer.issuer_key_id, given.peer.serial, later)).leaves
