"""Traps 3: what a task is bound to is an instance, not a serial, and its end is level-triggered."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestor.errors import InstanceElsewhere, InstanceEnded
from attestor.instance import State, new_id
from attestor.server.store.nodes import Node
from attestor.wire.attestation import Attestation, decode_attestation, encode_attestation
from attestor.wire.node import JwtItem, LiveSet, Refusal, Signed
from ca.errors import Malformed
from fakes.attestor_parts import Parts, attestation, parts, wants

RULES = """\
rules:
  - {name: a, nodes: ["node:*"], when: ["unix:uid:7"], spiffe_id: /a}
"""


async def leaf(server: Parts, node: Node, of: Attestation) -> bytes | str:
    """A leaf, or the code of its refusal."""
    (result,) = await server.workloads.sign(node, [wants("/a", of)], server.clock.now())
    return result.chain if isinstance(result, Signed) else result.code


async def test_rotation_keeps_the_instance_and_changes_the_serial(tmp_path: Path) -> None:
    """Every leaf of a process carries the same 128 bits."""
    async with parts(tmp_path, RULES) as server:
        node, of = await server.join("n"), attestation("unix:uid:7")
        chains = [await leaf(server, node, of) for _ in range(3)]
        peers = [server.peer(chain) for chain in chains if isinstance(chain, bytes)]
        assert {peer.instance for peer in peers} == {of.instance}
        assert len({peer.serial for peer in peers}) == 3


async def test_a_leaf_is_known_by_its_issuer_and_serial_before_it_is_handed_over(tmp_path: Path) -> None:
    """(issuer key id, serial) leads to the instance."""
    async with parts(tmp_path, RULES) as server:
        node, of = await server.join("n"), attestation("unix:uid:7")
        chain = await leaf(server, node, of)
        assert isinstance(chain, bytes)
        peer = server.peer(chain)
        (issued,) = await server.authority.issued_to(of.instance, server.clock.now())
        assert (issued.issuer_key_id, issued.serial) == (peer.issuer_key_id, peer.serial)


async def test_an_instance_of_another_node_can_not_be_taken(tmp_path: Path) -> None:
    """Whoever learns an instance id, from a certificate for example, gets no leaf with it."""
    async with parts(tmp_path, RULES) as server:
        good, bad = await server.join("good"), await server.join("bad")
        of = attestation("unix:uid:7")
        assert isinstance(await leaf(server, good, of), bytes)
        assert await leaf(server, bad, of) == InstanceElsewhere.code
        item = JwtItem(attestation=of, id=wants("/a", of).id, audience=("x",))
        with pytest.raises(InstanceElsewhere):
            await server.workloads.sign_jwt(bad, item, server.clock.now())


async def test_nor_can_it_be_ended_or_kept_alive_from_there(tmp_path: Path) -> None:
    """A live set speaks only of the instances of its own node."""
    async with parts(tmp_path, RULES) as server:
        good, bad = await server.join("good"), await server.join("bad")
        of = attestation("unix:uid:7")
        await leaf(server, good, of)
        await server.instances.report(bad, LiveSet(counter=99, instances=frozenset()), server.clock.now())
        assert (await server.instances.bind(of.instance)).state is State.LIVE
        await server.instances.report(good, LiveSet(counter=2, instances=frozenset()), server.clock.now())
        alive = LiveSet(counter=100, instances=frozenset({of.instance}))
        await server.instances.report(bad, alive, server.clock.now())
        assert (await server.instances.bind(of.instance)).state is State.ENDED


async def test_an_ended_instance_never_comes_back(tmp_path: Path) -> None:
    """Not by a live set, not by a new attestation, not as a token."""
    async with parts(tmp_path, RULES) as server:
        node, of = await server.join("n"), attestation("unix:uid:7")
        await leaf(server, node, of)
        await server.instances.report(node, LiveSet(counter=2, instances=frozenset()), server.clock.now())
        again = LiveSet(counter=3, instances=frozenset({of.instance}))
        reported = await server.instances.report(node, again, server.clock.now())
        assert reported is not None
        assert reported.refused == {of.instance}
        assert await leaf(server, node, of) == InstanceEnded.code
        item = JwtItem(attestation=of, id=wants("/a", of).id, audience=("x",))
        with pytest.raises(InstanceEnded):
            await server.workloads.sign_jwt(node, item, server.clock.now())


async def test_a_refused_item_leaves_the_rest_of_its_batch_alone(tmp_path: Path) -> None:
    """One batch: a good one, one not entitled, one with a key nobody signs, one that has ended."""
    async with parts(tmp_path, RULES) as server:
        node, ended = await server.join("n"), attestation("unix:uid:7")
        await leaf(server, node, ended)
        await server.instances.report(node, LiveSet(counter=2, instances=frozenset()), server.clock.now())
        good = attestation("unix:uid:7", counter=3)
        items = [
            wants("/a", good),
            wants("/b", good),
            wants("/a", attestation("unix:uid:7", counter=3), b"\x30\x00"),
            wants("/a", ended),
        ]
        results = await server.workloads.sign(node, items, server.clock.now())
        codes = [one.code if isinstance(one, Refusal) else "signed" for one in results]
        assert codes == ["signed", "not-entitled", "malformed", "instance-ended"]


async def test_a_restart_of_the_node_agent_ends_what_died_meanwhile_and_nothing_else(tmp_path: Path) -> None:
    """Its first complete set after the restart is the truth; missing reports in between ended nobody."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        stays, dies = attestation("unix:uid:7"), attestation("unix:uid:7")
        await leaf(server, node, stays)
        await leaf(server, node, dies)
        await server.clock.advance(10)
        await server.instances.tick(server.clock.now())
        alive = LiveSet(counter=2, instances=frozenset({stays.instance}))
        await server.instances.report(node, alive, server.clock.now())
        assert (await server.instances.bind(stays.instance)).state is State.LIVE
        assert (await server.instances.bind(dies.instance)).state is State.ENDED


async def test_a_long_list_of_strangers_hides_nobody(tmp_path: Path) -> None:
    """However many ids a node makes up, those that ended are found among them."""
    async with parts(tmp_path, RULES) as server:
        node, of = await server.join("n"), attestation("unix:uid:7")
        await leaf(server, node, of)
        await server.instances.report(node, LiveSet(counter=2, instances=frozenset()), server.clock.now())
        made_up = frozenset(new_id() for _ in range(1200))
        listed = LiveSet(counter=3, instances=made_up | {of.instance})
        reported = await server.instances.report(node, listed, server.clock.now())
        assert reported is not None
        assert reported.refused == {of.instance}


def test_a_process_has_no_more_ancestors_than_are_looked_at() -> None:
    """Each is a question to the store that everybody shares."""
    few, many = (attestation("unix:uid:7", ancestors=[new_id() for _ in range(count)]) for count in (64, 65))
    assert decode_attestation(encode_attestation(few)) == few
    with pytest.raises(Malformed, match="64 ancestors"):
        decode_attestation(encode_attestation(many))
