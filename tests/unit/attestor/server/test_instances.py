"""Instances as the server knows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestor.errors import Banned, InstanceElsewhere, Unobserved
from attestor.instance import State, Strength, new_id
from attestor.server.store.nodes import Node, NodeState
from attestor.wire.node import LiveSet, Refusal, Signed
from ca.errors import Problem
from ca.runtime.database import Transaction
from fakes.attestor_parts import Parts, attestation, parts, wants
from fakes.stores import on_every_store  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("on_every_store")

RULES = """\
rules:
  - name: a
    nodes: ["node:*"]
    when: [unix:uid:7]
    spiffe_id: /a
"""


async def state(server: Parts, instance: str) -> State:
    """What the server says of an instance."""
    snapshot = await server.instances.snapshot([instance])
    return snapshot.changes[0].state if snapshot.changes else State.LIVE


async def begin(server: Parts, node: Node, counter: int = 1) -> str:
    """A new instance that got a leaf."""
    of = attestation("unix:uid:7", counter=counter)
    (result,) = await server.workloads.sign(node, [wants("/a", of)], server.clock.now())
    assert isinstance(result, Signed)
    return of.instance


def live(counter: int, *instances: str) -> LiveSet:
    """A report."""
    return LiveSet(counter=counter, instances=frozenset(instances))


async def test_what_a_live_set_leaves_out_has_ended(tmp_path: Path) -> None:
    """And the others have not."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        first, second = await begin(server, node), await begin(server, node)
        await server.instances.report(node, live(1, first), server.clock.now())
        assert await state(server, first) is State.LIVE
        assert await state(server, second) is State.ENDED


async def test_an_older_set_is_ignored(tmp_path: Path) -> None:
    """One that was overtaken on its way ends nobody."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        one = await begin(server, node)
        await server.instances.report(node, live(5, one), server.clock.now())
        assert await server.instances.report(node, live(4), server.clock.now()) is None
        assert await state(server, one) is State.LIVE


async def test_a_set_older_than_an_instance_does_not_speak_of_it(tmp_path: Path) -> None:
    """A leaf is signed on another stream than the one the set travels on."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        one = await begin(server, node, counter=6)
        await server.instances.report(node, live(5), server.clock.now())
        assert await state(server, one) is State.LIVE
        await server.instances.report(node, live(6), server.clock.now())
        assert await state(server, one) is State.ENDED


async def test_a_node_agent_begins_above_every_set_that_was_to_name_an_instance(tmp_path: Path) -> None:
    """Killed between a leaf and the set that names it and begun anew, it is believed that the process ended."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        one = await begin(server, node, counter=6)
        await server.instances.report(node, live(5), server.clock.now())
        begins_at = await server.instances.counter(node) + 1
        await server.instances.report(node, live(begins_at), server.clock.now())
        assert await state(server, one) is State.ENDED


async def test_a_node_is_told_who_of_its_live_set_may_get_nothing(tmp_path: Path) -> None:
    """Instances that ended here, by whatever way, although they live there."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        one = await begin(server, node)
        await server.instances.report(node, live(1), server.clock.now())
        reported = await server.instances.report(node, live(2, one, new_id()), server.clock.now())
        assert reported is not None
        assert reported.refused == {one}


async def test_silence_stops_new_credentials_and_then_ends(tmp_path: Path) -> None:
    """Unobserved after the grace, ended after the limit, live again when the node is heard in between."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        one = await begin(server, node)
        await server.clock.advance(16)
        await server.instances.tick(server.clock.now())
        assert await state(server, one) is State.UNOBSERVED
        with pytest.raises(Unobserved):
            await begin(server, node)
        await server.instances.report(node, live(1, one), server.clock.now())
        assert await state(server, one) is State.LIVE
        await server.clock.advance(16)
        await server.instances.tick(server.clock.now())
        await server.clock.advance(45)
        await server.instances.tick(server.clock.now())
        assert await state(server, one) is State.ENDED


async def test_a_machine_that_slept_ends_nobody_at_once(tmp_path: Path) -> None:
    """After eight hours asleep the first look only says `unobserved`: nodes get their time to come back."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        one = await begin(server, node)
        await server.clock.advance(8 * 3600)
        await server.instances.tick(server.clock.now())
        assert await state(server, one) is State.UNOBSERVED
        await server.instances.report(await server.node((await server.admit("m")).id), live(1), server.clock.now())
        await server.instances.report(node, live(1, one), server.clock.now())
        assert await state(server, one) is State.LIVE


async def test_an_unobserved_instance_of_a_node_that_speaks_gets_nothing(tmp_path: Path) -> None:
    """A node that signs without reporting its live set does not get around it."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        of = attestation("unix:uid:7")
        await server.workloads.sign(node, [wants("/a", of)], server.clock.now())
        await server.clock.advance(16)
        await server.instances.tick(server.clock.now())
        await server.instances.report(node, live(0), server.clock.now())  # heard, but not of this instance
        (result,) = await server.workloads.sign(
            await server.node(server.peer_id("n")), [wants("/a", of)], server.clock.now()
        )
        assert isinstance(result, Refusal)
        assert result.code == "unobserved"


async def test_changes_are_dense_and_in_order(tmp_path: Path) -> None:
    """A gap is an error: each number is there once."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        started = [await begin(server, node) for _ in range(5)]
        for count in range(4, -1, -1):
            await server.instances.report(node, live(6 - count, *started[:count]), server.clock.now())
        changes = await server.instances.since(0)
        assert [one.cursor for one in changes] == [1, 2, 3, 4, 5]
        assert [one.instance for one in changes] == started[::-1]
        assert (await server.instances.snapshot([])).cursor == 5


async def test_binding_tells_the_state_and_the_strength(tmp_path: Path) -> None:
    """Live, ended, unknown."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        one = await begin(server, node)
        bound = await server.instances.bind(one)
        assert (bound.state, bound.strength) == (State.LIVE, "own-uid")
        await server.instances.report(node, live(2), server.clock.now())
        assert (await server.instances.bind(one)).state is State.ENDED
        assert (await server.instances.bind(new_id())).state is State.UNKNOWN


async def test_a_node_that_was_sent_away_ends_with_everything_on_it(tmp_path: Path) -> None:
    """In one transaction; its next report is refused."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        one = await begin(server, node)
        assert await server.admission.send_away("n", NodeState.EVICTED, server.clock.now()) == (NodeState.EVICTED, 1)
        assert await state(server, one) is State.ENDED
        with pytest.raises(Banned):
            await server.instances.report(node, live(2, one), server.clock.now())


async def test_a_batch_may_name_one_instance_twice_and_hold_others_that_are_refused(tmp_path: Path) -> None:
    """Each item is answered by itself: the last word on an instance counts, and a stranger's touches nobody."""
    async with parts(tmp_path) as server:
        node, other = await server.join("n"), await server.join("m")
        twice, elsewhere, fresh = attestation(), attestation(), attestation()
        weaker = attestation(instance=twice.instance, strength=Strength.WEAK_PEER)

        async def unit(tx: Transaction) -> dict[str, Problem]:
            await server.instances.enter(tx, other, elsewhere, [], server.clock.now())
            wanted = [(one, ()) for one in (twice, elsewhere, weaker, fresh)]
            return await server.instances.enter_all(tx, node, wanted, server.clock.now())

        refused = await server.database.write(unit)
        assert [(name, type(one)) for name, one in refused.items()] == [(elsewhere.instance, InstanceElsewhere)]
        assert (await server.instances.bind(twice.instance)).strength is Strength.WEAK_PEER
        assert await server.instances.state(fresh.instance) is State.LIVE
